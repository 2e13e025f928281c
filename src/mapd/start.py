"""What must be there before a daemon starts, and what is known of it then. Blocking, but for ``names_locked``."""

from __future__ import annotations

import asyncio
import os
import secrets
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final

import structlog

from mapd.access.policy.holder import DEFAULT_PATH, NOBODY_ELSE, PolicyHolder
from mapd.access.policy.hosts import Admissions, LocalHost, admissions
from mapd.access.policy.model import Policy
from mapd.bpf import Template, boot_id, possible_cpus
from mapd.config import Config
from mapd.launch import LaunchError, folders
from mapd.launch.nameslock import lock_names
from mapd.maps.blobs import BtfBlobs
from mapd.memory import MemoryKernel
from mapd.rpc.server_info import Facts, profile_of

_log = structlog.stdlib.get_logger("mapd")

FEATURES: Final = (
    "apply",
    "dump",
    "dump-resume",
    "dump-select",
    "load",
    "session-handles",
    "session-apply",
    "btf",
    "queues",
    "lpm",
    "one-cpu",
    "count",
    "host-facts",
    "map-stats",
    "leases",
)
"""What this version can do beyond the plain calls; clients ask for these names."""

BY_PROGRAM: Final[Mapping[str, str]] = MappingProxyType(
    {"touch": Template.VECTOR_READ, "atomics": Template.ATOMIC}
)
"""What it can do only where its kernel loads a program, and that program's name."""


class StartError(Exception):
    """The daemon cannot start here; the message says why, and what to do."""


def check_bpffs(config: Config) -> str:
    """The folder for names, made if it is missing.

    Raises:
        StartError: no bpffs where the configuration says, or not the host's; the message has the line that mends it.
    """
    bpffs = config.daemon.bpffs
    try:
        folders.check_bpffs(bpffs, private=config.daemon.private_bpffs)
    except LaunchError as error:
        raise StartError(str(error)) from None
    root = Path(bpffs, config.daemon.pin_root)
    try:
        root.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"{root}: {error.strerror}; make the folder for mapd (deploy/tmpfiles.d does), or start it as root"
        ) from error
    return str(root)


@asynccontextmanager
async def names_locked(names_root: str, *, alone: bool) -> AsyncGenerator[None]:
    """The lock of the folder for names, where this process is the one that pins (``alone``); an opener has its own.

    Raises:
        StartError: another daemon has it.
    """
    if not alone:
        yield
        return
    try:
        fd = await asyncio.to_thread(lock_names, names_root)
    except LaunchError as error:
        raise StartError(str(error)) from None
    try:
        yield
    finally:
        os.close(fd)


def memory_kernel(config: Config) -> tuple[MemoryKernel, str]:
    """Maps in memory, and the folder for names; folders are names there, and no files."""
    names_root = str(PurePath(config.daemon.bpffs, config.daemon.pin_root))
    folders = [config.daemon.bpffs, names_root, *config.daemon.pin_roots]
    return MemoryKernel(possible_cpus(), folders), names_root


def open_blobs(config: Config, boot: uuid.UUID) -> BtfBlobs:
    """The types of maps made before in this boot, and room for more.

    Raises:
        StartError: state_dir cannot be made or used.
    """
    state_dir = config.daemon.state_dir
    try:
        Path(state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        return BtfBlobs(Path(state_dir, "btf"), boot)
    except OSError as error:
        raise StartError(
            f"{error.filename or state_dir}: {error.strerror}; mapd keeps the types of the maps it makes there: make "
            f"the folder {state_dir} for mapd's user (systemd's StateDirectory does), or set [daemon] state_dir"
        ) from error


def make_facts(names_root: str, capabilities: frozenset[str], backend: str) -> Facts:
    """What is true until the daemon ends."""
    system, in_memory = os.uname(), backend == "memory"
    return Facts(
        epoch=secrets.token_hex(8),
        # Ids in memory begin anew with each daemon, as the kernel's do at a boot.
        boot_id=uuid.uuid4() if in_memory else uuid.UUID(boot_id()),
        node=system.nodename,
        kernel_release=system.release,
        possible_cpus=possible_cpus(),
        # All that there is in memory can be reached, whatever the process may do.
        profile="inspector" if in_memory else profile_of(capabilities),
        backend=backend,
        pin_root=names_root,
        features=FEATURES,
    )


def start_policy(config: Config) -> PolicyHolder:
    """The policy in force from now on; without a file at the default path there is the admin alone.

    Raises:
        PolicyError: the file cannot be read or used, or its users and groups cannot on this host; or one was
            configured that is not there.
    """
    path = Path(config.daemon.policy)
    if path == DEFAULT_PATH and not path.exists():
        return PolicyHolder(NOBODY_ELSE, path, check_policy)
    return PolicyHolder.start(path, check_policy)


def check_policy(policy: Policy) -> None:
    """What a policy must be on this host beside right in itself.

    Raises:
        PolicyError: one user would be two principals.
    """
    admissions(policy, LocalHost())


def resolve(policy: Policy) -> Admissions:
    """Who may connect, by this host's users and groups; those that it does not know are logged.

    Raises:
        PolicyError: one user would be two principals.
    """
    found = admissions(policy, LocalHost())
    for line in found.unknown:
        _log.warning("the policy names somebody whom this host does not know", where=line)
    return found

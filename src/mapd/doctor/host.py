"""What a daemon needs of a host, checked: each with the line that mends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapd.bpf import (
    Kernel,
    NextMapId,
    ProgramType,
    SyscallError,
    errno_name,
    is_bpffs,
    load_program,
)
from mapd.bpf.asm import Assembler, Reg
from mapd.bpf.host import bpffs_is_private
from mapd.config import DEFAULT_USERS, Config, DaemonConfig
from mapd.maps.adoption import Adoption
from mapd.maps.errors import MapError
from mapd.maps.hostfacts import HostFacts, Wanted
from mapd.sandbox import abi, account
from mapd.sandbox.landlock import missing_of
from mapd.sandbox.libc import UnknownMachineError, machine

RIGHTS: Final = (
    ("CAP_BPF", "create maps, load the helper programs"),
    ("CAP_NET_ADMIN", "create device and socket maps"),
    ("CAP_SYS_ADMIN", "find maps and programs by id, read the BTF of others' maps"),
    ("CAP_DAC_OVERRIDE", "open any pin, to read and write"),
    ("CAP_DAC_READ_SEARCH", "open any pin, to read"),
)
"""What each capability is for."""

QUARANTINED: Final = 16
"""Things that are told of; more are counted."""

_PROC: Final = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_UNPRIVILEGED: Final = {
    "0": "0: users without CAP_BPF may create some maps",
    "1": "1: only CAP_BPF may use bpf(2), until the next boot",
    "2": "2: only CAP_BPF may use bpf(2)",
}
_VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        ok: whether what it is for can be done.
        needed: a daemon cannot start without.
        fix: what mends it, "" where it is ok.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = False


def checks(kernel: Kernel, config: DaemonConfig, capabilities: frozenset[str]) -> list[Check]:
    """Everything but the map types, in the order in which it is printed."""
    return [
        *(bpffs(config)),
        *names(kernel, config),
        runtime_dir(config),
        *(pin_root(root) for root in config.pin_roots),
        *(right(name, purpose, capabilities) for name, purpose in RIGHTS),
        unprivileged(),
        btf(),
        ids(kernel),
        *(program(kind, capability) for kind, capability in _PROGRAMS),
        host_facts(HostFacts()),
    ]


def apart(config: Config) -> list[Check]:
    """What keeps the two processes apart, and each of them in."""
    return [landlock(abi()), seccomp(), *(user(name) for name in (config.daemon.user, config.opener.user))]


def host_facts(host: HostFacts) -> Check:
    """What clients can be told of this host, as this process sees it; the daemon's units may show it less."""
    found = host.look(Wanted(all_devices=True, all_cgroups=True))
    clocks = "its clocks" if found.clocks else "no clocks"
    return Check(
        name="facts of the host",
        ok=not found.not_looked_at,
        found=f"{clocks}, network devices: {len(found.devices)}, cgroups: {len(found.cgroups)}",
        fix="; ".join(found.not_looked_at),
    )


def landlock(version: int) -> Check:
    """Whether this kernel can say which files a process reaches."""
    missing = missing_of(version)
    return Check(
        name="landlock",
        ok=not missing,
        found=f"ABI {version}" + "".join(f"; not: {line.partition(': ')[2]}" for line in missing),
        fix="" if not missing else "a newer kernel, with landlock in CONFIG_LSM or lsm= of its command line",
    )


def seccomp() -> Check:
    """Whether a filter is written for this machine; without one no daemon of two processes starts."""
    try:
        machine()
    except UnknownMachineError as error:
        return Check(
            name="seccomp", ok=False, needed=True, found=str(error), fix="--single-process, for debugging"
        )
    return Check(name="seccomp", ok=True, needed=True, found="a filter for this machine")


def user(name: str | int) -> Check:
    """One of the two users; without them both processes run as who starts them. Who names another means it."""
    try:
        ok = account(name) is not None
    except ValueError as error:
        return Check(name=f"user {name}", ok=False, needed=True, found=str(error), fix="another number")
    named = name not in DEFAULT_USERS
    alone = "both processes run as who starts them, apart by capabilities alone"
    return Check(
        name=f"user {name}",
        ok=ok,
        needed=named,
        found="there" if ok else f"no such user: {'the daemon does not start' if named else alone}",
        fix=""
        if ok
        else f"systemd-sysusers mapd.conf, or: useradd --system --no-create-home --shell /usr/sbin/nologin {name}",
    )


def bpffs(config: DaemonConfig) -> list[Check]:
    """Where names are pinned: the mount, and the folder that the daemon makes in it."""
    try:
        mounted = is_bpffs(config.bpffs)
        why = "mounted" if mounted else "another file system"
    except OSError as error:
        mounted, why = False, str(error.strerror)
    if not mounted:
        fix = f"mount -t bpf bpf {config.bpffs}, or set [daemon] bpffs"
        return [Check(name="bpffs", ok=False, needed=True, found=f"{config.bpffs}: {why}", fix=fix)]
    if not config.private_bpffs and bpffs_is_private(config.bpffs):
        return [
            Check(
                name="bpffs",
                ok=False,
                needed=True,
                found=f"{config.bpffs}: PID 1 does not see this bpffs, nor would the host's programs the maps",
                fix="start mapd where the host's is mounted, or set [daemon] private_bpffs = true",
            )
        ]
    mode = Path(config.bpffs).stat().st_mode & 0o7777
    root = Path(config.bpffs, config.pin_root)
    there = os.path.isdir(root)  # noqa: PTH112 - Path.is_dir() raises where the folder above may not be passed
    usable = os.access(root if there else config.bpffs, os.W_OK | os.X_OK)
    found = f"{root}: " + ("there" if there else "will be made at the start" if usable else "missing")
    return [
        Check(name="bpffs", ok=True, needed=True, found=f"{config.bpffs}: mounted, mode {mode:04o}"),
        Check(
            name="names",
            ok=usable,
            needed=True,
            found=found if usable else f"{found}, and this user may not write there",
            fix=""
            if usable
            else f"install -d -o mapd-opener -m 0700 {root}   as root (deploy/tmpfiles.d does), or start as root",
        ),
    ]


def names(kernel: Kernel, config: DaemonConfig) -> list[Check]:
    """What a daemon would serve of the pins that are there, and each thing that it would not, with what mends it."""
    root = Path(config.bpffs, config.pin_root)
    try:
        owner = root.stat().st_uid  # whose the daemon's own folders are
        found = Adoption(kernel, str(root), owner=owner)
        found.look()
    except (OSError, MapError):
        return []  # no folder yet, or not for this user: ``bpffs`` says so
    told = [
        Check(name="quarantined", ok=False, found=f"{one.path}: {one.why}", fix=one.fix)
        for one in found.misfits[:QUARANTINED]
    ]
    more = len(found.misfits) - len(told)
    line = f"{root}: {found.served} maps have names" + (
        f", {more} more things are quarantined" if more else ""
    )
    return [Check(name="names", ok=not told, found=line, fix="see below" if told else ""), *told]


def runtime_dir(config: DaemonConfig) -> Check:
    """Where sockets go: the folder, or the nearest one above it in which it can be made."""
    folder = Path(config.runtime_dir)
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    ok = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    found = f"{folder}: " + ("there" if nearest == folder else f"missing, below {nearest}")
    fix = f"RuntimeDirectory=mapd in the unit, or: install -d -o mapd {folder}   as root"
    return Check(
        name="sockets",
        ok=ok,
        needed=True,
        found=found if ok else f"{found}; this user may not write there",
        fix="" if ok else fix,
    )


def pin_root(root: str) -> Check:
    """A folder below which other programs pin."""
    ok = os.access(root, os.R_OK | os.X_OK)
    found = f"{root}: " + ("can be read" if ok else "cannot be read")
    return Check(
        name="pins", ok=ok, found=found, fix="" if ok else f"chmod o+rx {root}, or profile pins-ro or pins-rw"
    )


def right(name: str, purpose: str, capabilities: frozenset[str]) -> Check:
    """One capability."""
    ok = name in capabilities
    fix = "" if ok else f"AmbientCapabilities={name} in the opener's unit, or start as root"
    return Check(name=name.lower(), ok=ok, found=purpose, fix=fix)


def unprivileged() -> Check:
    """kernel.unprivileged_bpf_disabled; any value will do for a daemon with CAP_BPF."""
    try:
        value = _PROC.read_text().strip()
    except OSError as error:
        return Check(name="unprivileged_bpf_disabled", ok=True, found=f"not there ({error.strerror})")
    return Check(name="unprivileged_bpf_disabled", ok=True, found=_UNPRIVILEGED.get(value, value))


def btf() -> Check:
    """The kernel's own type information: counting by bpf_map_sum_elem_count needs it."""
    ok = os.access(_VMLINUX, os.R_OK)
    return Check(
        name="btf",
        ok=ok,
        found=f"{_VMLINUX}: " + ("there" if ok else "missing"),
        fix="" if ok else "a kernel with CONFIG_DEBUG_INFO_BTF=y; without it entries are counted by scanning",
    )


def ids(kernel: Kernel) -> Check:
    """Whether maps can be found by id."""
    return _tried(
        "ids",
        lambda: kernel.control(NextMapId(map_id=0)),
        "maps by id",
        "CAP_SYS_ADMIN: profile inspector, inspector.conf in mapd-opener@.service.d, or start as root",
    )


_PROGRAMS: Final = (
    (ProgramType.SYSCALL, "CAP_BPF"),
    (ProgramType.SOCKET_FILTER, "CAP_BPF"),
)
"""Program types that the daemon's own programs have."""


def program(kind: ProgramType, capability: str) -> Check:
    """Whether a smallest program of a type can be loaded."""
    asm = Assembler()
    asm.mov(Reg.R0, 0)
    asm.exit()
    return _tried(
        f"program {kind.name.lower()}",
        lambda: load_program(asm.assemble(), kind, "mapd_trial").close(),
        "loads",
        f"AmbientCapabilities={capability} in the opener's unit; without it element operations are one syscall each",
    )


def _tried(name: str, call: Callable[[], object], done: str, fix: str) -> Check:
    try:
        call()
    except SyscallError as error:
        return Check(name=name, ok=False, found=f"refused [{errno_name(error.errno or 0)}]", fix=fix)
    return Check(name=name, ok=True, found=done)


def can_serve(found: Sequence[Check]) -> bool:
    """Whether a daemon could start here."""
    return all(check.ok for check in found if check.needed)

"""``mapd serve``, from the command line to the lock: what is made, started and given up, in which order.

grpc and numpy are imported behind the lock (``inside``): importing them starts threads, and a thread that is there
before stays free.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Final

from mapd.bpf import boot_id, possible_cpus
from mapd.config import DEFAULT_POLICY, Config
from mapd.launch import LaunchError, folders
from mapd.launch.link import OpenerLink, received
from mapd.launch.people import People, people
from mapd.launch.settings import ENVIRONMENT, OpenerSettings, command, python_files
from mapd.maps.hostfacts import cgroup_mount
from mapd.rpc.socket_trials import Others
from mapd.rpc.sockets import InstanceLock, SocketError
from mapd.sandbox import Rules, lock_front, profiles_of

NSS: Final = (
    "passwd",
    "group",
    "nsswitch.conf",
    "hosts",
    "host.conf",
    "resolv.conf",
    "gai.conf",
    "localtime",
)
"""Below /etc: what names of users and hosts are looked up in."""


def serve(config: Config, config_file: Path | None, *, until_stdin_ends: bool, single_process: bool) -> int:
    """Run the daemon; its exit status.

    Raises:
        LaunchError, SandboxError: it cannot be started so; nothing serves.
    """
    if single_process:
        from mapd.launch import inside

        return inside.run(config, None, until_stdin_ends=until_stdin_ends)
    chosen = people(config)
    _folders(config, chosen)
    try:
        InstanceLock.check(Path(config.daemon.runtime_dir))
    except SocketError as error:
        raise LaunchError(str(error)) from None
    link = None if config.daemon.backend == "memory" else _opener(config, chosen)
    # Kept by whoever asks first; behind the lock nobody can read them.
    boot_id()
    possible_cpus()
    others = Others.start()
    try:
        tcp = bool(config.tcp.listen or config.metrics.listen)
        locked = lock_front(chosen.front, rules(config, config_file, chosen), tcp=tcp)
        from mapd.launch import inside  # after the lock: this is where grpc comes in

        return inside.run_locked(config, link, locked, chosen, others, until_stdin_ends=until_stdin_ends)
    finally:
        if others is not None:
            others.end()
        if link is not None:
            link.end()


def become_opener(config: Config) -> None:
    """``mapd opener``: replace this process by an opener on the connection that systemd gave it.

    Raises:
        LaunchError: there is no such connection.
    """
    settings = opener_settings(config, People(), fd=received(), with_front=False)
    words = command(settings)
    os.execve(words[0], words, dict(ENVIRONMENT))  # noqa: S606 - this interpreter, anew


def opener_settings(
    config: Config, chosen: People, *, fd: int = -1, with_front: bool = True
) -> OpenerSettings:
    """What the configuration says of the opener."""
    daemon, opener = config.daemon, config.opener
    return OpenerSettings(
        fd=fd,
        uid=-1 if chosen.opener is None else chosen.opener.uid,
        gid=-1 if chosen.opener is None else chosen.opener.gid,
        profile=profiles_of(opener.profile),
        bpffs=daemon.bpffs,
        names_root=names_root(config),
        limits={
            "pin_roots": daemon.pin_roots,
            "map_bytes": opener.map_bytes,
            "btf_bytes": opener.btf_bytes,
            "makes": opener.makes,
            "makes_per_s": opener.makes_per_s,
            "bytes_per_s": opener.bytes_per_s,
        },
        with_front=with_front,
        cgroup=opener.cgroup,
        private_bpffs=daemon.private_bpffs,
    )


def names_root(config: Config) -> str:
    """Where names are pinned."""
    return str(PurePath(config.daemon.bpffs, config.daemon.pin_root))


def rules(config: Config, config_file: Path | None, chosen: People) -> Rules:
    """The files and ports that the front still reaches."""
    folders_of = [
        config.daemon.policy,
        *filter(None, (config.tcp.certificate, config.tcp.key, config.tcp.client_ca)),
    ]
    if config_file is not None:
        folders_of.append(str(config_file.resolve()))
    # Folders: an editor puts a new file in the place of the old one, and a rule is the old one's.
    known = [str(Path(path).parent) for path in folders_of if Path(path).parent != Path("/")]
    # As a user of its own, /etc as that user may read it. As root, which owns the files with everybody's secrets, only
    # what is needed; /etc/passwd is replaced by who adds a user, and then is not read again before a restart.
    etc = ["/etc"] if os.geteuid() or chosen.front is not None else [f"/etc/{name}" for name in NSS]
    return Rules(
        read=(*python_files(), *etc, *known, "/proc/self", "/sys/devices/system/cpu", *_proc(config)),
        write=tuple(written(config)),
        # Their names alone: a cgroup's id is the inode number of its folder.
        lists=tuple(filter(None, [cgroup_mount()])),
        devices=("/dev/null", "/dev/urandom"),
        bind_tcp=tuple(dict.fromkeys(ports(config))),
        abstract_sockets=os.environ.get("NOTIFY_SOCKET", "").startswith("@"),
    )


def ports(config: Config) -> Iterable[int]:
    """What the front listens on."""
    for address in config.tcp.listen:
        yield int(address.rpartition(":")[2])
    if config.metrics.port is not None:
        yield config.metrics.port


def _proc(config: Config) -> Iterable[str]:
    """When the host was booted, from which prometheus-client reckons when this process was started."""
    return ["/proc/stat"] if config.metrics.listen else []


def written(config: Config) -> Iterable[str]:
    """Folders in which the front makes and changes files."""
    yield config.daemon.runtime_dir
    if config.daemon.backend == "kernel":
        yield config.daemon.state_dir
    if (folder := audit_folder(config)) is not None:
        yield folder


def _folders(config: Config, chosen: People) -> None:
    """Make the front's folders, and hand them over; and the policy's, whose file may come later."""
    for path in written(config):
        if path == config.daemon.runtime_dir:
            folders.make(path, 0o755, chosen.front, folders.of_sockets)
        elif path == config.daemon.state_dir:
            folders.make(path, 0o700, chosen.front, folders.of_state)
        elif not Path(path).exists():
            # One that is there may be everybody's, as /var/log is; who made it says whose it is.
            folders.make(path, 0o700, chosen.front)
    if config.daemon.policy == DEFAULT_POLICY and config.daemon.backend == "kernel":
        # A folder that comes behind the lock stays closed to a front of root's. Any other front may read all of /etc.
        with suppress(OSError):
            Path(DEFAULT_POLICY).parent.mkdir(mode=0o755, exist_ok=True)


def audit_folder(config: Config) -> str | None:
    """Where the audit trail's files are, if there is one."""
    return str(Path(config.audit.path).parent) if config.audit.path else None


def _opener(config: Config, chosen: People) -> OpenerLink:
    if config.opener.socket:
        return OpenerLink.connect(config.opener.socket)
    return OpenerLink.start(opener_settings(config, chosen))

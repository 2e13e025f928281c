"""The daemon's configuration: one TOML file, every key with a default, nothing unknown accepted."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from mapd.metrics.settings import MetricsConfig, check
from mapd.sandbox.profiles import AUTO, ProfileError, profiles_of

DEFAULT_PATH = Path("/etc/mapd/mapd.toml")
# Not asked of mapd.access.policy, which imports numpy: this is read before the process locks itself in.
DEFAULT_POLICY: Final = "/etc/mapd/policy.toml"

PIN_ROOT: Final = re.compile(r"[^/.\0]{1,255}")
"""One component of a path that bpffs accepts (kernel/bpf/inode.c, bpf_lookup(); NAME_MAX)."""

Threads = Annotated[int, msgspec.Meta(ge=1, le=64)]


class ConfigError(Exception):
    """The file cannot be used; the message says where and why."""


class DaemonConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [daemon].

    Paths are absolute and have no '..'; ``parse`` gives them their shortest spelling.

    Attributes:
        backend: kernel, or memory: maps of the daemon's own, that end with it, for tests of programs. Nothing
            falls back to memory by itself.
        runtime_dir: sockets, one folder per principal.
        state_dir: what outlives the daemon but names no kernel object: the types of the maps it made.
        bpffs: where a bpffs is mounted.
        private_bpffs: one that is mounted in mapd's own mount namespace alone will do, though the host's programs do
            not see the maps there.
        pin_root: folder below it for names: <bpffs>/<pin_root>/<namespace>/<name>.
        user: whom the process that speaks to clients runs as, by name or number, where root starts it. Where there is
            no user mapd, and no other is named, it runs as whoever started it, and says so.
        policy: the file that says who may connect, and do what. At the default path it may be missing: there is the
            admin alone then.
        pin_roots: folders below which other programs' pins may be opened, and new ones made.
        grace_s: seconds that running calls get when the daemon stops.
        log_format: json, console, or auto (console on a terminal).
        log_level: debug, info, warning, error.
    """

    backend: Literal["kernel", "memory"] = "kernel"
    runtime_dir: str = "/run/mapd"
    state_dir: str = "/var/lib/mapd"
    user: str | int = "mapd"
    policy: str = DEFAULT_POLICY
    bpffs: str = "/sys/fs/bpf"
    private_bpffs: bool = False
    pin_root: str = "mapd"
    pin_roots: tuple[str, ...] = ("/sys/fs/bpf",)
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 5.0
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class OpenerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [opener]: the process that holds the capabilities, and what it grants at most. Sizes in bytes.

    Attributes:
        user: whom it runs as, as [daemon] user.
        profile: which capabilities it keeps: minimal, pins-ro, pins-rw, network, inspector, a list of these, or auto:
            all of theirs that the start gives.
        socket: where an opener that somebody else starts (systemd) listens; "": this daemon starts its own.
        cgroup: folder of a cgroup that the opener enters; the memory of every map is charged there, as long as the map
            lives. "": the one that it is started in. What maps may come to take stays 16 MiB below its limit.
        map_bytes: kernel memory of one map when it is full.
        btf_bytes: of the types of one map.
        makes: how many maps, pins, programs and types may be made at once; makes_per_s after that.
        bytes_per_s: map memory asked for, over time.
    """

    user: str | int = "mapd-opener"
    profile: str | tuple[str, ...] = AUTO
    socket: str = ""
    cgroup: str = ""
    map_bytes: Annotated[int, msgspec.Meta(ge=1)] = 4 << 30
    btf_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    makes: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    makes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 2_000
    bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 1 << 30


class PoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [pool]: threads of each lane, and how many calls may wait in a lane.

    Attributes:
        inline_elements: groups of a session with at most so many elements run in the event loop itself, without a
            hop to a thread, on types that cannot block and where nothing waits for the map. 0: none. One lookup at a
            time over a bare stream: 184 us instead of 214, and 114 us of the daemon's CPU instead of 143 (two CPUs, a
            virtual machine). Whatever blocks the kernel there blocks every client, so it is off.
        cpu: the event loop, gRPC's threads and those of the lane "point" stay on this CPU, so that a hop wakes no CPU
            that sleeps; large groups, dumps and slow calls use all. On an idle virtual machine of two CPUs one lookup
            at a time took 322 us instead of 473, and 64 at once went from 87,000 to 126,000 a second. -1: none, for
            whatever else runs on that CPU delays every client.
    """

    point_threads: Threads = 2
    bulk_threads: Threads = 2
    slow_threads: Threads = 2
    queue: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 4_096
    inline_elements: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    cpu: Annotated[int, msgspec.Meta(ge=-1, le=8_191)] = -1


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [server].

    Attributes:
        max_connection_age_s: a session's stream is told goodbye after so many seconds, a tenth more or less, and
            ended max_connection_age_grace_s later; its session can be resumed. 0: never.
    """

    max_connection_age_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    max_connection_age_grace_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 5.0


TCP_PORT: Final = 7433
"""Where daemons that listen on TCP do by default; IANA has given it to nobody."""


class TcpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [tcp]: TLS 1.3, with certificates on both sides, and nothing else.

    Attributes:
        listen: addresses with ports, "0.0.0.0:7433" or "[::]:7433"; none: TCP is off.
        certificate: file of this daemon's certificate, behind it those between it and its authority (PEM).
        key: file of its key (PEM), that only mapd's user may read.
        client_ca: file of the authorities whose certificates clients may show (PEM).
        max_connections: at once, for each address, of all clients and of whoever has shown no certificate yet; others
            are closed.
        handshake_timeout_s: until TLS and HTTP/2 are agreed on; then the connection is closed.
        max_connection_idle_s: a connection without calls is closed after so long.
        max_connection_age_s: a connection takes no new calls after so long, a tenth more or less; its client makes
            another one. Sessions are told goodbye before, and go on there.
        max_connection_age_grace_s: seconds that calls under way have then.
    """

    listen: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    handshake_timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0
    max_connection_idle_s: Annotated[float, msgspec.Meta(ge=0.1)] = 300.0
    max_connection_age_s: Annotated[float, msgspec.Meta(ge=1)] = 1800.0
    max_connection_age_grace_s: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 60.0


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [audit]: a line of JSON for each change and each refusal (docs/reference/audit.md).

    Attributes:
        path: the file, in a folder of mapd's own; "": there is no audit trail.
        on_full: what becomes of a change whose line cannot be written: "deny": it is refused, before it is made;
            "count": it is made, and the next line says how many are missing.
        queue: lines that wait to be written at most, about 1 KiB each.
        reads: calls that only read leave lines too.
    """

    path: str = ""
    on_full: Literal["deny", "count"] = "deny"
    queue: Annotated[int, msgspec.Meta(ge=16, le=1 << 20)] = 16_384
    reads: bool = False


DEFAULT_USERS: Final = frozenset({DaemonConfig().user, OpenerConfig().user})
"""Without these both processes run as who starts them; any other that is named must exist."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    daemon: DaemonConfig = DaemonConfig()
    opener: OpenerConfig = OpenerConfig()
    pool: PoolConfig = PoolConfig()
    server: ServerConfig = ServerConfig()
    tcp: TcpConfig = TcpConfig()
    audit: AuditConfig = AuditConfig()
    metrics: MetricsConfig = MetricsConfig()


def parse(text: str, source: str) -> Config:
    """A configuration from TOML text.

    Raises:
        ConfigError: with ``source``, the key, and what is accepted.
    """
    try:
        raw = tomllib.loads(text)
        if "principals" in raw:
            raise ConfigError(
                f"{source}: [principals] is read from the policy's file alone ([daemon] policy = "
                f'"{DEFAULT_POLICY}", unless set): move its tables there, as they are'
            )
        config = msgspec.convert(raw, Config)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{source}: {error}") from error
    try:
        config = msgspec.structs.replace(config, daemon=_with_paths(config.daemon))
    except ValueError as error:
        raise ConfigError(f"{source}: [daemon] {error}") from None
    try:
        profiles_of(config.opener.profile)
        if config.opener.socket:
            opener = msgspec.structs.replace(config.opener, socket=_normal("socket", config.opener.socket))
            config = msgspec.structs.replace(config, opener=opener)
        if config.opener.cgroup:
            opener = msgspec.structs.replace(config.opener, cgroup=_normal("cgroup", config.opener.cgroup))
            config = msgspec.structs.replace(config, opener=opener)
    except (ProfileError, ValueError) as error:
        raise ConfigError(f"{source}: [opener] {error}") from None
    try:
        config = msgspec.structs.replace(config, tcp=_with_tls(config.tcp))
    except ValueError as error:
        raise ConfigError(f"{source}: [tcp] {error}") from None
    try:
        check(config.metrics)
    except ValueError as error:
        raise ConfigError(f"{source}: [metrics] {error}") from None
    if config.audit.path:
        try:
            path = _normal("path", config.audit.path)
        except ValueError as error:
            raise ConfigError(f"{source}: [audit] {error}") from None
        config = msgspec.structs.replace(config, audit=msgspec.structs.replace(config.audit, path=path))
    return config


def _with_paths(daemon: DaemonConfig) -> DaemonConfig:
    """The same with its paths normalised.

    Raises:
        ValueError: the key, what it is, and what is accepted.
    """
    # A pin's path is compared with these letter by letter, so there is one spelling of each.
    if PIN_ROOT.fullmatch(daemon.pin_root) is None:
        raise ValueError(
            f"pin_root: {daemon.pin_root!r} must be one folder's name below bpffs, without '/' or '.' (which bpffs "
            "refuses in names)"
        )
    for root in daemon.pin_roots:
        if _normal("pin_roots", root) == "/":
            raise ValueError(f"pin_roots: {root!r} is no folder of a bpffs")
    return msgspec.structs.replace(
        daemon,
        runtime_dir=_normal("runtime_dir", daemon.runtime_dir),
        state_dir=_normal("state_dir", daemon.state_dir),
        policy=_normal("policy", daemon.policy),
        bpffs=_normal("bpffs", daemon.bpffs),
        pin_roots=tuple(_normal("pin_roots", root) for root in daemon.pin_roots),
    )


def _with_tls(tcp: TcpConfig) -> TcpConfig:
    """The same with its paths normalised.

    Raises:
        ValueError: the key, what it is, and what is accepted.
    """
    if not tcp.listen:
        return tcp
    for address in tcp.listen:
        _check_listen(address)
    paths: dict[str, str] = {}
    for key in ("certificate", "key", "client_ca"):
        path: str = getattr(tcp, key)
        if not path:
            raise ValueError(
                f"{key}: needed with listen: mapd speaks TLS only, with certificates on both sides"
            )
        paths[key] = _normal(key, path)
    return msgspec.structs.replace(tcp, **paths)


def _check_listen(address: str) -> None:
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        six = ipaddress.ip_address(bare).version == 6
    except ValueError:
        six = None
    if six is (bare != host) and port.isascii() and port.isdecimal() and int(port) < 1 << 16:
        return
    raise ValueError(
        f"listen: {address!r} is no IP address with a port, as '0.0.0.0:{TCP_PORT}' and '[::]:{TCP_PORT}' are"
    )


def _normal(key: str, path: str) -> str:
    parts = path.split("/")
    if not path.startswith("/"):
        raise ValueError(f"{key}: {path!r} is not absolute; begin it with '/'")
    if ".." in parts:
        raise ValueError(f"{key}: {path!r} has a part '..'; write the path that it means")
    if "\0" in path:
        raise ValueError(f"{key}: {path!r} has a NUL")
    return "/" + "/".join(part for part in parts if part not in {"", "."})


def load(path: Path | None) -> Config:
    """The file at ``path``; without one, the default place if there is a file, else the defaults.

    Raises:
        ConfigError: it cannot be read or used.
    """
    if path is None and not DEFAULT_PATH.exists():
        return Config()
    chosen = path or DEFAULT_PATH
    try:
        return parse(chosen.read_text("utf-8"), str(chosen))
    except OSError as error:
        raise ConfigError(f"{chosen}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{chosen}: not UTF-8, as TOML must be ({error.reason} at {error.start})"
        ) from error

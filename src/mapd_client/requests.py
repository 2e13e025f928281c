"""The daemon's requests, built from plain values. Sans-I/O: a blocking client shares it."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from types import MappingProxyType
from typing import Final, Literal

from google.protobuf import duration_pb2

from mapd_api.names import is_part
from mapd_api.ops import Op
from mapd_api.uapi import ElementFlag, MapFlag, MapType
from mapd_api.v1 import elements_pb2, maps_pb2, types_pb2
from mapd_client.codec import shown
from mapd_client.errors import Misuse, TypeMismatch, Unsupported
from mapd_client.failures import Asked
from mapd_client.info import Btf, Lease, ServerInfo, UpdateFlag
from mapd_client.refs import Id, MapRef, Name, Pin
from mapd_client.selecting import EVERYTHING, Selected

DumpColumns = Literal["both", "keys", "values"]

UPDATE_OPS: Final[Mapping[str, Op]] = MappingProxyType(
    {"any": Op.UPDATE, "noexist": Op.UPDATE_NOEXIST, "exist": Op.UPDATE_EXIST}
)
_LOAD_FLAGS: Final = MappingProxyType(
    {
        "any": elements_pb2.UPDATE_FLAG_ANY,
        "noexist": elements_pb2.UPDATE_FLAG_NOEXIST,
        "exist": elements_pb2.UPDATE_FLAG_EXIST,
    }
)
_COLUMNS: Final = MappingProxyType(
    {
        "both": elements_pb2.DUMP_COLUMNS_UNSPECIFIED,
        "keys": elements_pb2.DUMP_COLUMNS_KEYS,
        "values": elements_pb2.DUMP_COLUMNS_VALUES,
    }
)
_U32: Final = 0xFFFF_FFFF
_U64: Final = 0xFFFF_FFFF_FFFF_FFFF
_LONGEST_S: Final = 1_000_000_000
"""Thirty years: what gRPC and protobuf's Duration both express."""


@contextmanager
def naming(asked: Asked) -> Generator[None]:
    """Says operation and map in a Misuse or TypeMismatch of an argument."""
    try:
        yield
    except Misuse as error:
        kind = type(error)
        raise kind(f"{asked}: {error}", operation=asked.operation, map=asked.map) from None


def seconds(what: str, value: object) -> float:
    """``value`` itself.

    Raises:
        TypeMismatch: no number.
        Misuse: not positive, not finite, or over a thousand million.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeMismatch(f"{what}={value!r}: a number of seconds, not {type(value).__name__}")
    if not 0 < value <= _LONGEST_S:  # false for nan
        raise Misuse(f"{what}={shown(value)}: a positive number of seconds, at most {_LONGEST_S}")
    return value


def number(what: str, value: int, least: int, most: int) -> int:
    """``value`` itself; raises TypeMismatch for what is no int, Misuse for one out of range."""
    try:
        index(value)  # an array has __index__ as well, and raises
    except TypeError:
        raise TypeMismatch(f"{what}={value!r}: an int, not {type(value).__name__}") from None
    if not least <= value <= most:
        raise Misuse(f"{what}={shown(value)}: {least} to {most} can be asked for")
    return value


def text(what: str, value: object) -> str:
    """``value`` itself; raises TypeMismatch for what is no str, Misuse for one that is no UTF-8."""
    if not isinstance(value, str):
        raise TypeMismatch(f"{what}={value!r}: a str, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Misuse(
            f"{what}={value!r}: cannot be written in UTF-8 ({error.reason} at {error.start})"
        ) from None
    return value


def octets(what: str, value: bytes) -> bytes:
    """``value`` as bytes; raises TypeMismatch for what has no buffer."""
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise TypeMismatch(f"{what}={value!r}: bytes, not {type(value).__name__}") from None


def by_ref(ref: MapRef) -> types_pb2.MapRef:
    """A reference by name, pin or id."""
    match ref:
        case Name(name):
            return types_pb2.MapRef(name=name)
        case Pin(path):
            return types_pb2.MapRef(pin=path)
        case Id(id):
            return types_pb2.MapRef(id=id)
        case _:
            raise Misuse(f"{ref!r} is no map reference: use Name, Pin, Id or their string forms")


def by_handle(handle: int) -> types_pb2.MapRef:
    """A reference by an open handle."""
    return types_pb2.MapRef(handle=handle)


def update_op(flags: UpdateFlag, operation: str = "update", map: str = "") -> Op:
    """The operation of an update; raises Misuse for another word, in which it names ``operation`` and ``map``."""
    try:
        return UPDATE_OPS[flags]
    except (KeyError, TypeError):  # TypeError: a list, which has no hash
        asked = Asked(operation, map)
        raise Misuse(
            f'{asked}: flags={flags!r}: "any", "noexist" or "exist"', operation=operation, map=map
        ) from None


def map_type(type: MapType | str) -> MapType:
    """``"lru_hash"`` as bpftool spells it, or the enum's member; raises Misuse for another word."""
    if isinstance(type, MapType):
        return type
    text("type", type)
    found = MapType.__members__.get(type.upper().replace("-", "_"))
    if found is None or found is MapType.UNSPEC:
        raise Misuse(f"{type!r} is no map type: hash, array, lru_hash, percpu_hash, lpm_trie, ...")
    return found


def open_map(ref: MapRef, *, read_only: bool, session: str) -> maps_pb2.OpenMapRequest:
    """Open a map that exists."""
    return maps_pb2.OpenMapRequest(map=by_ref(ref), read_only=read_only, session=session)


def create_map(
    name: str | None,
    type: MapType,
    *,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int,
    kernel_name: str | None,
    map_extra: int,
    numa_node: int | None,
    inner: MapRef | None,
    btf: Btf | None,
    exclusive_program_hash: bytes,
    lease: float | Lease | None,
    exist_ok: bool,
    session: str,
) -> maps_pb2.CreateMapRequest:
    """Create a map; exactly one of ``name`` and ``lease``.

    A ``numa_node`` asks for BPF_F_NUMA_NODE by itself.
    """
    if (name is None) == (lease is None):
        raise Misuse("create_map: give either a name (it stays) or lease=seconds (it goes with you)")
    for what, value, most in (
        ("max_entries", max_entries, _U32),
        ("flags", flags, _U32),
        ("key_size", key_size, _U32),
        ("value_size", value_size, _U32),
        ("map_extra", map_extra, _U64),
        ("numa_node", numa_node or 0, _U32),
    ):
        number(f"create_map: {what}", value, 0, most)
    request = maps_pb2.CreateMapRequest(
        type=types_pb2.MapType.Name(int(type)),
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags if numa_node is None else flags | MapFlag.NUMA_NODE,
        kernel_name=text("create_map: kernel_name", kernel_name or ""),
        map_extra=map_extra,
        numa_node=numa_node,
        exclusive_program_hash=exclusive_program_hash,
        exist_ok=exist_ok,
        session=session,
    )
    if inner is not None:
        request.inner.CopyFrom(by_ref(inner))
    if btf is not None:
        request.btf_vmlinux_value_type_id = btf.vmlinux_value_type_id
        request.btf.CopyFrom(
            types_pb2.Btf(
                blob=octets("create_map: btf.blob", btf.blob),
                key_type_id=number("create_map: btf.key_type_id", btf.key_type_id, 0, _U32),
                value_type_id=number("create_map: btf.value_type_id", btf.value_type_id, 0, _U32),
            )
        )
    if name is not None:
        request.named.name = str(Name(name))
    if lease is not None:
        request.lease.CopyFrom(_lease(lease, kernel_name))
    return request


def lease_id(lease: Lease | str) -> str:
    """A lease by its id.

    Raises:
        Misuse: it has none.
    """
    found = text("lease", lease.id if isinstance(lease, Lease) else lease)
    if not found:
        raise Misuse("lease: give its id, 'job-7' or 'ns/job-7', or that of an open map: m.info.lease")
    return found


def _lease(wanted: float | Lease, kernel_name: str | None) -> maps_pb2.Lease:
    lease = wanted if isinstance(wanted, Lease) else Lease(wanted)
    ttl = duration_pb2.Duration()
    # The clock's own unit: a float's 0.1 + 0.2 shall not make another ttl.
    ttl.FromMilliseconds(round(seconds("create_map: lease", lease.ttl) * 1_000))
    name = (kernel_name or "").lower().replace(".", "_")
    lease_id = text("create_map: lease.id", lease.id) or f"l{secrets.token_hex(8)}"
    return maps_pb2.Lease(id=lease_id, ttl=ttl, name=name if is_part(name) else "map")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a listing looks for."""

    glob: str
    pins: bool = False
    ids: bool = False
    holders: bool = False


def list_maps(wanted: Wanted, page_token: str) -> maps_pb2.ListMapsRequest:
    """One page of a listing."""
    text("list_maps: glob", wanted.glob)
    return maps_pb2.ListMapsRequest(
        glob="" if wanted.glob == "*" else wanted.glob,
        page_token=page_token,
        pins=wanted.pins,
        ids=wanted.ids,
        holders=wanted.holders,
    )


def apply(
    handle: int,
    op: Op,
    count: int,
    keys: bytes,
    values: bytes = b"",
    *,
    lock: bool = False,
    touch: bool = False,
    cpu: int | None = None,
    field: tuple[int, int] | None = None,
    create: bool = False,
    timeout: float | None,
) -> elements_pb2.ApplyRequest:
    """One group of the same operation on ``count`` elements; ``field``: offset and size of what atomics work on."""
    group = elements_pb2.OpGroup(
        map=by_handle(handle),
        count=count,
        ops=bytes((op,)),
        keys=keys,
        values=values,
        flags=ElementFlag.LOCK if lock else 0,
        remaining_ms=remaining_ms(timeout),
        touch=touch,
        cpu=cpu,
        create=create,
    )
    if field is not None:
        group.field.offset, group.field.size = field
    return elements_pb2.ApplyRequest(groups=[group])


def remaining_ms(timeout: float | None) -> int:
    """Seconds as OpGroup.remaining_ms: at least 1, for 0 would mean no limit."""
    return 0 if timeout is None else min(max(1, round(timeout * 1000)), _U32)


def check_touch(server: ServerInfo, label: str) -> None:
    """Raises Unsupported unless the daemon can let a lookup refresh recency."""
    if "touch" not in server.features:
        raise Unsupported(
            f"lookup {label}: touch=True is not offered by the daemon (version {server.version}): "
            "its lookups do not refresh the recency of LRU entries",
            operation="lookup",
            map=label,
        )


def check_cpu_number(cpu: int, asked: Asked) -> None:
    """Raises TypeMismatch for what is no int, Misuse for what is no CPU's number."""
    try:
        if isinstance(cpu, bool):
            raise TypeError
        index(cpu)
    except TypeError:
        raise TypeMismatch(
            f"{asked}: cpu={cpu!r}: an int, not {type(cpu).__name__}",
            operation=asked.operation,
            map=asked.map,
        ) from None
    if not 0 <= cpu <= _U32:
        raise Misuse(
            f"{asked}: cpu={shown(cpu)}: CPUs count from 0", operation=asked.operation, map=asked.map
        )


def check_cpu(server: ServerInfo, cpu: int, asked: Asked) -> None:
    """Raises Misuse for what is no CPU's number, Unsupported unless the daemon serves one CPU's slot.

    An older one would take no notice, and write all slots.
    """
    check_cpu_number(cpu, asked)
    _check_feature(server, "one-cpu", "cpu= is", asked)


def check_select(server: ServerInfo, asked: Asked) -> None:
    """Raises Unsupported unless the daemon selects and reduces: an older one would take no notice, and send all."""
    _check_feature(server, "dump-select", "nonzero=, reduce= and value_range= are", asked)


def check_lpm(server: ServerInfo, asked: Asked) -> None:
    """Raises Unsupported unless the daemon tells prefixes of an LPM trie apart."""
    _check_feature(server, "lpm", "exact and covered prefixes are", asked)


def check_atomics(server: ServerInfo, asked: Asked) -> None:
    """Raises Unsupported unless the daemon does atomics."""
    _check_feature(server, "atomics", "atomics are", asked)


def _check_feature(server: ServerInfo, feature: str, what: str, asked: Asked) -> None:
    if feature not in server.features:
        raise Unsupported(
            f"{asked}: {what} not offered by the daemon (version {server.version}, no feature {feature!r})",
            operation=asked.operation,
            map=asked.map,
        )


def dump(
    handle: int,
    *,
    columns: DumpColumns,
    prefix: bytes,
    limit: int | None,
    resume: bytes | None,
    covered_by: bytes = b"",
    wanted: Selected = EVERYTHING,
) -> elements_pb2.DumpRequest:
    """A dump.

    Raises:
        Misuse: a limit that is none (0 would mean all), a range that is none.
        TypeMismatch: ``prefix`` or ``resume`` are no bytes.
    """
    if isinstance(limit, int) and limit < 1:
        raise Misuse(f"limit={shown(limit)}: a dump hands out at least one element; None for all")
    wanted.check()
    request = elements_pb2.DumpRequest(
        map=by_handle(handle),
        columns=_COLUMNS[columns],
        prefix=octets("prefix", prefix),
        limit=0 if limit is None else number("limit", limit, 1, _U64),
        resume_token=b"" if resume is None else octets("resume", resume),
        covered_by=covered_by,
    )
    wanted.write(request)
    return request


def update_flag(flags: UpdateFlag) -> elements_pb2.UpdateFlag:
    """The flag of an update; raises Misuse for another word."""
    update_op(flags)
    return _LOAD_FLAGS[flags]


def load(
    handle: int, flags: UpdateFlag, count: int, keys: bytes, values: bytes, *, first: bool
) -> elements_pb2.LoadRequest:
    """One message of a load; only the first names map and flag."""
    update_op(flags)
    columns = types_pb2.Columns(count=count, keys=keys, values=values)
    if not first:
        return elements_pb2.LoadRequest(columns=columns)
    return elements_pb2.LoadRequest(map=by_handle(handle), flag=_LOAD_FLAGS[flags], columns=columns)

# Written by scripts/blocking_stubs.py from tests/repo/api/mapd_client.pyi: do not edit.

import builtins
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import pandas
import polars
import pyarrow as pa
from numpy.typing import NDArray

from mapd_client import I8 as I8
from mapd_client import I16 as I16
from mapd_client import I32 as I32
from mapd_client import I64 as I64
from mapd_client import U8 as U8
from mapd_client import U16 as U16
from mapd_client import U32 as U32
from mapd_client import U64 as U64
from mapd_client import Arrays as Arrays
from mapd_client import ArrowTable as ArrowTable
from mapd_client import BatchFailed as BatchFailed
from mapd_client import Btf as Btf
from mapd_client import Bytes as Bytes
from mapd_client import CgroupId as CgroupId
from mapd_client import Chunk as Chunk
from mapd_client import Cidr4 as Cidr4
from mapd_client import Cidr6 as Cidr6
from mapd_client import Codec as Codec
from mapd_client import Count as Count
from mapd_client import DaemonCapability as DaemonCapability
from mapd_client import DeadlineExceeded as DeadlineExceeded
from mapd_client import Decision as Decision
from mapd_client import DumpIncomplete as DumpIncomplete
from mapd_client import Exchanged as Exchanged
from mapd_client import Field as Field
from mapd_client import Fields as Fields
from mapd_client import Found as Found
from mapd_client import HostClocks as HostClocks
from mapd_client import HostInfo as HostInfo
from mapd_client import Id as Id
from mapd_client import IfIndex as IfIndex
from mapd_client import Incompatible as Incompatible
from mapd_client import IndexOutOfRange as IndexOutOfRange
from mapd_client import Ipv4 as Ipv4
from mapd_client import Ipv6 as Ipv6
from mapd_client import KernelTime as KernelTime
from mapd_client import KeyExists as KeyExists
from mapd_client import KeyMissing as KeyMissing
from mapd_client import Ktime as Ktime
from mapd_client import KtimeBoot as KtimeBoot
from mapd_client import Lease as Lease
from mapd_client import LeaseState as LeaseState
from mapd_client import Limits as Limits
from mapd_client import Mac as Mac
from mapd_client import MapdError as MapdError
from mapd_client import MapExists as MapExists
from mapd_client import MapFlag as MapFlag
from mapd_client import MapFrozen as MapFrozen
from mapd_client import MapFull as MapFull
from mapd_client import MapInfo as MapInfo
from mapd_client import MapNotFound as MapNotFound
from mapd_client import MapRef as MapRef
from mapd_client import MapStats as MapStats
from mapd_client import MapType as MapType
from mapd_client import Misuse as Misuse
from mapd_client import Name as Name
from mapd_client import NotSent as NotSent
from mapd_client import NoTypeInfo as NoTypeInfo
from mapd_client import ObjectMap as ObjectMap
from mapd_client import OutcomeUnknown as OutcomeUnknown
from mapd_client import PerCpu as PerCpu
from mapd_client import PermissionDenied as PermissionDenied
from mapd_client import Pin as Pin
from mapd_client import Port as Port
from mapd_client import Principal as Principal
from mapd_client import ProcessHolder as ProcessHolder
from mapd_client import ProgramHolder as ProgramHolder
from mapd_client import ProgramRef as ProgramRef
from mapd_client import QuotaExceeded as QuotaExceeded
from mapd_client import Reason as Reason
from mapd_client import Reduce as Reduce
from mapd_client import Refused as Refused
from mapd_client import RemovalsRefused as RemovalsRefused
from mapd_client import ServerInfo as ServerInfo
from mapd_client import Share as Share
from mapd_client import SizeMismatch as SizeMismatch
from mapd_client import StatsSample as StatsSample
from mapd_client import Struct as Struct
from mapd_client import SyncReport as SyncReport
from mapd_client import Tls as Tls
from mapd_client import Trailer as Trailer
from mapd_client import TypeMismatch as TypeMismatch
from mapd_client import Unavailable as Unavailable
from mapd_client import Unreachable as Unreachable
from mapd_client import Unsupported as Unsupported
from mapd_client import UpdateFlag as UpdateFlag
from mapd_client import describe as describe
from mapd_client import instances as instances
from mapd_client.layouts import MapLayout
from mapd_client.typed.hints import Hint

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T_co = TypeVar("T_co", covariant=True)
__all__ = [
    "I8",
    "I16",
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "U64",
    "Arrays",
    "ArrowTable",
    "BatchFailed",
    "Batches",
    "Bloom",
    "Btf",
    "Bytes",
    "CgroupId",
    "Chunk",
    "Cidr4",
    "Cidr6",
    "Client",
    "Codec",
    "Count",
    "DaemonCapability",
    "DeadlineExceeded",
    "Decision",
    "Dump",
    "DumpIncomplete",
    "Exchanged",
    "Field",
    "Fields",
    "Found",
    "HostClocks",
    "HostInfo",
    "Id",
    "IfIndex",
    "Incompatible",
    "IndexOutOfRange",
    "Ipv4",
    "Ipv6",
    "KernelTime",
    "KeyExists",
    "KeyMissing",
    "Ktime",
    "KtimeBoot",
    "Lease",
    "LeaseState",
    "Limits",
    "Listing",
    "Lpm",
    "Mac",
    "Map",
    "MapExists",
    "MapFlag",
    "MapFrozen",
    "MapFull",
    "MapHandle",
    "MapInfo",
    "MapNotFound",
    "MapRef",
    "MapStats",
    "MapType",
    "MapdError",
    "Misuse",
    "Name",
    "NoTypeInfo",
    "NotSent",
    "ObjectMap",
    "ObjectMaps",
    "OutcomeUnknown",
    "PerCpu",
    "PermissionDenied",
    "Pin",
    "Port",
    "Principal",
    "ProcessHolder",
    "ProgramHolder",
    "ProgramRef",
    "Queue",
    "QuotaExceeded",
    "Reason",
    "Reduce",
    "Refused",
    "RemovalsRefused",
    "ServerInfo",
    "Share",
    "SizeMismatch",
    "StatsSample",
    "Struct",
    "SyncReport",
    "Tls",
    "Trailer",
    "TypeMismatch",
    "Unavailable",
    "Unreachable",
    "Unsupported",
    "UpdateFlag",
    "connect",
    "describe",
    "instances",
]

def connect(
    target: str | None = None, *, tls: Tls | None = None, timeout: float = 30.0, wait_for_ready: bool = False
) -> Client: ...

class Client:
    def __init__(
        self,
        target: str | None = None,
        *,
        tls: Tls | None = None,
        timeout: float = 30.0,
        wait_for_ready: bool = False,
    ) -> None: ...
    def server_info(self) -> ServerInfo: ...
    def whoami(self) -> Principal: ...
    def health(self) -> str: ...
    def host_info(
        self,
        *,
        devices: bool = True,
        cgroups: bool = True,
        ifindexes: Iterable[int] = (),
        cgroup_ids: Iterable[int] = (),
    ) -> HostInfo: ...
    def known_hints(self, hints: Mapping[str, Hint]) -> Mapping[str, Codec[Any]]: ...
    def explain(
        self,
        verb: str,
        ref: MapRef | str | None,
        *,
        key: bytes | None = None,
        as_principal: str | None = None,
    ) -> Decision: ...
    def list_maps(
        self, glob: str = "*", *, pins: bool = False, ids: bool = False, holders: bool = False
    ) -> Listing: ...
    def map_stats(
        self, glob: str = "*", *, pins: bool = False, ids: bool = False, wait_for_ready: bool = True
    ) -> StatsSample: ...
    @overload
    def open_map(self, ref: MapRef | str, *, read_only: bool = False) -> Map[bytes, bytes]: ...
    @overload
    def open_map(self, ref: MapRef | str, *, key: Codec[K], read_only: bool = False) -> Map[K, int]: ...
    @overload
    def open_map(
        self, ref: MapRef | str, *, key: Codec[K], value: Codec[V], read_only: bool = False
    ) -> Map[K, V]: ...
    def open_queue(self, ref: MapRef | str, *, value: Codec[V]) -> Queue[V]: ...
    def open_bloom(self, ref: MapRef | str, *, value: Codec[V]) -> Bloom[V]: ...
    def create_map(
        self,
        name: str | None,
        type: MapType | str,
        *,
        key: Codec[K] | builtins.type[K],
        value: Codec[V] | builtins.type[V],
        max_entries: int,
        flags: int = 0,
        kernel_name: str | None = None,
        map_extra: int = 0,
        numa_node: int | None = None,
        inner: MapRef | str | None = None,
        btf: Btf | bool | None = None,
        exclusive_program_hash: bytes = b"",
        lease: float | Lease | None = None,
        exist_ok: bool = False,
    ) -> Map[K, V]: ...
    def create_from_object(
        self,
        path: str | PathLike[str],
        *,
        convention: str = "auto",
        exist_ok: bool = False,
        names: Mapping[str, str] | None = None,
        prefix: str = "",
        pin_root: str = "/sys/fs/bpf",
    ) -> ObjectMaps: ...
    def rename_map(self, name: str, new_name: str) -> str: ...
    def unpin_map(self, ref: MapRef | str) -> None: ...
    def keep_lease_alive(self, lease: Lease | str) -> float: ...
    def revoke_lease(self, lease: Lease | str) -> Sequence[str]: ...
    def lease_time_to_live(self, lease: Lease | str) -> LeaseState: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

class Listing(Iterator[MapInfo]):
    sources: tuple[str, ...]
    not_looked_at: tuple[str, ...]

    def __next__(self) -> MapInfo: ...

class ObjectMaps:
    convention: str
    rule: str
    declared: Sequence[ObjectMap]
    left_out: Sequence[str]

    def __getitem__(self, which: str | int) -> Map[Any, Any]: ...
    def place(self, which: str | int) -> int: ...
    def __enter__(self) -> ObjectMaps: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...

class MapHandle:
    info: MapInfo
    created: bool

    def pin(self, path: str) -> None: ...
    def unpin(self, path: str) -> None: ...
    def freeze(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

class Map(MapHandle, Generic[K, V]):
    @overload
    def lookup(self, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None: ...
    @overload
    def lookup(
        self: Map[K, list[T]], key: K, *, cpu: int, touch: bool = False, timeout: float | None = None
    ) -> T | None: ...
    def __getitem__(self, key: K) -> V: ...
    @overload
    def update(self, key: K, value: V, *, flags: UpdateFlag = "any", lock: bool | None = None) -> None: ...
    @overload
    def update(self: Map[K, list[T]], key: K, value: T, *, cpu: int, flags: UpdateFlag = "any") -> None: ...
    def delete(self, key: K) -> bool: ...
    def lookup_and_delete(self, key: K) -> V | None: ...
    def update_reference(
        self,
        key: K,
        *,
        inner: Map[Any, Any] | MapRef | str | None = None,
        program: ProgramRef | None = None,
        device: str | int | None = None,
        queue: int | None = None,
        flags: UpdateFlag = "any",
    ) -> None: ...
    @overload
    def lookup_many(self, keys: Sequence[K], *, touch: bool = False) -> list[V | None]: ...
    @overload
    def lookup_many(self, keys: NDArray[Any], *, touch: bool = False) -> Found: ...
    def update_many(
        self,
        items: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]],
        *,
        flags: UpdateFlag = "any",
    ) -> int: ...
    def delete_many(self, keys: Iterable[K] | NDArray[Any]) -> int: ...
    def items(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        nonzero: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[tuple[K, V]]: ...
    def keys(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        nonzero: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[K]: ...
    def values(
        self,
        *,
        limit: int | None = None,
        nonzero: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[V]: ...
    def chunks(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        keys_only: bool = False,
        nonzero: bool = False,
        reduce: Sequence[Reduce] = (),
        value_range: tuple[int, int] | None = None,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[Chunk]: ...
    def to_numpy(self, *, partial_ok: bool = False) -> Arrays: ...
    def to_batches(self, *, resume: bytes | None = None, partial_ok: bool = False) -> Batches: ...
    def to_arrow(self, *, partial_ok: bool = False) -> pa.Table: ...
    def to_pandas(self, *, partial_ok: bool = False) -> pandas.DataFrame: ...
    def to_polars(self, *, partial_ok: bool = False) -> polars.DataFrame: ...
    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd",
        partial_ok: bool = False,
    ) -> Trailer: ...
    def write_arrow(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Literal["zstd", "lz4"] | None = "zstd",
        partial_ok: bool = False,
    ) -> Trailer: ...
    def load(
        self,
        source: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        *,
        flags: UpdateFlag = "any",
    ) -> int: ...
    def sync(
        self,
        desired: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        *,
        max_removals: float = 0.2,
        dry_run: bool = False,
    ) -> SyncReport: ...
    def count(self) -> Count: ...
    @property
    def layout(self) -> MapLayout | None: ...
    def btf(self) -> Btf: ...
    @overload
    def typed(
        self, *, elf: str | PathLike[str] | None = None, hints: Mapping[str, Hint] | None = None
    ) -> Map[Any, Any]: ...
    @overload
    def typed(
        self,
        *,
        key: type[K2] | Codec[K2],
        value: type[V2] | Codec[V2],
        elf: str | PathLike[str] | None = None,
    ) -> Map[K2, V2]: ...
    @overload
    def typed(
        self,
        *,
        key: type[K2] | Codec[K2],
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[K2, Any]: ...
    @overload
    def typed(
        self,
        *,
        value: type[V2] | Codec[V2],
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[Any, V2]: ...
    def fetch_add(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    def fetch_and(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    def fetch_or(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    def fetch_xor(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    def exchange(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    @overload
    def compare_exchange(self, key: K, expected: V, new: V, *, field: None = None) -> Exchanged[V] | None: ...
    @overload
    def compare_exchange(
        self, key: K, expected: int, new: int, *, field: str | Field
    ) -> Exchanged[int] | None: ...
    @overload
    def fetch_add_many(
        self,
        keys: Sequence[K],
        operands: Sequence[int] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> list[int | None]: ...
    @overload
    def fetch_add_many(
        self,
        keys: NDArray[Any],
        operands: NDArray[Any] | Sequence[int] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> Found: ...
    @property
    def lpm(self) -> Lpm[K, V]: ...

class Lpm(Generic[K, V]):
    def lookup_exact(self, key: K) -> V | None: ...
    def covering(self, key: K) -> list[tuple[K, V]]: ...
    def covered(
        self, key: K, *, limit: int | None = None, resume: bytes | None = None, partial_ok: bool = False
    ) -> Dump[tuple[K, V]]: ...

class Queue(MapHandle, Generic[V]):
    def push(self, value: V, *, exist: bool = False) -> None: ...
    def push_many(self, values: Iterable[V], *, exist: bool = False) -> int: ...
    def pop(self) -> V | None: ...
    def peek(self) -> V | None: ...

class Bloom(MapHandle, Generic[V]):
    def add(self, value: V) -> None: ...
    def add_many(self, values: Iterable[V]) -> int: ...
    def contains(self, value: V) -> bool: ...
    def contains_many(self, values: Iterable[V]) -> list[bool]: ...

class Dump(Iterator[T], AbstractContextManager["Dump[T]", None], Generic[T]):
    trailer: Trailer | None

    @property
    def token(self) -> bytes: ...
    def __next__(self) -> T: ...
    def close(self) -> None: ...
    def __enter__(self) -> Dump[T]: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

class Batches(Iterator["pa.RecordBatch"], AbstractContextManager["Batches", None]):
    schema: pa.Schema

    @property
    def trailer(self) -> Trailer | None: ...
    @property
    def token(self) -> bytes: ...
    @property
    def ending(self) -> dict[bytes, bytes]: ...
    def reader(self) -> pa.RecordBatchReader: ...
    def close(self) -> None: ...
    def __next__(self) -> pa.RecordBatch: ...
    def __enter__(self) -> Batches: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

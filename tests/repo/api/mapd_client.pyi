# What mapd_client exports, as built: names and signatures. tests/repo/test_public_surface.py compares them with the
# code. To change this file is to change the public surface: say why in docs/decisions.
# Map, Queue, Bloom, Lpm, Dump and Listing are made by a client, so their constructors are nobody's business.

import asyncio
import builtins
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, overload

import numpy as np
import pandas
import polars
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from mapd_api.reasons import Reason as Reason
from mapd_api.uapi import MapFlag as MapFlag
from mapd_api.uapi import MapType as MapType
from mapd_client.codec import Buffer
from mapd_client.fleet import FleetCount, FleetSum, Host, Merged
from mapd_client.info import ByteOrder, TypeAnswer
from mapd_client.layouts import MapLayout, Record
from mapd_client.typed.hints import Hint
from mapd_client.typed.shape import Shape

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T_co = TypeVar("T_co", covariant=True)

UpdateFlag: TypeAlias = Literal["any", "noexist", "exist"]
ProgramRef: TypeAlias = int | str | Pin

def connect(
    target: str | None = None,
    *,
    tls: Tls | None = None,
    timeout: float = 30.0,
    wait_for_ready: bool = False,
) -> Opening[Client]: ...
def describe(key: object, value: object, *, byteorder: ByteOrder = sys.byteorder) -> Btf: ...
def instances(kind: type[T]) -> Codec[T]: ...

class Client:
    def __init__(
        self,
        target: str | None = None,
        *,
        tls: Tls | None = None,
        timeout: float = 30.0,
        wait_for_ready: bool = False,
    ) -> None: ...
    async def server_info(self) -> ServerInfo: ...
    async def whoami(self) -> Principal: ...
    async def health(self) -> str: ...
    async def host_info(
        self,
        *,
        devices: bool = True,
        cgroups: bool = True,
        ifindexes: Iterable[int] = (),
        cgroup_ids: Iterable[int] = (),
    ) -> HostInfo: ...
    async def known_hints(self, hints: Mapping[str, Hint]) -> Mapping[str, Codec[Any]]: ...
    async def explain(
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
    async def map_stats(
        self, glob: str = "*", *, pins: bool = False, ids: bool = False, wait_for_ready: bool = True
    ) -> StatsSample: ...
    @overload
    def open_map(self, ref: MapRef | str, *, read_only: bool = False) -> Opening[Map[bytes, bytes]]: ...
    @overload
    def open_map(
        self, ref: MapRef | str, *, key: Codec[K], read_only: bool = False
    ) -> Opening[Map[K, int]]: ...
    @overload
    def open_map(
        self, ref: MapRef | str, *, key: Codec[K], value: Codec[V], read_only: bool = False
    ) -> Opening[Map[K, V]]: ...
    def open_queue(self, ref: MapRef | str, *, value: Codec[V]) -> Opening[Queue[V]]: ...
    def open_bloom(self, ref: MapRef | str, *, value: Codec[V]) -> Opening[Bloom[V]]: ...
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
    ) -> Opening[Map[K, V]]: ...
    def create_from_object(
        self,
        path: str | PathLike[str],
        *,
        convention: str = "auto",
        exist_ok: bool = False,
        names: Mapping[str, str] | None = None,
        prefix: str = "",
        pin_root: str = "/sys/fs/bpf",
    ) -> Opening[ObjectMaps]: ...
    async def rename_map(self, name: str, new_name: str) -> str: ...
    async def unpin_map(self, ref: MapRef | str) -> None: ...
    async def keep_lease_alive(self, lease: Lease | str) -> float: ...
    async def revoke_lease(self, lease: Lease | str) -> Sequence[str]: ...
    async def lease_time_to_live(self, lease: Lease | str) -> LeaseState: ...
    async def aclose(self) -> None: ...

class Listing(AsyncIterator[MapInfo]):
    sources: tuple[str, ...]
    not_looked_at: tuple[str, ...]
    async def __anext__(self) -> MapInfo: ...

@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMap:
    declared: str
    kernel_name: str
    index: int
    created: bool
    name: str
    pin: str
    btf_refused: str = ""

class ObjectMaps:
    convention: str
    rule: str
    declared: Sequence[ObjectMap]
    left_out: Sequence[str]
    def __init__(
        self,
        convention: str,
        rule: str,
        declared: Sequence[ObjectMap],
        maps: Sequence[Map[Any, Any]],
        left_out: Sequence[str],
    ) -> None: ...
    def __getitem__(self, which: str | int) -> Map[Any, Any]: ...
    def place(self, which: str | int) -> int: ...
    async def __aenter__(self) -> ObjectMaps: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...
    async def aclose(self) -> None: ...

class MapHandle:
    info: MapInfo
    created: bool
    async def pin(self, path: str) -> None: ...
    async def unpin(self, path: str) -> None: ...
    async def freeze(self) -> None: ...
    async def aclose(self) -> None: ...

class Map(MapHandle, Generic[K, V]):
    @overload
    async def lookup(self, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None: ...
    @overload
    async def lookup(
        self: Map[K, list[T]], key: K, *, cpu: int, touch: bool = False, timeout: float | None = None
    ) -> T | None: ...
    def __getitem__(self, key: K) -> Awaitable[V]: ...
    @overload
    async def update(
        self, key: K, value: V, *, flags: UpdateFlag = "any", lock: bool | None = None
    ) -> None: ...
    @overload
    async def update(
        self: Map[K, list[T]], key: K, value: T, *, cpu: int, flags: UpdateFlag = "any"
    ) -> None: ...
    async def delete(self, key: K) -> bool: ...
    async def lookup_and_delete(self, key: K) -> V | None: ...
    async def update_reference(
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
    async def lookup_many(self, keys: Sequence[K], *, touch: bool = False) -> list[V | None]: ...
    @overload
    async def lookup_many(self, keys: NDArray[Any], *, touch: bool = False) -> Found: ...
    async def update_many(
        self,
        items: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]],
        *,
        flags: UpdateFlag = "any",
    ) -> int: ...
    async def delete_many(self, keys: Iterable[K] | NDArray[Any]) -> int: ...
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
    async def to_numpy(self, *, partial_ok: bool = False) -> Arrays: ...
    def to_batches(self, *, resume: bytes | None = None, partial_ok: bool = False) -> Batches: ...
    async def to_arrow(self, *, partial_ok: bool = False) -> pa.Table: ...
    async def to_pandas(self, *, partial_ok: bool = False) -> pandas.DataFrame: ...
    async def to_polars(self, *, partial_ok: bool = False) -> polars.DataFrame: ...
    async def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd",
        partial_ok: bool = False,
    ) -> Trailer: ...
    async def write_arrow(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Literal["zstd", "lz4"] | None = "zstd",
        partial_ok: bool = False,
    ) -> Trailer: ...
    async def load(
        self,
        source: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        *,
        flags: UpdateFlag = "any",
    ) -> int: ...
    async def sync(
        self,
        desired: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        *,
        max_removals: float = 0.2,
        dry_run: bool = False,
    ) -> SyncReport: ...
    async def count(self) -> Count: ...
    @property
    def layout(self) -> MapLayout | None: ...
    async def btf(self) -> Btf: ...
    @overload
    async def typed(
        self, *, elf: str | PathLike[str] | None = None, hints: Mapping[str, Hint] | None = None
    ) -> Map[Any, Any]: ...
    @overload
    async def typed(
        self,
        *,
        key: type[K2] | Codec[K2],
        value: type[V2] | Codec[V2],
        elf: str | PathLike[str] | None = None,
    ) -> Map[K2, V2]: ...
    @overload
    async def typed(
        self,
        *,
        key: type[K2] | Codec[K2],
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[K2, Any]: ...
    @overload
    async def typed(
        self,
        *,
        value: type[V2] | Codec[V2],
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[Any, V2]: ...
    async def fetch_add(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    async def fetch_and(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    async def fetch_or(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    async def fetch_xor(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    async def exchange(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None: ...
    @overload
    async def compare_exchange(
        self, key: K, expected: V, new: V, *, field: None = None
    ) -> Exchanged[V] | None: ...
    @overload
    async def compare_exchange(
        self, key: K, expected: int, new: int, *, field: str | Field
    ) -> Exchanged[int] | None: ...
    @overload
    async def fetch_add_many(
        self,
        keys: Sequence[K],
        operands: Sequence[int] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> list[int | None]: ...
    @overload
    async def fetch_add_many(
        self,
        keys: NDArray[Any],
        operands: NDArray[Any] | Sequence[int] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> Found: ...
    @property
    def lpm(self) -> Lpm[K, V]: ...

@dataclass(frozen=True, slots=True)
class Field:
    offset: int
    size: int
    signed: bool = False

@dataclass(frozen=True, slots=True)
class Reduce:
    kind: Literal["sum", "min", "max"]
    offset: int = 0
    size: int = 8
    signed: bool = False

@dataclass(frozen=True, slots=True)
class Exchanged(Generic[T]):
    exchanged: bool
    old: T

class Lpm(Generic[K, V]):
    async def lookup_exact(self, key: K) -> V | None: ...
    async def covering(self, key: K) -> list[tuple[K, V]]: ...
    def covered(
        self, key: K, *, limit: int | None = None, resume: bytes | None = None, partial_ok: bool = False
    ) -> Dump[tuple[K, V]]: ...

class Queue(MapHandle, Generic[V]):
    async def push(self, value: V, *, exist: bool = False) -> None: ...
    async def push_many(self, values: Iterable[V], *, exist: bool = False) -> int: ...
    async def pop(self) -> V | None: ...
    async def peek(self) -> V | None: ...

class Bloom(MapHandle, Generic[V]):
    async def add(self, value: V) -> None: ...
    async def add_many(self, values: Iterable[V]) -> int: ...
    async def contains(self, value: V) -> bool: ...
    async def contains_many(self, values: Iterable[V]) -> list[bool]: ...

class Dump(AsyncIterator[T], AbstractAsyncContextManager["Dump[T]"], Generic[T]):
    trailer: Trailer | None
    @property
    def token(self) -> bytes: ...
    async def __anext__(self) -> T: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> Dump[T]: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

class Opening(AbstractAsyncContextManager[T_co], Awaitable[T_co], Protocol[T_co]): ...

class MapRef:
    @staticmethod
    def parse(text: str) -> MapRef: ...

@dataclass(frozen=True, slots=True)
class Name(MapRef):
    name: str

@dataclass(frozen=True, slots=True)
class Pin(MapRef):
    path: str

@dataclass(frozen=True, slots=True)
class Id(MapRef):
    id: int

class Codec(ABC, Generic[T]):
    size: int
    @property
    def stride(self) -> int: ...
    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[T]: ...
    @property
    def dtype(self) -> DTypeLike | None: ...
    @abstractmethod
    def encode(self, value: T) -> bytes: ...
    @abstractmethod
    def decode_many(self, column: Buffer) -> list[T]: ...
    def decode(self, data: Buffer) -> T: ...
    def encode_many(self, values: Iterable[T]) -> bytes: ...

class Bytes(Codec[bytes]):
    def __init__(self, size: int) -> None: ...
    @property
    def dtype(self) -> DTypeLike: ...
    def encode(self, value: bytes) -> bytes: ...
    def decode_many(self, column: Buffer) -> list[bytes]: ...

class Struct(Codec[tuple[Any, ...]]):
    def __init__(self, format: str) -> None: ...
    @property
    def dtype(self) -> DTypeLike | None: ...
    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[tuple[Any, ...]]: ...
    def encode(self, value: tuple[Any, ...]) -> bytes: ...
    def encode_many(self, values: Iterable[tuple[Any, ...]]) -> bytes: ...
    def decode_many(self, column: Buffer) -> list[tuple[Any, ...]]: ...

class PerCpu(Codec[list[T]]):
    def __init__(self, inner: Codec[T], possible_cpus: int | None = None) -> None: ...
    @property
    def dtype(self) -> DTypeLike | None: ...
    @property
    def stride(self) -> int: ...
    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> PerCpu[T]: ...
    def sum(self: PerCpu[int]) -> Codec[int]: ...
    def min(self: PerCpu[int]) -> Codec[int]: ...
    def max(self: PerCpu[int]) -> Codec[int]: ...
    def encode(self, value: list[T]) -> bytes: ...
    def decode_many(self, column: Buffer) -> list[list[T]]: ...

@dataclass(frozen=True, slots=True)
class Share:
    limit: int | None
    used: int

@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    name: str
    namespace: str
    attested_by: str
    roles: Sequence[str]
    policy_version: str
    contact: str
    shares: Mapping[str, Share] = ...

@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    allowed: bool
    by_key: bool
    text: str
    policy_version: str
    def __bool__(self) -> bool: ...

@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    added: int
    removed: int
    changed: int
    unchanged: int
    merged: int
    canonicalised: int = 0
    removed_first: bool = False
    dry_run: bool = False
    def __bool__(self) -> bool: ...

@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    version: str
    epoch: str
    boot_id: str
    node: str
    kernel_release: str
    byteorder: ByteOrder
    possible_cpus: int
    features: frozenset[str]
    limits: Limits
    profile: str
    backend: str
    principal: str
    namespace: str
    pin_root: str
    types: Mapping[str, TypeAnswer] = ...
    programs: frozenset[str] = ...

@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHolder:
    pid: int
    comm: str

@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramHolder:
    id: int
    name: str

@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    message_bytes: int = ...
    chunk_bytes: int = ...
    batch_elements: int = ...
    groups: int = ...
    handles: int = ...

@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    ca: str | os.PathLike[str]
    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    server_name: str | None = None

@dataclass(frozen=True, slots=True)
class Lease:
    ttl: float
    id: str = ""

@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    ttl: float
    remaining: float
    pins: Sequence[str]

@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    id: int
    type: MapType | int
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlag
    frozen: bool
    name: str
    kernel_name: str
    pin_path: str
    key_stride: int
    value_stride: int
    map_extra: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    memlock_bytes: int
    supported_operations: frozenset[str]
    iteration: str
    has_lock: bool = ...
    pins: Sequence[str] = ...
    holders: Sequence[ProcessHolder | ProgramHolder] = ...
    lease: Lease | None = None
    @property
    def type_name(self) -> str: ...
    @property
    def per_cpu(self) -> bool: ...
    @property
    def label(self) -> str: ...
    def slots(self) -> int: ...

@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    entries: int
    exact: bool
    method: str

@dataclass(frozen=True, slots=True, kw_only=True)
class MapStats:
    id: int
    name: str
    pin_path: str
    kernel_name: str
    type: MapType | int
    max_entries: int
    memlock_bytes: int
    entries: int | None
    exact: bool
    method: str
    read_elements: int | None
    written_elements: int | None
    @property
    def label(self) -> str: ...
    @property
    def type_name(self) -> str: ...

@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSample:
    maps: Sequence[MapStats]
    epoch: str
    uptime: float
    not_looked_at: Sequence[str]

@dataclass(frozen=True, slots=True, kw_only=True)
class HostClocks:
    realtime: int
    monotonic: int
    boottime: int
    error: int

@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    clocks: HostClocks | None
    devices: Mapping[int, str]
    netns: int
    cgroups: Mapping[int, str]
    cgroup_mount: str
    page_size: int
    kernel_release: str
    machine: str
    boot_id: str
    not_looked_at: Sequence[str]

class KernelTime(datetime):
    ktime: int | None
    @classmethod
    def of(cls, ktime: int, zero: int) -> KernelTime: ...

@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    entries: int
    complete: bool
    incomplete_reason: str
    method: str
    restarts: int
    duplicates_suppressed: int
    started_at: datetime
    ended_at: datetime
    map_id: int
    epoch: str
    resumed: int = 0

@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    count: int
    keys: memoryview
    values: memoryview
    key_stride: int
    value_stride: int
    token: bytes
    key_codec: Codec[Any]
    value_codec: Codec[Any]
    @property
    def keys_array(self) -> NDArray[Any]: ...
    @property
    def values_array(self) -> NDArray[Any]: ...

class Fields(Mapping[str, Any]):
    def __init__(self, shape: Shape, data: bytes) -> None: ...
    def __getitem__(self, name: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: object) -> bool: ...
    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
    def replace(self, **changes: Any) -> Fields: ...
    @property
    def layout(self) -> Record: ...
    @property
    def byteorder(self) -> ByteOrder: ...

class Arrays(tuple["NDArray[Any]", "NDArray[Any]"]):
    trailer: Trailer
    @property
    def keys(self) -> NDArray[Any]: ...
    @property
    def values(self) -> NDArray[Any]: ...

class ArrowTable(Protocol): ...

class Batches(AsyncIterator["pa.RecordBatch"], AbstractAsyncContextManager["Batches"]):
    schema: pa.Schema
    @property
    def trailer(self) -> Trailer | None: ...
    @property
    def token(self) -> bytes: ...
    @property
    def ending(self) -> dict[bytes, bytes]: ...
    def reader(self) -> pa.RecordBatchReader: ...
    async def aclose(self) -> None: ...
    async def __anext__(self) -> pa.RecordBatch: ...
    async def __aenter__(self) -> Batches: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

class Found(NamedTuple):
    values: NDArray[Any]
    present: NDArray[np.bool_]

@dataclass(frozen=True, slots=True)
class Btf:
    blob: bytes
    key_type_id: int = ...
    value_type_id: int = ...
    vmlinux_value_type_id: int = ...

class MapdError(Exception):
    reason: Reason | None
    errno: int | None
    operation: str
    map: str
    metadata: Mapping[str, str]
    retry_after: float | None
    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        errno: int | None = None,
        operation: str = "",
        map: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None: ...

class Misuse(MapdError): ...
class SizeMismatch(Misuse, ValueError): ...
class TypeMismatch(Misuse, TypeError): ...
class IndexOutOfRange(Misuse, IndexError): ...
class Unsupported(Misuse): ...
class NoTypeInfo(Misuse): ...
class Refused(MapdError): ...
class MapNotFound(Refused, LookupError): ...
class MapExists(Refused): ...
class Incompatible(Refused): ...
class KeyMissing(Refused, KeyError): ...
class KeyExists(Refused): ...
class MapFull(Refused): ...
class MapFrozen(Refused): ...
class PermissionDenied(Refused, PermissionError): ...
class RemovalsRefused(Refused): ...
class QuotaExceeded(Refused): ...

class DaemonCapability(Refused):
    @property
    def capability(self) -> str: ...
    @property
    def fix(self) -> str: ...

class BatchFailed(Refused):
    applied: int
    errors: Mapping[int, MapdError]
    failed: int
    cause: MapdError | None
    sent: int
    def __init__(
        self,
        message: str,
        *,
        applied: int = 0,
        errors: Mapping[int, MapdError] | None = None,
        failed: int | None = None,
        cause: MapdError | None = None,
        sent: int | None = None,
        operation: str = "",
        map: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None: ...

class Unreachable(MapdError):
    connected: bool

class Unavailable(Unreachable, ConnectionError): ...
class NotSent(Unreachable): ...
class OutcomeUnknown(Unreachable): ...
class DeadlineExceeded(Unreachable, TimeoutError): ...

class DumpIncomplete(Unreachable):
    trailer: Trailer | None
    token: bytes
    def __init__(
        self,
        message: str,
        *,
        trailer: Trailer | None = None,
        token: bytes = b"",
        operation: str = "dump",
        map: str = "",
    ) -> None: ...

I8: Final[Codec[int]]

I16: Final[Codec[int]]

I32: Final[Codec[int]]

I64: Final[Codec[int]]

U8: Final[Codec[int]]

U16: Final[Codec[int]]

U32: Final[Codec[int]]

U64: Final[Codec[int]]

CgroupId: Final[Codec[Any]]

Cidr4: Final[Codec[IPv4Network]]

Cidr6: Final[Codec[IPv6Network]]

IfIndex: Final[Codec[Any]]

Port: Final[Codec[int]]
Ipv4: Final[Codec[IPv4Address]]

Ipv6: Final[Codec[IPv6Address]]

Ktime: Final[Codec[Any]]

KtimeBoot: Final[Codec[Any]]

Mac: Final[Codec[str]]

class Fleet:
    def __init__(
        self,
        targets: Mapping[str, str] | Iterable[Host],
        *,
        tls: Tls | None = None,
        concurrency: int = 32,
        timeout: float = 5.0,
    ) -> None: ...
    @classmethod
    def from_toml(cls, path: str | Path, **more: Any) -> Fleet: ...
    @classmethod
    def from_file_sd(cls, path: str | Path, **more: Any) -> Fleet: ...
    def select(self, **labels: str) -> Sequence[Host]: ...
    async def each(
        self, work: Callable[[Client, str], Awaitable[T]], *, deadline: bool = True
    ) -> dict[str, T]: ...
    @overload
    def open_map(self, ref: MapRef | str) -> Opening[FleetMap[bytes, bytes]]: ...
    @overload
    def open_map(self, ref: MapRef | str, *, key: Codec[K], value: Codec[V]) -> Opening[FleetMap[K, V]]: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> Fleet: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class FleetMap(Generic[K, V]):
    def __init__(
        self,
        name: str,
        maps: Mapping[str, Map[K, V]],
        unreachable: dict[str, MapdError],
        timeout: float,
        turns: asyncio.Semaphore,
        concurrency: int,
    ) -> None: ...
    def items(self) -> Merged[tuple[str, K, V]]: ...
    def keys(self) -> Merged[tuple[str, K]]: ...
    async def lookup(self, key: K) -> Mapping[str, V | None]: ...
    async def count(self) -> FleetCount: ...
    async def sum(self) -> FleetSum: ...
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> FleetMap[K, V]: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

"""What every backend of the suite can do, in bytes; and what the types of maps are like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from mapd.bpf import Kernel, possible_cpus
from mapd.maps.counting import Counted
from mapd_api.layout import value_stride
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType

Flag = Literal["any", "noexist", "exist"]
Pair = tuple[bytes, bytes]
Field = tuple[int, int]
"""Offset and size of a part of a value, in bytes."""


@dataclass(frozen=True, slots=True)
class Types:
    """Type information for a new map."""

    blob: bytes
    key: int
    value: int


class Refused(Exception):
    """What a backend refuses, by its Reason."""

    def __init__(self, reason: Reason | None, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Facts:
    """What a backend says of a map."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    value_stride: int
    frozen: bool
    name: str
    pin_path: str
    operations: frozenset[str]


@dataclass(frozen=True, slots=True)
class Part:
    """Elements of a dump, and the token behind them."""

    keys: Sequence[bytes]
    values: Sequence[bytes]
    token: bytes


class AnyMap(Protocol):
    """One open map."""

    @property
    def facts(self) -> Facts: ...
    async def lookup(self, key: bytes) -> bytes | None: ...
    async def update(self, key: bytes, value: bytes, flag: Flag = "any") -> None: ...
    async def delete(self, key: bytes) -> bool: ...
    async def lookup_and_delete(self, key: bytes) -> bytes | None: ...
    async def lookup_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    async def update_many(self, pairs: Sequence[Pair], flag: Flag = "any") -> list[Reason]:
        """What became of each element."""
        ...

    async def delete_many(self, keys: Sequence[bytes]) -> int: ...
    async def items(self, *, prefix: bytes = b"", limit: int | None = None) -> list[Pair]: ...
    async def keys(self, *, prefix: bytes = b"", limit: int | None = None) -> list[bytes]: ...
    async def values(self, *, limit: int | None = None) -> list[bytes]: ...
    async def parts(self, *, resume: bytes | None = None) -> list[Part]:
        """A whole dump, in the parts that it comes in."""
        ...

    async def count(self) -> Counted: ...
    async def lookup_exact(self, key: bytes) -> bytes | None:
        """The value of this very prefix of a trie."""
        ...

    async def atomic(
        self, op: Op, key: bytes, operand: int, part: Field, *, expected: int = 0, create: bool = False
    ) -> int | None:
        """What the part was, without a sign; None where the key is absent."""
        ...

    async def fetch_add_many(
        self, keys: Sequence[bytes], operands: Sequence[int], part: Field, *, create: bool = False
    ) -> list[int | None]: ...
    async def compare_update(self, key: bytes, expected: bytes, new: bytes) -> bytes | None:
        """What the whole value was; None where the key is absent."""
        ...

    async def freeze(self) -> None: ...
    async def pin(self, path: Path) -> None: ...
    async def close(self) -> None: ...


class Backend(Protocol):
    """Where maps are."""

    @property
    def kernel(self) -> Kernel:
        """What the maps are in, to look at them past the backend."""
        ...

    @property
    def pins(self) -> Path:
        """A folder that maps may be pinned in."""
        ...

    def path_of(self, name: str) -> Path:
        """Where a name is pinned."""
        ...

    async def create(
        self,
        name: str,
        type: MapType,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        exist_ok: bool = False,
        btf: Types | None = None,
    ) -> AnyMap: ...

    async def open(self, ref: str, *, read_only: bool = False) -> AnyMap:
        """By "name", "pin:/path" or "id:42"."""
        ...

    async def unpin(self, ref: str) -> None: ...
    async def names(self) -> list[str]: ...


# ---- types -----------------------------------------------------------------------------------------

SIZES = (1, 3, 7, 8, 9, 64, 4095)
CPUS = possible_cpus()


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of map with sizes of its elements in bytes; keys and values of it by number."""

    type: MapType
    key_size: int
    value_size: int = 8
    max_entries: int = 64

    def __str__(self) -> str:
        return f"{self.type.name.lower()}-{self.key_size}-{self.value_size}"

    @property
    def indexed(self) -> bool:
        """Whether keys are the indexes of an array."""
        return self.type in (MapType.ARRAY, MapType.PERCPU_ARRAY)

    @property
    def per_cpu(self) -> bool:
        return self.type in PER_CPU_TYPES

    @property
    def flags(self) -> MapFlag:
        """Without these there is no such map."""
        return MapFlag.NO_PREALLOC if self.type is MapType.LPM_TRIE else MapFlag(0)

    @property
    def stride(self) -> int:
        """Bytes of a value, of all CPUs where each has its own."""
        return value_stride(self.type, self.value_size, CPUS)

    def key(self, number: int) -> bytes:
        """Of a trie the whole address."""
        if self.type is MapType.LPM_TRIE:
            size = self.key_size - 4
            return (8 * size).to_bytes(4, "little") + number.to_bytes(size, "big")
        return number.to_bytes(self.key_size, "little")

    def keys(self, numbers: Iterable[int]) -> list[bytes]:
        return [self.key(number) for number in numbers]

    def value(self, number: int) -> bytes:
        """The same for all CPUs."""
        return self.slots([number] * (CPUS if self.per_cpu else 1))

    def slots(self, numbers: Sequence[int]) -> bytes:
        """A value by the number in each slot."""
        size = self.stride // len(numbers)
        return b"".join(number.to_bytes(self.value_size, "little").ljust(size, b"\0") for number in numbers)

    def pair(self, number: int, value: int | None = None) -> Pair:
        return self.key(number), self.value(number if value is None else value)

    def pairs(self, numbers: Iterable[int]) -> list[Pair]:
        return [self.pair(number) for number in numbers]


HASH = Shape(MapType.HASH, 8)
LRU_HASH = Shape(MapType.LRU_HASH, 8, max_entries=1_024)  # far from full: it may drop elements at any time
PERCPU_HASH = Shape(MapType.PERCPU_HASH, 8)
ARRAY = Shape(MapType.ARRAY, 4)
PERCPU_ARRAY = Shape(MapType.PERCPU_ARRAY, 4)
LPM_TRIE = Shape(MapType.LPM_TRIE, 8)

KEYED = (HASH, LRU_HASH, PERCPU_HASH, LPM_TRIE)
INDEXED = (ARRAY, PERCPU_ARRAY)
SHAPES = (*KEYED, *INDEXED)

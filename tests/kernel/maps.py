"""Maps for tests: made in one line, spoken to in lists of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mapd.bpf import (
    Batch,
    BatchCommand,
    Buffer,
    Columns,
    CreateMap,
    FdLease,
    LinuxKernel,
    OwnedFd,
    possible_cpus,
)
from mapd_api.layout import value_stride
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType

KERNEL = LinuxKernel()


@dataclass(frozen=True)
class TestMap:
    """A map fd and the sizes of its elements, in bytes."""

    __test__ = False

    fd: int
    map_type: int
    key_size: int
    value_size: int
    max_entries: int

    @property
    def stride(self) -> int:
        return value_stride(self.map_type, self.value_size, possible_cpus())

    def key(self, number: int) -> bytes:
        """A key that tells its number; of an LPM trie the /32 of an address."""
        if self.map_type == MapType.LPM_TRIE:
            return (32).to_bytes(4, "little") + number.to_bytes(4, "big")
        return number.to_bytes(self.key_size, "little")

    def value(self, number: int) -> bytes:
        """A value that tells its number; per CPU the same in each slot, with zero padding."""
        slot = number.to_bytes(self.value_size, "little")
        if self.stride == self.value_size:
            return slot
        return slot.ljust(self.stride // possible_cpus(), b"\0") * possible_cpus()

    def columns(self, keys: Sequence[bytes], values: Sequence[bytes] | None = None) -> Columns:
        """Columns of these; without values, an empty value column to be written."""
        size = self.stride * len(keys)
        column = Buffer.allocate(size) if values is None else Buffer.of(b"".join(values))
        return Columns(len(keys), Buffer.of(b"".join(keys)), self.key_size, column, self.stride)

    def each(
        self, op: Op, keys: Sequence[bytes], values: Sequence[bytes] | None = None, flags: int = 0
    ) -> list[int]:
        return KERNEL.each(self.fd, op, self.columns(keys, values), flags)

    def lookup(self, keys: Sequence[bytes], op: Op = Op.LOOKUP) -> list[bytes | int]:
        """The value of each key, or its errno."""
        columns = self.columns(keys)
        errnos = KERNEL.each(self.fd, op, columns)
        assert columns.values is not None
        return [
            number or columns.values.take(self.stride, index * self.stride)
            for index, number in enumerate(errnos)
        ]

    def fill(self, count: int) -> None:
        """Elements 0 to ``count`` - 1 by their numbers."""
        numbers = range(count)
        keys, values = [self.key(n) for n in numbers], [self.value(n) for n in numbers]
        assert not any(self.each(Op.UPDATE, keys, values))

    def batch(
        self,
        command: BatchCommand,
        keys: Sequence[bytes],
        values: Sequence[bytes] | None = None,
        flags: int = 0,
    ) -> Batch:
        return KERNEL.batch(self.fd, command, self.columns(keys, values), flags)

    def walk(self) -> list[bytes]:
        """All keys by next_key."""
        keys: list[bytes] = []
        key = KERNEL.next_key(self.fd, None, self.key_size)
        while key is not None:
            keys.append(key)
            key = KERNEL.next_key(self.fd, key, self.key_size)
        return keys


class Maps:
    """Makes maps, and closes them in the end."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def create(
        self,
        map_type: MapType = MapType.HASH,
        *,
        key_size: int | None = None,
        value_size: int = 8,
        max_entries: int = 64,
        flags: int = 0,
        kernel_name: str = "mapd_test",
    ) -> TestMap:
        small_keys = (MapType.ARRAY, MapType.PERCPU_ARRAY)
        key_size = (4 if map_type in small_keys else 8) if key_size is None else key_size
        if map_type is MapType.LPM_TRIE:
            flags |= MapFlag.NO_PREALLOC
        request = CreateMap(
            map_type=map_type,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            flags=flags,
            kernel_name=kernel_name,
        )
        return self.adopt(KERNEL.control(request))

    def keep(self, resource: contextlib.AbstractContextManager[object]) -> None:
        """Close something beside the maps in the end."""
        self._stack.enter_context(resource)

    def adopt(self, owned: OwnedFd) -> TestMap:
        """Close this in the end too."""
        self._stack.enter_context(owned)
        lease: FdLease = owned.lease()
        self._stack.callback(lease.release)
        info = KERNEL.info(lease.fd)
        return TestMap(lease.fd, info.map_type, info.key_size, info.value_size, info.max_entries)

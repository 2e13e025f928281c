"""What the elements of one map do: the operations that a map type has in the kernel, by errno.

A type that lacks one answers here as Linux does; who may ask (access mode, frozen) is decided before.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from mapd.bpf.kernel import CreateMap
from mapd_api.layout import value_stride
from mapd_api.uapi import ENOTSUPP, ElementFlag

Found: TypeAlias = bytes | int
"""A key or value; or an errno."""

Row: TypeAlias = tuple[bytes, bytes]

BUT_LOCK: Final = ~int(ElementFlag.LOCK)
"""Every bit but BPF_F_LOCK; ``~`` of the flag itself would leave unknown bits out."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a map its elements depend on. Sizes in bytes; ``stride`` of a value of all CPUs.

    ``lock``: where the value has a bpf_spin_lock, which the kernel neither copies in nor out.
    """

    key_size: int
    stride: int
    max_entries: int
    map_type: int
    lock: int | None = None

    @classmethod
    def of(cls, request: CreateMap, possible_cpus: int, lock: int | None = None) -> Shape:
        """The shape of a map to create."""
        stride = value_stride(request.map_type, request.value_size, possible_cpus)
        return cls(request.key_size, stride, request.max_entries, request.map_type, lock)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch lookup found, its errno (ENOENT: the end, and ``rows`` count), and where to go on."""

    rows: Sequence[Row]
    errno: int
    cursor: bytes = b""


class Table:
    """The elements of one map. Not for two threads at once: whoever calls holds the map's lock.

    Attributes:
        batches: whether the type has (LOOKUP_BATCH, UPDATE_BATCH, DELETE_BATCH).
        takes_out: whether LOOKUP_AND_DELETE_ELEM is known for the type.
    """

    batches: tuple[bool, bool, bool] = (False, False, False)
    takes_out: bool = False

    def __init__(self, shape: Shape) -> None:
        self.shape: Final = shape

    def __len__(self) -> int:
        """Elements that take memory."""
        return 0

    def count(self) -> int:
        """bpf_map_sum_elem_count(): 0 for types that do not count."""
        return 0

    def lookup(self, key: bytes, value: bytes) -> Found:
        """MAP_LOOKUP_ELEM. ``value`` is what the caller's buffer holds, for a Bloom filter to look at."""
        raise NotImplementedError

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """MAP_UPDATE_ELEM."""
        raise NotImplementedError

    def overwrite(self, key: bytes, value: bytes) -> None:
        """Write an element that is there in place, as a program does that has looked it up."""
        self.update(key, value, ElementFlag.ANY)

    def delete(self, key: bytes) -> int:
        """MAP_DELETE_ELEM."""
        del key
        return errno.EINVAL

    def take(self, key: bytes) -> Found:
        """MAP_LOOKUP_AND_DELETE_ELEM."""
        del key
        return ENOTSUPP

    def next_key(self, key: bytes | None) -> Found:
        """MAP_GET_NEXT_KEY; begins anew where ``key`` is not there."""
        del key
        return errno.EINVAL

    def lookup_batch(self, cursor: bytes | None, count: int) -> Rows:
        """MAP_LOOKUP_BATCH by next_key, as kernel/bpf/syscall.c, generic_map_lookup_batch()."""
        rows: list[Row] = []
        key = None if cursor is None else cursor[: self.shape.key_size]
        while len(rows) < count:
            found = self.next_key(key)
            if isinstance(found, int):
                return Rows(rows, found, key or b"")
            key = found
            value = self.lookup(found, b"")
            if isinstance(value, bytes):
                rows.append((found, value))
        return Rows(rows, 0, key or b"")

    def cursor_size(self) -> int:
        """Bytes that LOOKUP_BATCH writes to its cursor."""
        return self.shape.key_size

    def stored(self, value: bytes) -> bytes:
        """A value as it is kept: without the bits of its lock."""
        lock = self.shape.lock
        return value if lock is None else value[:lock] + bytes(4) + value[lock + 4 :]


def refused_flags(flags: int, *, there: bool) -> int:
    """What NOEXIST and EXIST say of a key; other flags are EINVAL (kernel/bpf/hashtab.c, check_flags())."""
    wanted = flags & BUT_LOCK
    if wanted > ElementFlag.EXIST:
        return errno.EINVAL
    if wanted == ElementFlag.NOEXIST and there:
        return errno.EEXIST
    if wanted == ElementFlag.EXIST and not there:
        return errno.ENOENT
    return 0

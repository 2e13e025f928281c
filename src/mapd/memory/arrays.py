"""Arrays: every index is there from the start, and stays."""

from __future__ import annotations

import errno
import struct

from mapd.bpf.buffer import Buffer
from mapd.memory.table import BUT_LOCK, Found, Shape, Table
from mapd_api.layout import round_up8
from mapd_api.uapi import ElementFlag

INDEX = struct.Struct("=I")


class ArrayTable(Table):
    """ARRAY and PERCPU_ARRAY (kernel/bpf/arraymap.c). What was never written reads as zeros."""

    batches = (True, True, False)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._written: dict[int, bytes] = {}
        self._zeros = bytes(shape.stride)
        self._shared: Buffer | None = None

    @property
    def shared(self) -> bool:
        """Whether others write the memory of the elements."""
        return self._shared is not None

    def share(self) -> Buffer:
        """The elements in memory that others write too: one behind the other, each rounded up to 8 bytes.

        Raises:
            MemoryError: there is not so much.
        """
        if self._shared is None:
            slot = round_up8(self.shape.stride)
            shared = Buffer.allocate(slot * self.shape.max_entries)
            for index, value in self._written.items():
                shared.view[index * slot : index * slot + len(value)] = value
            self._shared = shared
            self._written.clear()
        return self._shared

    def __len__(self) -> int:
        return self.shape.max_entries

    def lookup(self, key: bytes, value: bytes) -> Found:
        """As ``Table.lookup``."""
        del value
        (index,) = INDEX.unpack(key)
        if index >= self.shape.max_entries:
            return errno.ENOENT
        if self._shared is not None:
            return self._shared.take(self.shape.stride, index * round_up8(self.shape.stride))
        return self._written.get(index, self._zeros)

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """As ``Table.update``."""
        (index,) = INDEX.unpack(key)
        if flags & BUT_LOCK > ElementFlag.EXIST:
            return errno.EINVAL
        if index >= self.shape.max_entries:
            return errno.E2BIG
        if flags & ElementFlag.NOEXIST:
            return errno.EEXIST
        stored = self.stored(value)
        if self._shared is not None:
            at = index * round_up8(self.shape.stride)
            self._shared.view[at : at + len(stored)] = stored
        else:
            self._written[index] = stored
        return 0

    def next_key(self, key: bytes | None) -> Found:
        """As ``Table.next_key``."""
        following = 0 if key is None else INDEX.unpack(key)[0] + 1
        if following == self.shape.max_entries:
            return errno.ENOENT
        return INDEX.pack(following if following < self.shape.max_entries else 0)


class StackTraceTable(Table):
    """STACK_TRACE (kernel/bpf/stackmap.c). Only programs fill one, and none runs here: it is empty."""

    takes_out = True

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._n_buckets = 1 << (shape.max_entries - 1).bit_length()

    def lookup(self, key: bytes, value: bytes) -> Found:
        """As ``Table.lookup``."""
        del key, value
        return errno.ENOENT

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """As ``Table.update``."""
        del key, value, flags
        return errno.EINVAL

    def delete(self, key: bytes) -> int:
        """As ``Table.delete``."""
        (index,) = INDEX.unpack(key)
        return errno.E2BIG if index >= self._n_buckets else errno.ENOENT

    def take(self, key: bytes) -> Found:
        """As ``Table.take``."""
        del key
        return errno.ENOENT

    def next_key(self, key: bytes | None) -> Found:
        """As ``Table.next_key``."""
        del key
        return errno.ENOENT

"""Maps without keys: queues, stacks, Bloom filters. An empty key column is the NULL that the kernel asks for."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections import deque
from collections.abc import Iterator
from typing import Final

from mapd.memory.table import Found, Shape, Table
from mapd_api.uapi import ElementFlag, MapType

_HASHES: Final = struct.Struct("=16I")
_DEFAULT_HASHES: Final = 5


class QueueTable(Table):
    """QUEUE and STACK (kernel/bpf/queue_stack_maps.c). Full is E2BIG; with EXIST the oldest makes room."""

    takes_out = True

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._values: deque[bytes] = deque()
        self._next = -1 if shape.map_type == MapType.STACK else 0

    def __len__(self) -> int:
        return len(self._values)

    def lookup(self, key: bytes, value: bytes) -> Found:
        """Peek."""
        del key, value
        return self._values[self._next] if self._values else errno.ENOENT

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Push."""
        del key
        if flags & ElementFlag.NOEXIST or flags > ElementFlag.EXIST:
            return errno.EINVAL
        if len(self._values) >= self.shape.max_entries:
            if not flags & ElementFlag.EXIST:
                return errno.E2BIG
            self._values.popleft()
        self._values.append(value)
        return 0

    def take(self, key: bytes) -> Found:
        """Pop."""
        found = self.lookup(key, b"")
        if self._values:
            del self._values[self._next]
        return found


class BloomTable(Table):
    """BLOOM_FILTER (kernel/bpf/bloom_filter.c): as many bits and hash functions as the kernel takes.

    So it is wrong about as often, of other values: the hash is another one.
    """

    def __init__(self, shape: Shape, hashes: int) -> None:
        super().__init__(shape)
        self._hashes = hashes or _DEFAULT_HASHES
        wanted = shape.max_entries * self._hashes // 5 * 7
        n_bits = 1 << 32 if wanted > 1 << 31 else max(64, 1 << max(wanted - 1, 0).bit_length())
        self._mask = n_bits - 1
        self._bits = bytearray(n_bits // 8)
        self._seed = os.urandom(16)

    def _places(self, value: bytes) -> Iterator[tuple[int, int]]:
        """Byte and bit of each hash."""
        digest = hashlib.blake2b(value, digest_size=_HASHES.size, key=self._seed).digest()
        for number in _HASHES.unpack(digest)[: self._hashes]:
            yield (number & self._mask) >> 3, 1 << (number & 7)

    def lookup(self, key: bytes, value: bytes) -> Found:
        """Contains: the value itself, or ENOENT."""
        del key
        return value if all(self._bits[at] & bit for at, bit in self._places(value)) else errno.ENOENT

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Add."""
        del key
        if flags != ElementFlag.ANY:
            return errno.EINVAL
        for at, bit in self._places(value):
            self._bits[at] |= bit
        return 0

    def delete(self, key: bytes) -> int:
        """As ``Table.delete``."""
        del key
        return errno.EOPNOTSUPP

    def next_key(self, key: bytes | None) -> Found:
        """As ``Table.next_key``."""
        del key
        return errno.EOPNOTSUPP

"""LPM tries: keys are prefixes, a lookup finds the longest that covers it."""

from __future__ import annotations

import errno
import struct
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

from mapd.memory.table import Found, Shape, Table, refused_flags

_LENGTH = struct.Struct("=I")


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """The leading ``length`` bits of a key; those behind them are zero in ``bits``."""

    length: int
    bits: int


class LpmTable(Table):
    """LPM_TRIE (kernel/bpf/lpm_trie.c). A full one is ENOSPC; host bits are kept as given, and mean nothing."""

    batches = (True, True, True)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._most = (shape.key_size - _LENGTH.size) * 8
        self._elements: dict[Prefix, tuple[bytes, bytes]] = {}
        self._lengths: dict[int, int] = {}  # of the prefixes there, and how many have each
        self._order: list[tuple[str, Prefix]] = []

    def __len__(self) -> int:
        return len(self._elements)

    def _own(self, key: bytes) -> Prefix:
        """The prefix that a key is."""
        return self._prefix(key, _LENGTH.unpack_from(key)[0])

    def _prefix(self, key: bytes, length: int) -> Prefix:
        """The first ``length`` bits of a key."""
        host = max(self._most - length, 0)
        return Prefix(length, int.from_bytes(key[_LENGTH.size :], "big") >> host << host)

    def _place(self, prefix: Prefix) -> tuple[str, Prefix]:
        """Sorts as the kernel walks: 0 before 1, and a prefix behind those that it covers."""
        bits = f"{prefix.bits:0{self._most}b}"[: prefix.length] if prefix.length else ""
        return bits + "2", prefix

    def lookup(self, key: bytes, value: bytes) -> Found:
        """As ``Table.lookup``: the longest prefix that covers the key, and is no longer than it."""
        del value
        asked = self._own(key)
        if asked.length <= self._most:
            for length in sorted(self._lengths, reverse=True):
                if length <= asked.length and (found := self._elements.get(self._prefix(key, length))):
                    return found[1]
        return errno.ENOENT

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """As ``Table.update``."""
        prefix = self._own(key)
        if prefix.length > self._most:
            return errno.EINVAL
        there = prefix in self._elements
        if refused := refused_flags(flags, there=there):
            return refused
        if not there:
            if len(self._elements) >= self.shape.max_entries:
                return errno.ENOSPC
            self._lengths[prefix.length] = self._lengths.get(prefix.length, 0) + 1
            insort(self._order, self._place(prefix))
        self._elements[prefix] = key, value
        return 0

    def delete(self, key: bytes) -> int:
        """As ``Table.delete``: this very prefix."""
        prefix = self._own(key)
        if prefix.length > self._most:
            return errno.EINVAL
        if self._elements.pop(prefix, None) is None:
            return errno.ENOENT
        self._lengths[prefix.length] -= 1
        if not self._lengths[prefix.length]:
            del self._lengths[prefix.length]
        del self._order[bisect_left(self._order, self._place(prefix))]
        return 0

    def next_key(self, key: bytes | None) -> Found:
        """As ``Table.next_key``."""
        following = 0
        if key is not None and (prefix := self._own(key)) in self._elements:
            following = bisect_right(self._order, self._place(prefix))
        if following == len(self._order):
            return errno.ENOENT
        return self._elements[self._order[following][1]][0]

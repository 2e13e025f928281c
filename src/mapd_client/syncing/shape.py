"""Packed columns as the kernel compares their elements. Sans-I/O.

Nothing here runs once for each element in Python: bytes are cut by ``struct``, masked as one large integer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from mapd_api.layout import round_up8
from mapd_api.uapi import MapType
from mapd_client.codec import ORDER
from mapd_client.errors import Misuse
from mapd_client.info import ByteOrder, MapInfo

_PREFIXLEN_BYTES = 4
"""struct bpf_lpm_trie_key begins with a __u32 in the host's order (include/uapi/linux/bpf.h)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the elements of a map lie in columns, and which of their bytes count.

    Attributes:
        key_stride: bytes of a key.
        value_stride: bytes of a value, all CPUs' slots.
        networks: keys are those of an LPM trie. The kernel takes two that differ behind their prefix for one
            (kernel/bpf/lpm_trie.c, ``trie_update_elem()``), and keeps those bits as they were given.
        slot: bytes of one CPU's value that count; 0 where a value has no slots.
        byteorder: of the daemon's host.
    """

    key_stride: int
    value_stride: int
    networks: bool = False
    slot: int = 0
    byteorder: ByteOrder = "little"

    def keys(self, column: bytes | memoryview, first: int = 0) -> list[bytes]:
        """Each key, without the bits that do not count; ``first`` is the place of the first, for messages.

        Raises:
            Misuse: a prefix longer than the key's address; has its place.
        """
        return cells(self._networks(column, first) if self.networks else column, self.key_stride)

    def values(self, column: bytes | memoryview, count: int) -> list[bytes]:
        """Each value; what pads a CPU's slot to 8 bytes is zeros, whatever was written there."""
        if not self.value_stride:
            return [b""] * count
        padded = round_up8(self.slot)
        if padded != self.slot:
            clean = bytearray(column)
            for at in range(self.slot, padded):
                clean[at::padded] = bytes(len(clean) // padded)
            return cells(clean, self.value_stride)
        return cells(column, self.value_stride)

    def parts(
        self, keys: memoryview, values: memoryview, count: int, each: int
    ) -> Iterator[tuple[memoryview, memoryview, int]]:
        """Columns of so many elements as columns of ``each`` at most; nothing is copied."""
        for at in range(0, count, each):
            end = min(at + each, count)
            yield (
                keys[at * self.key_stride : end * self.key_stride],
                values[at * self.value_stride : end * self.value_stride],
                end - at,
            )

    def _networks(self, column: bytes | memoryview, first: int) -> bytes:
        lengths = [*map(itemgetter(0), self._prefixes().iter_unpack(column))]
        bits = 8 * (self.key_stride - _PREFIXLEN_BYTES)
        if lengths and max(lengths) > bits:
            at, length = next((at, one) for at, one in enumerate(lengths) if one > bits)
            raise Misuse(
                f"key of element {first + at}: a prefix of {length} bits, the map's keys have {bits}"
            )
        masks = [*map(self._mask, range(bits + 1))]
        mask = b"".join(map(masks.__getitem__, lengths))
        return _both(bytes(column), mask)

    def _prefixes(self) -> struct.Struct:
        return struct.Struct(f"{ORDER[self.byteorder]}I{self.key_stride - _PREFIXLEN_BYTES}x")

    def _mask(self, length: int) -> bytes:
        size = self.key_stride - _PREFIXLEN_BYTES
        ones = (1 << 8 * size) - 1
        return b"\xff" * _PREFIXLEN_BYTES + (ones ^ (ones >> length)).to_bytes(size, "big")


def shape_of(info: MapInfo, byteorder: ByteOrder) -> Shape:
    """The shape of a map's elements."""
    return Shape(
        info.key_stride,
        info.value_stride,
        networks=info.type == MapType.LPM_TRIE,
        slot=info.value_size if info.per_cpu else 0,
        byteorder=byteorder,
    )


def cells(column: bytes | bytearray | memoryview, size: int) -> list[bytes]:
    """A packed column cut into its elements, of at least one byte each."""
    return [*map(itemgetter(0), struct.iter_unpack(f"{size}s", column))]


def _both(one: bytes, other: bytes) -> bytes:
    """The bits that are set in both, of as many bytes each."""
    return (int.from_bytes(one, "little") & int.from_bytes(other, "little")).to_bytes(len(one), "little")

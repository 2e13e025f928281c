"""The questions that only a longest-prefix-match trie answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from mapd_api.ops import Op
from mapd_client.codec import Codec
from mapd_client.dump import Dump
from mapd_client.errors import SizeMismatch
from mapd_client.info import ByteOrder

K = TypeVar("K")
V = TypeVar("V")

_LENGTH_BYTES = 4

Exact = Callable[[bytes, int], Awaitable[list[V | None]]]
"""The value of each of so many very prefixes, as packed keys."""


class Covered(Protocol[K, V]):
    """How a trie dumps what a prefix (a packed key) covers."""

    def __call__(
        self, key: bytes, limit: int | None, resume: bytes | None, partial_ok: bool, /
    ) -> Dump[tuple[K, V]]:
        """The dump."""
        ...


class Lpm(Generic[K, V]):
    """What is special about an open LPM trie; from ``Map.lpm``.

    ``Map.lookup`` answers the longest match, as the kernel does; here prefixes are told apart.
    """

    def __init__(
        self,
        key: Codec[K],
        encode: Callable[[Op, K], bytes],
        exact: Exact[V],
        covered: Covered[K, V],
        byteorder: ByteOrder,
    ) -> None:
        self._key = key
        self._encode = encode
        self._exact = exact
        self._covered = covered
        self._byteorder: ByteOrder = byteorder

    async def lookup_exact(self, key: K) -> V | None:
        """The value of this very prefix, None if the trie has it not, whatever else matches.

        Cancelled: nothing has changed.

        Raises:
            Unavailable: the trie changed all the while, so that nothing could be said.
        """
        (found,) = await self._exact(self._encode(Op.LOOKUP_EXACT, key), 1)
        return found

    async def covering(self, key: K) -> list[tuple[K, V]]:
        """The prefixes of the trie that ``key`` lies in, itself included, the longest first.

        They are looked up one after the other, in one message: not at one moment. Cancelled: nothing has
        changed.

        Raises:
            Unavailable: as ``lookup_exact``.
        """
        prefixes = self._shorter(self._encode(Op.LOOKUP_EXACT, key))
        found = await self._exact(b"".join(prefixes), len(prefixes))
        return [
            (self._key.decode(prefix), value)
            for prefix, value in zip(prefixes, found, strict=True)
            if value is not None
        ]

    def covered(
        self,
        key: K,
        *,
        limit: int | None = None,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[tuple[K, V]]:
        """The prefixes of the trie that lie in ``key``, itself included; arguments as ``Map.items``.

        The daemon reads the whole trie and sends what is asked for.
        """
        return self._covered(self._encode(Op.LOOKUP_EXACT, key), limit, resume, partial_ok)

    def _shorter(self, key: bytes) -> list[bytes]:
        """A packed key and all its prefixes, the longest first."""
        length = int.from_bytes(key[:_LENGTH_BYTES], self._byteorder)
        bits = 8 * (len(key) - _LENGTH_BYTES)
        if length > bits:
            raise SizeMismatch(f"a prefix of {length} bits; the map's addresses have {bits}")
        address = int.from_bytes(key[_LENGTH_BYTES:], "big")
        return [
            size.to_bytes(_LENGTH_BYTES, self._byteorder)
            + (address >> (bits - size) << (bits - size)).to_bytes(bits // 8, "big")
            for size in range(length, -1, -1)
        ]

"""Which keys a right holds for: sets of prefixes, applied to packed key columns without a loop over keys."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.uint8]
"""Keys of one map: shape (keys, key_size)."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""One bool a key."""

_WORD: Final = 8
"""Prefixes up to so many bytes are compared as one integer each."""

_LENGTH_BYTES: Final = 4
"""struct bpf_lpm_trie_key.prefixlen (uapi linux/bpf.h), in the host's byte order, before the address."""

_LEADING_BITS: Final = np.array([0xFF << (8 - bits) & 0xFF for bits in range(9)], np.uint8)


def rows(column: bytes | bytearray | memoryview, key_size: int) -> Rows:
    """A packed key column as rows of ``key_size`` bytes; no copy."""
    return np.frombuffer(column, np.uint8).reshape(-1, key_size)


def canonical(keys: Rows) -> Rows:
    """Keys of an LPM trie with zeros behind their prefixlen, which the trie does not look at.

    The kernel compares min(prefixlen) bits alone (kernel/bpf/lpm_trie.c, longest_prefix_match()): 10.1.2.3/8
    and 10.0.0.0/8 are one element, so a rule must see one key.
    """
    length = np.ascontiguousarray(keys[:, :_LENGTH_BYTES]).view(np.uint32).astype(np.int64)
    before: npt.NDArray[np.int64] = np.arange(0, 8 * (keys.shape[1] - _LENGTH_BYTES), 8, dtype=np.int64)
    bits: npt.NDArray[np.int64] = np.minimum(np.maximum(length - before, 0), 8)
    found = keys.copy()
    found[:, _LENGTH_BYTES:] &= _LEADING_BITS[bits]
    return found


def canonical_key(key: bytes) -> bytes:
    """The same for one key, or for the first bytes of some."""
    if len(key) <= _LENGTH_BYTES:
        return key
    number = int.from_bytes(key[:_LENGTH_BYTES], sys.byteorder)
    bits = (min(max(number - 8 * i, 0), 8) for i in range(len(key) - _LENGTH_BYTES))
    masks = (0xFF << (8 - n) & 0xFF for n in bits)
    return key[:_LENGTH_BYTES] + bytes(a & m for a, m in zip(key[_LENGTH_BYTES:], masks, strict=True))


class PrefixSet:
    """Prefixes of keys, in the fewest that say the same: what a shorter one covers is left out."""

    __slots__ = ("_by_length", "prefixes")

    def __init__(self, prefixes: Iterable[bytes]) -> None:
        kept: list[bytes] = []
        for prefix in sorted(set(prefixes)):
            # Sorted, whatever a kept prefix covers follows it directly.
            if not (kept and prefix.startswith(kept[-1])):
                kept.append(prefix)
        self.prefixes: Final[tuple[bytes, ...]] = tuple(kept)
        lengths = {len(prefix) for prefix in kept}
        self._by_length = {n: _Exact([p for p in kept if len(p) == n], n) for n in sorted(lengths)}

    def __bool__(self) -> bool:
        return bool(self.prefixes)

    def __contains__(self, key: bytes) -> bool:
        return key.startswith(self.prefixes)

    def mask(self, keys: Rows) -> Mask:
        """Which keys begin with one of them."""
        found: Mask = np.zeros(len(keys), np.bool_)
        for length, exact in self._by_length.items():
            if length <= keys.shape[1]:
                found |= exact.mask(keys)
        return found


class _Exact:
    """Prefixes of one length."""

    __slots__ = ("_length", "_sorted")

    def __init__(self, prefixes: Sequence[bytes], length: int) -> None:
        self._length = length
        table = np.frombuffer(b"".join(prefixes), np.uint8).reshape(-1, length)
        self._sorted: Final = np.sort(self._column(table))

    def mask(self, keys: Rows) -> Mask:
        if len(self._sorted) == 1:
            one = self._sorted[:1].view(np.uint8)[: self._length]
            return np.asarray((keys[:, : self._length] == one).all(axis=1), np.bool_)
        column = self._column(keys)
        at = np.searchsorted(self._sorted, column)
        at[at == len(self._sorted)] = 0
        return np.asarray(self._sorted[at] == column, np.bool_)

    def _column(self, keys: Rows) -> npt.NDArray[np.uint64] | npt.NDArray[np.void]:
        """The first bytes of each key as one thing that sorts and compares: an integer, or a void of their length."""
        if self._length > _WORD:
            return np.ascontiguousarray(keys[:, : self._length]).view(f"V{self._length}").ravel()
        words = np.zeros((len(keys), _WORD), np.uint8)
        words[:, : self._length] = keys[:, : self._length]
        return words.view(np.uint64).ravel()


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """The keys that a right holds for.

    Attributes:
        allowed: they begin with one of these; None: any key.
        denied: and with none of these.
        lpm: keys are those of an LPM trie.
    """

    allowed: tuple[bytes, ...] | None
    denied: tuple[bytes, ...] = ()
    lpm: bool = False
    _allowed: PrefixSet = field(init=False, repr=False, compare=False)
    _denied: PrefixSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_allowed", PrefixSet(self.allowed or ()))
        object.__setattr__(self, "_denied", PrefixSet(self.denied))

    @property
    def empty(self) -> bool:
        """Whether there is surely no such key: every allowed prefix is denied."""
        return self.allowed is not None and all(prefix in self._denied for prefix in self._allowed.prefixes)

    def permits(self, key: bytes) -> bool:
        """Whether it holds for one key."""
        key = canonical_key(key) if self.lpm else key
        return (self.allowed is None or key in self._allowed) and key not in self._denied

    def mask(self, keys: Rows) -> Mask:
        """The keys that it holds for; takes all of a column at once."""
        keys = canonical(keys) if self.lpm else keys
        found = np.ones(len(keys), np.bool_) if self.allowed is None else self._allowed.mask(keys)
        return found & ~self._denied.mask(keys) if self._denied else found

    def __str__(self) -> str:
        said = "every key" if self.allowed is None else f"keys that begin with {_hex(self._allowed.prefixes)}"
        return f"{said}, except with {_hex(self._denied.prefixes)}" if self._denied else said


def _hex(prefixes: Sequence[bytes]) -> str:
    shown = [prefix.hex() for prefix in prefixes[:8]]
    more = len(prefixes) - len(shown)
    return " or ".join(shown) + (f" or {more} more" if more else "")

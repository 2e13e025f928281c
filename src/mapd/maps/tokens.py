"""Where a scan stands, as bytes that outlive the daemon: what a dump is resumed by.

Version 1 has one cursor, version 2 those of several ranges of buckets with their fences (``mapd.maps.split``). Both
are read, and each scan writes the one that it needs. A scan in which keys may have come twice, or may yet, says so in
its tokens: whoever goes on from one is the only one left to tell it.
"""

from __future__ import annotations

import struct
import sys
import uuid
from dataclasses import dataclass
from typing import Final

from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts
from mapd.maps.split import MARK_BYTES, BucketRange, Fence
from mapd.maps.traits import Cursor
from mapd.maps.walkers import METHODS, BatchWalker, IndexWalker, NextKeyWalker, keyed, method_of
from mapd_api.reasons import Reason

_HEAD: Final = struct.Struct("<BBI16s")
"""version, method, map id, boot id; the cursor's bytes follow, or the ranges."""
_ONE: Final = 1
_RANGES: Final = 2
_RANGE: Final = struct.Struct("<IIIB")
"""cursor, end, the fence's reach, how many marks follow."""

_DOUBTFUL: Final = 0x80
"""Beside the method: of a scan whose rest cannot be told from what was handed out."""

MOST_RANGES: Final = 16
"""Of one token: each costs the daemon a walker."""


@dataclass(frozen=True, slots=True)
class Place:
    """One cursor of a method: the kernel's own, or b"" for the beginning."""

    method: str
    cursor: bytes = b""


Position = Place | tuple[BucketRange, ...]


def encode(position: Position, facts: MapFacts, boot_id: uuid.UUID, *, doubtful: bool = False) -> bytes:
    """The token of a position in this map."""
    doubt = _DOUBTFUL if doubtful else 0
    if isinstance(position, Place):
        method = METHODS.index(position.method) | doubt
        return _HEAD.pack(_ONE, method, facts.id, boot_id.bytes) + position.cursor
    assert len(position) <= MOST_RANGES, f"{len(position)} ranges: nobody could resume this"
    parts = [_HEAD.pack(_RANGES, METHODS.index(BatchWalker.method) | doubt, facts.id, boot_id.bytes)]
    for one in position:
        marks = sorted(one.fence.marks) if one.fence else []
        parts += [_RANGE.pack(one.cursor, one.end, one.reach, len(marks)), *marks]
    return b"".join(parts)


def doubtful(token: bytes) -> bool:
    """Whether the scan that gave out a token could no longer tell all repeats."""
    return bool(token[1] & _DOUBTFUL)


def parse(token: bytes, facts: MapFacts, boot_id: uuid.UUID) -> Position:
    """The position of a token of this map and boot.

    Raises:
        MapError: MAP_REPLACED, it is of another map or boot; BAD_SPEC, it is none.
    """
    if (
        len(token) < _HEAD.size
        or token[0] not in (_ONE, _RANGES)
        or (len(token) == _HEAD.size and token[0] == _ONE)
    ):
        raise _bad(facts, "this is no token of a dump")
    method: int
    version, method, map_id, of_boot = _HEAD.unpack_from(token)
    if (map_id, of_boot) != (facts.id, boot_id.bytes):
        raise MapError(
            Reason.MAP_REPLACED,
            f"dump {facts.label}: the token is of map {map_id}"
            + ("" if of_boot == boot_id.bytes else " before the host's last boot")
            + "; start anew",
            **facts.about("dump"),
        )
    method &= ~_DOUBTFUL
    rest, walks = token[_HEAD.size :], METHODS[method] if method < len(METHODS) else ""
    if version == _RANGES:
        found = _ranges(rest, facts) if walks == BatchWalker.method == method_of(facts) else None
        if found is None:
            raise damaged(facts)
        return found
    whole = walks == NextKeyWalker.method or keyed(facts)
    usual = method_of(facts)
    if (
        (walks != usual and (walks, usual) != (NextKeyWalker.method, BatchWalker.method))
        or len(rest) != (facts.key_stride if whole else 4)
        or _beyond(facts, walks, rest)
    ):
        raise damaged(facts)
    return Place(walks, rest)


def _ranges(data: bytes, facts: MapFacts) -> tuple[BucketRange, ...] | None:
    """The ranges of a token; None where they are none of a hash table's, in order and apart."""
    width = min(facts.key_stride, MARK_BYTES)
    found: list[BucketRange] = []
    at, before = 0, 0
    while at < len(data):
        if len(data) - at < _RANGE.size or len(found) == MOST_RANGES:
            return None
        cursor, end, reach, count = _RANGE.unpack_from(data, at)
        at += _RANGE.size
        marks = data[at : at + count * width]
        at += count * width
        if len(marks) < count * width or not before <= cursor <= end <= reach or (count and reach == end):
            return None
        fence = Fence(reach, frozenset(marks[i : i + width] for i in range(0, len(marks), width)))
        found.append(BucketRange(cursor, end, fence if reach > end else None))
        before = reach
    bucketed = facts.traits is not None and facts.traits.cursor is Cursor.BUCKET
    return tuple(found) if bucketed else None


def _beyond(facts: MapFacts, walks: str, cursor: bytes) -> bool:
    """Whether a cursor is an index that no scan comes to; the kernel would begin again at index 0."""
    if facts.traits is None or facts.traits.cursor not in (Cursor.INDEX, Cursor.INDEXES):
        return False
    # "indexes" has the next index as its cursor, the others have the last one.
    last = facts.info.max_entries if walks == IndexWalker.method else facts.info.max_entries - 1
    return int.from_bytes(cursor, sys.byteorder) > last


def damaged(facts: MapFacts) -> MapError:
    """What is said of a token that no dump of this kind gave out."""
    return _bad(facts, "the token is damaged")


def _bad(facts: MapFacts, why: str) -> MapError:
    return MapError(Reason.BAD_SPEC, f"dump {facts.label}: {why}; start anew", **facts.about("dump"))

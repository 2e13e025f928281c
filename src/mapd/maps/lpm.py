"""LPM tries: prefixes without host bits, the value of one very prefix, and prefixes within another.

A key is struct bpf_lpm_trie_key_u8: the prefix length as a u32 in the host's order, then the address with its
first bit first. The kernel matches by the prefix and stores the bits beyond it as they were last written;
mapd writes zeros there, so that one prefix has one key.
"""

from __future__ import annotations

import errno
import sys
from typing import Final

import numpy as np
import numpy.typing as npt

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Columns, Elements
from mapd.maps.errors import UNSUPPORTED
from mapd.maps.job import Job, Refused, part
from mapd.maps.widths import Run
from mapd_api.ops import Op

LENGTH_BYTES: Final = 4
_BITS: Final = np.array([0xFF << (8 - bits) & 0xFF for bits in range(9)], np.uint8)
"""The first 0 to 8 bits of a byte."""

TRIES: Final = 16
"""How often a trie that changes under a question is asked again."""

Table = npt.NDArray[np.uint8]


def canonical(keys: bytes, key_size: int) -> bytes:
    """A key column with zeros beyond each prefix: 10.0.0.77/24 becomes 10.0.0.0/24."""
    table = _table(keys, key_size)
    found = table[:, LENGTH_BYTES:]
    clean = found & _masks(table)
    if np.array_equal(found, clean):
        return keys
    return np.concatenate((table[:, :LENGTH_BYTES], clean), axis=1).tobytes()


def within(keys: bytes, key_size: int, prefix: bytes) -> npt.NDArray[np.bool_]:
    """Which keys of a column are ``prefix`` (a whole key) or longer prefixes of the same addresses."""
    table, outer = _table(keys, key_size), _table(prefix, key_size)
    outside = (table[:, LENGTH_BYTES:] ^ outer[:, LENGTH_BYTES:]) & _masks(outer)
    found: npt.NDArray[np.bool_] = (_lengths(table) >= _lengths(outer)) & ~outside.any(axis=1)
    return found


def _table(keys: bytes, key_size: int) -> Table:
    return np.frombuffer(keys, np.uint8).reshape(-1, key_size)


def _lengths(table: Table) -> npt.NDArray[np.uint32]:
    """The prefix lengths of a table of keys."""
    return np.ascontiguousarray(table[:, :LENGTH_BYTES]).view(np.uint32)[:, 0]


def _masks(table: Table) -> Table:
    """What of each address belongs to its prefix. A length beyond the address means all of it."""
    width = table.shape[1] - LENGTH_BYTES
    lengths = np.minimum(_lengths(table), 8 * width).astype(np.int16)
    bits = lengths[:, np.newaxis] - np.arange(0, 8 * width, 8, dtype=np.int16)
    masks: Table = _BITS[np.clip(bits, 0, 8)]
    return masks


def run_exact(job: Job, run: Run, columns: Columns) -> Refused | None:
    """Look up each very prefix of a run, where the kernel's lookup answers the longest match.

    A prefix with no match at all is not there. For the others get_next_key tells: the key after one that is
    absent is the trie's first key, the key after one that is there is another, or none. Both ends of the
    question are asked again, and the question with them where the trie has changed meanwhile; after
    16 times the element is BUSY. About 20 us a prefix that has a match.

    A prefix that is removed and added again between two of these calls goes unnoticed, and the value is then
    that of a shorter prefix; an update never is (the kernel replaces the node in one step).

    Source: kernel/bpf/lpm_trie.c, trie_get_next_key(), trie_lookup_elem().
    """
    errnos = job.each(Op.LOOKUP, columns)
    for at, number in enumerate(errnos):
        if number == errno.EPERM or number in UNSUPPORTED:
            return at, number
        found = number or _exact(job, part(columns, at, 1))
        if found:
            job.blank(run, at)
            job.fail(run, at, found)
    return None


def tells_prefixes_apart(elements: Elements, map_fd: int, key_size: int, value_size: int) -> bool:
    """Whether get_next_key of this kernel tells what ``run_exact`` asks of it; asked of an empty trie, for trials.

    Kernels before 6.13, and without its repair in stable ones, take a prefix for another of the same length (commit
    "bpf: Fix exact match conditions in trie_get_next_key()"). The trie holds one element afterwards.
    """
    there, other = (
        (8).to_bytes(LENGTH_BYTES, sys.byteorder) + bytes([first]).ljust(key_size - LENGTH_BYTES, b"\0")
        for first in (0, 1)
    )
    element = Columns(1, Buffer.of(there), key_size, Buffer.allocate(value_size), value_size)
    if elements.each(map_fd, Op.UPDATE, element) != [0]:
        return True  # nothing can be learnt here, so nothing is taken away
    return elements.next_key(map_fd, other, key_size) == there


def _may_follow(key: bytes, following: bytes) -> bool:
    """Whether a trie's walk can go from one prefix to the other: up to one that covers it, or on to higher addresses.

    Not to one that it covers itself: those come before it.

    Source: kernel/bpf/lpm_trie.c, trie_get_next_key(): children before their parents, the left before the right.
    """
    if within(following, len(key), key)[0]:
        return False
    return following[LENGTH_BYTES:] > key[LENGTH_BYTES:] or bool(within(key, len(key), following)[0])


def _exact(job: Job, column: Columns) -> int:
    """0 and the value in its column where the prefix is in the trie; else ENOENT, or EBUSY."""
    size = column.key_stride
    key = column.keys.take(size, column.key_offset)

    def after(which: bytes | None) -> bytes | None:
        return job.kernel.next_key(job.map_fd, which, size)

    for _ in range(TRIES):
        first, following = after(None), after(key)
        if first is None:
            return errno.ENOENT
        (number,) = job.each(Op.LOOKUP, column)
        if after(key) != following or after(None) != first:
            continue
        if following == first:
            return errno.ENOENT
        if following is not None and not _may_follow(key, following):
            continue  # the first key of a moment ago: it came and went between two of these calls
        if number == 0:
            return 0
    return errno.EBUSY

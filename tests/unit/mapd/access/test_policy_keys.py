"""Key filters: whole columns at once, as one key at a time would be."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.access.policy.keys import KeyFilter, PrefixSet, canonical, canonical_key, rows
from mapd_api.uapi import MapType
from tests.unit.mapd.access.reference import Map, begins, one_key

SIZES = st.sampled_from((1, 2, 4, 7, 8, 9, 16, 40))


def prefixes(longest: int = 16) -> st.SearchStrategy[list[bytes]]:
    letters = st.sampled_from((0, 1, 255))
    return st.lists(st.lists(letters, min_size=1, max_size=longest).map(bytes), max_size=12)


@st.composite
def columns(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    size = draw(SIZES)
    letters = st.lists(st.sampled_from((0, 1, 255)), min_size=size, max_size=size).map(bytes)
    return size, draw(st.lists(letters, max_size=20))


@settings(max_examples=300, deadline=None)
@given(columns(), st.one_of(st.none(), prefixes()), prefixes())
def test_a_column_is_filtered_as_its_keys_one_by_one(
    column: tuple[int, list[bytes]], allowed: list[bytes] | None, denied: list[bytes]
) -> None:
    size, keys = column
    keys_of = KeyFilter(None if allowed is None else tuple(allowed), tuple(denied))
    expected = [
        (allowed is None or begins(None, key, allowed)) and not begins(None, key, denied) for key in keys
    ]
    assert keys_of.mask(rows(b"".join(keys), size)).tolist() == expected
    assert [keys_of.permits(key) for key in keys] == expected


def test_a_column_of_a_message_is_not_copied_to_be_looked_at() -> None:
    column = memoryview(bytes(range(16)))
    assert np.shares_memory(rows(column, 4), np.frombuffer(column, np.uint8))


@pytest.mark.parametrize("length", [1, 3, 8, 9, 12])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_many_prefixes_of_every_length_are_found(length: int, count: int) -> None:
    """One, an integer's worth, and longer ones are looked for in three ways."""
    rng = np.random.default_rng(length * count)
    keys = rng.integers(0, 256, (2_000, 16), np.uint8)
    wanted = [keys[i, :length].tobytes() for i in range(0, 2_000, 2_000 // count)][:count]
    found = PrefixSet(wanted).mask(keys)
    assert found.tolist() == [bytes(key).startswith(tuple(wanted)) for key in keys]
    assert count <= found.sum()


def test_zeros_at_the_end_of_a_prefix_count() -> None:
    """Strings of fixed length drop them, in numpy as in C."""
    keys = rows(bytes.fromhex("0a000000 0a010000 0a000100"), 4)
    assert PrefixSet([b"\x0a\0"]).mask(keys).tolist() == [True, False, True]
    nine = rows(b"\x0a" + bytes(8) + b"\x0a" + bytes(7) + b"\1", 9)
    assert PrefixSet([b"\x0a" + bytes(8), b"\x0b" + bytes(8)]).mask(nine).tolist() == [True, False]


def test_a_prefix_that_a_shorter_one_covers_is_left_out() -> None:
    assert PrefixSet([b"ab", b"a", b"b", b"abc", b"a"]).prefixes == (b"a", b"b")


@pytest.mark.parametrize(
    ("allowed", "denied", "empty"),
    [
        ((b"ab",), (b"a",), True),
        ((b"ab",), (b"ab",), True),
        ((b"a",), (b"ab",), False),
        ((), (), True),
        (None, (b"a",), False),
    ],
)
def test_a_filter_whose_every_prefix_is_denied_is_empty(
    allowed: tuple[bytes, ...] | None, denied: tuple[bytes, ...], empty: bool
) -> None:
    assert KeyFilter(allowed, denied).empty is empty


def trie_key(length: int, data: str) -> bytes:
    return length.to_bytes(4, sys.byteorder) + bytes.fromhex(data)


@pytest.mark.parametrize(
    ("length", "data", "seen"),
    [
        (8, "0a010203", "0a000000"),
        (32, "0a010203", "0a010203"),
        (20, "0a01ff03", "0a01f000"),
        (0, "ffffffff", "00000000"),
        (99, "0a010203", "0a010203"),
    ],
)
def test_what_a_trie_does_not_look_at_is_no_part_of_its_key(length: int, data: str, seen: str) -> None:
    """10.1.2.3/8 and 10.0.0.0/8 are one element: a rule about the one that saw no other would be passed by."""
    key = trie_key(length, data)
    assert canonical_key(key) == trie_key(length, seen)
    assert canonical(rows(key, 8)).tobytes() == trie_key(length, seen)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 70), st.binary(min_size=8, max_size=8)), max_size=10))
def test_keys_of_tries_are_seen_alike_one_by_one_and_together(drawn: list[tuple[int, bytes]]) -> None:
    of = Map(MapType.LPM_TRIE, 12)
    keys = [length.to_bytes(4, sys.byteorder) + data for length, data in drawn]
    together = canonical(rows(b"".join(keys), 12))
    assert [bytes(key) for key in together] == [one_key(of, key) for key in keys]
    assert [canonical_key(key) for key in keys] == [one_key(of, key) for key in keys]


def test_a_column_is_left_as_it_was() -> None:
    column = bytearray(trie_key(8, "0a010203"))
    before = bytes(column)
    KeyFilter(None, (trie_key(8, "0a"),), lpm=True).mask(rows(column, 8))
    assert bytes(column) == before


def test_a_denied_prefix_of_a_trie_is_denied_however_it_is_spelt() -> None:
    denied = KeyFilter(None, (trie_key(20, "0a01f0"),), lpm=True)
    spellings = [trie_key(20, "0a01f000"), trie_key(20, "0a01ff77"), trie_key(20, "0a01e000")]
    assert [denied.permits(key) for key in spellings] == [False, False, True]
    assert denied.mask(rows(b"".join(spellings), 8)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("keys_of", "words"),
    [
        (KeyFilter((b"\x0a", b"\x0b\x01")), "keys that begin with 0a or 0b01"),
        (KeyFilter(None, (b"\x0a",)), "every key, except with 0a"),
        (KeyFilter(tuple(bytes([i]) for i in range(10))), "06 or 07 or 2 more"),
    ],
)
def test_a_filter_says_which_keys(keys_of: KeyFilter, words: str) -> None:
    assert words in str(keys_of)

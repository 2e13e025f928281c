"""What a scan leaves out and reduces, against the same done element by element."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts
from mapd.maps.reduce import Reducing, Reduction
from mapd.maps.scan import Scan
from mapd.maps.select import ByteRange, ScanOptions, Selection
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.unit.mapd.dictkernel import CPUS, DictKernel, DictMap, described, n, raw_info

SLOT = 24
"""Bytes of a CPU's slot for values of 19 to 24 bytes."""

COMBINE: dict[Reducing, Callable[[list[int]], int]] = {
    Reducing.SUM: sum,
    Reducing.MIN: min,
    Reducing.MAX: max,
}


def percpu(value_size: int = 21) -> MapFacts:
    return described(MapType.PERCPU_HASH, value_size=value_size)


def by_hand(values: Sequence[bytes], reductions: Sequence[Reduction], value_size: int) -> list[bytes]:
    """Each reduction with Python's own integers."""
    found: list[bytes] = []
    for value in values:
        slots = [value[at : at + SLOT] for at in range(0, len(value), SLOT)]
        out = bytearray(value_size)
        for one in reductions:
            numbers = [
                int.from_bytes(slot[one.offset : one.end], sys.byteorder, signed=one.signed) for slot in slots
            ]
            number = COMBINE[one.kind](numbers) % (1 << 8 * one.size)
            out[one.offset : one.end] = number.to_bytes(one.size, sys.byteorder)
        found.append(bytes(out))
    return found


def columns(
    facts: MapFacts, options: ScanOptions, keys: Sequence[bytes], values: Sequence[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """The rows that a selection makes of these."""
    selection = Selection(options, facts)
    count, key_column, value_column = selection.columns(
        memoryview(b"".join(keys)), memoryview(b"".join(values))
    )
    stride, width = facts.key_stride, selection.value_bytes
    assert len(key_column) == count * stride * options.keys
    assert len(value_column) == count * width
    return (
        [key_column[at : at + stride] for at in range(0, len(key_column), stride)],
        [value_column[at : at + width] for at in range(0, len(value_column), width or 1)],
    )


@st.composite
def reductions(draw: st.DrawFn, value_size: int = 21) -> list[Reduction]:
    """Some that do not overlap, aligned or not."""
    found: list[Reduction] = []
    at = 0
    while True:
        at += draw(st.integers(0, 4))
        size = draw(st.sampled_from([1, 2, 4, 8]))
        if at + size > value_size:
            return found
        found.append(Reduction(at, size, draw(st.booleans()), draw(st.sampled_from(Reducing))))
        at += size


@given(reductions(), st.lists(st.binary(min_size=CPUS * SLOT, max_size=CPUS * SLOT), max_size=8), st.data())
def test_reductions_are_what_one_would_add_up_by_hand(
    wanted: list[Reduction], values: list[bytes], data: st.DataObject
) -> None:
    if not wanted:
        return
    keys = [n(at) for at in range(len(values))]
    order = tuple(data.draw(st.permutations(wanted)))
    got_keys, got = columns(percpu(), ScanOptions(reductions=order), keys, values)
    assert (got_keys, got) == (keys, by_hand(values, wanted, 21))
    offset = data.draw(st.integers(0, 20))
    size = data.draw(st.integers(1, 21 - offset))
    _, part = columns(
        percpu(), ScanOptions(reductions=order, value_range=ByteRange(offset, size)), keys, values
    )
    assert part == [value[offset : offset + size] for value in by_hand(values, wanted, 21)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_sum_wraps_at_the_fields_size_and_touches_nothing_beside_it(size: int) -> None:
    value = b"".join((b"\xff" * size).rjust(size + 1, b"\xaa").ljust(SLOT, b"\xaa") for _ in range(CPUS))
    _, (got,) = columns(
        percpu(), ScanOptions(reductions=(Reduction(1, size, False, Reducing.SUM),)), [n(0)], [value]
    )
    expected = (-CPUS % (1 << 8 * size)).to_bytes(size, sys.byteorder)
    assert got == b"\0" + expected + bytes(20 - size)


@given(
    st.lists(st.tuples(st.binary(min_size=4, max_size=4), st.sampled_from([b"\0" * 11, b"\0" * 10 + b"\1"]))),
    st.binary(max_size=2),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_filters_and_a_range_are_what_one_would_pick_by_hand(
    rows: list[tuple[bytes, bytes]], prefix: bytes, nonzero: bool, with_values: bool, part: bool
) -> None:
    rows = [(prefix[:1] + key[1:] if key[0] % 2 and prefix else key, value) for key, value in rows]
    options = ScanOptions(
        prefix=prefix,
        nonzero_values=nonzero,
        values=with_values,
        value_range=ByteRange(2, 9) if part and with_values else None,
    )
    got = columns(described(value_size=11), options, [key for key, _ in rows], [value for _, value in rows])
    wanted = [(key, value) for key, value in rows if key.startswith(prefix) and (any(value) or not nonzero)]
    assert got[0] == [key for key, _ in wanted]
    assert got[1] == [value[2:11] if part else value for _, value in wanted] * with_values


def test_nonzero_looks_at_all_cpus_before_they_are_reduced() -> None:
    """What adds up to zero is not zero, and neither is what the range leaves out."""
    one, minus_one = b"\1" + bytes(7), b"\xff" * 8
    facts = described(MapType.PERCPU_HASH, value_size=8)
    options = ScanOptions(
        nonzero_values=True,
        reductions=(Reduction(0, 8, False, Reducing.SUM),),
        value_range=ByteRange(7, 1),
    )
    assert columns(facts, options, [n(1), n(2)], [one + minus_one, bytes(16)]) == ([n(1)], [b"\0"])


@pytest.mark.parametrize(
    ("options", "width"),
    [
        (ScanOptions(), 48),
        (ScanOptions(values=False), 0),
        (ScanOptions(value_range=ByteRange(40, 8)), 8),
        (ScanOptions(reductions=(Reduction(0, 4, False, Reducing.MAX),)), 21),
        (ScanOptions(reductions=(Reduction(0, 4, False, Reducing.MAX),), value_range=ByteRange(0, 4)), 4),
    ],
)
def test_how_wide_values_will_be_is_known_before(options: ScanOptions, width: int) -> None:
    assert Selection(options, percpu()).value_bytes == width


SUM = Reduction(0, 8, False, Reducing.SUM)


@pytest.mark.parametrize(
    ("options", "reason", "said"),
    [
        (
            ScanOptions(reductions=(Reduction(16, 8, False, Reducing.SUM),)),
            Reason.BAD_SPEC,
            "bytes 16 to 24 .* 21",
        ),
        (
            ScanOptions(reductions=(Reduction(0, 3, False, Reducing.SUM),)),
            Reason.BAD_SPEC,
            "an integer of 3 bytes",
        ),
        (
            ScanOptions(reductions=(Reduction(0, 0, False, Reducing.SUM),)),
            Reason.BAD_SPEC,
            "an integer of 0 bytes",
        ),
        (
            ScanOptions(reductions=(Reduction(6, 4, False, Reducing.MIN), SUM)),
            Reason.BAD_SPEC,
            "bytes 0 to 8 and 6 to 10 .* overlap",
        ),
        (ScanOptions(reductions=(SUM,) * 65), Reason.BAD_SPEC, f"65 reductions; .* {limits.REDUCTIONS}"),
        (ScanOptions(value_range=ByteRange(48, 1)), Reason.BAD_SPEC, "1 bytes from byte 48; values have 48"),
        (ScanOptions(value_range=ByteRange(0, 0)), Reason.BAD_SPEC, "0 bytes from byte 0"),
        (
            ScanOptions(reductions=(SUM,), value_range=ByteRange(20, 2)),
            Reason.BAD_SPEC,
            "2 bytes from byte 20; reduced values have 21",
        ),
        (
            ScanOptions(values=False, value_range=ByteRange(0, 1)),
            Reason.BAD_SPEC,
            "value_range of a dump of keys alone",
        ),
        (ScanOptions(values=False, reductions=(SUM,)), Reason.BAD_SPEC, "reductions of a dump of keys alone"),
    ],
)
def test_what_values_have_no_room_for_is_refused_with_the_numbers(
    options: ScanOptions, reason: Reason, said: str
) -> None:
    with pytest.raises(MapError, match=said) as caught:
        Selection(options, percpu())
    assert caught.value.reason is reason


def test_a_type_without_slots_has_nothing_to_reduce() -> None:
    with pytest.raises(MapError, match="hash maps have one value per key") as caught:
        Selection(ScanOptions(reductions=(SUM,)), described(value_size=8))
    assert caught.value.reason is Reason.OPERATION_UNSUPPORTED


@pytest.mark.parametrize("limit", [1, 7, 40, 41, 100])
@pytest.mark.parametrize("prefix", [b"", b"\x05"])
def test_a_limit_counts_what_passes_and_tokens_resume_behind_it(limit: int, prefix: bytes) -> None:
    kernel = DictKernel()
    made = DictMap(raw_info(max_entries=1_000))
    made.elements = {n(at): n(at % 3) for at in range(600)}
    opened = kernel.open(made)
    wanted = {key for key, value in made.elements.items() if any(value) and key.startswith(prefix)}
    found: list[bytes] = []
    token = b""
    with opened.lease() as map_fd:
        while True:
            options = ScanOptions(nonzero_values=True, prefix=prefix, limit=limit, token=token)
            scan = Scan(kernel, opened.facts, options, uuid.UUID(int=7))
            got: list[bytes] = []
            tokens: list[bytes] = []
            while not scan.done:
                page = scan.page(map_fd, 64)
                got += [page.keys[at : at + 4] for at in range(0, len(page.keys), 4)]
                tokens.append(page.token)
            assert len(got) == scan.entries <= limit
            found += got
            if not tokens[-1] or len(got) < limit:
                break  # cut inside a bucket, where no token resumes; or the end
            token = tokens[-1]
    assert len(set(found)) == len(found)
    assert set(found) <= wanted
    if tokens[-1]:
        assert set(found) == wanted
    opened.fd.close()

"""A scan in ranges: whatever is written between two reads, in whatever order the ranges are read and resumed.

The kernel here is a dict whose buckets are told by a key's first byte; tests/kernel/test_split.py has the real one.
"""

from __future__ import annotations

import errno
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.bpf import Fault, FaultyKernel
from mapd.bpf.abi import Command
from mapd.maps import split
from mapd.maps.errors import MapError
from mapd.maps.part import Part
from mapd.maps.scan import Page, Scan, ScanOptions
from mapd.maps.split import END, BucketRange, Fence, boundaries, mark, n_buckets
from mapd.maps.tokens import MOST_RANGES, encode, parse
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP, MapType
from tests.unit.mapd.dictkernel import DictKernel, DictMap, described, n, raw_info

BOOT: Final = uuid.UUID(int=7)
BUCKETS: Final = 256
ROW: Final = 8


def key(bucket: int, number: int = 0) -> bytes:
    return bytes([bucket, number, 0, 0])


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Maps of a few buckets are split, and a fence is a few elements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "SPLIT_FROM", 4)
        patch.setattr(split, "FENCE_ELEMENTS", 3)
        yield


@dataclass
class Bench:
    """One map on a dict kernel, and what scans of it have handed out."""

    ranges: int = 2
    options: ScanOptions = field(default_factory=ScanOptions)
    map: DictMap = field(default_factory=lambda: DictMap(raw_info(max_entries=BUCKETS), buckets=BUCKETS))
    pages: list[Page] = field(default_factory=list[Page])
    doubts: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.kernel = DictKernel()
        self.faulty = FaultyKernel(self.kernel)
        self.opened = self.kernel.open(self.map)
        self.scan = self.begin()

    def begin(self, token: bytes = b"") -> Scan:
        options = ScanOptions(
            token=token, prefix=self.options.prefix, limit=self.options.limit, values=self.options.values
        )
        self.scan = Scan(self.faulty, self.opened.facts, options, BOOT, ranges=self.ranges)
        return self.scan

    def step(self, at: int = 0, rows: int = 4) -> Page:
        """Read on in one of the parts, and hand it out."""
        part = self.scan.parts[at % len(self.scan.parts)]
        page = self.hand_out(part, rows)
        self.pages.append(page)
        return page

    def hand_out(self, part: Part, rows: int) -> Page:
        with self.opened.lease() as map_fd:
            return self.scan.hand_out(part, self.scan.read(part, map_fd, rows * ROW))

    def rest(self, rows: int = 4) -> None:
        while not self.scan.done:
            self.step(rows=rows)
        self.doubts.append(self.scan.incomplete)

    @property
    def keys(self) -> Counter[bytes]:
        joined = b"".join(page.keys for page in self.pages)
        return Counter(joined[at : at + 4] for at in range(0, len(joined), 4))

    def close(self) -> None:
        self.opened.fd.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_scan_begins_with_the_fences_and_goes_on_in_ranges(bench: Bench) -> None:
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    assert len(bench.scan.parts) == bench.scan.width == 1
    first = bench.step()
    assert first.keys == b"".join(key(bucket) for bucket in (128, 129, 130))
    assert len(bench.scan.parts) == bench.scan.width == 2
    assert bench.step(1).keys[:4] == key(131)
    assert bench.step(0).keys[:4] == key(0)
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))
    assert (bench.scan.entries, bench.scan.method, bench.scan.incomplete) == (BUCKETS, "lookup_batch", "")


@pytest.mark.parametrize("ranges", [2, 3, 4, 16])
@pytest.mark.parametrize(
    "filled", [[], [0], [255], [127], [128], [127, 128], [0, 255], [64, 192], [*range(120, 136)]]
)
def test_few_elements_come_once_wherever_they_are(ranges: int, filled: list[int]) -> None:
    bench = Bench(ranges)
    bench.map.elements = {key(bucket, number): n(0) for bucket in filled for number in range(2)}
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))
    assert bench.doubts == [""]
    bench.close()


ELEMENTS = st.dictionaries(st.integers(0, 255), st.integers(1, 3), max_size=80)
CHANGE = st.tuples(st.integers(96, 160), st.integers(4, 6), st.booleans())
STEP = st.tuples(st.integers(0, 7), st.integers(1, 12), st.lists(CHANGE, max_size=12), st.integers(0, 9))


@settings(max_examples=400, deadline=None)
@given(st.integers(2, 4), ELEMENTS, st.lists(STEP, max_size=60), st.booleans())
def test_what_is_there_throughout_comes_once_and_nothing_twice(
    ranges: int,
    filled: dict[int, int],
    steps: list[tuple[int, int, list[tuple[int, int, bool]], int]],
    long: bool,
) -> None:
    """Other keys come and go around the boundaries; the scan is now and then resumed from its last token."""
    bench = Bench(ranges)
    stable = {key(bucket, number): n(0) for bucket, count in filled.items() for number in range(count)}
    bench.map.elements = dict(stable)
    token = b""
    for at, rows, changes, resume in steps:
        if bench.scan.done:
            break
        token = bench.step(at, rows).token or token
        for bucket, number, there in changes:
            if there:
                bench.map.elements[key(bucket, number)] = n(1)
            else:
                bench.map.elements.pop(key(bucket, number), None)
        if resume == 0 and token and bench.pages[-1].token:
            bench.begin(token)  # and who goes on knows what was doubtful before
    bench.rest(rows=100 if long else 5)
    assert {one: bench.keys[one] for one in stable} == dict.fromkeys(stable, 1)
    twice = [one for one, count in bench.keys.items() if count > 1]
    assert not twice or any(bench.doubts)
    bench.close()


def test_a_part_that_reads_while_another_is_handed_out_is_not_in_the_token(bench: Bench) -> None:
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    bench.step()
    low, high = bench.scan.parts
    with bench.opened.lease() as map_fd:
        lost = bench.scan.read(low, map_fd, 40 * ROW)
        page = bench.scan.hand_out(high, bench.scan.read(high, map_fd, 40 * ROW))
    assert lost.count == page.count == 40
    bench.pages.append(page)
    bench.begin(page.token)
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))


def test_what_came_behind_the_fence_was_read_is_handed_out_by_the_range_before(bench: Bench) -> None:
    """The next range goes on behind its fence: nobody else would."""
    bench.map.elements = {key(bucket): n(0) for bucket in (10, 128, 140, 150, 200)}
    bench.step(rows=6)
    bench.map.elements[key(129)] = n(0)
    bench.rest(rows=40)
    assert bench.keys == Counter(list(bench.map.elements))
    assert bench.scan.duplicates == 3  # of the fence, met again


def emptied(bench: Bench, last: int) -> None:
    """A map whose elements behind the boundary go once its fence, 128 to 130 and the next in 131, was read."""
    bench.map.elements = {key(bucket): n(0) for bucket in (10, last, 128, 129, 130, 131, 200, 210)}
    bench.step(rows=6)
    for bucket in (128, 129, 130, 131):
        del bench.map.elements[key(bucket)]


def test_a_fence_that_was_emptied_is_settled_by_looking_again(bench: Bench) -> None:
    emptied(bench, last=127)
    bench.step(0, rows=1)
    del bench.map.elements[key(127)]
    bench.rest(rows=40)
    assert bench.keys == Counter(key(bucket) for bucket in (10, 128, 129, 130, 200, 210))
    assert bench.doubts == [""]


def test_what_is_left_before_an_emptied_fence_comes_and_is_told_to_be_doubtful(bench: Bench) -> None:
    emptied(bench, last=127)
    bench.step(0, rows=1)
    assert (bench.keys[key(10)], bench.scan.incomplete) == (1, "")
    bench.step(0, rows=2)
    assert bench.keys[key(127)] == 1
    assert "all elements behind the end of a part were removed" in bench.scan.incomplete
    bench.rest()
    assert bench.keys == Counter(key(bucket) for bucket in (10, 127, 128, 129, 130, 200, 210))


def test_a_crowded_bucket_at_a_boundary_is_no_boundary(bench: Bench) -> None:
    bench.map.elements = {key(128, number): n(0) for number in range(20)} | {key(3): n(0), key(200): n(0)}
    bench.step(rows=8)
    assert len(bench.scan.parts) == 1
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))


def test_a_crowded_last_bucket_of_a_range_gets_the_room_it_needs(bench: Bench) -> None:
    bench.map.elements = {key(127, number): n(0) for number in range(40)}
    bench.map.elements |= {key(128, number): n(0) for number in range(2)}
    bench.rest(rows=4)
    assert bench.keys == Counter(list(bench.map.elements))
    assert bench.doubts == [""]


def test_with_a_limit_nothing_is_split() -> None:
    bench = Bench(options=ScanOptions(limit=5))
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    assert bench.step(rows=100).count == 5
    assert bench.scan.done
    assert bench.keys == Counter(key(bucket) for bucket in range(5))
    bench.close()


def test_a_limit_behind_a_token_of_ranges_reads_them_one_after_the_other() -> None:
    bench = Bench()
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    token = bench.step(rows=8).token
    bench.options = ScanOptions(limit=200)
    bench.begin(token)
    while not bench.scan.done:
        assert bench.scan.width == 1
        bench.step(rows=50)
    assert bench.scan.entries == 200
    assert max(bench.keys.values()) == 1
    bench.close()


def test_a_prefix_leaves_other_keys_out_of_all_ranges_and_of_no_fence() -> None:
    bench = Bench(options=ScanOptions(prefix=bytes([129])))
    bench.map.elements = {key(bucket, number): n(0) for bucket in range(BUCKETS) for number in range(3)}
    bench.rest(rows=30)
    assert bench.keys == Counter(key(129, number) for number in range(3))
    bench.close()


def test_a_token_of_one_cursor_is_taken_up_in_ranges() -> None:
    bench = Bench(ranges=1)
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    token = bench.step(rows=10).token
    assert token[0] == 1
    bench.ranges = 2
    bench.begin(token)
    assert bench.step().keys[:4] == key(10 + (BUCKETS - 10) // 2)
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))
    bench.close()


def test_a_token_behind_the_last_page_resumes_to_nothing(bench: Bench) -> None:
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    bench.rest(rows=50)
    bench.begin(bench.pages[-1].token)
    assert bench.scan.done
    assert bench.scan.incomplete == ""


def test_a_kernel_without_batches_is_walked_by_key(bench: Bench) -> None:
    bench.faulty.add(Fault(target=Command.MAP_LOOKUP_BATCH, errno=ENOTSUPP))
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))
    assert bench.scan.method == "next_key"


def test_a_range_that_the_kernel_refuses_is_no_walk_by_key(bench: Bench) -> None:
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    bench.step()
    bench.faulty.add(Fault(target=Command.MAP_LOOKUP_BATCH, errno=ENOTSUPP))
    with pytest.raises(MapError) as caught:
        bench.step()
    assert caught.value.reason is Reason.OPERATION_UNSUPPORTED


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR])
def test_a_bad_moment_is_tried_again(bench: Bench, number: int) -> None:
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    bench.faulty.add(Fault(target=Command.MAP_LOOKUP_BATCH, nth=1, after=True, errno=number))
    bench.faulty.add(Fault(target=Command.MAP_LOOKUP_BATCH, nth=5, after=True, errno=number))
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))


@pytest.mark.parametrize(
    ("map_type", "max_entries", "ranges", "cuts"),
    [
        (MapType.HASH, 256, 2, [128]),
        (MapType.HASH, 200, 4, [64, 128, 192]),
        (MapType.HASH, 3, 2, [2]),
        (MapType.HASH, 2, 2, []),
        (MapType.HASH, 256, 1, []),
    ],
)
def test_cuts_are_even_and_small_maps_are_not_cut(
    map_type: MapType, max_entries: int, ranges: int, cuts: list[int]
) -> None:
    bench = Bench(map=DictMap(raw_info(map_type, max_entries=max_entries)))
    assert boundaries(bench.opened.facts, 0, ranges) == cuts
    assert n_buckets(bench.opened.facts) >= max_entries
    bench.close()


def test_long_keys_are_remembered_by_a_hash() -> None:
    assert mark(bytes(16)) == bytes(16)
    assert len(mark(bytes(17))) == 16
    assert mark(bytes(17)) != mark(bytes(18))


# ---- tokens ------------------------------------------------------------------------------------

RANGES = (
    BucketRange(3, 100, Fence(104, frozenset({n(1), n(2)}))),
    BucketRange(104, 200, Fence(END, frozenset())),
)


def test_ranges_and_their_fences_come_back_from_a_token() -> None:
    facts = described()
    assert parse(encode(RANGES, facts, BOOT), facts, BOOT) == RANGES
    assert parse(encode((), facts, BOOT), facts, BOOT) == ()


@given(st.binary(max_size=60), st.integers(0, 80))
def test_no_bytes_behind_a_tokens_head_do_anything_but_work_or_be_refused(noise: bytes, kept: int) -> None:
    facts = described()
    head, body = (whole := encode(RANGES, facts, BOOT))[:22], whole[22:]
    refused: Reason | None = None
    ranges = 0
    try:
        ranges = len(cast("tuple[BucketRange, ...]", parse(head + body[:kept] + noise, facts, BOOT)))
    except MapError as error:
        refused = error.reason
    assert refused in {None, Reason.BAD_SPEC}
    assert ranges <= MOST_RANGES


@pytest.mark.parametrize(
    "ranges",
    [
        (BucketRange(5, 4),),
        (BucketRange(0, 10), BucketRange(9, 20)),
        (BucketRange(0, 10, Fence(12, frozenset())), BucketRange(11, 20)),
    ],
)
def test_ranges_that_no_scan_has_are_damaged(ranges: tuple[BucketRange, ...]) -> None:
    facts = described()
    with pytest.raises(MapError, match="the token is damaged"):
        parse(encode(ranges, facts, BOOT), facts, BOOT)


def test_a_token_has_no_more_ranges_than_can_be_resumed() -> None:
    facts = described()
    ranges = tuple(BucketRange(at, at + 1) for at in range(MOST_RANGES + 1))
    most, last = encode(ranges[:-1], facts, BOOT), encode(ranges[-1:], facts, BOOT)
    assert parse(most, facts, BOOT) == ranges[:-1]
    with pytest.raises(MapError, match="the token is damaged"):
        parse(most + last[len(encode((), facts, BOOT)) :], facts, BOOT)
    with pytest.raises(AssertionError):
        encode(ranges, facts, BOOT)


@pytest.mark.parametrize("map_type", [MapType.ARRAY, MapType.LPM_TRIE, MapType.PROG_ARRAY])
def test_ranges_are_of_hash_tables_alone(map_type: MapType) -> None:
    facts = described(map_type)
    with pytest.raises(MapError, match="the token is damaged"):
        parse(encode(RANGES, facts, BOOT), facts, BOOT)


def test_a_page_without_room_for_a_fence_cuts_nothing() -> None:
    bench = Bench(ranges=3)
    bench.map.elements = {key(bucket): n(bucket) for bucket in range(BUCKETS)}
    assert bench.step(rows=1).count == 0
    assert len(bench.scan.parts) == 1
    bench.rest()
    assert bench.keys == Counter(list(bench.map.elements))
    bench.close()

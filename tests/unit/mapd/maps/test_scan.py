"""A scan returns every element once, resumes where it stopped, and says what it could not promise.

The kernel here is a dict: it proves what we do with Linux's answers, not what Linux answers.
"""

from __future__ import annotations

import errno
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.bpf import Fault, FaultyKernel, RawMapInfo
from mapd.bpf.abi import Command
from mapd.maps import walkers
from mapd.maps.errors import MapError
from mapd.maps.opened import OpenMap
from mapd.maps.scan import Page, Scan, ScanOptions
from mapd.maps.walkers import METHODS
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP, MapType
from tests.unit.mapd.dictkernel import DictKernel, DictMap, n, raw_info

BOOT: Final = uuid.UUID(int=7)
LOOKUP_BATCH: Final = Command.MAP_LOOKUP_BATCH
SMALL: Final = 8 * limits.BATCH_MIN_ELEMENTS
"""Bytes of a page of 256 elements of (4, 4) bytes."""
ONE_ROW: Final = 8


@dataclass
class Read:
    """All pages of a scan."""

    scan: Scan
    pages: list[Page] = field(default_factory=list[Page])

    @property
    def keys(self) -> list[bytes]:
        joined = b"".join(page.keys for page in self.pages)
        return [joined[at : at + 4] for at in range(0, len(joined), 4)]

    @property
    def values(self) -> list[bytes]:
        joined = b"".join(page.values for page in self.pages)
        return [joined[at : at + 4] for at in range(0, len(joined), 4)]

    @property
    def items(self) -> dict[bytes, bytes]:
        return dict(zip(self.keys, self.values, strict=True))


class Bench:
    """One map on a dict kernel that rules can break."""

    def __init__(self, info: RawMapInfo | None = None) -> None:
        self.kernel = DictKernel()
        self.faulty = FaultyKernel(self.kernel)
        self.map = DictMap(info or raw_info())
        self.opened: OpenMap = self.kernel.open(self.map)

    def scan(self, options: ScanOptions | None = None, boot: uuid.UUID = BOOT) -> Scan:
        return Scan(self.faulty, self.opened.facts, options or ScanOptions(), boot)

    def read(self, options: ScanOptions | None = None, page_bytes: int = SMALL) -> Read:
        found = Read(self.scan(options))
        with self.opened.lease() as map_fd:
            while not found.scan.done:
                room = found.scan.page_bytes(page_bytes)
                page = found.scan.page(map_fd, page_bytes)
                assert len(page.keys) + len(page.values) <= room
                if page.count or found.scan.done:  # none: the next has more room
                    found.pages.append(page)
        return found

    def counts(self) -> list[int]:
        """How many elements each LOOKUP_BATCH asked for."""
        return [seen.count for seen in self.faulty.seen if seen.target is LOOKUP_BATCH]

    def close(self) -> None:
        self.opened.fd.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def trie() -> Iterator[Bench]:
    """An LPM trie, whose cursor is a key that may go."""
    made = Bench(raw_info(MapType.LPM_TRIE, max_entries=100))
    yield made
    made.close()


@pytest.fixture
def unbatched(bench: Bench) -> Bench:
    """A map on a kernel that has no LOOKUP_BATCH for it."""
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    return bench


# ---- LOOKUP_BATCH ------------------------------------------------------------------------------


def test_an_empty_map_is_one_empty_page_and_complete(bench: Bench) -> None:
    found = bench.read()
    assert [page.count for page in found.pages] == [0]
    assert found.scan.entries == 0
    assert found.scan.incomplete == ""
    assert found.scan.method == "lookup_batch"


def test_a_map_of_one_element_is_one_page_of_it(bench: Bench) -> None:
    bench.map.fill(1)
    found = bench.read()
    assert [page.count for page in found.pages] == [1]
    assert found.items == {n(0): n(100)}


def test_every_element_comes_once_over_many_pages(bench: Bench) -> None:
    bench.map.fill(1_000)
    found = bench.read()
    assert found.items == bench.map.elements
    assert len(found.keys) == found.scan.entries == 1_000
    assert len(found.pages) > 3
    assert (found.scan.restarts, found.scan.duplicates) == (0, 0)


@given(st.integers(1, 3_000), st.integers(1, 40), st.sets(st.integers(0, 255), max_size=60))
def test_any_page_size_and_any_buckets_give_each_element_once(
    page_bytes: int, buckets: int, numbers: set[int]
) -> None:
    bench = Bench()
    bench.map.buckets = buckets
    bench.map.elements = {n(number): n(number + 1) for number in numbers}
    found = bench.read(page_bytes=page_bytes)
    assert sorted(found.keys) == sorted(bench.map.elements)
    assert found.items == bench.map.elements
    bench.close()


def test_rows_behind_the_last_page_count_where_the_end_comes_with_them(bench: Bench) -> None:
    bench.map.fill(10)
    found = bench.read(page_bytes=1 << 20)
    assert [page.count for page in found.pages] == [10]
    assert bench.counts() == [limits.BATCH_ELEMENTS]


def test_a_bucket_larger_than_the_page_makes_more_room_and_the_cursor_holds(bench: Bench) -> None:
    bench.map.buckets = 2
    bench.map.fill(200)
    found = bench.read(page_bytes=16 * ONE_ROW)
    assert found.items == bench.map.elements
    assert len(found.keys) == 200
    assert bench.counts()[:4] == [16, 32, 64, 128]


def test_a_bucket_larger_than_the_largest_batch_is_read_all_the_same() -> None:
    count = limits.BATCH_ELEMENTS + 100
    bench = Bench(raw_info(max_entries=2 * count))
    bench.map.buckets = 1
    bench.map.fill(count)
    found = bench.read(page_bytes=1 << 20)
    assert len(found.keys) == len(set(found.keys)) == count
    assert bench.counts() == [limits.BATCH_ELEMENTS, 2 * limits.BATCH_ELEMENTS]
    bench.close()


def test_more_room_is_told_before_it_is_made(bench: Bench) -> None:
    bench.map.buckets = 1
    bench.map.fill(100)
    scan = bench.scan()
    told: list[tuple[int, int]] = []
    with bench.opened.lease() as map_fd:
        while not scan.done:
            told.append((scan.page_bytes(16 * ONE_ROW) // ONE_ROW, scan.page(map_fd, 16 * ONE_ROW).count))
    assert told == [(16, 0), (32, 0), (64, 0), (128, 100)]


def test_a_page_has_room_for_one_row_however_large_and_for_no_more_than_the_limit(bench: Bench) -> None:
    assert bench.scan().page_bytes(1) == ONE_ROW
    assert bench.scan(ScanOptions(limit=3)).page_bytes(1_000) == 3 * ONE_ROW
    assert bench.scan().page_bytes(1_000) == 1_000


def test_keys_that_are_remembered_are_told(trie: Bench, bench: Bench) -> None:
    assert bench.scan().remembered_bytes(10 * ONE_ROW) == 0
    trie.map.fill(30)
    scan = trie.scan()
    assert scan.remembered_bytes(10 * ONE_ROW) == 10 * 94
    with trie.opened.lease() as map_fd:
        scan.page(map_fd, 10 * ONE_ROW)
    assert scan.remembered_bytes(10 * ONE_ROW) == 20 * 94


def test_a_page_that_has_rows_is_handed_out_before_more_room_is_made(bench: Bench) -> None:
    bench.map.buckets = 2
    bench.map.elements = {bytes([0, i, 0, 0]): n(i) for i in range(50)}
    bench.map.elements |= {bytes([1, i, 1, 0]): n(i) for i in range(250)}
    bench.map.elements |= {bytes([1, i, 2, 0]): n(i) for i in range(250)}
    found = bench.read(page_bytes=400 * ONE_ROW)
    assert [page.count for page in found.pages] == [50, 500]
    assert found.items == bench.map.elements


def test_room_that_never_suffices_ends_instead_of_growing_for_ever(bench: Bench) -> None:
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=errno.ENOSPC))
    with pytest.raises(MapError, match="more than the whole map") as caught:
        bench.read()
    assert caught.value.reason is Reason.INTERNAL


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_bad_moment_is_tried_again_from_the_same_place(bench: Bench, number: int) -> None:
    bench.map.fill(1_000)
    # After the call: the kernel has moved the cursor behind rows that it then did not answer.
    bench.faulty.add(Fault(target=LOOKUP_BATCH, nth=2, after=True, errno=number))
    found = bench.read()
    assert len(found.keys) == 1_000
    assert found.items == bench.map.elements


def test_a_kernel_that_stays_busy_is_busy_after_three_more_tries(bench: Bench) -> None:
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=errno.EBUSY))
    with pytest.raises(MapError, match=r"dump map 41 .*EBUSY") as caught:
        bench.read()
    assert caught.value.reason is Reason.BUSY
    assert len(bench.counts()) == 4


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOMEM, Reason.KERNEL_MEMORY), (errno.EIO, Reason.INTERNAL), (errno.EFAULT, Reason.INTERNAL)],
)
def test_a_refusal_of_the_kernel_has_reason_map_and_errno(bench: Bench, number: int, reason: Reason) -> None:
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=number))
    with pytest.raises(MapError, match=r"dump map 41 \(flows\): BPF_MAP_LOOKUP_BATCH") as caught:
        bench.read()
    assert caught.value.reason is reason
    assert caught.value.refusal.metadata["errno"] == errno.errorcode[number]
    assert caught.value.refusal.metadata["map_type"] == "hash"


def test_a_descriptor_that_may_not_read_is_told_so(bench: Bench) -> None:
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=errno.EPERM))
    with pytest.raises(MapError, match="BPF_F_WRONLY"):
        bench.read()


def test_arrays_are_read_by_index_over_pages() -> None:
    bench = Bench(raw_info(MapType.ARRAY, max_entries=1_000))
    bench.map.fill(1_000)
    found = bench.read()
    assert found.keys == [n(index) for index in range(1_000)]
    assert found.items == bench.map.elements
    bench.close()


# ---- what is wanted of it ----------------------------------------------------------------------


def test_keys_only_and_values_only_leave_the_other_column_empty(bench: Bench) -> None:
    bench.map.fill(20)
    (keys,) = bench.read(ScanOptions(values=False)).pages
    (values,) = bench.read(ScanOptions(keys=False)).pages
    assert (keys.count, len(keys.keys), keys.values) == (20, 80, b"")
    assert (values.count, values.keys, len(values.values)) == (20, b"", 80)


def test_a_prefix_leaves_other_keys_out(bench: Bench) -> None:
    bench.map.fill(600)
    found = bench.read(ScanOptions(prefix=b"\x05"))
    assert found.items == {n(5): n(105), n(261): n(361), n(517): n(617)}
    assert found.scan.entries == 3
    assert bench.read(ScanOptions(prefix=n(261))).items == {n(261): n(361)}
    assert bench.read(ScanOptions(prefix=b"\x05", values=False)).keys == found.keys


def test_a_prefix_longer_than_a_key_is_refused_with_both_numbers(bench: Bench) -> None:
    with pytest.raises(MapError, match="prefix of 5 bytes; keys have 4 bytes") as caught:
        bench.scan(ScanOptions(prefix=bytes(5)))
    assert caught.value.reason is Reason.KEY_SIZE_MISMATCH


@pytest.mark.parametrize("limit", [1, 7, 256, 257, 999, 1_000])
def test_a_limit_ends_the_scan_after_so_many(bench: Bench, limit: int) -> None:
    bench.map.fill(1_000)
    found = bench.read(ScanOptions(limit=limit))
    assert len(set(found.keys)) == found.scan.entries == limit
    assert found.scan.incomplete == ""
    assert found.items.items() <= bench.map.elements.items()


def test_a_limit_beyond_the_end_is_none(bench: Bench) -> None:
    bench.map.fill(10)
    assert len(bench.read(ScanOptions(limit=11)).keys) == 10


def test_no_more_is_read_from_the_kernel_than_the_limit_asks_for(bench: Bench) -> None:
    bench.map.fill(1_000)
    bench.read(ScanOptions(limit=8))
    assert bench.counts() == [8]


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
@pytest.mark.parametrize("buckets", [1, 3, 256])
def test_scans_with_a_limit_resumed_by_their_tokens_lose_nothing(
    bench: Bench, buckets: int, limit: int
) -> None:
    bench.map.buckets = buckets
    bench.map.fill(300)
    largest_bucket = max(Counter(key[0] % buckets for key in bench.map.elements).values())
    got: set[bytes] = set()
    token = b""
    while True:
        found = bench.read(ScanOptions(limit=limit, token=token))
        got |= set(found.keys)
        tokens = [page.token for page in found.pages if page.token]
        if not tokens or found.scan.entries < limit:
            break
        token = tokens[-1]
    # No token resumes inside a bucket: where one is larger than the limit, that is as far as it goes.
    if limit >= largest_bucket:
        assert got == set(bench.map.elements)
    else:
        assert len(found.keys) == limit


def test_a_page_that_the_limit_cuts_inside_a_bucket_has_no_token(bench: Bench) -> None:
    bench.map.buckets = 1
    bench.map.fill(10)
    (page,) = bench.read(ScanOptions(limit=4)).pages
    assert (page.count, page.token) == (4, b"")


def test_limit_and_prefix_together_count_only_what_matches(bench: Bench) -> None:
    bench.map.fill(1_000)
    found = bench.read(ScanOptions(prefix=b"\x05", limit=2))
    assert found.scan.entries == 2
    assert set(found.keys) <= {n(5), n(261), n(517), n(773)}


# ---- tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.ARRAY, MapType.LPM_TRIE])
def test_a_scan_goes_on_behind_the_page_of_a_token(map_type: MapType) -> None:
    bench = Bench(raw_info(map_type))
    bench.map.fill(1_000)
    whole = bench.read()
    assert len(whole.pages) > 2
    for at in range(len(whole.pages)):
        rest = bench.read(ScanOptions(token=whole.pages[at].token))
        assert rest.keys == whole.keys[sum(page.count for page in whole.pages[: at + 1]) :]
    bench.close()


def test_a_next_key_scan_goes_on_behind_its_token(unbatched: Bench) -> None:
    unbatched.map.fill(600)
    whole = unbatched.read()
    rest = unbatched.read(ScanOptions(token=whole.pages[0].token))
    assert rest.scan.method == "next_key"
    assert rest.keys == whole.keys[whole.pages[0].count :]


def token_of(bench: Bench) -> bytes:
    bench.map.fill(600)
    return bench.read().pages[0].token


def made_token(bench: Bench, method: str, cursor: int) -> bytes:
    """A token of this map and boot that no scan has given out."""
    head = bench.read().pages[-1].token[:22]
    return head[:1] + bytes([METHODS.index(method)]) + head[2:] + n(cursor)


def test_a_token_of_another_map_is_refused_with_that_maps_id(bench: Bench) -> None:
    other = Bench(raw_info(id=12))
    token = token_of(other)
    other.close()
    with pytest.raises(MapError, match="the token is of map 12; start anew") as caught:
        bench.scan(ScanOptions(token=token))
    assert caught.value.reason is Reason.MAP_REPLACED


def test_a_token_from_before_the_last_boot_is_refused(bench: Bench) -> None:
    token = token_of(bench)
    with pytest.raises(MapError, match="before the host's last boot") as caught:
        bench.scan(ScanOptions(token=token), uuid.UUID(int=8))
    assert caught.value.reason is Reason.MAP_REPLACED


@pytest.mark.parametrize("length", range(1, 23))
def test_a_token_that_was_cut_is_no_token(bench: Bench, length: int) -> None:
    with pytest.raises(MapError, match="no token of a dump") as caught:
        bench.scan(ScanOptions(token=token_of(bench)[:length]))
    assert caught.value.reason is Reason.BAD_SPEC


def test_a_token_of_another_version_is_no_token(bench: Bench) -> None:
    token = token_of(bench)
    with pytest.raises(MapError, match="no token of a dump"):
        bench.scan(ScanOptions(token=b"\x03" + token[1:]))


def test_a_token_with_another_method_or_cursor_is_damaged(bench: Bench) -> None:
    token = token_of(bench)
    for damaged in (token + b"x", token[:-1], token[:1] + b"\x02" + token[2:]):
        with pytest.raises(MapError, match="the token is damaged") as caught:
            bench.scan(ScanOptions(token=damaged))
        assert caught.value.reason is Reason.BAD_SPEC


@given(st.binary(max_size=40))
def test_no_bytes_as_token_do_anything_but_work_or_be_refused(token: bytes) -> None:
    bench = Bench()
    refused: Reason | None = None
    try:
        bench.scan(ScanOptions(token=token))
    except MapError as error:
        refused = error.reason
    bench.close()
    assert refused in {None, Reason.BAD_SPEC, Reason.MAP_REPLACED}


def test_a_type_that_cannot_be_read_is_refused_at_once() -> None:
    bench = Bench(raw_info(MapType.RINGBUF))
    with pytest.raises(MapError, match="ringbuf") as caught:
        bench.scan()
    assert caught.value.reason is Reason.OPERATION_UNSUPPORTED
    bench.close()


# ---- cursors that are keys ---------------------------------------------------------------------


def test_a_trie_whose_cursor_key_goes_restarts_and_repeats_are_left_out(trie: Bench) -> None:
    trie.map.fill(60)
    scan = trie.scan()
    with trie.opened.lease() as map_fd:
        first = scan.page(map_fd, 20 * ONE_ROW)
        assert first.count == 20
        del trie.map.elements[first.keys[-4:]]
        rest = b""
        while not scan.done:
            rest += scan.page(map_fd, 20 * ONE_ROW).keys
    keys = first.keys + rest
    assert sorted(keys[at : at + 4] for at in range(0, len(keys), 4)) == [n(number) for number in range(60)]
    assert (scan.restarts, scan.duplicates) == (1, 19)
    assert scan.incomplete == ""
    assert scan.entries == 60


def begun(bench: Bench, rows: int) -> Page:
    """One page of a scan that is left there."""
    with bench.opened.lease() as map_fd:
        return bench.scan().page(map_fd, rows * ONE_ROW)


@pytest.mark.parametrize("batch", [True, False])
def test_a_scan_resumed_behind_a_key_that_has_gone_says_that_keys_come_twice(
    trie: Bench, batch: bool
) -> None:
    if not batch:
        trie.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    trie.map.fill(100)
    first = begun(trie, 60)
    del trie.map.elements[first.keys[-4:]]
    rest = trie.read(ScanOptions(token=first.token))
    assert len(rest.keys) == 99
    assert rest.scan.restarts == 1
    assert "has gone, so the kernel began again" in rest.scan.incomplete


@pytest.mark.parametrize("batch", [True, False])
def test_a_resumed_scan_that_the_kernel_restarts_later_says_so(trie: Bench, batch: bool) -> None:
    if not batch:
        trie.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    trie.map.fill(100)
    first = begun(trie, 20)
    scan = trie.scan(ScanOptions(token=first.token))
    with trie.opened.lease() as map_fd:
        second = scan.page(map_fd, 20 * ONE_ROW)
        del trie.map.elements[second.keys[-4:]]
        while not scan.done:
            scan.page(map_fd, 20 * ONE_ROW)
    assert scan.restarts == 1
    assert "began again" in scan.incomplete


@pytest.mark.parametrize("batch", [True, False])
def test_a_scan_resumed_behind_a_key_that_is_there_is_complete(trie: Bench, batch: bool) -> None:
    if not batch:
        trie.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    trie.map.fill(100)
    rest = trie.read(ScanOptions(token=begun(trie, 60).token))
    assert len(rest.keys) == 40
    assert (rest.scan.restarts, rest.scan.duplicates, rest.scan.incomplete) == (0, 0, "")


def test_values_stay_with_their_keys_where_repeats_are_left_out(trie: Bench) -> None:
    trie.map.fill(30)
    scan = trie.scan()
    with trie.opened.lease() as map_fd:
        first = scan.page(map_fd, 10 * ONE_ROW)
        del trie.map.elements[first.keys[-4:]]
        second = scan.page(map_fd, 20 * ONE_ROW)
    keys = [second.keys[at : at + 4] for at in range(0, len(second.keys), 4)]
    values = [second.values[at : at + 4] for at in range(0, len(second.values), 4)]
    assert keys == [n(number) for number in range(10, 21)]
    assert values == [n(number + 100) for number in range(10, 21)]


def endless(bench: Bench) -> None:
    """Another writer removes each key before the scan can go on from it, and puts the one before it back."""
    gone: dict[bytes, bytes] = {}

    def meddle(cursor: bytes) -> None:
        bench.map.elements |= gone
        gone.clear()
        gone[cursor] = bench.map.elements.pop(cursor)

    bench.map.before_next_key = meddle


def test_a_trie_that_never_ends_is_given_up_and_says_so(trie: Bench) -> None:
    trie.map.fill(20)
    endless(trie)
    found = trie.read()
    assert found.scan.incomplete.startswith("the kernel restarted the scan ")
    rows = int(found.scan.incomplete.split()[-2])
    assert 2 * 100 + limits.BATCH_ELEMENTS < rows <= 2 * 100 + 2 * limits.BATCH_ELEMENTS
    assert len(set(found.keys)) == len(found.keys) == found.scan.entries
    assert found.scan.duplicates > limits.BATCH_ELEMENTS


def test_more_keys_than_can_be_remembered_end_the_scan_and_say_so(
    trie: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walkers, "SEEN_BYTES", 94 * 10)
    trie.map.fill(60)
    found = trie.read(page_bytes=16 * ONE_ROW)
    assert found.scan.incomplete == "more than 10 keys to remember for leaving repeats out"
    assert found.scan.entries == 16

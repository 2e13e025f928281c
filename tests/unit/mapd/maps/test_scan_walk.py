"""Scans of types and kernels without LOOKUP_BATCH: by get_next_key, and honest about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mapd.bpf import Fault
from mapd.bpf.abi import Command
from mapd.maps.errors import MapError
from mapd.maps.scan import ScanOptions
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP, MapType
from tests.unit.mapd.dictkernel import n, raw_info
from tests.unit.mapd.maps.test_scan import LOOKUP_BATCH, Bench, endless


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def unbatched(bench: Bench) -> Bench:
    """A map on a kernel that has no LOOKUP_BATCH for it."""
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    return bench


@pytest.mark.parametrize("number", [ENOTSUPP, errno.EOPNOTSUPP])
def test_without_lookup_batch_the_keys_are_walked_and_the_method_says_so(bench: Bench, number: int) -> None:
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=number))
    bench.map.fill(600)
    found = bench.read()
    assert found.scan.method == "next_key"
    assert found.items == bench.map.elements
    assert len(bench.counts()) == 1  # asked once, not on every page
    assert len(found.pages) == 3
    assert found.scan.incomplete == "walked by next_key, which misses keys that others overwrite meanwhile"


@pytest.mark.parametrize("map_type", [MapType.ARRAY, MapType.LPM_TRIE])
def test_a_walk_is_complete_where_the_type_promises_no_more(map_type: MapType) -> None:
    bench = Bench(raw_info(map_type))
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    bench.map.fill(10)
    found = bench.read()
    assert (found.scan.method, found.scan.incomplete) == ("next_key", "")
    bench.close()


def test_a_token_of_a_walk_is_taken_only_where_there_is_no_better_way(bench: Bench) -> None:
    walk = Fault(target=LOOKUP_BATCH, errno=ENOTSUPP)
    bench.faulty.add(walk)
    bench.map.fill(600)
    token = bench.read().pages[0].token
    assert bench.read(ScanOptions(token=token)).scan.method == "next_key"
    bench.faulty.remove(walk)
    with pytest.raises(MapError, match="this kernel reads the map in a better way; start anew") as caught:
        bench.read(ScanOptions(token=token))
    assert caught.value.reason is Reason.BAD_SPEC


def test_a_token_of_an_index_that_the_array_does_not_have_is_damaged() -> None:
    bench = Bench(raw_info(MapType.ARRAY))
    bench.map.fill(600)
    token = bench.read().pages[0].token
    for method in (b"\0", b"\1"):
        with pytest.raises(MapError, match="the token is damaged"):
            bench.scan(ScanOptions(token=token[:1] + method + token[2:-4] + n(1_000)))
    bench.close()


def test_an_empty_map_walked_by_key_is_one_empty_page(unbatched: Bench) -> None:
    found = unbatched.read()
    assert [page.count for page in found.pages] == [0]


def test_a_key_that_goes_between_next_key_and_lookup_is_left_out(unbatched: Bench) -> None:
    unbatched.map.fill(10)
    gone = n(4)

    def remove(key: bytes) -> None:
        if key == gone:
            unbatched.map.elements.pop(gone, None)

    unbatched.map.before_lookup = remove
    found = unbatched.read()
    # The kernel begins anew behind a key that is gone; what was read already is not read twice.
    assert found.keys == [n(number) for number in range(10) if number != 4]
    assert found.values == [n(number + 100) for number in range(10) if number != 4]
    assert (found.scan.restarts, found.scan.duplicates) == (1, 4)


def test_who_goes_on_behind_a_walk_that_began_again_is_told_that_keys_may_come_twice() -> None:
    bench = Bench(raw_info(MapType.LPM_TRIE))
    bench.faulty.add(Fault(target=LOOKUP_BATCH, errno=ENOTSUPP))
    bench.map.fill(600)
    gone = n(100)

    def remove(key: bytes) -> None:
        if key == gone:
            bench.map.elements.pop(gone, None)

    bench.map.before_lookup = remove
    first = bench.read().pages[0]
    assert bench.read(ScanOptions(token=first.token)).scan.incomplete.endswith("keys may be there twice")
    again = bench.read(ScanOptions(token=first.token)).pages[0]
    assert bench.read(ScanOptions(token=again.token)).scan.incomplete.endswith("keys may be there twice")
    untouched = bench.read().pages[0]
    assert bench.read(ScanOptions(token=untouched.token)).scan.incomplete == ""
    bench.close()


def test_a_walk_that_never_ends_is_given_up_and_says_so(unbatched: Bench) -> None:
    unbatched.map.info = replace(unbatched.map.info, max_entries=20)
    unbatched.map.fill(20)
    endless(unbatched)
    found = unbatched.read()
    assert found.scan.incomplete.startswith("the kernel restarted the scan ")
    assert len(set(found.keys)) == len(found.keys)


@pytest.mark.parametrize(
    ("target", "number", "reason"),
    [
        (Command.MAP_LOOKUP_ELEM, errno.EBUSY, Reason.BUSY),
        (Command.MAP_LOOKUP_ELEM, errno.ENOMEM, Reason.KERNEL_MEMORY),
        (Command.MAP_GET_NEXT_KEY, ENOTSUPP, Reason.OPERATION_UNSUPPORTED),
        (Command.MAP_GET_NEXT_KEY, errno.EIO, Reason.INTERNAL),
    ],
)
def test_a_walk_that_the_kernel_refuses_is_refused(
    unbatched: Bench, target: Command, number: int, reason: Reason
) -> None:
    unbatched.map.fill(3)
    unbatched.faulty.add(Fault(target=target, errno=number))
    with pytest.raises(MapError) as caught:
        unbatched.read()
    assert caught.value.reason is reason

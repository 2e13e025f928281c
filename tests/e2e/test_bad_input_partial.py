"""Work that is done in part: how much, what not and why, and what is in the map afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import pytest

from mapd.bpf import Fault, FreezeMap, LinuxKernel, OpenPin
from mapd.bpf.abi import Command
from mapd.bpf.vector_columns import MAX_ELEMENTS
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb
from mapd_client import (
    U32,
    U64,
    BatchFailed,
    Bytes,
    Dump,
    DumpIncomplete,
    IndexOutOfRange,
    KeyExists,
    KeyMissing,
    Map,
    MapdError,
    MapFlag,
    MapFrozen,
    MapFull,
    SizeMismatch,
)
from tests.e2e.bad_input import Ground, by_name, check, nothing_created, on_ground, unique_name
from tests.support.daemon import Place
from tests.support.pinned import KERNEL, read_pin, unchanged

T = TypeVar("T")


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


async def hash_map(ground: Ground, max_entries: int = 4) -> Map[int, int]:
    return await ground.client.create_map("flows", "hash", key=U32, value=U64, max_entries=max_entries)


def numbers(ground: Ground, name: str = "flows") -> dict[int, int]:
    """What the kernel has, as numbers."""
    elements = read_pin(ground.pin(name)).elements
    return {int.from_bytes(k, "little"): int.from_bytes(v, "little") for k, v in elements.items()}


def outcome(failed: BatchFailed) -> tuple[int, dict[int, type[MapdError]]]:
    return failed.applied, {index: type(error) for index, error in failed.errors.items()}


# ---- many elements -----------------------------------------------------------------------------------


async def test_update_many_writes_what_fits_and_names_each_element_that_does_not(ground: Ground) -> None:
    flows = await hash_map(ground)
    await flows.update_many({1: 10, 2: 20, 3: 30})
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many({7: 70, 8: 80, 1: 11, 9: 90, 2: 22})
    assert outcome(caught.value) == (3, {1: MapFull, 3: MapFull})
    assert str(caught.value).startswith("update flows: 2 elements failed, 3 were written; element 1: ")
    assert "full, 4 of max_entries=4" in str(caught.value)
    assert caught.value.reason is Reason.MAP_FULL
    assert numbers(ground) == {1: 11, 2: 22, 3: 30, 7: 70}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
async def test_noexist_and_exist_of_many_leave_the_others_in_place(ground: Ground, count: int) -> None:
    """Singly up to three elements, in a batch syscall from four on: it is the same."""
    flows = await hash_map(ground, 64)
    await flows.update_many(dict.fromkeys(range(0, count, 2), 1))
    even, odd = set(range(0, count, 2)), set(range(1, count, 2))
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many(dict.fromkeys(range(count), 2), flags="noexist")
    assert outcome(caught.value) == (len(odd), dict.fromkeys(even, KeyExists))
    assert numbers(ground) == {number: 2 if number in odd else 1 for number in range(count)}
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many(dict.fromkeys((0, 1, 100, 101), 3), flags="exist")
    assert outcome(caught.value) == (2, {2: KeyMissing, 3: KeyMissing})
    assert "key of element 2: 100 (64000000)" in str(caught.value.errors[2])
    assert {key for key, value in numbers(ground).items() if value == 3} == {0, 1}


async def test_indexes_past_the_end_do_not_stop_those_inside(ground: Ground) -> None:
    slots = await ground.client.create_map("slots", "array", key=U32, value=U64, max_entries=4)
    for call in (slots.update_many, slots.load):
        with pytest.raises(BatchFailed) as caught:
            await call({0: 1, 4: 1, 1: 1, 99: 1, 98: 1, 3: 1})
        assert outcome(caught.value) == (3, dict.fromkeys((1, 3, 4), IndexOutOfRange))
    assert numbers(ground, "slots") == {0: 1, 1: 1, 2: 0, 3: 1}


async def test_a_load_counts_all_failures_and_shows_the_first_sixteen(ground: Ground) -> None:
    flows = await hash_map(ground)
    with pytest.raises(BatchFailed) as caught:
        await flows.load({number: number for number in range(100)})
    failed = caught.value
    assert (failed.applied, failed.failed) == (4, 96)
    assert outcome(failed) == (4, dict.fromkeys(range(4, 20), MapFull))
    assert str(failed).startswith("load flows: 96 elements failed, 4 were written; element 4: ")
    assert numbers(ground) == {number: number for number in range(4)}


async def test_the_daemon_answers_each_element_with_its_reason_and_the_first_errnos(ground: Ground) -> None:
    await hash_map(ground)
    keys = b"".join(U32.encode(number) for number in range(30))
    group = pb.OpGroup(map=by_name("flows"), count=30, ops=b"\x02", keys=keys, values=bytes(240))
    answer = await ground.raw.call("Apply", pb.ApplyRequest(groups=[group]), pb.ApplyResponse)
    (result,) = answer.results
    assert result.statuses == bytes([0] * 4 + [Reason.MAP_FULL] * 26)
    assert [(one.index, int(one.reason), one.errno) for one in result.errors] == [
        (index, Reason.MAP_FULL, 7) for index in range(4, 4 + limits.ERROR_DETAILS)
    ]


async def test_an_element_that_is_wrong_behind_the_first_message_is_a_part_of_the_batch(
    ground: Ground,
) -> None:
    """What was sent stays written, and is counted."""
    flows = await hash_map(ground, 20_000)
    good = limits.BATCH_ELEMENTS
    pairs: list[tuple[int, Any]] = [(number, 1) for number in range(good)]
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many([*pairs, (good, -1), (good + 1, 1)])
    assert outcome(caught.value) == (good, {good: SizeMismatch})
    assert f"value of element {good}" in str(caught.value)
    assert len(numbers(ground)) == good


async def test_a_map_frozen_in_the_middle_says_where_it_stopped(ground: Ground) -> None:
    """Three elements are written; then somebody freezes the map while the fourth is on its way."""
    flows = await hash_map(ground, 64)
    pin = ground.pin("flows")

    def freeze() -> None:
        with KERNEL.control(OpenPin(root=str(pin.parent), path=str(pin))) as owned, owned.lease() as map_fd:
            KERNEL.control(FreezeMap(), [map_fd])

    ground.kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, nth=4, failpoint=freeze))
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many(dict.fromkeys(range(6), 1), flags="noexist")
    assert outcome(caught.value) == (3, dict.fromkeys((3, 4, 5), MapFrozen))
    assert "element 3: update flows: the map is frozen" in str(caught.value)
    assert numbers(ground) == {0: 1, 1: 1, 2: 1}


async def test_a_message_refused_whole_behind_others_is_a_part_of_the_batch(ground: Ground) -> None:
    flows = await hash_map(ground, 40_000)
    first = limits.BATCH_ELEMENTS
    # A batch of no elements asks when the program is loaded, and before each of its runs.
    asked = 1 + first // MAX_ELEMENTS
    ground.kernel.add(Fault(target=Command.MAP_UPDATE_BATCH, nth=asked + 1, errno=1, name="EPERM"))
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many(dict.fromkeys(range(first + 5), 1))
    applied, errors = outcome(caught.value)
    assert applied == first
    assert list(errors) == list(range(first, first + 5))
    assert len(numbers(ground)) == first


async def test_deleting_many_counts_those_that_were_there(ground: Ground) -> None:
    flows = await hash_map(ground, 64)
    await flows.update_many(dict.fromkeys(range(10), 1))
    assert await flows.delete_many([0, 99, 1, 98, 2, 0]) == 3
    assert set(numbers(ground)) == set(range(3, 10))


async def test_looking_up_many_of_which_one_is_refused_raises_that_one(ground: Ground) -> None:
    slots = await ground.client.create_map("slots", "array", key=U32, value=U64, max_entries=4)
    with (
        unchanged(ground.pin("slots")),
        pytest.raises(IndexOutOfRange, match=r"key of element 2: 9 \(09000000\)"),
    ):
        await slots.lookup_many([0, 1, 9, 2, 10])


# ---- all elements -----------------------------------------------------------------------------------


class RestartingKernel(LinuxKernel):
    """A kernel whose walk begins again at the first key instead of ending, as when its cursor key is deleted."""

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        return super().next_key(map_fd, key, key_size) or super().next_key(map_fd, None, key_size)


async def collect(dump: Dump[T], into: list[T]) -> None:
    """What came before an exception counts too."""
    async for one in dump:
        into.append(one)  # noqa: PERF401


async def test_a_dump_that_the_kernel_keeps_restarting_is_incomplete_and_says_so(place: Place) -> None:
    """Every key is handed out once all the same, and partial_ok accepts it."""
    async with on_ground(place, RestartingKernel()) as ground:
        trie = await ground.client.create_map(
            "trie", "lpm_trie", key=Bytes(8), value=U64, max_entries=8, flags=MapFlag.NO_PREALLOC
        )
        await trie.update_many({U32.encode(32) + bytes([10, 0, 0, n]): n for n in range(4)})
        ground.kernel.add(Fault(target=Command.MAP_LOOKUP_BATCH, errno=95, name="no batch"))
        seen: list[int] = []
        with unchanged(ground.pin("trie")):
            with pytest.raises(DumpIncomplete) as caught:
                await collect(trie.values(), seen)
            error = caught.value
            assert sorted(seen) == [0, 1, 2, 3]
            assert error.trailer is not None
            assert (error.trailer.complete, error.trailer.entries, error.trailer.method) == (
                False,
                4,
                "next_key",
            )
            assert error.trailer.restarts > 1_000
            assert "dump trie: incomplete after 4 elements: the kernel restarted the scan" in str(error)
            assert "partial_ok=True" in str(error)
            dump = trie.values(partial_ok=True)
            assert sorted([number async for number in dump]) == [0, 1, 2, 3]
            assert dump.trailer is not None
            assert not dump.trailer.complete


async def test_a_dump_that_breaks_off_is_incomplete_and_goes_on_from_its_token(ground: Ground) -> None:
    """Pages are 64 KiB at first; the third cannot be read. Nothing is lost, nothing comes twice."""
    flows = await hash_map(ground, 40_000)
    await flows.load({number: number for number in range(30_000)})
    rule = Fault(target=Command.MAP_LOOKUP_BATCH, nth=3, errno=14, name="EFAULT")
    ground.kernel.add(rule)
    seen: list[int] = []
    with unchanged(ground.pin("flows")):
        with pytest.raises(DumpIncomplete) as caught:
            await collect(flows.keys(), seen)
        error = caught.value
        assert 0 < len(seen) < 30_000
        assert error.trailer is None
        assert error.token
        # An errno that no buffer of ours may cause is our fault: the log has it, the caller its number.
        assert "dump flows: the stream broke: a fault of the daemon; its log has it as incident" in str(error)
        assert "resume=token" in str(error)
        ground.kernel.remove(rule)
        rest = [key async for key in flows.keys(resume=error.token)]
        assert sorted(seen + rest) == list(range(30_000))


async def test_a_dump_refused_from_the_start_is_that_refusal(ground: Ground) -> None:
    """Not an incomplete dump: nothing has begun."""
    flows = await hash_map(ground)
    ground.kernel.add(Fault(target=Command.MAP_LOOKUP_BATCH, errno=12, name="ENOMEM"))
    with pytest.raises(MapdError) as caught:
        await anext(flows.items())
    assert caught.value.reason is Reason.KERNEL_MEMORY
    assert not isinstance(caught.value, DumpIncomplete)
    check(
        await ground.raw.refusal("Dump", pb.DumpRequest(map=by_name("flows"))),
        Reason.KERNEL_MEMORY,
        "dump map ",
        errno="ENOMEM",
    )


# ---- the looks themselves --------------------------------------------------------------------------


async def test_a_planted_change_is_found(ground: Ground) -> None:
    """What the tests of bad input look with would prove nothing if it saw nothing."""
    flows = await hash_map(ground)
    name = unique_name()
    with pytest.raises(AssertionError), unchanged(ground.pin("flows")):
        await flows.update(1, 1)
    with pytest.raises(AssertionError, match="MAP_UPDATE_ELEM"), ground.no_call():
        await flows.update(1, 1)
    with pytest.raises(AssertionError), nothing_created(ground.place, name):
        await ground.client.create_map(name, "hash", key=U32, value=U64, max_entries=4)

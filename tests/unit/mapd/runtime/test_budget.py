"""The memory of all dumps: fair shares, room for whoever comes, and no two that wait for each other."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from mapd.maps.errors import MapError
from mapd.runtime.budget import ByteBudget
from mapd_api.reasons import Reason

pytestmark = pytest.mark.usefixtures("strict_loop")

SOON_S = 0.01
LONG_S = 10.0


def busy() -> pytest.RaisesExc[MapError]:
    return pytest.RaisesExc(MapError, check=lambda error: error.reason is Reason.BUSY)


async def test_a_share_is_held_until_its_block_ends() -> None:
    budget = ByteBudget(100)
    async with budget.share(10, SOON_S) as share:
        assert (share.held, budget.free) == (10, 90)
        assert budget.take(share, 60)
        assert budget.free == 40
        assert budget.take(share, 20)
        assert budget.free == 80
    assert budget.free == 100


async def test_no_dump_takes_more_than_a_fair_share() -> None:
    budget = ByteBudget(100)
    async with budget.share(10, SOON_S) as first:
        assert budget.take(first, 100)
        assert budget.take(first, 10)
        async with budget.share(10, SOON_S) as second:
            assert not budget.take(first, 51)
            assert first.held == 10
            assert budget.take(first, 50)
            assert budget.take(second, 50)


async def test_nobody_grows_into_the_reserve_that_others_begin_with() -> None:
    budget = ByteBudget(100, reserve=70)
    async with budget.share(10, SOON_S) as first:
        assert not budget.take(first, 31)
        assert budget.take(first, 30)
        async with budget.share(70, SOON_S) as second:
            assert budget.free == 0
            assert not budget.take(second, 71)
            assert budget.take(first, 10) is False  # the reserve is in use
            budget.give_back(first, 10)
            assert budget.free == 20


async def test_giving_back_never_takes() -> None:
    budget = ByteBudget(100)
    async with budget.share(10, SOON_S) as share:
        budget.give_back(share, 20)
        assert share.held == 10
        budget.give_back(share, 3)
        assert (share.held, budget.free) == (3, 97)


async def test_who_comes_later_waits_until_the_first_give_back() -> None:
    budget = ByteBudget(100)

    async def come() -> int:
        async with budget.share(10, LONG_S) as share:
            return share.held

    async with budget.share(10, SOON_S) as first:
        assert budget.take(first, 100)
        later = asyncio.create_task(come())
        await asyncio.sleep(0)
        assert not budget.take(first, 51)  # who waits is counted
        assert budget.take(first, 50)
        assert await later == 10


async def test_who_waits_too_long_is_busy_and_counts_no_more() -> None:
    budget = ByteBudget(100)
    async with budget.share(95, SOON_S) as first:
        with busy():
            async with budget.share(10, SOON_S):
                pass
        assert budget.take(first, 100)


async def test_one_that_is_alone_gets_whatever_it_needs() -> None:
    budget = ByteBudget(100)
    async with budget.share(250, SOON_S) as share:
        await budget.need(share, 300, SOON_S)
        assert budget.free == -200
        with busy():
            async with budget.share(1, SOON_S):
                pass
        await budget.need(share, 10, SOON_S)
        assert budget.free == 90


async def test_one_that_needs_more_waits_for_those_who_can_give_back() -> None:
    budget = ByteBudget(100)
    async with budget.share(50, SOON_S) as first, budget.share(50, SOON_S) as second:
        waiting = asyncio.create_task(budget.need(first, 60, LONG_S))
        await asyncio.sleep(0)
        assert budget.take(second, 40)
        await waiting
        assert (first.held, budget.free) == (60, 0)
        with busy():
            await budget.need(first, 61, SOON_S)
        assert first.held == 60


async def test_of_two_that_wait_for_each_other_the_second_is_busy_at_once() -> None:
    budget = ByteBudget(100)

    async with budget.share(50, SOON_S) as first:
        async with budget.share(50, SOON_S) as second:
            waiting = asyncio.create_task(budget.need(first, 60, LONG_S))
            await asyncio.sleep(0)
            with busy():
                await budget.need(second, 60, LONG_S)
        await waiting
        assert first.held == 60


async def test_who_is_cancelled_while_waiting_holds_nothing() -> None:
    budget = ByteBudget(100)

    async def come() -> None:
        async with budget.share(10, LONG_S):
            raise AssertionError("there was no room")

    async with budget.share(100, SOON_S) as first:
        later = asyncio.create_task(come())
        await asyncio.sleep(0)
        later.cancel()
        with pytest.raises(asyncio.CancelledError):
            await later
        assert budget.take(first, 100)


async def test_a_principal_with_many_dumps_has_no_more_than_one_with_a_single_one() -> None:
    budget = ByteBudget(120)
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(budget.share(1, SOON_S, "many")) for _ in range(3)]
        assert [budget.take(one, 41) for one in many] == [False] * 3
        assert budget.take(many[0], 40)
        alone = await stack.enter_async_context(budget.share(1, SOON_S, "alone"))
        budget.give_back(many[0], 1)
        assert [budget.take(one, 21) for one in many] == [False] * 3
        assert [budget.take(one, 20) for one in many] == [True] * 3
        assert not budget.take(alone, 61)
        assert budget.take(alone, 60)

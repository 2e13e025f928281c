"""Room for answers: who waits for it, who is refused it, and who gets what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.rpc.caller import Context
from mapd.rpc.unsent import COPIES, SMALL, Unsent
from mapd_api import limits
from mapd_api.reasons import Reason

ONE, OTHER = Principal(name="one", namespace="one"), Principal(name="other", namespace="other")
SIZE = 2 * SMALL
TOTAL = 4 * COPIES * SIZE


class Ending:
    """What of grpc's context is used: it tells when the call has ended."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def end(self) -> None:
        for callback in self.callbacks:
            callback(self)


async def take(unsent: Unsent, principal: Principal, size: int = SIZE) -> Ending:
    ending = Ending()
    await unsent.take(principal, cast("Context", ending), size, "lookup")
    return ending


async def test_one_alone_has_half_and_another_finds_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNSENT_WAIT_S", 0.01)
    unsent = Unsent(TOTAL)
    for _ in range(2):
        await take(unsent, ONE)
    with pytest.raises(MapError) as caught:
        await take(unsent, ONE)
    assert caught.value.reason is Reason.BUSY
    assert f"{2 * COPIES * SIZE} bytes are held" in str(caught.value)
    await take(unsent, OTHER)
    assert unsent.held == 3 * COPIES * SIZE


async def test_what_is_given_back_goes_to_who_waits() -> None:
    unsent = Unsent(TOTAL)
    first, _ = await take(unsent, ONE), await take(unsent, ONE)
    waiting = asyncio.create_task(take(unsent, ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    first.end()
    await waiting
    assert unsent.held == 2 * COPIES * SIZE


async def test_one_that_is_larger_than_everything_is_answered_where_no_other_waits() -> None:
    unsent = Unsent(TOTAL)
    (await take(unsent, ONE, TOTAL)).end()
    assert unsent.held == 0


async def test_small_ones_take_nothing_and_who_gives_up_waiting_holds_nothing() -> None:
    unsent = Unsent(TOTAL)
    await take(unsent, ONE, SMALL)
    assert unsent.held == 0
    await take(unsent, ONE, TOTAL)
    waiting = asyncio.create_task(take(unsent, OTHER))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert unsent.held == COPIES * TOTAL


async def test_an_answer_that_is_not_taken_ends_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNARY_S", 0.0)
    monkeypatch.setattr(limits, "STREAM_PROGRESS_S", 0.01)
    unsent = Unsent(TOTAL)

    async def call() -> None:
        await take(unsent, ONE)
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(call())

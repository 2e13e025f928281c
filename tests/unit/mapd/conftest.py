"""What these tests share: nothing is left behind, and nothing blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import blockbuster_ctx

from tests.support.counts import nothing_left_behind


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Fail if fds or threads are left."""
    with nothing_left_behind():
        yield


@pytest.fixture
async def watched_loop() -> AsyncIterator[None]:
    """Fail if a call blocks the event loop, if a task is left, or if a callback raises; debug mode."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60.0  # how long is the machine's business: what blocks is found by name
    raised: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    before = asyncio.all_tasks()
    with blockbuster_ctx(scanned_modules=["mapd", "mapd_api"]) as guard:
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            guard.functions[name].deactivate()  # grpc takes locks wherever its objects happen to be freed
        yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"
    assert not raised, f"callbacks raised: {raised}"


@pytest.fixture
async def strict_loop(leaves_nothing: None, watched_loop: None) -> None:
    """Both: nothing blocked, nothing left."""
    del leaves_nothing, watched_loop

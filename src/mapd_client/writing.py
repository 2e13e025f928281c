"""Many elements written, a message at a time, some of them under way at once. Sans-I/O but for what sends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeAlias

from mapd_client.batches import Batch
from mapd_client.errors import MapdError
from mapd_client.replies import Outcome
from mapd_client.tally import Tally

WINDOW: Final = 3
"""Messages under way: one is encoded and one travels while the daemon executes one. In the session alone, where they
are executed in order."""

Send: TypeAlias = Callable[[Batch], Coroutine[Any, Any, Outcome]]
Read: TypeAlias = Callable[[Batch, Outcome], None]

_Flying: TypeAlias = deque[tuple[Batch, asyncio.Task[Outcome]]]


async def write_all(
    source: Iterator[Batch], send: Send, tally: Tally, window: int, read: Read | None
) -> None:
    """Send what ``source`` yields, in order; ``tally`` counts what became of it, ``read`` is shown each answer.

    What has been sent is waited for, whatever else fails. Cancelled: that too is cancelled.

    Raises:
        MapdError: a message failed, and no more were sent; the first such failure.
        Exception: whatever ``source`` raises.
    """
    flying: _Flying = deque()
    failed: MapdError | None = None
    ended: Exception | None = None
    try:
        while failed is None:
            try:
                batch = next(source, None)
            except Exception as error:
                ended = error
                break
            if batch is None:
                break
            flying.append((batch, asyncio.create_task(send(batch))))
            if len(flying) >= window:
                failed = await _landed(flying, tally, read)
        while flying:
            late = await _landed(flying, tally, read)
            failed = failed or late
    finally:
        tasks = [task for _, task in flying]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    if failed is not None:
        raise failed
    if ended is not None:
        raise ended


async def _landed(flying: _Flying, tally: Tally, read: Read | None) -> MapdError | None:
    """The first of those under way has ended: what failed it."""
    batch, task = flying[0]
    try:
        outcome = await task
    except MapdError as error:
        tally.fail(batch, error)
        return error
    finally:
        flying.popleft()
    tally.add(batch, outcome)
    if read is not None:
        read(batch, outcome)
    return None

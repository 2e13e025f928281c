"""Many elements written, a message at a time, some of them under way at once. Sans-I/O but for what sends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from mapd_client.batches import Batch
from mapd_client.errors import MapdError
from mapd_client.replies import Outcome
from mapd_client.tally import Tally
from mapd_client.windows import give_up

WINDOW: Final = 3
"""Messages under way: one is encoded and one travels while the daemon executes one. In the session alone, where they
are executed in order. 500,000 updates from numpy arrays, ns an element, median and best of seven: 233, 202 with one
under way; 203, 168 with two; 195, 157 with three; 262, 161 with four."""

Send: TypeAlias = Callable[[Batch], asyncio.Future[Outcome]]
Read: TypeAlias = Callable[[Batch, Outcome], None]

_Flying: TypeAlias = deque[tuple[Batch, asyncio.Future[Outcome]]]


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
            flying.append((batch, send(batch)))
            if len(flying) >= window:
                failed = await _landed(flying, tally, read)
        while flying:
            late = await _landed(flying, tally, read)
            failed = failed or late
    finally:
        await give_up(future for _, future in flying)
    if failed is not None:
        raise failed
    if ended is not None:
        raise ended


async def _landed(flying: _Flying, tally: Tally, read: Read | None) -> MapdError | None:
    """The first of those under way has ended: what failed it."""
    batch, future = flying[0]
    try:
        outcome = await future
    except MapdError as error:
        tally.fail(batch, error)
        return error
    finally:
        flying.popleft()
    tally.add(batch, outcome)
    if read is not None:
        read(batch, outcome)
    return None

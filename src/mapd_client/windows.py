"""Several calls at once, their answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    source: Iterable[T], work: Callable[[T], Coroutine[Any, Any, R]], window: int
) -> AsyncGenerator[R, None]:
    """``work`` on each of ``source``, at most ``window`` at once, results in the order of ``source``.

    ``source`` is read as places become free. Whatever ends this ends every call that it began.
    """
    running: deque[asyncio.Task[R]] = deque()
    try:
        for one in source:
            if len(running) >= window:
                yield await running.popleft()
            running.append(asyncio.create_task(work(one)))
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in running:
            # Looked at, so that asyncio does not report it: the first error is on its way.
            if not task.cancelled():
                task.exception()

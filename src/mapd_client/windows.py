"""Several calls at once, their answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    source: Iterable[T], begin: Callable[[T], asyncio.Future[R]], window: int
) -> AsyncGenerator[tuple[T, R], None]:
    """``begin`` with each of ``source``, at most ``window`` at once; each with what came of it, in that order.

    The first is begun at once, ``source`` is read on as places become free. Whatever ends this cancels every call
    that it began.
    """
    running: deque[tuple[T, asyncio.Future[R]]] = deque()
    try:
        for one in source:
            if len(running) >= window:
                yield await _ended(running)
            running.append((one, begin(one)))
        while running:
            yield await _ended(running)
    finally:
        await give_up(future for _, future in running)


async def _ended(running: deque[tuple[T, asyncio.Future[R]]]) -> tuple[T, R]:
    one, future = running[0]
    try:
        return one, await future
    finally:
        running.popleft()


async def give_up(futures: Iterable[asyncio.Future[R]]) -> None:
    """Cancel calls whose results nobody wants any more, and wait for their end."""
    left = list(futures)
    for future in left:
        future.cancel()
    if waited := [future for future in left if not future.done()]:
        await asyncio.wait(waited)
    for future in left:
        # Looked at, so that asyncio does not report it: the first error is on its way.
        if not future.cancelled():
            future.exception()

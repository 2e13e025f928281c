"""Ctrl-C, however soon or late it comes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` whose SIGINT wakes the event loop.

    The runner's own handler is Python code, which a signal that arrives after the last bytecode and before
    ``epoll_wait()`` does not run: the loop sleeps on, up to the next deadline. A loop with a handler of its own is
    woken through a socket, in which the C part of the handler has written.

    Raises:
        KeyboardInterrupt: the work was cancelled by the first SIGINT, or did not end and a second one came.
    """

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None
        with _interrupting(task) as pressed:
            try:
                return await work
            except asyncio.CancelledError:
                if pressed:
                    raise KeyboardInterrupt from None
                raise

    return asyncio.run(interruptible())


@contextmanager
def _interrupting(task: asyncio.Task[Any]) -> Generator[list[int]]:
    """The first SIGINT cancels the task; the list has those that came."""
    pressed: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # for the socket, see above
    signal.signal(
        signal.SIGINT, interrupt
    )  # in the loop's stead: a second one ends what does not come back to it
    try:
        yield pressed
    finally:
        loop.remove_signal_handler(signal.SIGINT)

"""Event loops that are closed, and what grpc still has to tell them.

grpc.aio has one queue for the events of all loops. Whichever loop runs takes them out, and hands each to the loop that
its call was made in, closed or not; where it is closed, the loop that runs logs a traceback that ends in "Event loop is
closed" (PollerCompletionQueue._handle_events, grpcio 1.85). Sessions settle before asyncio.run closes their loop, but
the end of a cancelled stream may come later still: 4 ms behind the close, of one loop in 5,000 on two busy CPUs. And
who closes a loop without asyncio.run cancels nothing before.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

_LOCK: Final = threading.Lock()
_ENTERED: Final[weakref.WeakSet[asyncio.AbstractEventLoop]] = weakref.WeakSet()
"""Those in which channels were made, by whichever client of this process."""


def enter() -> None:
    """Note the running loop, in which a channel is about to be made."""
    quiet_closed()
    with _LOCK:
        _ENTERED.add(asyncio.get_running_loop())


def quiet_closed() -> None:
    """Have loops that were closed meanwhile drop what grpc hands them; all else they refuse as before."""
    with _LOCK:
        closed = [loop for loop in _ENTERED if loop.is_closed()]
        _ENTERED.difference_update(closed)
    for loop in closed:
        with suppress(TypeError):  # a loop without a __dict__ goes on as it is
            vars(loop)["call_soon_threadsafe"] = _deaf_to_grpc(weakref.ref(loop))


def _deaf_to_grpc(loop: weakref.ref[asyncio.AbstractEventLoop]) -> Callable[..., Any]:
    def call_soon_threadsafe(callback: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if str(callback.__module__).startswith("grpc."):  # None for builtin methods
            return None  # its call ended with the loop: nobody waits for it
        found = loop()
        assert found is not None  # somebody calls its method
        return type(found).call_soon_threadsafe(found, callback, *args, **more)

    return call_soon_threadsafe

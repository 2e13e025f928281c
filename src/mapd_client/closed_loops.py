"""Event loops that are closed, and what grpc still has to tell them. Knows nothing of clients.

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
    with _LOCK, suppress(TypeError):  # a loop that nothing can refer to weakly goes on as it is
        _ENTERED.add(asyncio.get_running_loop())


def quiet_closed() -> None:
    """Have loops that were closed meanwhile drop what grpc hands them, whoever made the call; all else they refuse."""
    with _LOCK:
        closed = [loop for loop in _ENTERED if loop.is_closed()]
        _ENTERED.difference_update(closed)
    for loop in closed:
        with suppress(TypeError):  # one without a __dict__ too
            vars(loop)["call_soon_threadsafe"] = _deaf_to_grpc


def _deaf_to_grpc(callback: Callable[..., Any], *_: Any, **__: Any) -> None:
    """A closed loop's call_soon_threadsafe."""
    # Not every callable has a __module__, and that of builtin methods is None.
    if not str(getattr(callback, "__module__", None)).startswith("grpc."):
        raise RuntimeError("Event loop is closed")

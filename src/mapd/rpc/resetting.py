"""Streams whose readers stand still, ended for good.

A status goes behind the messages of its stream. Where those are not taken it waits with them as long as the connection
lasts, and their memory too. HTTP/2 has RST_STREAM for this, and grpc.aio's servers have no name for it: a stream is
reset when nobody holds its call any more (src/core, grpc_call_unref()). Those are its handler's task, and one of gRPC's
own that listens for the client's end (server.pyx.pxi, _schedule_rpc_coro()). The last call of a server is held by its
loop too, until the next one comes.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any, Final

_LISTENER: Final = "_schedule_rpc_coro"


def let_go(handler: asyncio.Task[Any]) -> bool:
    """End what listens for the client of ``handler``'s call; whether it was found. The handler is to end now too.

    It is looked for among all tasks, about 1 us each. No exception that is handled may hold the call: see ``forget``.
    """
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        if getattr(coroutine, "__name__", "") != _LISTENER:
            continue
        # It is compiled, and has no frame to look into: its variables are what it refers to.
        if any(handler in gc.get_referents(scope) for scope in gc.get_referents(coroutine)):
            task.cancel()
            return True
    return False


def forget(error: BaseException | None) -> None:
    """Let an exception that is dealt with, and those before it, forget where they came from.

    Their frames hold the call, and groups of exceptions hold each other in a circle, which only the garbage collector
    would find, some time later.
    """
    left = [error]
    while left:
        one = left.pop()
        if one is not None:
            left += [one.__cause__, one.__context__]
            one.__cause__ = one.__context__ = one.__traceback__ = None

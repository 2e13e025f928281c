"""gRPC servers that end by themselves: whoever owns one is told, and puts another in its place.

grpc.aio ends a server for good when its accept loop meets what it cannot read. A call whose path is no UTF-8 is enough
(grpcio 1.85, _server_main_loop, ``rpc_state.method().decode()``): nobody can connect from then on, and the process
lives on. Calls that are under way go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import Any, Final, TypeAlias

import grpc.aio

_LOOP: Final = "_server_main_loop"

Crashed: TypeAlias = Callable[[BaseException], None]
"""Is told why, in the event loop."""


async def start(server: grpc.aio.Server, crashed: Crashed) -> None:
    """Start a server; ``crashed`` is called when it has ended without being stopped.

    Its accept loop is a task that gRPC shows nobody: it is among those that are there after the start and were not
    before, and no coroutine of Python's own.
    """
    before = asyncio.all_tasks()
    await server.start()
    more = [one for one in asyncio.all_tasks() - before if not isinstance(one.get_coro(), CoroutineType)]
    # Calls of other servers may have begun meanwhile. Where the loop is called otherwise, all are looked at.
    named = [one for one in more if getattr(one.get_coro(), "__name__", "") == _LOOP]
    for task in named or more:
        task.add_done_callback(_looked_at(crashed))


def _looked_at(crashed: Crashed) -> Callable[[asyncio.Task[Any]], None]:
    def ended(task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (why := task.exception()) is None:
            return
        # What waits for the next call ends so when the server is stopped; the accept loop survives it otherwise.
        if type(why).__name__ != "_RequestCallError":
            crashed(why)

    return ended

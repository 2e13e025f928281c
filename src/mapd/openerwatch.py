"""The end of an opener: another takes its place where there can be one, and the daemon stops where not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import structlog

from mapd.isolation import Isolation
from mapd.launch import LaunchError

_log = structlog.stdlib.get_logger("mapd")


@asynccontextmanager
async def watching_opener(isolation: Isolation | None, gone: Callable[[], None]) -> AsyncGenerator[None]:
    """Inside the block, call ``gone`` once when the opener has ended and no other has taken its place."""
    if isolation is None or isolation.ended is None:
        yield
        return
    watch = asyncio.create_task(_watch(isolation, gone), name="opener")
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait({watch})


async def _watch(isolation: Isolation, gone: Callable[[], None]) -> None:
    loop, ended = asyncio.get_running_loop(), isolation.ended
    assert ended is not None
    while True:
        told = asyncio.Event()
        loop.add_reader(ended, told.set)
        try:
            await told.wait()
        finally:
            loop.remove_reader(ended)
        began = time.monotonic()
        why = "it was started with this process"
        if isolation.renewing is not None:
            _log.warning("an opener has ended; connecting to another: what is open stays so")
            try:
                await isolation.renewing.renew()
            except LaunchError as error:
                why = str(error)
            except Exception:
                # A fault of ours. With neither an opener nor this task everything would be refused, and for ever.
                _log.exception("no other opener could be taken")
                why = "of a fault in mapd, told above"
            else:
                _log.info("connected to another opener", seconds=round(time.monotonic() - began, 3))
                continue
        _log.error(
            "the opener has ended, and without it no map can be opened: stopping; what is pinned stays",
            why=why,
        )
        gone()
        return

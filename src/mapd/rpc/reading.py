"""Reading what a client streams: message by message, and no longer than it may take."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from mapd.maps.errors import MapError
from mapd.rpc.guard import readable
from mapd_api import limits
from mapd_api.reasons import Reason


async def read(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The next message of the client, or None when it has ended its side.

    Raises:
        MapError: BAD_SPEC, these bytes are no message.
    """
    message = await context.read()
    return None if message is grpc.aio.EOF else readable(message)


async def read_on(
    context: grpc.aio.ServicerContext[Any, Any], operation: str, draining: asyncio.Event
) -> Any:
    """The next message of a client who must go on; None when it has ended its side.

    Raises:
        MapError: QUOTA, nothing came for limits.STREAM_PROGRESS_S; DRAINING, at once; as ``read``.
    """
    try:
        async with asyncio.timeout(limits.STREAM_PROGRESS_S), asyncio.TaskGroup() as group:
            refusing = group.create_task(_refuse(draining, operation), name=f"{operation} draining")
            message = await read(context)
            refusing.cancel()
    except TimeoutError:
        raise MapError(
            Reason.QUOTA,
            f"{operation}: nothing came for {limits.STREAM_PROGRESS_S:g} s; send faster, or begin when there is "
            "something to send",
            operation=operation,
        ) from None
    except BaseExceptionGroup as failed:
        # One cause: the other half was cancelled for it.
        raise failed.exceptions[0] from None
    return message


async def _refuse(draining: asyncio.Event, operation: str) -> None:
    await draining.wait()
    raise MapError(
        Reason.DRAINING,
        f"{operation}: the daemon is stopping; connect again in a moment",
        operation=operation,
    )

"""Opening a map again whose handle went with a session, as far as that is the same map still."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Protocol

from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import maps_pb2
from mapd_client import failures, methods, replies, requests
from mapd_client.channel import Transport
from mapd_client.errors import MapdError, Unreachable
from mapd_client.failures import Asked
from mapd_client.held import Held, Tenure
from mapd_client.info import MapInfo
from mapd_client.pipeline import Pipeline

_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.05
"""After a connection broke once more; the session waits for the next one."""

_GOING: Final = frozenset({None, Reason.DRAINING, Reason.EPOCH_CHANGED})
"""Nobody answered, or a daemon that stops: the next one may. Any other refusal is for who waits."""


class Conversing(Protocol):
    """What is needed of a session."""

    pipeline: Pipeline | None

    async def live(self, timeout: float) -> Tenure:
        """The tenure, once there is a stream."""
        ...

    def forgotten(self, tenure: Tenure) -> None:
        """The daemon does not know the session."""
        ...


async def opened_again(held: Held, session: Conversing, transport: Transport, timeout: float) -> None:
    """Give ``held`` a handle of the session that there is now.

    Tries for as long as somebody waits for it; nothing has changed where nobody does any more, or where its owner has
    closed the map meanwhile: the new handle is given back.

    Raises:
        Incompatible: another map is there now.
        MapdError: the daemon's refusal.
    """
    asked = Asked("open again", held.name)
    assert held.ref is not None
    stale = held.handle
    pause = _PAUSE_S
    while session.pipeline is not None and session.pipeline.waits_for(held):
        tenure: Tenure | None = None
        try:
            tenure = await session.live(timeout)
            if not tenure.boot:
                tenure.boot = await _boot(transport, asked, timeout)
            request = requests.open_map(held.ref, read_only=held.read_only, session=tenure.session)
            answer = await transport.unary(methods.OPEN_MAP, request, asked, timeout)
        except MapdError as error:
            if error.reason is Reason.STALE_HANDLE and tenure is not None:
                session.forgotten(tenure)
            elif not isinstance(error, Unreachable) or error.reason not in _GOING:
                raise
        else:
            other = replaced(held, replies.map_info(answer.info), tenure)
            if held.closed or other is not None or held.handle != stale:
                with suppress(Unreachable):  # the session's end closes it then
                    await transport.unary(
                        methods.CLOSE_MAP, maps_pb2.CloseMapRequest(handle=answer.handle), asked, timeout
                    )
            if held.closed or held.handle != stale:
                return
            if other is not None:
                raise failures.of_refusal(other, asked)
            held.handle, held.tenure = answer.handle, tenure
            return
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)


async def _boot(transport: Transport, asked: Asked, timeout: float) -> str:
    answer = await transport.unary(methods.GET_SERVER_INFO, maps_pb2.GetServerInfoRequest(), asked, timeout)
    return answer.server.boot_id


def replaced(held: Held, now: MapInfo, tenure: Tenure) -> Refusal | None:
    """What is said where another map was found than the one that was opened; None where it is that one.

    The kernel gives an id to one map alone as long as the host runs, and to another one after that.
    """
    then = held.info
    booted = held.tenure is not None and held.tenure.boot not in ("", tenure.boot)
    same = (now.id, now.type, now.key_stride, now.value_stride) == (
        then.id,
        then.type,
        then.key_stride,
        then.value_stride,
    )
    if same and not booted:
        return None
    why = "the host has booted since" if booted else f"id {now.id}, it was {then.id}"
    return Refusal(
        Reason.MAP_REPLACED,
        f"{held.ref} is another map now ({why}); nothing was executed; open it again if that is the one you want",
        {"map": held.name, "id": str(now.id)},
    )

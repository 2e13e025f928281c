"""Calls by handle, which a daemon that was started again does not know: the map is opened again, and they are repeated.

Operations on elements in a session have this from its pipeline; dumps, loads and calls of their own have it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2
from mapd_client import failures, methods, replies, requests
from mapd_client.errors import DeadlineExceeded, MapdError, NotSent, OutcomeUnknown, Unreachable
from mapd_client.failures import Asked
from mapd_client.held import Held, Tenure
from mapd_client.link import Link
from mapd_client.methods import Method, Request, Response
from mapd_client.patience import TRIES, lost_before
from mapd_client.reopening import replaced

FORGOTTEN: Final = frozenset({Reason.STALE_HANDLE, Reason.EPOCH_CHANGED})
"""The daemon knows the handle, or the session, no more; nothing was executed."""


def heals(error: MapdError, held: Held) -> bool:
    """Whether opening the map again may help."""
    return error.reason in FORGOTTEN and held.ref is not None and not held.closed


async def by_handle(
    link: Link,
    method: Method[Request, Response],
    request: Callable[[], Request],
    asked: Asked,
    *named: Held,
    timeout: float | None = None,
) -> Response:
    """One call that names maps by handle, with ``timeout`` seconds or the client's in all.

    Args:
        request: of the handles that there are now.
        named: the maps whose handles are in it.

    Raises:
        Incompatible: another map is there now; nothing was executed.
        OutcomeUnknown: a try was lost, and none after it was answered.
        MapdError: as ``Link.call``.
    """
    patience = link.patience(asked, timeout)
    lost: OutcomeUnknown | None = None
    for tries in range(TRIES):
        handles = [held.handle for held in named]
        try:
            return await link.call(method, request(), asked, patience.left())
        except MapdError as error:
            lost = lost or (error if isinstance(error, OutcomeUnknown) else None)
            if tries == TRIES - 1 or not all(heals(error, held) for held in named):
                _raise(error, lost)
        try:
            for held, handle in zip(named, handles, strict=True):
                await renew(link, held, handle, asked, patience.left())
        except MapdError as error:
            _raise(error, lost)
    raise AssertionError("the last try returns or raises")


def _raise(error: MapdError, lost: OutcomeUnknown | None) -> NoReturn:
    """Raise what a call ended with; unknown where one of its tries was lost."""
    raise error if lost is None or isinstance(error, OutcomeUnknown) else lost_before(lost, error)


async def ready(link: Link, held: Held, asked: Asked) -> None:
    """Wait until there is a daemon that knows the handle, for a call that cannot be made twice: a load.

    Raises:
        Incompatible: another map is there now.
        MapdError: there is none in time; nothing was executed.
    """
    patience = link.patience(asked)
    tenure = held.tenure
    try:
        server = await link.ask_server(patience.left())
        # A handle belongs to one start of the daemon, whose end this client may not have noticed yet.
        if tenure is not None and held.ref is not None and (tenure.ended or tenure.epoch != server.epoch):
            await renew(link, held, held.handle, asked, patience.left())
    except Unreachable as error:
        kind = DeadlineExceeded if isinstance(error, DeadlineExceeded) else NotSent
        raise kind(f"{asked}: not sent: {error}", operation=asked.operation, map=asked.map) from error


async def renew(link: Link, held: Held, stale: int, asked: Asked, timeout: float) -> None:
    """Give ``held`` another handle than ``stale``, within ``timeout`` seconds.

    Who opens it at the same time may be first; one of the two handles is given back then.

    Cancelled: the handle is given back when it is there.

    Raises:
        Incompatible: another map is there now.
        MapdError: as for opening.
    """
    assert held.ref is not None
    patience = link.patience(asked, timeout)
    for _ in range(TRIES):
        if held.handle != stale or held.closed:
            return
        session, tenure = await link.tenure(patience.left())
        wanted = requests.open_map(held.ref, read_only=held.read_only, session=tenure.session)
        try:
            opening = link.call(methods.OPEN_MAP, wanted, asked, patience.left())
            answer = await link.finished(opening, lambda late: _give_back(link, late, asked))
        except MapdError as error:
            if error.reason not in FORGOTTEN:
                raise
            session.forgotten(tenure)
            continue
        if not await _taken(link, held, stale, answer, tenure, asked):
            continue
        return


async def _taken(
    link: Link, held: Held, stale: int, answer: maps_pb2.OpenMapResponse, tenure: Tenure, asked: Asked
) -> bool:
    """Whether the handle in ``answer`` is ``held``'s now; it is given back where it is not."""
    other = replaced(held, replies.map_info(answer.info), tenure)
    if other is None and not held.closed and held.handle == stale:
        held.handle, held.tenure = answer.handle, tenure
        return True
    await link.finished(_give_back(link, answer, asked))
    if other is not None:
        raise failures.of_refusal(other, asked)
    return held.handle != stale


async def _give_back(link: Link, answer: maps_pb2.OpenMapResponse, asked: Asked) -> None:
    with suppress(Unreachable):  # the session's end closes it then
        await link.call(
            methods.CLOSE_MAP, maps_pb2.CloseMapRequest(handle=answer.handle), asked, impatient=True
        )

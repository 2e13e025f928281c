"""From the map that a request names to the right to use it: the only way from one to the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mapd.access.authorize import Authorized
from mapd.maps.opened import OpenMap
from mapd.maps.store import IdRef
from mapd.rpc import convert
from mapd.rpc.guard import Call
from mapd.runtime.host import AnyRef, MapHost
from mapd_api.ops import Verb
from mapd_api.v1.types_pb2 import MapRef


@asynccontextmanager
async def admitted(
    host: MapHost, call: Call, message: MapRef, operation: str, verbs: frozenset[Verb] | None = None
) -> AsyncGenerator[Authorized[OpenMap]]:
    """The map of a request, open and authorised, for the length of the block.

    Args:
        verbs: what is asked for, where it depends on the request; otherwise the method's rights.

    Raises:
        MapError: the map is not there, or not for this caller.
    """
    ref = convert.ref(message, call.principal, operation)
    asked = call.access.verbs if verbs is None else verbs
    async with host.borrow(call.principal, ref, asked) as opened:
        yield admit(call, opened, ref, asked)


def admit(
    call: Call, opened: OpenMap, ref: AnyRef, verbs: frozenset[Verb] | None = None
) -> Authorized[OpenMap]:
    """Rights on a map that was opened by ``ref``: past names and pins they take one more."""
    asked = call.access.verbs if verbs is None else verbs
    return call.authorize(opened, asked | {Verb.OPEN_BY_ID} if isinstance(ref, IdRef) else asked)

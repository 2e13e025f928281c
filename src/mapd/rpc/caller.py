"""Who a call comes from: fixed by the way its connection was made, never by what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from mapd.access.principal import Principal

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The other end of one call.

    Attributes:
        attested_by: what fixed the principal: "socket:/run/mapd/web/mapd.sock", "tls:spiffe://example.org/agent".
        expires: time.time() after which that holds no more (a certificate's end); None: as long as the connection.
        aged: time.monotonic() after which the connection takes no new calls; None: it does for ever.
        leaving: set when its server is replaced by another, or the daemon stops: sessions say goodbye, and can be
            resumed over a new connection. None: only the second, which the guard knows.
    """

    principal: Principal
    attested_by: str
    expires: float | None = None
    aged: float | None = None
    leaving: asyncio.Event | None = None


Identify = Callable[[Context], Caller]
"""Asked at the beginning of each call. Raises MapError (UNAUTHENTICATED) for one that comes from nobody."""


def always(caller: Caller) -> Identify:
    """Of a socket that is one principal's: the kernel has checked who connects."""
    return lambda _context: caller

"""``mapd_client`` without async and await, for scripts and notebooks.

    with blocking.connect() as client, client.open_map("flows", key=U32, value=U64) as flows:
        flows.update(1, 10)
        for key, value in flows.items(): ...

The same names, arguments and errors; ``aclose`` is ``close`` here, and ``connect`` and what opens maps return what they
have opened, which ``with`` closes. Calls block the thread, on grpc's own blocking stubs: there is no event loop, and
where one runs in this thread (a notebook) it stands still meanwhile.

A client, and its maps, may be used by several threads at once; a Dump, a Listing and Batches by one at a time. A client
does not survive a fork: the child gets Misuse, and makes one of its own. Unlike the asynchronous client's, operations
are calls of their own: one that changes something is not repeated when the connection breaks (OutcomeUnknown).

KeyboardInterrupt ends a call or a dump where it waits, within a fifth of a second; what was asked may have been
executed. Docstrings that say "Cancelled" mean this here.
"""

# The types are in __init__.pyi, which scripts.blocking_stubs writes; CI compares.

from __future__ import annotations

from typing import Any

import mapd_client
from mapd_client import Tls, client, objectmaps
from mapd_client.blocking.deriving import Closable, Derived, Iterated, inner, stands_for
from mapd_client.blocking.link import DrivenClient
from mapd_client.dump import Dump as AsyncDump
from mapd_client.handle import MapHandle as AsyncMapHandle
from mapd_client.keyless import Bloom as AsyncBloom
from mapd_client.keyless import Queue as AsyncQueue
from mapd_client.listing import Listing as AsyncListing
from mapd_client.lpm import Lpm as AsyncLpm
from mapd_client.map import Map as AsyncMap
from mapd_client.tables.needs import arrow
from mapd_client.tables.streaming import Batches as AsyncBatches
from mapd_client.waiting import drive


@stands_for(client.Client)
class Client(Closable):
    """One daemon, as one user of it; making one does no I/O. Arguments and errors as ``mapd_client.Client``."""

    __slots__ = ()

    def __init__(
        self,
        target: str | None = None,
        *,
        tls: Tls | None = None,
        timeout: float = 30.0,
        wait_for_ready: bool = False,
    ) -> None:
        super().__init__(DrivenClient(target, tls=tls, timeout=timeout, wait_for_ready=wait_for_ready))


@stands_for(AsyncMapHandle)
class MapHandle(Closable):
    """One open map. The handle ends with ``close`` or with the client; the map itself does not."""

    __slots__ = ()


@stands_for(AsyncMap)
class Map(MapHandle):
    """As ``mapd_client.Map``; ``m[key]`` is the value itself."""

    __slots__ = ()


@stands_for(AsyncQueue)
class Queue(MapHandle):
    """As ``mapd_client.Queue``."""

    __slots__ = ()


@stands_for(AsyncBloom)
class Bloom(MapHandle):
    """As ``mapd_client.Bloom``."""

    __slots__ = ()


@stands_for(AsyncLpm)
class Lpm(Derived):
    """As ``mapd_client.Lpm``."""

    __slots__ = ()


@stands_for(AsyncDump)
class Dump(Iterated, Closable):
    """What a map holds, as an iterator, a chunk of up to 1 MiB at a time; otherwise as ``mapd_client.Dump``."""

    __slots__ = ()


@stands_for(AsyncListing)
class Listing(Iterated):
    """As ``mapd_client.Listing``."""

    __slots__ = ()


@stands_for(AsyncBatches)
class Batches(Iterated, Closable):
    """As ``mapd_client.Batches``; batches are made in the thread that asks for them."""

    __slots__ = ()

    def reader(self) -> Any:
        """A pyarrow.RecordBatchReader, for any one thread; reading it asks for the batches."""
        return arrow().RecordBatchReader.from_batches(self.schema, iter(self))


@stands_for(objectmaps.ObjectMaps)
class ObjectMaps(Closable):
    """As ``mapd_client.ObjectMaps``."""

    __slots__ = ()


def connect(
    target: str | None = None,
    *,
    tls: Tls | None = None,
    timeout: float = 30.0,
    wait_for_ready: bool = False,
) -> Client:
    """Find a daemon and make sure that it answers; arguments and errors as ``mapd_client.connect``."""
    made = Client(target, tls=tls, timeout=timeout, wait_for_ready=wait_for_ready)
    drive(client.answering(inner(made)))
    return made


def _withdraw(names: list[str]) -> None:
    """Take away Opening (what is opened is there when the call returns) and what asks several hosts at once."""
    for name in ("Opening", "Fleet", "FleetMap"):
        if name in names:
            names.remove(name)


__all__: list[str] = []
__all__ += mapd_client.__all__
_withdraw(__all__)


def __getattr__(name: str) -> Any:
    """All else (codecs, errors, records) is the same for both."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(mapd_client, name)


def __dir__() -> list[str]:
    return __all__

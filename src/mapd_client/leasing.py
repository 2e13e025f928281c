"""Leases of the maps that this client has made, kept alive for as long as these are open.

A lease is asked for again after a third of its ttl; while no daemon answers, or one refuses, every second at least.
What is due is known to ``Kept``, which waits for nothing; a task asks, or a thread of ``mapd_client.blocking``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mapd_api.v1 import leases_pb2
from mapd_client import waiting
from mapd_client.errors import MapdError, MapNotFound
from mapd_client.failures import Asked
from mapd_client.held import Held
from mapd_client.info import Lease, LeaseState
from mapd_client.methods import LEASE_KEEP_ALIVE

_LOG: Final = logging.getLogger("mapd_client")

_TIMES: Final = 3
"""How often within its ttl a lease is kept alive."""

_TRY_S: Final = 2.0
"""How long one try may take: others are due meanwhile."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
"""Before another try."""

_END_S: Final = 1.0
"""How long the end of the client waits for a thread that asks."""


class Calling(Protocol):
    """What is needed of a link: one call."""

    def __call__(
        self, method: Any, request: Any, asked: Asked, timeout: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """As ``Link.call``."""
        ...


@dataclass(slots=True)
class _One:
    """A lease, who wants it, and when it is due by time.monotonic()."""

    lease: Lease
    due: float
    maps: list[Held] = field(default_factory=list[Held])
    pause: float = 0.0


class Kept:
    """The leases that open maps keep alive, and when each is due. For several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, _One] = {}

    def add(self, lease: Lease, held: Held) -> None:
        """One map more that was just made in this lease."""
        with self._lock:
            due = self._clock() + lease.ttl / _TIMES
            one = self._leases.setdefault(lease.id, _One(lease, due))
            one.maps.append(held)

    def due(self) -> Sequence[Lease]:
        """Those to be kept alive now; one whose maps are all closed is kept no longer."""
        with self._lock:
            now = self._clock()
            for lease_id in [lease_id for lease_id, one in self._leases.items() if one.due <= now]:
                one = self._leases[lease_id]
                one.maps = [held for held in one.maps if not held.closed]
                if not one.maps:
                    del self._leases[lease_id]
            return [one.lease for one in self._leases.values() if one.due <= now]

    def wait(self) -> float | None:
        """Seconds until one is due; None where there is none."""
        with self._lock:
            if not self._leases:
                return None
            return max(0.0, min(one.due for one in self._leases.values()) - self._clock())

    def renewed(self, lease: Lease) -> None:
        """It has its whole ttl."""
        with self._lock:
            if (one := self._leases.get(lease.id)) is not None:
                one.due, one.pause = self._clock() + lease.ttl / _TIMES, 0.0

    def failed(self, lease: Lease) -> bool:
        """It could not be kept alive, and is due again in a moment; whether this is the first time."""
        with self._lock:
            if (one := self._leases.get(lease.id)) is None:
                return False
            first = one.pause == 0.0
            most = min(_LONGEST_PAUSE_S, lease.ttl / _TIMES)
            one.pause = min(max(2 * one.pause, _FIRST_PAUSE_S), most)
            one.due = self._clock() + one.pause
            return first

    def ended(self, lease: Lease) -> None:
        """It has ended all the same."""
        with self._lock:
            self._leases.pop(lease.id, None)


async def keep_alive(call: Calling, kept: Kept) -> None:
    """Ask for those that are due, one after the other."""
    for lease in kept.due():
        asked = Asked("keep alive", lease.id)
        request = leases_pb2.LeaseKeepAliveRequest(lease=lease.id)
        try:
            await call(LEASE_KEEP_ALIVE, request, asked, min(_TRY_S, lease.ttl))
        except MapNotFound as error:
            kept.ended(lease)
            _LOG.warning("the pins of its maps are gone: %s", error)
        except MapdError as error:
            if kept.failed(lease):
                _LOG.warning("tried again until it ends: %s", error)
        except Exception:
            # A fault of ours; without who asks all leases of this client would end.
            if kept.failed(lease):
                _LOG.exception("keep alive %s: tried again until it ends", lease.id)
        else:
            kept.renewed(lease)


class Leasing:
    """The leases of one event loop's link, and the task that keeps them alive while there are any."""

    def __init__(self) -> None:
        self.kept = Kept()
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def keep(self, call: Calling, lease: Lease, held: Held) -> None:
        """Keep a lease alive while this map is open. Not where the client was closed while the map was made."""
        if self._closed:
            return
        self.kept.add(lease, held)
        self._added.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(call), name="mapd leases")

    async def _run(self, call: Calling) -> None:
        while (wait := self.kept.wait()) is not None:
            self._added.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._added.wait()
            except TimeoutError:
                await keep_alive(call, self.kept)

    async def aclose(self) -> None:
        """Keep nothing alive any more: each lease has its ttl left, or most of it. Idempotent."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


class ThreadLeasing(Leasing):
    """The leases of a blocking client, and the thread that keeps them alive while there are any."""

    def __init__(self) -> None:
        self.kept = Kept()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def keep(self, call: Calling, lease: Lease, held: Held) -> None:
        """As Leasing."""
        self.kept.add(lease, held)
        with self._changed:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._drive, args=(call,), name="mapd leases", daemon=True)
                thread.start()  # RuntimeError where there can be none: the next lease tries again
                self._thread = thread
            self._changed.notify()

    def _drive(self, call: Calling) -> None:
        while self._waited():
            waiting.drive(keep_alive(call, self.kept))

    def _waited(self) -> bool:
        """Wait until something is due; False where there is nothing any more, and the thread is to end."""
        with self._changed:
            while not self._closed and (wait := self.kept.wait()) is not None:
                if wait <= 0.0:
                    return True
                self._changed.wait(wait)
            self._thread = None
            return False

    async def aclose(self) -> None:
        """As Leasing."""
        with self._changed:
            self._closed, thread = True, self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(_END_S)


def state(message: leases_pb2.LeaseTimeToLiveResponse) -> LeaseState:
    """As it came."""
    return LeaseState(
        ttl=message.ttl.ToMilliseconds() / 1_000,
        remaining=message.remaining.ToMilliseconds() / 1_000,
        pins=tuple(message.pins),
    )

"""Whether names and pins still lead where they led: asked of the kernel now and then, for the maps that are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from mapd.maps.errors import MapError
from mapd.runtime.adopting import Adopting
from mapd.runtime.host import MapHost

PINS_CHECK_S: Final = 1.0
"""So long a handle may be used on a map that others have named otherwise, or put another one in the place of. What
mapd itself does to a name counts at once."""

_log = structlog.stdlib.get_logger("mapd.runtime")


@asynccontextmanager
async def watching_pins(
    host: MapHost, adopting: Adopting, every: float = PINS_CHECK_S
) -> AsyncGenerator[None]:
    """Check ``every`` so many seconds inside the block: the maps that are held, and the pins that have changed."""
    # No TaskGroup: it would wrap what is raised in the block, a reason not to start, into a group.
    watch = asyncio.create_task(_watch(host, adopting, every), name="pin check")
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait({watch})


async def _watch(host: MapHost, adopting: Adopting, every: float) -> None:
    told: set[tuple[str, int]] = set()
    while True:
        await asyncio.sleep(every)
        try:
            await host.check_pins()
            await adopting.look()
        except MapError as error:
            # Draining, out of descriptors, or names that never rest: what is held stays as it was judged.
            _log.warning("pins were not checked", reason=error.reason.name, message=str(error))
            continue
        except Exception:
            # A fault of ours. What is held stays as it was judged; without this task nobody would look again.
            _log.exception("pins were not checked")
            continue
        replaced = {
            (one.opened.pin_path, one.opened.facts.id): one.replaced
            for one in host.handles.held()
            if one.replaced
        }
        for (path, map_id), other in replaced.items():
            if (path, map_id) not in told:
                adopting.counts.replaced += 1
                _log.warning("a pin was replaced", pin=path, map=map_id, by=other)
        told = set(replaced)

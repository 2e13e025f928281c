"""``mapd serve`` with a fault planted in its dumps: ``greedy.py serve --config FILE``, which one in MAPD_TEST_GREED.

``holds``: dumps hold what they like, and a reader that stalls costs as much as one that reads. ``blocks``:
who waits for a reader holds the event loop. As in ``kit.entry`` the fault is put in behind the front's lock.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from mapd import cli
from mapd.launch import front
from mapd.sandbox import lock_front
from mapd_api import limits

VARIABLE = "MAPD_TEST_GREED"


def holds() -> None:
    """No budget to speak of, and large chunks alone."""
    setattr(limits, "DUMP_BYTES", 1 << 30)  # noqa: B010 - final
    setattr(limits, "CHUNK_MIN_BYTES", limits.CHUNK_MAX_BYTES)  # noqa: B010


def blocks() -> None:
    """Who waits for a reader looks again and again, 0.1 ms each time."""
    from mapd.runtime.scans import Dump

    inner = Dump._write  # pyright: ignore[reportPrivateUsage]

    async def looking(self: Dump, writing: Awaitable[None], stalls: Callable[[], None]) -> None:
        task = asyncio.ensure_future(inner(self, writing, stalls))
        while not task.done():
            time.sleep(0.00005)  # noqa: ASYNC251 - this is the fault
            await asyncio.sleep(0)
        await task

    setattr(Dump, "_write", looking)  # noqa: B010


def main() -> int:
    """The daemon's exit status."""
    plant = {"holds": holds, "blocks": blocks}[os.environ[VARIABLE]]

    def locked(*args: Any, **kwargs: Any) -> Any:
        found = lock_front(*args, **kwargs)
        plant()
        return found

    setattr(front, "lock_front", locked)  # noqa: B010 - of a module's function
    return cli.run(sys.argv[1:])


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)

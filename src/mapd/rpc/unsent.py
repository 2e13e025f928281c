"""Answers that their callers have not taken: as many bytes as there may be, in shares.

Who has many calls under way and reads slowly, or not at all, would have the daemon hold an answer for each. So room
is taken for a large one before it is made, and given back when it is sent. Sessions have bounds of their own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any, Final, cast

from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.rpc import resetting
from mapd.rpc.caller import Context
from mapd_api import limits
from mapd_api.reasons import Reason

SMALL: Final = 16 << 10
"""Bytes of an answer that takes no room: those of all calls of a connection are 16 MiB."""


COPIES: Final = 4
"""Of an answer, at the same time: the values' column, the message, its encoding, and gRPC's copy of that."""


class Unsent:
    """Room for answers of calls outside of sessions. For one event loop.

    A principal has never more than there is left for others: one alone half of ``total``.
    """

    def __init__(self, total: int = limits.UNSENT_BYTES) -> None:
        self._total = total
        self._own: Counter[Principal] = Counter()
        self._freed = asyncio.Event()

    @property
    def held(self) -> int:
        """Bytes of all."""
        return self._own.total()

    async def take(self, principal: Principal, context: Context, size: int, operation: str) -> None:
        """Wait for room for ``size`` bytes of the answer of the call that this task serves, and for their copies.

        The call has it until it ends.

        A call whose answer is not taken is given up: its stream is reset.

        Cancelling: nothing is held.

        Raises:
            MapError: BUSY, there was none within limits.UNSENT_WAIT_S. Nothing was executed.
        """
        if size <= SMALL:
            return
        size *= COPIES
        try:
            async with asyncio.timeout(limits.UNSENT_WAIT_S):
                while not self._fits(principal, size):
                    await self._freed.wait()
        except TimeoutError:
            raise MapError(
                Reason.BUSY,
                f"{operation}: {self._own[principal]} bytes are held for answers that you have not read, of "
                f"{self._total >> 10} KiB for everybody, and this one would take {size}; read them, have fewer calls "
                "under way, or use a session",
                operation=operation,
            ) from None
        self._own[principal] += size
        task = asyncio.current_task()
        assert task is not None
        late = asyncio.get_running_loop().call_later(
            limits.UNARY_S + limits.STREAM_PROGRESS_S, partial(_cut, task)
        )

        def done(_: Any) -> None:
            self._give_back(principal, size, late)

        cast("Any", context).add_done_callback(done)

    def _fits(self, principal: Principal, size: int) -> bool:
        own = self._own[principal] + size
        return own <= self._total - self.held - size or not self.held

    def _give_back(self, principal: Principal, size: int, late: asyncio.TimerHandle) -> None:
        late.cancel()
        self._own[principal] -= size
        if not self._own[principal]:
            del self._own[principal]
        # Who waits now looks again, in the order in which they came.
        self._freed.set()
        self._freed = asyncio.Event()


def _cut(task: asyncio.Task[Any]) -> None:
    """The answer was made long ago, and is not taken."""
    resetting.let_go(task)
    task.cancel()

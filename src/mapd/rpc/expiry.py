"""Streams end when what attests their caller does: a certificate, by the clock on the wall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from mapd.rpc.caller import Caller
from mapd_api.reasons import Reason, Refusal

LOOK_S: Final = 30.0
"""The clock may be set while a stream runs: it is looked at so often at least."""


@contextmanager
def while_attested(caller: Caller, end: Callable[[Caller, Refusal], None]) -> Generator[None]:
    """Call ``end`` once, should ``caller.expires`` pass inside the block."""
    if caller.expires is None:
        yield
        return
    loop, expires = asyncio.get_running_loop(), caller.expires
    timer: asyncio.Handle

    def look() -> None:
        nonlocal timer
        left = expires - time.time()
        if left > 0:
            timer = loop.call_later(min(left, LOOK_S), look)
            return
        end(
            caller,
            Refusal(
                Reason.UNAUTHENTICATED,
                f"the certificate that attests this stream ({caller.attested_by}) has ended; what was done "
                "stays; connect again with a new one",
            ),
        )

    timer = loop.call_soon(look)
    try:
        yield
    finally:
        timer.cancel()

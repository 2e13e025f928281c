"""Waiting for what nothing announces: descriptors that other threads close, tasks of libraries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Let the loop run until ``condition`` holds; False if it does not within ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0)
    return True

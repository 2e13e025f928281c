"""Publishes each line of its input on a subject of NATS: ``nats_publisher URL SUBJECT``; ends when all are there."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

import nats


async def main(url: str, subject: str) -> None:
    client = await cast("Any", nats).connect(url)
    for line in sys.stdin.buffer:
        await client.publish(subject, line)
    await client.drain()


asyncio.run(main(*sys.argv[1:]))

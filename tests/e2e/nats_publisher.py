"""Publishes each line of its input on a subject of NATS: ``nats_publisher URL SUBJECT``; ends when all are there."""

from __future__ import annotations

import asyncio
import sys

import nats


async def main(url: str, subject: str) -> None:
    client = await nats.connect(url)
    for line in sys.stdin.buffer:
        await client.publish(subject, line)
    await client.drain()


asyncio.run(main(*sys.argv[1:]))

"""Calls that are made without waiting for each other are executed map by map in the order they were made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import mapd_client
from mapd.daemon import Ready
from mapd_client import U64, Map
from mapd_client.gathering import ALONE_BYTES

LARGE = ALONE_BYTES // 16 + 1
"""Elements of a group that travels alone, and that the daemon gives to other threads than small ones."""

Words = Map[int, int]


class Model:
    """What a map must hold, and what calls must answer, if they are executed as they were made."""

    def __init__(self) -> None:
        self.data: dict[int, int] = {}

    def call(self, found: Words, kind: str, key: int, value: int) -> tuple[Coroutine[Any, Any, Any], Any]:
        """A call, and its answer."""
        match kind:
            case "lookup":
                return found.lookup(key), self.data.get(key)
            case "update":
                self.data[key] = value
                return found.update(key, value), None
            case "delete":
                return found.delete(key), self.data.pop(key, None) is not None
            case "take":
                return found.lookup_and_delete(key), self.data.pop(key, None)
            case "fetch_add":
                old = self.data.get(key)
                if old is not None:
                    self.data[key] = old + value
                return found.fetch_add(key, value), old
            case "update_many":
                self.data[key] = value + LARGE - 1
                return found.update_many((key, value + at) for at in range(LARGE)), LARGE
            case _:
                answers = [self.data.get(key)] * LARGE
                return found.lookup_many([key] * LARGE), answers


SMALL_CALLS = ("lookup", "update", "delete", "take", "fetch_add")
LARGE_CALLS = ("update_many", "lookup_many")


async def test_calls_on_a_map_are_executed_in_the_order_they_were_made(local: Ready) -> None:
    generator = random.Random(11)  # noqa: S311 - no secret
    async with (
        mapd_client.connect(str(local.socket)) as client,
        client.create_map("one", "hash", key=U64, value=U64, max_entries=100) as one,
        client.create_map("two", "hash", key=U64, value=U64, max_entries=100) as two,
    ):
        models = {one: Model(), two: Model()}
        for found in models:
            await found.update(9, 0)  # the client knows all about the map: calls are queued as they are made
            await found.delete(9)
            await found.fetch_add(9, 1)
            await found.lookup_many([9])
            await found.update_many({9: 9})
            await found.delete(9)
        for _ in range(20):
            tasks: list[asyncio.Task[Any]] = []
            expected: list[Any] = []
            for _ in range(60):
                found = generator.choice((one, two))
                kinds = LARGE_CALLS if generator.random() < 0.1 else SMALL_CALLS
                kind, key, value = generator.choice(kinds), generator.randrange(4), generator.randrange(100)
                call, answer = models[found].call(found, kind, key, value)
                tasks.append(asyncio.create_task(call))
                expected.append(answer)
                if generator.random() < 0.3:
                    await asyncio.sleep(0)
            assert await asyncio.gather(*tasks) == expected
        for found, model in models.items():
            assert {key: value async for key, value in found.items()} == model.data

"""Measured programs: they read a command a line and answer each with one line of JSON.

    flight WIDTH N SEED  ->  {"seconds": ..., "cpu": ..., "count": N}

``cpu`` is what the program itself used meanwhile, all its threads, user and system.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Answer = Callable[[], Mapping[str, float]]
"""Looks through what was got, after the clock was stopped: at least ``count``, of what was right."""

Work = Callable[[], Awaitable[Answer]]
"""What is measured."""

Prepare = Callable[[Sequence[int]], Awaitable[Work]]
"""Takes a command's numbers and does all that shall not be measured."""

Lookup = Callable[[int], Awaitable[int | None]]


def value_of(key: int) -> int:
    """The value of each key in every map that is measured."""
    return 3 * key + 1


def random_keys(entries: int, wanted: int, seed: int) -> NDArray[np.uint64]:
    """The first of a random order of all keys: none comes twice."""
    order = np.random.default_rng(seed).permutation(entries)
    return order[:wanted].astype(np.uint64)


async def serve(commands: Mapping[str, Prepare]) -> None:
    """Answer commands until standard input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        name, *numbers = line.split()
        work = await commands[name]([int(number) for number in numbers])
        began, used = time.perf_counter(), time.process_time()
        answer = await work()
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        print(json.dumps({**answer(), "seconds": seconds, "cpu": cpu}), flush=True)


def prepared(work: Work) -> Prepare:
    """Of a command without numbers, and without anything to prepare."""

    async def prepare(_numbers: Sequence[int]) -> Work:
        return work

    return prepare


def flight(lookup: Lookup, entries: int) -> Prepare:
    """``flight WIDTH N SEED``: N lookups of random keys by WIDTH tasks, each awaiting one at a time."""

    async def prepare(numbers: Sequence[int]) -> Work:
        width, wanted, seed = numbers
        keys = random_keys(entries, wanted, seed).tolist()

        async def work() -> Answer:
            rest = iter(keys)

            async def one_task() -> int:
                right = 0
                for key in rest:
                    right += await lookup(key) == value_of(key)
                return right

            done = await asyncio.gather(*(one_task() for _ in range(width)))
            return lambda: {"count": sum(done)}

        return work

    return prepare


def one(lookup: Lookup, entries: int) -> Prepare:
    """``one N SEED``: N lookups, one after the other; answers the 50th and 99th percentile too, in seconds."""

    async def prepare(numbers: Sequence[int]) -> Work:
        wanted, seed = numbers
        keys = random_keys(entries, wanted, seed).tolist()

        async def work() -> Answer:
            took: list[float] = []
            right = 0
            for key in keys:
                began = time.perf_counter()
                value = await lookup(key)
                took.append(time.perf_counter() - began)
                right += value == value_of(key)
            took.sort()
            return lambda: {"count": right, "p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}

        return work

    return prepare

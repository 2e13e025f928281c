"""Clients under load: ``worker.py SETTINGS`` forks them, and ends when its standard input does.

Each does one operation after the other until then, and writes its history to the standard output they share. Forked,
since a Python that has to import everything takes 0.3 s; nothing of grpc runs before the fork.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import grpc

sys.path.append(str(Path(__file__).parents[3]))

import mapd_client
from mapd_client import U64
from mapd_client.errors import Unreachable
from tests.reliability.kit.doers import Doer, Element, InSession, Unary
from tests.reliability.kit.history import Recorder

COUNTERS: Final = 8
"""Every so manieth key is a counter, whose values are sums."""

COUNTING: Final = (("fetch_add", 6), ("lookup", 3), ("update_noexist", 2), ("delete", 1))
SINGLE: Final = (
    ("update", 6),
    ("lookup", 8),
    ("update_noexist", 4),
    ("update_exist", 2),
    ("delete", 3),
    ("lookup_and_delete", 2),
    ("compare_exchange", 2),
)
ATOMIC: Final = frozenset({"fetch_add", "compare_exchange"})

BACKOFF: Final = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the clients do.

    Attributes:
        unary: how many of them make calls of their own; the others have sessions.
        began: time.monotonic() from which the windows of keys are counted.
        window_s: so long the clients work on the same keys. Checking a key takes longer than its operations do from
            about 500 on, with eight clients.
        keys: in one window.
        batches: the part of the calls that have several elements.
        batch: elements of these, at most.
        old: the part of the operations that goes to keys of any earlier window, as far as they do not count.
    """

    socket: str
    name: str
    clients: int
    unary: int
    seed: int
    began: float
    window_s: float = 2.0
    keys: int = 32
    batches: float = 0.1
    batch: int = 8
    old: float = 0.1
    timeout: float = 30.0

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What ``to_json`` wrote."""
        return cls(**json.loads(text))


class Chooser:
    """What one client does next. Values are its own, so that each names the operation that wrote it."""

    def __init__(self, settings: Settings, client: int, *, atomics: bool) -> None:
        self.chance = random.Random(settings.seed * 1_000 + client)  # noqa: S311 - of operations, not of secrets
        self.settings = settings
        self._client = client
        self._value = 0
        self._kinds = {
            counts: [(op, weight) for op, weight in kinds if atomics or op not in ATOMIC]
            for counts, kinds in ((True, COUNTING), (False, SINGLE))
        }
        self._seen: dict[int, int] = {}

    def answered(self, key: int, value: int | None) -> None:
        """What a key was: an expectation for a compare_exchange."""
        if value is not None:
            self._seen[key] = value

    def element(self, ops: Sequence[str] = ()) -> Element:
        """One operation; one of ``ops`` where they are given."""
        key = self._key()
        kinds = self._kinds[not key % COUNTERS]
        if ops:
            kinds = [(op, weight) for op, weight in kinds if op in ops] or [("lookup", 1)]
        op = self.chance.choices([op for op, _ in kinds], [weight for _, weight in kinds])[0]
        return op, key, self._args(op, key)

    def elements(self, ops: Sequence[str], *, mixed: bool) -> Sequence[Element]:
        """Several, on different keys."""
        found: dict[int, Element] = {}
        chosen = ops if mixed else [self.chance.choice(ops)]
        for _ in range(self.settings.batch):
            element = self.element(chosen)
            if mixed or not found or next(iter(found.values()))[0] == element[0]:
                found[element[1]] = element
        return list(found.values())

    def _key(self) -> int:
        settings = self.settings
        window = int((time.monotonic() - settings.began) / settings.window_s)
        if self.chance.random() < settings.old:
            window = self.chance.randrange(window + 1)
        return window * settings.keys + self.chance.randrange(settings.keys)

    def _args(self, op: str, key: int) -> tuple[int, ...]:
        if op == "fetch_add":
            return (self.chance.randint(1, 9),)
        if op == "update_noexist" and not key % COUNTERS:
            return (0,)
        if op == "compare_exchange":
            return self._seen.get(key, 0), self._next()
        return (self._next(),) if op.startswith("update") else ()

    def _next(self) -> int:
        self._value += 1
        return (self._client + 1) << 40 | self._value


async def work(doer: Doer, told: Recorder, chooser: Chooser, stop: asyncio.Event) -> None:
    """One operation after the other, until ``stop``."""
    while not stop.is_set():
        if chooser.chance.random() < chooser.settings.batches:
            elements = chooser.elements(doer.batches, mixed=doer.mixed)
        else:
            elements = [chooser.element()]
        names = {op for op, _, _ in elements}
        call = told.invoke(
            names.pop() if len(names) == 1 else [op for op, _, _ in elements],
            [key for _, key, _ in elements],
            [args for _, _, args in elements],
        )
        ends = [await doer.one(elements[0])] if len(elements) == 1 else await doer.many(elements)
        told.returned(call, ends)
        for (op, key, _), end in zip(elements, ends, strict=True):
            if op in {"lookup", "compare_exchange"}:
                chooser.answered(key, end.result)


async def _unary(stack: AsyncExitStack, settings: Settings, told: Recorder) -> Doer:
    del told
    target = f"unix:{settings.socket}"
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=BACKOFF))
    return Unary(channel, settings.name, settings.timeout)


async def _in_session(stack: AsyncExitStack, settings: Settings, told: Recorder) -> Doer:
    connecting = mapd_client.connect(settings.socket, timeout=settings.timeout)
    connected = await stack.enter_async_context(connecting)
    while True:
        try:
            opening = connected.open_map(settings.name, key=U64, value=U64)
            return InSession(await stack.enter_async_context(opening))
        except Unreachable as error:
            told.say("again", why=repr(error))


async def client(settings: Settings, number: int) -> None:
    """One client, from its first call to SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    told = Recorder(number, partial(os.write, 1))
    unary = number < settings.unary
    chooser = Chooser(settings, number, atomics=not unary)
    async with AsyncExitStack() as stack:
        doer = await (_unary if unary else _in_session)(stack, settings, told)
        told.say("started")
        await work(doer, told, chooser, stop)
    told.say("ended")


def main(settings: Settings) -> int:
    """Fork the clients, wait for the end of standard input, end them; 1 if one failed."""
    children: list[int] = []
    for number in range(settings.clients):
        child = os.fork()
        if not child:
            status = 1
            try:
                asyncio.run(client(settings, number))
                status = 0
            finally:
                os._exit(status)  # what was raised is on standard error; nothing of the parent's is run
        children.append(child)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGTERM)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(Settings.from_json(sys.argv[1])))

"""Calls that meet a daemon which is killed, drained or not there yet: they wait for the next, and say what was lost."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

import mapd.start
import mapd_client
from mapd.daemon import running
from mapd_client import (
    U32,
    U64,
    Client,
    Id,
    Incompatible,
    Map,
    MapdError,
    NotSent,
    OutcomeUnknown,
    Reason,
    Unavailable,
    blocking,
    discovery,
)
from mapd_client.patience import Patience
from tests.e2e.settling import until
from tests.support.daemon import DaemonProcess, Place, daemon_process, environment, spawn, wait_ready

T = TypeVar("T")
Words = Map[int, int]
FULL = 100
MAPCTL = "import sys; from mapd_client.cli import main; sys.exit(main())"


def words(client: Client, name: str = "words", *, entries: int = FULL) -> mapd_client.Opening[Words]:
    return client.create_map(name, "hash", key=U64, value=U64, max_entries=entries, btf=True, exist_ok=True)


async def listed(client: Client) -> list[str]:
    return [found.name async for found in client.list_maps()]


async def opened(client: Client) -> str:
    async with client.open_map("words") as found:
        return found.info.name


async def created(client: Client) -> bool:
    async with words(client) as found:
        return found.created


CLIENT: dict[str, tuple[Callable[[Client], Awaitable[Any]], Callable[[Any], bool]]] = {
    "server_info": (lambda client: client.server_info(), lambda found: bool(found.epoch)),
    "whoami": (lambda client: client.whoami(), lambda found: found.name == "admin"),
    "host_info": (lambda client: client.host_info(), lambda found: bool(found.boot_id)),
    "explain": (lambda client: client.explain("read", "words"), lambda found: found.allowed),
    "list_maps": (listed, lambda found: "admin/words" in found),
    "map_stats": (
        lambda client: client.map_stats(),
        lambda found: "admin/words" in {one.name for one in found.maps},
    ),
    "open_map": (opened, lambda found: found == "admin/words"),
    "create_map": (created, lambda found: not found),
    "rename_map": (lambda client: client.rename_map("old", "new"), lambda found: found.endswith("/new")),
    "unpin_map": (lambda client: client.unpin_map("gone"), lambda found: found is None),
}
"""What is asked of a client, and whether the answer is the one that is due."""

NOT_ASKED = {
    "health": "says what is, and does not wait",
    "aclose": "waits for nobody",
    "known_hints": "asks host_info",
    "open_queue": "as open_map",
    "open_bloom": "as open_map",
    "create_from_object": "made of create_map and load",
    "keep_lease_alive": "leases have tests of their own",
    "revoke_lease": "leases have tests of their own",
    "lease_time_to_live": "leases have tests of their own",
}

MAP: dict[str, tuple[Callable[[Words], Awaitable[Any]], Callable[[Any], bool]]] = {
    "count": (lambda found: found.count(), lambda answer: answer.entries == FULL // 2),
    "btf": (lambda found: found.btf(), lambda answer: bool(answer.blob)),
    "lookup": (lambda found: found.lookup(3), lambda answer: answer == 3),
    "lookup_many": (lambda found: found.lookup_many(range(4)), lambda answer: answer == [0, 1, 2, 3]),
    "update": (lambda found: found.update(1, 1, flags="exist"), lambda answer: answer is None),
    "load": (lambda found: found.load([(2, 2)]), lambda answer: answer == 1),
    "freeze": (lambda found: found.freeze(), lambda answer: answer is None),
}


def public(kind: type[Any]) -> set[str]:
    """What a client does by asking a daemon."""
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_every_call_of_a_client_is_asked_below_or_is_not_for_a_reason() -> None:
    assert public(Client) == CLIENT.keys() | NOT_ASKED.keys()


async def ask_all(client: Client, found: Words, frozen: Words) -> dict[str, Any]:
    """Every call, begun at once; what each answers, or raises."""
    calls: dict[str, Awaitable[Any]] = {name: call(client) for name, (call, _) in CLIENT.items()}
    calls |= {name: call(frozen if name == "freeze" else found) for name, (call, _) in MAP.items()}
    calls["pin"] = found.pin(found.info.pin_path + "-2")
    calls["dump"] = all_of(found)
    answers = await asyncio.gather(*calls.values(), return_exceptions=True)
    return dict(zip(calls, answers, strict=True))


async def all_of(found: Words) -> list[tuple[int, int]]:
    return sorted([pair async for pair in found.items()])


def wrong(answers: dict[str, Any]) -> dict[str, Any]:
    """The answers that are not those that are due."""
    due: dict[str, Callable[[Any], bool]] = {name: right for name, (_, right) in (CLIENT | MAP).items()}
    due["pin"] = lambda answer: answer is None
    due["dump"] = lambda answer: answer == [(n, n) for n in range(FULL // 2)]
    return {
        name: answer
        for name, answer in answers.items()
        if isinstance(answer, BaseException) or not due[name](answer)
    }


async def prepared(stack: AsyncExitStack, place: Place, timeout: float = 20) -> tuple[Client, Words, Words]:
    client = await stack.enter_async_context(mapd_client.connect(str(place.socket), timeout=timeout))
    found = await stack.enter_async_context(words(client))
    frozen = await stack.enter_async_context(words(client, "frozen"))
    for name in ("old", "gone"):
        async with words(client, name):
            pass
    assert await found.load((n, n) for n in range(FULL // 2)) == FULL // 2
    return client, found, frozen


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[MapdError]:
    """How each try has ended that has not answered its call."""
    ended: list[MapdError] = []
    pause = Patience.pause

    def told(self: Patience, error: MapdError) -> float:
        ended.append(error)
        return pause(self, error)

    monkeypatch.setattr(Patience, "pause", told)
    return ended


async def test_every_call_that_meets_no_daemon_is_answered_by_the_next(
    place: Place, tries: list[MapdError]
) -> None:
    async with AsyncExitStack() as stack:
        with daemon_process(place) as first:
            client, found, frozen = await prepared(stack, place)
            first.process.kill()
            first.process.wait()
            with pytest.raises(
                Unavailable
            ):  # what is written to a socket before its end is noticed may have arrived
                await client.health()
            asked = asyncio.create_task(ask_all(client, found, frozen))
            assert await until(lambda: len(tries) >= 3 * len(CLIENT | MAP))
            assert not asked.done()
        with daemon_process(place):
            assert wrong(await asked) == {}


async def test_every_call_that_a_draining_daemon_refuses_is_answered_by_the_next(place: Place) -> None:
    async with AsyncExitStack() as stack:
        with daemon_process(place, extra="grace_s = 1.0") as first:
            client, found, frozen = await prepared(stack, place)
            async with words(client, "big", entries=200_000) as big:
                await big.load((n, n) for n in range(200_000))
                dump = await stack.enter_async_context(big.chunks())
                await anext(dump)  # and nothing more is taken: the daemon waits for it
                first.process.send_signal(signal.SIGTERM)
                states = [await client.health()]
                while states[-1] == "SERVING":
                    states.append(await client.health())
                asked = asyncio.create_task(ask_all(client, found, frozen))
                assert await asyncio.to_thread(first.process.wait, 10) == 0
                assert not asked.done()
                with daemon_process(place):
                    assert wrong(await asked) == {}


async def test_what_cannot_be_answered_in_time_says_what_it_waited_for(place: Place) -> None:
    with daemon_process(place) as first:
        async with mapd_client.connect(str(place.socket), timeout=1) as client, words(client) as found:
            first.process.kill()
            first.process.wait()
            with pytest.raises(Unavailable):
                await client.health()
            reads = (client.whoami(), found.count(), all_of(found))
            writes = (found.freeze(), client.unpin_map("words"), found.load([(1, 1)]))
            ends = await asyncio.gather(*reads, *writes, return_exceptions=True)
    assert [type(end) for end in ends] == [*[Unavailable] * 3, *[NotSent] * 3]
    for end in ends:
        assert isinstance(end, (Unavailable, NotSent))
        assert re.search(r"no daemon at unix:.*; asked again for 1 s", str(end))


def unread(place: Place) -> int:
    """Bytes that this process has sent to the daemon, and nobody has read."""
    total = 0
    for number in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if str(number.readlink()).startswith("socket:"):
                total += unread_of(int(number.name), str(place.runtime_dir))
    return total


def unread_of(number: int, folder: str) -> int:
    with socket.socket(fileno=os.dup(number)) as one, suppress(OSError):  # not connected
        if one.family == socket.AF_UNIX and one.getpeername().startswith(folder):
            return int.from_bytes(fcntl.ioctl(one, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


async def sent(place: Place, call: Awaitable[T]) -> asyncio.Future[T]:
    """Begin a call to a daemon that stands still; it has left when this returns."""
    before = unread(place)
    begun = asyncio.ensure_future(call)
    assert await until(lambda: begun.done() or unread(place) > before, within_s=60), (before, unread(place))
    assert not begun.done(), begun
    return begun


async def test_many_calls_that_meet_no_daemon_never_left(place: Place) -> None:
    """A channel that finds nobody is replaced, and each of them waits for its own time, not for the others'."""
    with daemon_process(place) as first:
        async with mapd_client.connect(str(place.socket), timeout=1) as client:
            await client.whoami()
            first.process.kill()
            first.process.wait()
            ends = await asyncio.gather(
                *(client.unpin_map(f"m{number}") for number in range(100)), return_exceptions=True
            )
    assert {type(end) for end in ends} == {NotSent}


async def test_a_create_that_may_have_been_executed_is_repeated_only_where_it_finds_its_own(
    place: Place,
) -> None:
    """The daemon is stopped when it is asked, and killed: nobody knows what it has done."""
    with daemon_process(place) as first:
        async with mapd_client.connect(str(place.socket), timeout=20) as client, words(client) as found:
            first.process.send_signal(signal.SIGSTOP)
            again = await sent(place, created(client))
            once = await sent(place, client.create_map("once", "hash", key=U32, value=U32, max_entries=1))
            pin = await sent(place, found.pin(found.info.pin_path + "-2"))
            freeze = await sent(place, found.freeze())
            first.process.kill()
            first.process.wait()
            for unknown in (once, pin):
                with pytest.raises(OutcomeUnknown):
                    await unknown
            with daemon_process(place):
                assert not await again
                await freeze


async def test_another_map_under_the_name_is_never_taken_for_the_one_that_was_open(place: Place) -> None:
    with daemon_process(place) as first:
        async with mapd_client.connect(str(place.socket), timeout=20) as client, words(client) as found:
            await found.update(1, 1)
            by_id = await client.open_map(Id(found.info.id), key=U64, value=U64)
            first.process.kill()
            first.process.wait()
            with daemon_process(place):
                async with mapd_client.connect(str(place.socket)) as other:
                    await other.unpin_map("words")
                    async with words(other) as replacement:
                        await replacement.update(1, 99)
                        for call in (
                            found.count(),
                            found.freeze(),
                            found.btf(),
                            found.pin("/x"),
                            found.lookup(1),
                            found.update(1, 5),
                            found.delete(1),
                            found.update_many({1: 5}),
                        ):
                            with pytest.raises(Incompatible, match="is another map now") as caught:
                                await call
                            assert caught.value.reason is Reason.MAP_REPLACED
                        with pytest.raises(Incompatible, match="is another map now"):
                            await all_of(found)
                        with pytest.raises(Incompatible, match="is another map now"):
                            await found.load([(1, 5)])
                        with pytest.raises(mapd_client.MapNotFound):
                            await by_id.count()
                        await replacement.update(2, 2)  # it was not frozen
                        assert await all_of(replacement) == [(1, 99), (2, 2)]


async def test_after_a_reboot_the_same_id_and_name_are_another_map(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        async with running(place.config()):
            client = await stack.enter_async_context(mapd_client.connect(str(place.socket), timeout=20))
            found = await stack.enter_async_context(words(client))
            by_id = await client.open_map(Id(found.info.id), key=U64, value=U64)
        monkeypatch.setattr(mapd.start, "boot_id", lambda: str(uuid.uuid4()))
        async with running(place.config()):
            for one in (found, by_id):
                for call in (one.count(), one.lookup(1)):
                    with pytest.raises(Incompatible, match="the host has booted since") as caught:
                        await call
                    assert caught.value.reason is Reason.MAP_REPLACED
            async with words(client) as again:
                assert await again.lookup(1) is None


async def test_a_close_that_is_cancelled_while_nobody_answers_leaves_no_task(place: Place) -> None:
    before, clients = asyncio.all_tasks(), [Client(str(place.socket), timeout=5) for _ in range(6)]
    with daemon_process(place) as first:
        for number, client in enumerate(clients):
            await client.create_map(
                None, "hash", key=U32, value=U32, max_entries=1, lease=60, kernel_name=f"m{number}"
            )
        first.process.kill()
        first.process.wait()
        for client in clients:
            with pytest.raises(Unavailable):
                await client.health()
        for turns, client in enumerate(clients):
            closing = asyncio.create_task(client.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await client.aclose()
        mine = [task for task in asyncio.all_tasks() - before if task.get_name().startswith("mapd")]
        assert await until(lambda: all(task.done() for task in mine)), mine


# A socket that is not there yet


async def test_who_waits_for_a_daemon_is_there_when_it_comes_and_who_does_not_is_told_at_once(
    place: Place, tries: list[MapdError]
) -> None:
    with pytest.raises(Unavailable, match="there is no such socket"):
        await mapd_client.connect(str(place.socket))
    waiting = asyncio.ensure_future(mapd_client.connect(str(place.socket), timeout=20, wait_for_ready=True))
    blocked = asyncio.create_task(
        asyncio.to_thread(blocking.connect, str(place.socket), timeout=20, wait_for_ready=True)
    )
    verb = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAPCTL, "--address", str(place.socket), "--wait", "list"),
        env=dict(environment()),
        stdout=subprocess.PIPE,
    )
    assert await until(lambda: len(tries) >= 6)
    with daemon_process(place):
        client = await waiting
        assert (await client.whoami()).name == "admin"
        await client.aclose()
        (await blocked).close()
        assert await asyncio.wait_for(verb.wait(), 20) == 0


async def test_a_socket_that_is_found_is_one_that_comes_while_it_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch, tries: list[MapdError]
) -> None:
    monkeypatch.setattr(discovery, "discover", partial(discovery.discover, place.runtime_dir, {}))
    with pytest.raises(Unavailable):
        await mapd_client.connect()
    waiting = asyncio.ensure_future(mapd_client.connect(timeout=20, wait_for_ready=True))
    assert await until(lambda: len(tries) >= 3)
    with daemon_process(place):
        await (await waiting).aclose()


async def test_a_daemon_that_is_there_again_is_found_within_tens_of_milliseconds(
    place: Place, record_property: Callable[[str, object], None], tries: list[MapdError]
) -> None:
    """How long after a socket takes connections the first answer comes; the bar only tells a hang."""
    seconds: list[float] = []
    process: DaemonProcess = spawn(place)
    try:
        await asyncio.to_thread(wait_ready, process)
        async with mapd_client.connect(str(place.socket), timeout=20) as client, words(client) as found:
            for _ in range(3):
                process.process.kill()
                process.process.wait()
                lookup, other = asyncio.create_task(found.lookup(1)), asyncio.create_task(client.whoami())
                tries.clear()
                assert await until(lambda: len(tries) >= 5)
                listening = asyncio.create_task(asyncio.to_thread(first_accepted, place.socket))
                process = spawn(place)
                assert await lookup is None
                await other
                seconds.append(time.monotonic() - await listening)
    finally:
        process.process.kill()
        process.process.wait()
    record_property("seconds_after_it_listened", seconds)
    assert min(seconds) < 0.5


def first_accepted(path: Path) -> float:
    """When somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as tried:
            if tried.connect_ex(str(path)) == 0:
                return time.monotonic()
        time.sleep(0.002)  # a socket tells nobody when it is listened on
    raise TimeoutError(path)


# Blocking


def test_blocking_calls_that_meet_no_daemon_are_answered_by_the_next(
    place: Place, tries: list[MapdError]
) -> None:
    with daemon_process(place) as first:
        client = blocking.connect(str(place.socket), timeout=20)
        found = client.create_map("words", "hash", key=U64, value=U64, max_entries=FULL)
        assert found.load((n, n) for n in range(10)) == 10
        first.process.kill()
        first.process.wait()
    with pytest.raises(Unavailable):  # what is written to a socket before its end is noticed may have arrived
        client.health()
    answers: dict[str, Any] = {}
    calls: dict[str, Callable[[], Any]] = {
        "whoami": lambda: client.whoami().name,
        "lookup": lambda: found.lookup(3),
        "update": lambda: found.update(11, 11),
        "count": lambda: found.count().exact,
        "dump": lambda: len(list(found.items())) >= 10,
        "load": lambda: found.load([(1, 1)]),
        "list": lambda: [one.name for one in client.list_maps()],
        "open": lambda: client.open_map("words").info.name,
    }

    def ask(name: str) -> None:
        try:
            answers[name] = calls[name]()
        except Exception as error:
            answers[name] = error

    threads = [threading.Thread(target=ask, args=(name,), name=name) for name in calls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(tries) < 3 * len(calls) and time.monotonic() < deadline:
        time.sleep(0.002)  # threads that wait tell nobody
    assert not answers
    with daemon_process(place):
        for thread in threads:
            thread.join(20)
        client.close()
    assert answers == {
        "whoami": "admin",
        "lookup": 3,
        "update": None,
        "count": True,
        "dump": True,
        "load": 1,
        "list": ["admin/words"],
        "open": "admin/words",
    }

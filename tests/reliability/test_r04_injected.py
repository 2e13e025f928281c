"""R4 on the real kernel: one in ten system calls fails, and every caller is told what became of his."""

from __future__ import annotations

import errno
import json
import random
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import mapd_client
from mapd.bpf.abi import Command
from mapd_api.reasons import Reason
from mapd_client import U32
from tests.e2e.settling import until
from tests.reliability.figures import Canaries, Figures, Size
from tests.support.counts import kernel_maps
from tests.support.daemon import DaemonProcess, Place, spawn, wait_ready
from tests.support.seccompnotify import Injector, injecting

PASSING = (errno.EAGAIN, errno.EBUSY, errno.ENOMEM)
ERRNOS: dict[int, tuple[int, ...]] = {
    Command.MAP_LOOKUP_ELEM: PASSING,
    Command.MAP_UPDATE_ELEM: PASSING,
    Command.MAP_DELETE_ELEM: PASSING,
    Command.MAP_UPDATE_BATCH: PASSING,
    Command.MAP_DELETE_BATCH: PASSING,
    Command.PROG_TEST_RUN: (errno.ENOMEM,),
}
OF_CREATION: dict[int, tuple[int, ...]] = {
    Command.MAP_CREATE: (errno.EAGAIN, errno.ENOMEM),
    Command.BTF_LOAD: (errno.EAGAIN, errno.ENOMEM),
    Command.OBJ_PIN: (errno.EAGAIN, errno.ENOMEM),
    Command.OBJ_GET_INFO_BY_FD: (errno.EAGAIN, errno.ENOMEM),
}
TOLD = {Reason.BUSY, Reason.KERNEL_MEMORY}
KEYS = 64
MANY = 300


async def load(
    opened: mapd_client.Map[int, int], injector: Injector, operations: int, model: dict[int, int]
) -> Counter[str]:
    """Single operations, each of which is done or refused; ``model`` is what the map must say then."""
    choice, told = random.Random(4), Counter[str]()  # noqa: S311
    injector.arm()
    for value in range(operations):
        key = choice.randrange(KEYS)
        try:
            match choice.randrange(3):
                case 0:
                    await opened.update(key, value)
                    model[key] = value
                case 1:
                    assert await opened.delete(key) is (model.pop(key, None) is not None)
                case _:
                    assert await opened.lookup(key) == model.get(key)
        except mapd_client.MapdError as error:
            told["documented" if error.reason in TOLD else f"{error!r}"] += 1
        else:
            told["done"] += 1
    injector.arm(on=False)
    return told


async def bulk(
    opened: mapd_client.Map[int, int], injector: Injector, calls: int, model: dict[int, int]
) -> Counter[str]:
    """Calls for many elements, of which some are refused; the others are done."""
    choice, told = random.Random(5), Counter[str]()  # noqa: S311
    injector.arm()
    for value in range(calls):
        keys = choice.sample(range(MANY), choice.randrange(1, MANY))
        removes, refused = choice.random() < 0.4, dict[int, mapd_client.MapdError]()
        try:
            if removes:
                await opened.delete_many(keys)
            else:
                await opened.update_many(dict.fromkeys(keys, value))
        except mapd_client.BatchFailed as error:
            refused = dict(error.errors)
            if error.cause is not None:
                told[repr(error.cause)] += 1
        except mapd_client.MapdError as error:  # of the first message: nothing was done
            refused = dict.fromkeys(range(len(keys)), error)
        for at, key in enumerate(keys):
            if at in refused:
                told["documented" if refused[at].reason in TOLD else repr(refused[at])] += 1
            elif removes:
                model.pop(key, None)
            else:
                model[key] = value
            told["done"] += at not in refused
    injector.arm(on=False)
    return told


async def creations(
    client: mapd_client.Client, injector: Injector, count: int
) -> tuple[set[str], Counter[str]]:
    """Maps that are made or refused; the names of those that were made."""
    made, told = set[str](), Counter[str]()
    injector.arm()
    for number in range(count):
        name = f"r4c{number}"
        try:
            async with client.create_map(name, "hash", key=U32, value=U32, max_entries=4, btf=True):
                made.add(name)
        except mapd_client.MapdError as error:
            told["documented" if error.reason in TOLD else repr(error)] += 1
    injector.arm(on=False)
    return made, told


def faults(daemon: DaemonProcess) -> list[str]:
    lines = [line for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if json.loads(line)["event"] == "fault"]


@contextmanager
def daemon_with(
    place: Place, errnos: Mapping[int, Sequence[int]]
) -> Generator[tuple[DaemonProcess, Injector]]:
    """A daemon, one in ten of whose calls fails while the injector is armed."""
    with injecting(Path(place.root, "answers"), list(errnos)) as program:
        daemon = spawn(place, prefix=program.prefix)
        injector = program.answer(errnos, 0.1, 4)
        try:
            wait_ready(daemon)
            yield daemon, injector
        finally:
            daemon.stop()
            injector.close()


async def test_calls_that_fail_in_the_kernel_are_told_and_not_made(
    place: Place, size: Size, figure: Figures, canary: Canaries
) -> None:
    operations = size.pick(quick=1_500, full=60_000)
    model: dict[int, int] = {}
    with daemon_with(place, ERRNOS) as (daemon, injector):
        async with (
            mapd_client.connect(str(place.socket)) as client,
            client.create_map("m", "hash", key=U32, value=U32, max_entries=KEYS) as opened,
        ):
            told = await load(opened, injector, operations, model)
            found = {key: value async for key, value in opened.items()}
            failed = injector.failed.total()
    wrong = sum(found.get(key) != model.get(key) for key in range(KEYS))
    strange = {one for one in told if one not in {"done", "documented"}}
    assert not strange, strange
    figure("R4", "errnos that the kernel was made to answer", failed, at_least=operations // 50)
    figure("R4", "operations told as documented, not done", told["documented"], at_least=1, of=operations)
    figure("R4", "elements that are not as callers were told", wrong, at_most=0, of=KEYS)
    figure("R4", "faults of the daemon for them", len(faults(daemon)), at_most=0, of=failed)
    model[0] = -1
    seen = sum(found.get(key) != model.get(key) for key in range(KEYS))
    canary("R4", "one element is not as it was told", caught=seen, of=1)


@pytest.mark.parametrize("kind", ["hash", "lru_hash"])
async def test_of_many_elements_those_that_fail_are_told_and_all_others_are_done(
    place: Place, size: Size, figure: Figures, kind: str
) -> None:
    calls = size.pick(quick=60, full=2_000)
    model: dict[int, int] = {}
    with daemon_with(place, ERRNOS) as (daemon, injector):
        async with (
            mapd_client.connect(str(place.socket)) as client,
            client.create_map("m", kind, key=U32, value=U32, max_entries=8 * MANY) as opened,
        ):
            told = await bulk(opened, injector, calls, model)
            found = {key: value async for key, value in opened.items()}
    wrong = sum(found.get(key) != model.get(key) for key in range(MANY))
    strange = {one for one in told if one not in {"done", "documented"}}
    assert not strange, strange
    figure("R4", f"elements of many that are not as told, {kind}", wrong, at_most=0, of=told.total())
    figure("R4", f"of them refused, {kind}", told["documented"], at_least=1)
    assert not faults(daemon)


async def test_a_creation_that_fails_in_the_kernel_has_made_nothing(
    place: Place, size: Size, figure: Figures
) -> None:
    count = size.pick(quick=100, full=2_000)
    with daemon_with(place, OF_CREATION) as (daemon, injector):
        async with mapd_client.connect(str(place.socket)) as client:
            made, told = await creations(client, injector, count)
        pinned = {one.name for one in (place.names / "admin").iterdir()}
        assert set(told) <= {"documented"}, told
        figure("R4", "creations refused, and pinned", len(pinned - made), at_most=0, of=told.total())
        figure("R4", "creations told, and not pinned", len(made - pinned), at_most=0, of=len(made))
        for one in pinned:
            (place.names / "admin" / one).unlink()
        assert await until(lambda: not [one for one in kernel_maps().values() if one.startswith("r4c")])
        assert injector.failed.total() > count // 50
        assert not faults(daemon)

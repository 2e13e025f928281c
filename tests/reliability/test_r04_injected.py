"""R4 on the real kernel: one in ten system calls on elements fails, and every caller is told what became of his."""

from __future__ import annotations

import errno
import json
import random
from collections import Counter
from pathlib import Path

import mapd_client
from mapd.bpf.abi import Command
from mapd_api.reasons import Reason
from mapd_client import U32
from tests.reliability.figures import Canaries, Figures, Size
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
TOLD = {Reason.BUSY, Reason.KERNEL_MEMORY}
KEYS = 64


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


def faults(daemon: DaemonProcess) -> list[str]:
    lines = [line for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if json.loads(line)["event"] == "fault"]


async def test_calls_that_fail_in_the_kernel_are_told_and_not_made(
    place: Place, size: Size, figure: Figures, canary: Canaries
) -> None:
    operations = size.pick(quick=1_500, full=60_000)
    with injecting(Path(place.root, "answers"), list(map(int, ERRNOS))) as program:
        daemon = spawn(place, prefix=program.prefix)
        injector = program.answer(ERRNOS, 0.1, 4)
        try:
            wait_ready(daemon)
            model: dict[int, int] = {}
            async with (
                mapd_client.connect(str(place.socket)) as client,
                client.create_map("m", "hash", key=U32, value=U32, max_entries=KEYS) as opened,
            ):
                told = await load(opened, injector, operations, model)
                found = {key: value async for key, value in opened.items()}
                failed = injector.failed.total()
        finally:
            daemon.stop()
            injector.close()
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

"""R4: whatever system call fails, with whatever errno: a documented status, no fault of ours, nothing left behind."""

from __future__ import annotations

import errno
import gc
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
import structlog.testing

from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd.maps import statuses
from mapd_api import contract
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from tests.e2e.bad_input import HOUR_S
from tests.e2e.settling import until
from tests.reliability.everymethod import METHODS, Names, Rounds
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.sweep import ERRNOS, Case, Sweep
from tests.support.counts import map_fds
from tests.support.daemon import Place


@asynccontextmanager
async def sweeping(place: Place) -> AsyncGenerator[tuple[Ready, Sweep]]:
    """A daemon in this process, whose kernel fails where it is told."""
    others = place.bpffs / "others"
    others.mkdir()
    kernel = FaultyKernel(LinuxKernel())
    with (
        structlog.testing.capture_logs()
    ):  # a traceback of each fault that was planted would take most of the time
        async with sweeping_with(place, kernel, str(others)) as found:
            yield found


@asynccontextmanager
async def sweeping_with(
    place: Place, kernel: FaultyKernel, others: str
) -> AsyncGenerator[tuple[Ready, Sweep]]:
    async with (
        running(place.config(), kernel, pins_check_s=HOUR_S) as ready,
        grpc.aio.insecure_channel(f"unix:{ready.socket}") as channel,
    ):
        await Rounds(channel, random.Random(0)).prepare()  # noqa: S311
        found = Sweep(channel, kernel, Names("r4", others), ready.host.handles.close_all)
        await found.prepare()
        yield ready, found


def pins(folder: Path) -> set[str]:
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir()}


async def test_every_failing_call_is_told_as_documented_and_leaves_nothing(
    place: Place, size: Size, figure: Figures
) -> None:
    choice, part = random.Random(4), 0.06 if size.quick else 1.0  # noqa: S311
    async with sweeping(place) as (ready, sweep):
        held, there = map_fds(), pins(place.bpffs)
        seen: set[str] = set()
        for action in sweep.actions():
            seen.add(action.method)
            for case in await sweep.cases_of(action, choice, part):
                await sweep.run(case)
        ready.host.handles.close_all()  # those of calls were no session's
        gc.collect()
        left = pins(place.bpffs) - there
        assert not left
        await until(lambda: map_fds() <= held)
        more = max(0, map_fds() - held)
    assert seen == METHODS.keys() - {"Session"} or seen == set(METHODS)
    assert not sweep.strange, "\n".join(sweep.strange[:20])
    assert set(sweep.told) == {errno.errorcode[number] for number in ERRNOS}
    figure("R4", "failing calls told as no document says", len(sweep.strange), at_most=0, of=sweep.cases)
    figure("R4", "failing calls that did not come", sweep.missed, at_most=sweep.cases // 50, of=sweep.cases)
    figure("R4", "descriptors of maps left", more, at_most=0, of=sweep.cases)
    figure("R4", "pins left", len(left), at_most=0, of=sweep.cases)


async def test_every_operation_is_swept(place: Place) -> None:
    async with sweeping(place) as (_, sweep):
        names = {action.name for action in sweep.actions()}
        for op in contract.op_verbs():
            assert any(name.startswith(f"Apply {op.name} on ") for name in names)


def of_nobody(_: OSError) -> None:
    """Nothing is made of it."""


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EINTR, errno.ENOMEM])
async def test_a_handler_that_lets_an_errno_escape_is_seen(
    place: Place, canary: Canaries, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same sweep over a daemon that makes nothing of what its host lacks."""
    monkeypatch.setattr("mapd.runtime.pool._of_the_host", of_nobody)
    async with sweeping(place) as (_, sweep):
        (action,) = [one for one in sweep.actions() if one.name == "GetMap (6)"]
        await sweep.run(Case(action, Command.OBJ_GET_INFO_BY_FD, 1, "second", number))
    canary("R4", f"{errno.errorcode[number]} that a handler lets escape", caught=len(sweep.strange), of=1)


def as_if_done(*_: object) -> Reason:
    """A table of reasons that knows of no failure."""
    return Reason.DONE


async def test_a_failure_that_is_told_as_done_is_seen(
    place: Place, canary: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "element_reason", as_if_done)
    monkeypatch.setattr(statuses, "_tables", {})
    async with sweeping(place) as (_, sweep):
        (action,) = [one for one in sweep.actions() if one.name == f"Apply {Op.UPDATE.name} on lru"]
        for case in await sweep.cases_of(action, random.Random(4), 1.0):  # noqa: S311
            if case.target is Command.MAP_UPDATE_ELEM and case.errno == errno.ENOMEM:
                await sweep.run(case)
    canary("R4", "an element that failed and is told as done", caught=int(bool(sweep.strange)), of=1)


async def test_what_is_told_of_groups_and_elements_is_looked_into(place: Place) -> None:
    """A sweep that saw statuses of calls alone would take every refused element for a success."""
    async with sweeping(place) as (_, sweep):
        (action,) = [one for one in sweep.actions() if one.name == f"Apply {Op.UPDATE.name} on array"]
        sweep.kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, errno=errno.ENOMEM))
        sweep.kernel.add(Fault(target=Command.PROG_TEST_RUN, errno=errno.ENOMEM))
        sweep.kernel.add(Fault(target=Command.MAP_UPDATE_BATCH, errno=errno.ENOMEM))
        told = Counter(await sweep.ask(action.method, action.requests))
    assert told == {"KERNEL_MEMORY": 1}

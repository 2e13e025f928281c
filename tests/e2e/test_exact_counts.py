"""Counters that client processes and a BPF program add to at once: every addition is there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import mapd_client
from mapd.bpf import Buffer, LinuxKernel, OpenPin, ProgramType, counter_program, load_program, run_program
from mapd_client import U32, U64
from tests.e2e import adder
from tests.support.daemon import DaemonProcess, environment

EACH: Final = 100_000
"""Additions of each process."""

WRITTEN_BACK: Final = 5_000
"""Of each process that reads, adds and writes back: fewer are enough to lose some."""


@pytest.fixture
def cpus() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one CPU: nothing is added during an addition")
    return usable[0], usable[1]


@dataclass(frozen=True)
class Told:
    """What a process was told had been there before its additions."""

    least: int
    most: int
    different: int


@contextlib.contextmanager
def adders(
    daemon: DaemonProcess, cpus: tuple[int, int], number: int, how: str
) -> Generator[list[subprocess.Popen[str]]]:
    """Two processes that wait for a line to begin; killed if they are not through by the end."""
    with contextlib.ExitStack() as stack:
        found: list[subprocess.Popen[str]] = []
        for cpu in cpus:
            socket = str(daemon.place.socket)
            command = [sys.executable, str(adder.__file__), socket, "hits", str(cpu), str(number), how]
            process = stack.enter_context(
                subprocess.Popen(
                    command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            found.append(process)
        for process in found:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield found


def counted_beside(
    pin: Path, root: Path, processes: list[subprocess.Popen[str]], cpu: int
) -> tuple[int, list[Told]]:
    """Let them begin, and count by a BPF program until both are through: how often it ran, and what they were told."""
    kernel = LinuxKernel()
    with contextlib.ExitStack() as stack:
        owned = kernel.control(OpenPin(root=str(root), path=str(pin)))
        map_fd = stack.enter_context(stack.enter_context(owned).lease())
        code = counter_program(map_fd, 4, 8)
        prog_fd = stack.enter_context(stack.enter_context(load_program(code, ProgramType.SYSCALL)).lease())
        ctx, runs = Buffer.allocate(8), 0
        ctx.view[:4] = adder.KEY.to_bytes(4, "little")
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        try:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            while any(process.poll() is None for process in processes):
                for _ in range(100):
                    assert run_program(prog_fd, ctx) == 0
                runs += 100
        finally:
            os.sched_setaffinity(0, usable)
    told: list[Told] = []
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0
        told.append(Told(**json.loads(out)))
    return runs, told


async def total(
    daemon: DaemonProcess, cpus: tuple[int, int], number: int, how: str
) -> tuple[int, int, list[Told]]:
    """The counter in the end, how often the program added to it, and what the processes were told."""
    async with (
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.create_map("hits", "hash", key=U32, value=U64, max_entries=64) as hits,
    ):
        await hits.update(adder.KEY, 0)
        pin = Path(hits.info.pin_path)
        with adders(daemon, cpus, number, how) as processes:
            runs, told = counted_beside(pin, daemon.place.bpffs, processes, cpus[1])
        return await hits[adder.KEY], runs, told


@pytest.mark.timeout(120)
async def test_two_processes_and_a_program_add_exactly(daemon: DaemonProcess, cpus: tuple[int, int]) -> None:
    there, runs, told = await total(daemon, cpus, EACH, "fetch_add")
    assert there == 2 * EACH + runs
    # Each was told another number each time, and they were at it at one time: the processes and the program.
    assert [one.different for one in told] == [EACH, EACH]
    assert max(one.least for one in told) < min(one.most for one in told)
    assert max(one.most for one in told) - min(one.least for one in told) >= 2 * EACH


async def test_reading_and_writing_back_loses_additions(daemon: DaemonProcess, cpus: tuple[int, int]) -> None:
    """The canary."""
    there, runs, _ = await total(daemon, cpus, WRITTEN_BACK, "write_back")
    assert there < 2 * WRITTEN_BACK + runs

"""Who is measured: programs that answer commands, and bpftool, which knows one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.place import CLIENT_ID, TIED, Place, end, rights

ANSWER_S: Final = 300.0
"""No command takes so long; a program that does has hung."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command took.

    Attributes:
        seconds: of the clock.
        cpu: seconds of CPU that the asked process itself used.
        count: what was done, and done right.
        p50: seconds of the median operation, where operations were timed one by one.
    """

    seconds: float
    cpu: float
    count: int
    p50: float = 0.0


class Contender(Protocol):
    """Something that can be asked to do a piece of work."""

    def ask(self, command: str) -> Answer:
        """Do it."""
        ...


class Program:
    """A process that reads a command a line and answers with a line of JSON."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process = process
        self._name = name

    def ask(self, command: str, meanwhile: Callable[[], None] | None = None) -> Answer:
        """Have it done; ``meanwhile`` is called every 20 ms."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        fields = json.loads(self._line(meanwhile))
        return Answer(fields["seconds"], fields["cpu"], fields["count"], fields.get("p50", 0.0))

    def _line(self, meanwhile: Callable[[], None] | None) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + ANSWER_S
        while not select.select([self._process.stdout], [], [], 0.02)[0]:
            if meanwhile is not None:
                meanwhile()
            if time.monotonic() > deadline:
                raise SystemExit(f"{self._name} gave no answer for {ANSWER_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} ended with status {self._process.wait()}; its words are above")
        return line


@contextlib.contextmanager
def program(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Generator[Program]:
    """A started program; ended afterwards."""
    process = subprocess.Popen(
        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/"
    )
    try:
        yield Program(process, name)
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def mapd_client(place: Place, module: str, *arguments: object) -> Generator[Program]:
    """A client of mapd: another user than the daemon, and no capability at all."""
    command = [*rights(CLIENT_ID), sys.executable, "-m", f"benchmarks.{module}", str(place.socket)]
    with program("mapd", [*command, *map(str, arguments)], place.environment) as started:
        yield started


@contextlib.contextmanager
def raw(place: Place, binary: Path, name: str, entries: int) -> Generator[Program]:
    """The C peer, as root."""
    with program(
        "raw", [*TIED, str(binary), str(place.pin(name)), str(entries)], place.environment
    ) as started:
        yield started


@contextlib.contextmanager
def served(
    place: Place, name: str, server: Sequence[str], client: Sequence[str], entries: int
) -> Generator[Program]:
    """``server SOCKET``, which says "ready", and ``client SOCKET ENTRIES``; both as root."""
    socket = str(place.root / f"{name}.sock")
    process = subprocess.Popen(
        [*TIED, *server, socket], stdout=subprocess.PIPE, env=place.environment, cwd="/"
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit(f"{name}'s server did not start; its words are above")
        with program(name, [*TIED, *client, socket, str(entries)], place.environment) as started:
            yield started
    finally:
        end(process)
        assert process.stdout is not None
        process.stdout.close()


class Command:
    """A command line: knows the command ``dump``; timed from its start to its end, what it prints is thrown away.

    It says itself whether it is complete: any exit code but 0 ends the benchmark.
    """

    def __init__(
        self, command: Sequence[str], entries: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._entries = entries
        self._environment = environment

    def ask(self, command: str) -> Answer:
        """Run it once."""
        assert command == "dump"
        began, used = time.perf_counter(), _children_cpu()
        subprocess.run(self._command, check=True, stdout=subprocess.DEVNULL, env=self._environment, cwd="/")
        return Answer(time.perf_counter() - began, _children_cpu() - used, self._entries)


def bpftool(binary: str, pin: str, entries: int) -> Command:
    """``bpftool -j map dump``, as root."""
    return Command([binary, "-j", "map", "dump", "pinned", pin], entries)


def mapctl(place: Place, name: str, output: str, entries: int) -> Command:
    """``mapctl dump NAME -o OUTPUT``: another user than the daemon, without any capability."""
    program = [sys.executable, "-c", "from mapd_client.cli import main; main()"]
    command = [*rights(CLIENT_ID), *program, "--address", str(place.socket), "dump", name, "-o", output]
    return Command(command, entries, place.environment)


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system

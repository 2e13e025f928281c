"""Opener and front as processes: each sees the other's end, nobody waits for ever, nothing slow holds up the rest."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from mapd.bpf import (
    CreateMap,
    LoadTemplate,
    NextMapId,
    OpenPin,
    OwnedFd,
    Pin,
    Rename,
    SyscallError,
    Unpin,
)
from mapd.bpf.abi import Command
from mapd.bpf.kernel import ControlRequest, FreezeMap
from mapd.opener import Limits, OpenerEnded, OpenerKernel
from mapd.opener.client import IN_FLIGHT
from mapd.opener.listening import MODE, connect, serve_at
from mapd.opener.log import Log
from mapd.opener.server import MAKERS, THREADS, WAITING
from mapd.opener.wire import Ended, Message, Receiver
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL, Maps
from tests.support.openers import ROOT, Process, opener_process, pair, writable
from tests.support.seccompnotify import injecting

ARRAY: Final = CreateMap(
    map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1, kernel_name="mapd_test"
)
LARGE: Final = CreateMap(
    map_type=MapType.ARRAY, key_size=4, value_size=4096, max_entries=1 << 16, kernel_name="mapd_test"
)
"""256 MiB: takes a fifth of a second and more."""

SLOW: Final = CreateMap(
    map_type=MapType.ARRAY, key_size=4, value_size=4096, max_entries=1 << 9, kernel_name="mapd_test"
)
"""2 MiB: more than is made while the others wait."""

NOBODY: Final = 65_534


@pytest.fixture
def limits(bpffs: Path) -> Limits:
    return Limits(names_root=str(bpffs))


@pytest.fixture
def process(limits: Limits) -> Generator[Process]:
    with opener_process(limits) as found:
        yield found


@pytest.fixture
def kernel(process: Process) -> Generator[OpenerKernel]:
    found = OpenerKernel(process.sock.dup())
    process.sock.close()
    yield found
    found.close()


class Asking(threading.Thread):
    """A thread that asks once."""

    def __init__(self, kernel: OpenerKernel, request: ControlRequest[Any]) -> None:
        super().__init__(name="asking")
        self.kernel = kernel
        self.request = request
        self.answer: object = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.kernel.control(self.request)
        except Exception as error:
            self.answer = error

    def said(self) -> object:
        self.join(30)
        assert not self.is_alive(), "it waits for ever"
        return self.answer


# ---- ends --------------------------------------------------------------------------------------


def test_the_end_of_the_opener_is_one_clear_error_for_all_who_wait_and_who_come_later(
    process: Process, kernel: OpenerKernel
) -> None:
    kernel.control(NextMapId(map_id=0))
    os.kill(process.popen.pid, signal.SIGSTOP)  # it takes no more, so all of these wait
    waiting = [Asking(kernel, NextMapId(map_id=0)) for _ in range(IN_FLIGHT + 8)]
    assert not kernel.until_ended(0.05)
    process.popen.kill()
    for one in waiting:
        said = one.said()
        assert isinstance(said, OpenerEnded)
        assert (said.errno, said.command) == (errno.EPIPE, "NextMapId")
        assert "the opener has ended (" in str(said)
    assert kernel.until_ended()
    with pytest.raises(OpenerEnded, match="CreateMap: the opener has ended"):
        kernel.control(ARRAY)


def test_of_what_was_sent_and_changes_something_it_is_not_known_whether_it_was_done(
    process: Process, kernel: OpenerKernel, limits: Limits
) -> None:
    kernel.control(NextMapId(map_id=0))
    os.kill(process.popen.pid, signal.SIGSTOP)
    root, path = limits.names_root, f"{limits.names_root}/flows"
    opening = Asking(kernel, OpenPin(root=root, path=path))
    changing = [
        Asking(kernel, Unpin(root=root, path=path)),
        Asking(kernel, Rename(root=root, path=path, new_path=f"{path}2")),
    ]
    assert not kernel.until_ended(0.05)
    process.popen.kill()
    for one, unknown in ((opening, False), *((one, True) for one in changing)):
        said = one.said()
        assert isinstance(said, OpenerEnded)
        assert said.unknown is unknown
    with pytest.raises(OpenerEnded) as later:
        kernel.control(Unpin(root=root, path=path))
    assert not later.value.unknown, "it was never sent"


def test_what_the_front_holds_outlives_the_opener(process: Process, kernel: OpenerKernel) -> None:
    with kernel.control(ARRAY) as made, made.lease() as map_fd:
        process.popen.kill()
        assert kernel.until_ended(30)
        assert kernel.info(map_fd).name == "mapd_test"


def test_an_opener_ends_with_its_front(process: Process, kernel: OpenerKernel) -> None:
    kernel.control(NextMapId(map_id=0))
    kernel.close()
    assert process.ended() == 0


def test_an_opener_ends_though_its_front_has_taken_no_answer(process: Process) -> None:
    """Its threads are in sendmsg() then, for the socket is full; and what it made for nobody is closed."""
    answers = 0
    with process.sock as sock:
        sock.setblocking(False)
        while True:
            try:
                Message(answers, b'["NextMapId",{"map_id":0}]').send(sock)
            except BlockingIOError:
                if writable(sock, 1.0):
                    continue
                break
            answers += 1
    assert answers > WAITING
    assert process.ended() == 0


def test_an_opener_ends_with_a_front_that_has_died_in_the_middle_of_a_large_map(process: Process) -> None:
    kernel = OpenerKernel(process.sock.dup())
    process.sock.close()
    asking = Asking(kernel, LARGE)
    kernel.control(NextMapId(map_id=0))
    kernel.close()
    assert isinstance(asking.said(), (OpenerEnded, OwnedFd))
    if isinstance(asking.answer, OwnedFd):
        asking.answer.close()
    assert process.ended() == 0


def test_closing_wakes_who_waits(process: Process, kernel: OpenerKernel) -> None:
    kernel.control(NextMapId(map_id=0))
    os.kill(process.popen.pid, signal.SIGSTOP)
    waiting = [Asking(kernel, NextMapId(map_id=0)) for _ in range(4)]
    kernel.close()
    for one in waiting:
        assert isinstance(one.said(), OpenerEnded)
    kernel.close()
    os.kill(process.popen.pid, signal.SIGCONT)


def test_an_opener_that_answers_nonsense_has_ended(limits: Limits) -> None:
    """The front does not go on with somebody who speaks another language."""
    del limits
    theirs, ours = pair()
    kernel = OpenerKernel(ours)
    with theirs:
        asking = Asking(kernel, NextMapId(map_id=0))
        packet = Receiver(theirs).receive()
        assert packet.number is not None
        Message(packet.number, b'["done",{}]').send(theirs)
        said = asking.said()
        assert isinstance(said, OpenerEnded)
        assert "answered what nobody can read" in str(said)
    kernel.close()


def test_an_answer_to_nobodys_question_is_closed(maps: Maps) -> None:
    """A thread was interrupted while it waited: what was opened for it must not stay open."""
    made = maps.create()
    theirs, ours = pair()
    kernel = OpenerKernel(ours)
    with theirs:
        asking = Asking(kernel, NextMapId(map_id=0))
        packet = Receiver(theirs).receive()
        assert packet.number is not None
        Message(packet.number + 7, b'["done",null]', fds=[made.fd]).send(theirs)
        Message(packet.number, b'["done",5]').send(theirs)
        assert asking.said() == 5
    kernel.close()


# ---- many at once ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """An opener in which each creation of a map stands still in bpf(2), until ``go``."""

    kernel: OpenerKernel
    go: Callable[[], object]


@pytest.fixture
def standing(limits: Limits, tmp_path: Path) -> Generator[Standing]:
    """How long a large map takes is the kernel's and the machine's; these stand for one that takes for ever."""
    with ExitStack() as stack:
        asks = stack.enter_context(injecting(tmp_path / "seccomp", [Command.MAP_CREATE]))
        process = stack.enter_context(opener_process(limits, prefix=asks.prefix))
        found = OpenerKernel(process.sock.dup())
        process.sock.close()
        stack.callback(found.close)
        yield Standing(found, lambda: stack.callback(asks.answer({}, part=0.0, seed=0).close))


def made_behind(standing: Standing, creating: Sequence[Asking]) -> None:
    """All these are made once they may, and none was before."""
    assert all(one.is_alive() for one in creating)
    standing.go()
    for one in creating:
        answer = one.said()
        assert isinstance(answer, OwnedFd)
        answer.close()


def test_a_map_that_takes_its_time_holds_up_nobody_who_opens_a_pin(
    standing: Standing, bpffs: Path, maps: Maps
) -> None:
    """Pins are opened, and opened again, before it is made: by the thread that reads, which does not make it."""
    made = maps.create()
    KERNEL.control(Pin(root=str(bpffs), path=f"{bpffs}/flows"), [made.fd])
    opening = OpenPin(root=str(bpffs), path=f"{bpffs}/flows")
    creating = [Asking(standing.kernel, SLOW)]
    for _ in range(100):
        standing.kernel.control(opening).close()
    made_behind(standing, creating)


def test_maps_that_take_their_time_hold_up_no_program_however_many_are_made(
    standing: Standing, maps: Maps
) -> None:
    """A lookup may wait for its program. One after the other is loaded before the maps are made."""
    counted = maps.create()
    loading = LoadTemplate(template="count_entries", key_size=8, value_size=8)
    creating = [Asking(standing.kernel, SLOW) for _ in range(THREADS + MAKERS + 1)]
    for _ in range(100):
        standing.kernel.control(loading, [counted.fd]).close()
    made_behind(standing, creating)


def test_many_threads_get_each_its_own_answer(kernel: OpenerKernel, maps: Maps) -> None:
    ids = sorted(KERNEL.info(maps.create().fd).id for _ in range(16))
    wrong: list[object] = []

    def ask(map_id: int) -> None:
        for _ in range(50):
            found = kernel.control(NextMapId(map_id=map_id - 1))
            if found != map_id:
                wrong.append((map_id, found))
            mine = replace(ARRAY, max_entries=1 + map_id - ids[0])
            with kernel.control(mine) as made, made.lease() as map_fd:
                if kernel.info(map_fd).max_entries != mine.max_entries:
                    wrong.append(map_id)

    threads = [threading.Thread(target=ask, args=(map_id,)) for map_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_requests_beyond_the_bound_are_refused_and_answered_all_the_same(process: Process) -> None:
    """A front that keeps to no bound of its own: each is answered once, some with EAGAIN, and it goes on."""
    asked = 4 * WAITING
    refusals = 0
    receiver = Receiver(process.sock)

    def ask() -> None:
        for number in range(asked):
            Message(number, b'["ListHolders",{}]').send(process.sock)

    answered = threading.Thread(target=ask)
    answered.start()
    numbers: list[int] = []
    for _ in range(asked):
        packet = receiver.receive()
        assert packet.number is not None
        numbers.append(packet.number)
        kind, value = json.loads(packet.body(1 << 26)[0])
        if kind == "refused":
            assert value["number"] == errno.EAGAIN
            refusals += 1
    answered.join()
    assert sorted(numbers) == list(range(asked))
    assert 0 < refusals < asked
    kernel = OpenerKernel(process.sock.dup())
    kernel.control(ARRAY).close()
    kernel.close()


# ---- no room -----------------------------------------------------------------------------------


def test_an_opener_without_room_for_descriptors_says_so_and_recovers(
    process: Process, kernel: OpenerKernel, maps: Maps
) -> None:
    made = maps.create()
    kernel.control(NextMapId(map_id=0))
    before = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (process.lowest_free(), before[1]))
    with pytest.raises(SyscallError, match="BPF_MAP_CREATE: EMFILE"):
        kernel.control(ARRAY)
    with pytest.raises(SyscallError, match="recvmsg: EMFILE"):
        kernel.control(FreezeMap(), [made.fd])
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, before)
    kernel.control(ARRAY).close()
    kernel.control(LoadTemplate(template="count_entries", key_size=8, value_size=8), [made.fd]).close()
    assert not KERNEL.info(made.fd).frozen


def test_a_front_without_room_for_descriptors_gets_emfile_and_recovers(limits: Limits) -> None:
    """In a process of its own, for it takes all of its descriptors."""
    code = """
import os, resource, sys
from mapd.bpf import CreateMap, SyscallError
from mapd.opener import Limits, OpenerKernel
from tests.support.openers import opener_process
array = CreateMap(map_type=2, key_size=4, value_size=8, max_entries=1)
with opener_process(Limits(names_root=sys.argv[1])) as process:
    kernel = OpenerKernel(process.sock)
    kernel.control(array).close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        kernel.control(array)
    except SyscallError as error:
        print(error.errno, error.command)
    for fd in taken:
        os.close(fd)
    kernel.control(array).close()
    print("again")
    kernel.close()
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, limits.names_root],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src"},
    )
    assert done.stdout == f"{errno.EMFILE} CreateMap\nagain\n"
    assert done.stderr == ""


# ---- as a service ------------------------------------------------------------------------------


def visit(path: Path, uid: int) -> str:
    """What a process of another user gets from the opener at ``path``: an answer, or the end."""
    code = """
import socket, sys
from mapd.opener.wire import Ended, Message, Receiver
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
try:
    Message(1, b'["NextMapId",{"map_id":0}]').send(sock)
    print(Receiver(sock).receive().body(1000)[0].decode())
except Ended:
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        user=uid,
        group=NOBODY,
        extra_groups=[],
        env={"PYTHONPATH": f"{ROOT}/src"},
    )
    return done.stdout.strip()


def test_a_service_serves_its_front_once_and_no_stranger(limits: Limits) -> None:
    """Who connects is who the kernel says: root too is a stranger where the front is somebody else."""
    with tempfile.TemporaryDirectory(prefix="mapd-opener-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "opener.sock"
        written = (folder / "log").open("w")
        serving = threading.Thread(
            target=serve_at, args=(str(path), NOBODY, limits), kwargs={"gid": NOBODY, "log": Log(written)}
        )
        serving.start()
        with connect(str(path), 20.0) as stranger, pytest.raises(Ended):
            Receiver(stranger).receive()
        assert path.stat().st_mode & 0o777 == MODE
        assert path.stat().st_gid == NOBODY
        assert visit(path, NOBODY).startswith('["done",')
        serving.join(30)
        assert not serving.is_alive()
        assert not path.exists()
        written.close()
        (line,) = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
        assert (line["event"], line["uid"], line["wanted"]) == ("a stranger has connected", 0, NOBODY)
        with pytest.raises(FileNotFoundError):
            connect(str(path), 0.0)

"""An opener that is lied to: it goes on, answers each message once, keeps nothing, and changes nothing it must not.

./dev test --fuzz 1000000 tests/unit/mapd/opener/test_fuzz.py   for a longer one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mapd.bpf import (
    Buffer,
    CreateMap,
    FreezeMap,
    LinuxKernel,
    LoadBtf,
    NextMapId,
    OpenId,
    OpenPin,
    OwnedFd,
    Pin,
)
from mapd.bpf.kernel import Columns, LoadTemplate
from mapd.maps.trials import U32_BTF
from mapd.opener import Limits, OpenerKernel
from mapd.opener.log import EVERY_S
from mapd.opener.wire import HEADER, Receiver
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import no_map_left_behind, nothing_left_behind
from tests.support.openers import Process, opener_process
from tests.unit.mapd.opener.lies import NAME, Lies, kinds_of_fds, send

pytestmark = [pytest.mark.kernel, pytest.mark.alone]  # it may get hold of any map of the host

KERNEL = LinuxKernel()
AT_ONCE = 32
WARM = 2_000
SEED = 5
PROGRAM = Path("anon_inode:bpf-prog")


@pytest.fixture
def folder() -> Generator[Path]:
    """A bpffs of the test's own."""
    require_bpf()
    with nothing_left_behind(), mounted_bpffs() as found:
        yield found


@dataclass
class Canaries:
    """Maps that no lie may change: by descriptor or by path, they are in reach of the opener, and not of the front."""

    stack: ExitStack
    folder: Path
    owned: dict[str, OwnedFd] = field(default_factory=dict[str, OwnedFd])
    fds: dict[str, int] = field(default_factory=dict[str, int])

    def make(self, name: str, kind: MapType = MapType.HASH, *, value_size: int = 8, flags: int = 0) -> int:
        """A map with one element."""
        request = CreateMap(
            map_type=kind,
            key_size=4,
            value_size=value_size,
            max_entries=1,
            flags=flags,
            kernel_name=NAME,
        )
        map_fd = self.adopt(name, KERNEL.control(request))
        assert KERNEL.each(map_fd, Op.UPDATE, self.column(bytes([7]) * value_size)) == [0]
        return map_fd

    def adopt(self, name: str, owned: OwnedFd) -> int:
        self.stack.callback(owned.close)
        self.owned[name] = owned
        return self.stack.enter_context(owned.lease())

    @staticmethod
    def column(value: bytes) -> Columns:
        return Columns(1, Buffer.of(bytes(4)), 4, Buffer.of(value), len(value))

    def content(self, map_fd: int, value_size: int = 8) -> bytes:
        columns = Columns(1, Buffer.of(bytes(4)), 4, room := Buffer.allocate(value_size), value_size)
        assert KERNEL.each(map_fd, Op.LOOKUP, columns) == [0]
        return room.take(value_size)

    def again(self, name: str, map_fd: int) -> int:
        """The same map through a descriptor that only reads."""
        opened = KERNEL.control(OpenId(map_id=KERNEL.info(map_fd).id, read_only=True))
        return self.adopt(f"{name} again", opened)


def spread(stack: ExitStack, folder: Path) -> tuple[Canaries, dict[str, int]]:
    """Canaries, and descriptors of every kind to be sent."""
    made = Canaries(stack, folder)
    root, outside = folder / "names", folder / "outside"
    root.mkdir()
    outside.mkdir()
    read, scratch = (
        made.make("read"),
        made.make("rscratch", MapType.ARRAY, value_size=4096, flags=MapFlag.MMAPABLE),
    )
    frozen, away = made.make("frozen"), made.make("outside")
    made.fds = {"read": read, "rscratch": scratch, "frozen": frozen, "outside": away}
    KERNEL.control(FreezeMap(), [frozen])
    KERNEL.control(Pin(root=str(outside), path=f"{outside}/canary"), [away])
    (root / "link").symlink_to(outside)
    fds = kinds_of_fds(stack)
    fds |= {
        "map": made.make("map"),
        "to be frozen": made.make("freeze"),
        "scratch": made.make("scratch", MapType.ARRAY, value_size=4096, flags=MapFlag.MMAPABLE),
        "read-only map": made.again("read", read),
        "read-only scratch": made.again("rscratch", scratch),
        "frozen map": frozen,
        "btf": made.adopt("btf", KERNEL.control(LoadBtf(blob=U32_BTF))),
    }
    count = LoadTemplate(template="count_entries", key_size=4, value_size=8)
    fds["program"] = made.adopt("program", KERNEL.control(count, [fds["map"]]))
    return made, fds


def paths(folder: Path) -> list[str]:
    root, outside = folder / "names", folder / "outside"
    return [
        *(f"{root}/{name}" for name in ("a", "b", "ns/a", "ns/b", "other/a", "link/canary", "..", ".", "")),
        f"{root}/../outside/canary",
        f"{outside}/canary",
        str(outside),
        str(root),
        f"{root}/a\0b",
        f"{root}/{'x' * 300}",
        f"{root}/ns/../../outside/canary",
        "a",
        "../outside/canary",
        "",
        "/",
        "/etc/passwd",
        "/proc/self/fd/0",
    ]


@dataclass
class Front:
    """Sends lies, some at once, and takes the answers; runs whatever program it is given."""

    sock: socket.socket
    lies: Lies
    sent: int = 0
    answered: int = 0
    descriptors: int = 0

    def lie(self, count: int) -> None:
        receiver = Receiver(self.sock)
        context = Buffer.allocate(64)
        for start in range(0, count, AT_ONCE):
            expected: list[int] = []
            for number in range(start, min(start + AT_ONCE, count)):
                packet = self.lies.packet(number)
                if send(self.sock, packet):
                    expected.append(HEADER.unpack_from(packet.data)[0])
                self.lies.close()
                self.sent += 1
            found: list[int] = []
            for _ in expected:
                answer = receiver.receive()
                assert answer.wrong == ""
                assert answer.number is not None
                found.append(answer.number)
                self.take(answer.fds, context)
                answer.close()
            assert sorted(found) == sorted(expected), "each message is answered once"
            self.answered += len(found)

    def take(self, fds: list[OwnedFd], context: Buffer) -> None:
        for owned in fds:
            self.descriptors += 1
            with owned.lease() as fd:
                if Path(f"/proc/self/fd/{fd}").readlink() == PROGRAM:
                    with contextlib.suppress(OSError):
                        KERNEL.run(fd, context)


def settled(process: Process, wanted: int, within_s: float = 5.0) -> int:
    """How many descriptors it has open: what it has sent it closes a moment later."""
    deadline = time.monotonic() + within_s
    while (found := process.fds()) != wanted and time.monotonic() < deadline:
        os.sched_yield()
    return found


def empty(folder: Path) -> None:
    """Remove all in it, following no link."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            empty(entry)
            entry.rmdir()
        else:
            entry.unlink()


def alive(process: Process) -> None:
    """It still does what it is there for, for a front that tells the truth."""
    kernel = OpenerKernel(process.sock.dup())
    request = CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=1, kernel_name=NAME)
    with kernel.control(request) as owned, owned.lease() as map_fd:
        assert KERNEL.info(map_fd).name == NAME
    kernel.control(NextMapId(map_id=0))  # so it has closed what it sent before
    kernel.close()  # of a copy of the socket: the opener stays


def test_a_lying_front_is_survived_and_changes_nothing(folder: Path, fuzz: int) -> None:
    limits = Limits(
        names_root=f"{folder}/names", map_bytes=1 << 20, makes=10**9, makes_per_s=10**9, bytes_per_s=1 << 50
    )
    with no_map_left_behind(NAME), ExitStack() as stack:
        made, fds = spread(stack, folder)
        before = {name: made.content(fd, 4096 if name == "rscratch" else 8) for name, fd in made.fds.items()}
        began = time.monotonic()
        with opener_process(limits) as process:
            front = Front(process.sock, Lies(SEED, limits.names_root, paths(folder), fds))
            alive(process)  # it has started
            open_before = process.fds()
            front.lie(min(WARM, fuzz))
            memory_before = process.resident_bytes()
            front.lie(fuzz)
            open_after, memory_after = settled(process, open_before), process.resident_bytes()
            alive(process)
            assert process.popen.poll() is None
            process.sock.close()
            assert process.ended() == 0
            logged, elapsed = process.logged(), time.monotonic() - began
        after = {name: made.content(fd, 4096 if name == "rscratch" else 8) for name, fd in made.fds.items()}
        assert {name: KERNEL.info(fd).frozen for name, fd in made.fds.items()} == {
            name: name == "frozen" for name in made.fds
        }
        outside = folder / "outside"
        with (
            KERNEL.control(OpenPin(root=str(outside), path=f"{outside}/canary")) as owned,
            owned.lease() as map_fd,
        ):
            assert KERNEL.info(map_fd).id == KERNEL.info(made.fds["outside"]).id
        assert [entry.name for entry in outside.iterdir()] == ["canary"]
        assert sorted(entry.name for entry in folder.iterdir()) == ["names", "outside"]
        empty(folder)
    print(
        f"{front.sent} packets, {front.answered} answered, {front.descriptors} descriptors handed out; open in the "
        f"opener: {open_before} before, {open_after} after; its memory: {memory_before >> 10} KiB, "
        f"{memory_after >> 10} KiB after; {len(logged)} lines logged"
    )
    assert open_after == open_before
    assert memory_after - memory_before < 8 << 20
    assert after == before
    assert [line for line in logged if line["level"] == "error"] == []
    kinds = {line["event"] for line in logged}
    assert len(logged) <= len(kinds) * (elapsed / EVERY_S + 1), "a flood is logged now and then"
    assert len(kinds) < 20

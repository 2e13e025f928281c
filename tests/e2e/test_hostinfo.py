"""Facts of the daemon's host, and never of the client's: devices, cgroups and times, from two daemons.

One is locked in as two processes of two users, the other is a single process of root's. Both are in a network namespace
of their own with devices that the client's does not have.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

import mapd_client
from mapd.maps.hostfacts import cgroup_mount
from mapd_client import U32, U64, CgroupId, IfIndex, KernelTime, Ktime, KtimeBoot, PermissionDenied, Struct
from mapd_client.btf.build import blob_of
from mapd_client.layouts import Integer, Member, Record
from mapd_client.typed.hintsfile import load_hints
from tests.support.bpffs import require_bpf
from tests.support.daemon import SOURCE, DaemonProcess, daemon_process, private_place
from tests.support.hostprograms import BOOTTIME, CGROUP, KTIME, write_down
from tests.unit.mapd_client.test_cli import Mapctl, mapctl

__all__ = ["mapctl"]

FRONT, OPENER = 65_501, 65_502
MODES: Final = {
    "two processes": f"user = {FRONT}\n[opener]\nuser = {OPENER}\n",
    "one process": "",
}
POLICY: Final = """
[principals.admin]
[principals.web]
[principals.ops]

[[rules]]
who = ["web"]
role = "owner"
owners = ["self"]

[[rules]]
who = ["ops"]
verbs = ["list", "read", "host"]
every_map = true
"""
STEERED: Final = timedelta(milliseconds=2)
"""How far NTP may move clocks from each other while a test runs."""
KEY: Final = Record(
    size=4,
    type_name="by_device",
    members=(Member(name="ifindex", offset=0, layout=Integer(size=4, signed=False)),),
)
VALUE: Final = Record(
    size=16,
    type_name="by_cgroup",
    members=(
        Member(name="seen", offset=0, layout=Integer(size=8, signed=False)),
        Member(name="cgroup", offset=8, layout=Integer(size=8, signed=False)),
    ),
)
ORDER: Final = "little" if sys.byteorder == "little" else "big"
FLOWS, PEER = 4_711, 4_712
"""Indexes that no namespace reaches by counting: the client's has others, or none, of these numbers."""
IN_A_NETWORK_OF_ITS_OWN: Final = (
    "unshare",
    "--net",
    "sh",
    "-c",
    f'ip link add name flows0 index {FLOWS} type veth peer name flows1 index {PEER} && exec "$0" "$@"',
)


@dataclass(frozen=True, slots=True)
class Ground:
    """A daemon, and a cgroup of the test's own."""

    daemon: DaemonProcess
    cgroup: Path
    mount: str

    def target(self, principal: str) -> str:
        return str(self.daemon.place.runtime_dir / principal / "mapd.sock")

    @property
    def path(self) -> str:
        """The cgroup as it is told."""
        return f"/{self.cgroup.relative_to(self.mount)}"


@contextlib.contextmanager
def own_cgroup() -> Generator[tuple[Path, str]]:
    """A new cgroup, below a mount of the test's own where the host has none; nothing of them is left."""
    with contextlib.ExitStack() as stack:
        mount = cgroup_mount()
        if not mount:
            mount = stack.enter_context(tempfile.TemporaryDirectory(prefix="mapd-cgroup-"))
            Path(mount).chmod(0o755)
            subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
            stack.callback(subprocess.run, ["umount", mount], check=True)
        folder = Path(mount, f"mapd-test-{os.getpid()}")
        inner = folder / "inner"
        folder.mkdir()
        stack.callback(folder.rmdir)
        inner.mkdir()
        stack.callback(inner.rmdir)
        yield inner, mount


@pytest.fixture(scope="module", params=MODES)
def ground(request: pytest.FixtureRequest) -> Generator[Ground]:
    require_bpf()
    program: tuple[str, ...] = ("-m", "mapd")
    prefix: tuple[str, ...] = IN_A_NETWORK_OF_ITS_OWN
    if request.param == "one process":
        program = ("-m", "tests.e2e.probing.one")
        prefix = ("env", f"PYTHONPATH={SOURCE.parent}:{SOURCE}", *prefix)
    extra = MODES[request.param]
    with (
        own_cgroup() as (cgroup, mount),
        private_place() as place,
        daemon_process(place, extra=extra, policy=POLICY, prefix=prefix, program=program) as daemon,
    ):
        yield Ground(daemon, cgroup, mount)


def netns(pid: int | str) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


@contextlib.contextmanager
def another_device(pid: int, name: str, index: int) -> Generator[None]:
    """One more device in a daemon's network namespace."""
    enter = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link")
    made = ("add", "name", name, "index", str(index), "type", "veth", "peer", "name", f"{name}-peer")
    subprocess.run([*enter, *made], check=True)
    try:
        yield
    finally:
        subprocess.run([*enter, "del", name], check=True)


@contextlib.contextmanager
def inside(cgroup: Path) -> Generator[None]:
    """This process in a cgroup, and back where it was."""
    line = next(one for one in Path("/proc/self/cgroup").read_text().splitlines() if one.startswith("0::"))
    before = Path(cgroup_mount(), line.removeprefix("0::").lstrip("/"))
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        Path(before, "cgroup.procs").write_text(str(os.getpid()))


async def test_devices_are_those_of_the_daemon_s_network_and_not_of_the_client_s(ground: Ground) -> None:
    own = dict(socket.if_nameindex())
    assert {FLOWS, PEER}.isdisjoint(own)
    async with mapd_client.connect(ground.target("admin")) as client:
        info = await client.host_info()
        assert info.devices == {1: "lo", FLOWS: "flows0", PEER: "flows1"}
        assert info.netns == netns(ground.daemon.pid) != netns("self")
        named = await client.host_info(devices=False, cgroups=False, ifindexes=[PEER, *own])
        assert {index: name for index, name in named.devices.items() if index != 1} == {PEER: "flows1"}
        assert not named.cgroups
        assert (await client.server_info()).features >= {"host-facts"}
        made = client.create_map("by-device", "hash", key=IfIndex, value=U64, max_entries=16)
        async with made as counts:
            await counts.update("flows0", 7)
            mine = max(own)  # which has a name where the client is, and none where the daemon is
            await counts.update(mine, 8)
            assert dict([entry async for entry in counts.items()]) == {
                "flows0": 7,
                info.devices.get(mine, mine): 8,
            }
            async with client.open_map("by-device", key=U32, value=U64) as raw:
                assert await raw.lookup(FLOWS) == 7
                assert await raw.lookup(mine) == 8


@pytest.mark.parametrize(
    "ground", ["two processes"], indirect=True
)  # it takes the second between two questions
async def test_a_device_that_comes_later_is_told_by_name_soon_after_it_was_met(ground: Ground) -> None:
    async with (
        mapd_client.connect(ground.target("admin")) as client,
        client.create_map("late", "hash", key=U32, value=IfIndex, max_entries=16) as late,
    ):
        await late.update(1, 4_800)
        assert await late[1] == 4_800
        with another_device(ground.daemon.pid, "late0", 4_800):
            found = [await late[1]]
            deadline = time.monotonic() + 20
            while found[-1] != "late0" and time.monotonic() < deadline:
                found.append(await late[1])
            assert found[-1] == "late0"
            assert set(found[:-1]) <= {4_800}


async def test_times_and_the_cgroup_that_a_program_wrote_are_told_as_they_were(ground: Ground) -> None:
    place = ground.daemon.place
    async with mapd_client.connect(ground.target("admin")) as client:
        made = client.create_map("written", "array", key=U32, value=U64, max_entries=3)
        async with made as numbers:
            pin_path = numbers.info.pin_path
            before = datetime.now(UTC)
            with inside(ground.cgroup):
                write_down(str(place.bpffs), pin_path)
            after = datetime.now(UTC)
            raw = [await numbers[index] for index in (KTIME, BOOTTIME, CGROUP)]
        for codec, index in ((Ktime, KTIME), (KtimeBoot, BOOTTIME)):
            async with client.open_map("written", key=U32, value=codec) as times:
                moment = await times[index]
                assert isinstance(moment, KernelTime)
                assert before - STEERED <= moment <= after + STEERED
                assert moment.ktime == raw[index]
                await times.update(index, moment)
                async with client.open_map("written", key=U32, value=U64) as numbers:
                    assert await numbers[index] == raw[index]
        async with client.open_map("written", key=U32, value=CgroupId) as cgroups:
            assert raw[CGROUP] == ground.cgroup.stat().st_ino
            assert await cgroups[CGROUP] == ground.path


async def test_fields_are_told_by_hints_of_a_file(ground: Ground, tmp_path: Path, mapctl: Mapctl) -> None:
    file = tmp_path / "hints.toml"
    file.write_text("""
["*/typed"]
key.ifindex = "ifindex"
value.seen = "ktime_boot"
value.cgroup = "cgroup_id"
""")
    hints = load_hints(file)
    number = ground.cgroup.stat().st_ino
    async with (
        mapd_client.connect(ground.target("admin")) as client,
        client.create_map(
            "typed",
            "hash",
            key=U32,
            value=Struct("=QQ"),
            max_entries=16,
            btf=blob_of(KEY, VALUE, ORDER),
        ) as raw,
    ):
        info = await client.host_info(devices=False, cgroups=False)
        assert info.clocks is not None
        await raw.update(FLOWS, (info.clocks.boottime, number))
        typed = await raw.typed(hints=hints.for_map(raw.info))
        ((key, value),) = [entry async for entry in typed.items()]
        assert (key["ifindex"], value["cgroup"]) == ("flows0", ground.path)
        told = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=info.clocks.realtime // 1_000)
        assert abs(value["seen"] - told) < STEERED
        await typed.update({"ifindex": "flows1"}, {"seen": value["seen"], "cgroup": ground.path})
        assert await raw[PEER] == (info.clocks.boottime, number)
        address = ("--address", ground.target("admin"))
        printed = await mapctl(
            *address, "lookup", "typed", '{"ifindex": "flows1"}', "--hints", str(file), "-o", "ndjson"
        )
        assert printed.err == ""
        record = json.loads(printed.out)
        assert (record["key"], record["value"]["cgroup"]) == ({"ifindex": "flows1"}, ground.path)
        assert record["value"]["seen"] == value["seen"].isoformat()
        printed = await mapctl(*address, "dump", "typed", "--as", "key.ifindex=ifindex", "-o", "ndjson")
        names = {json.loads(line)["key"]["ifindex"] for line in printed.out.splitlines()}
        assert names == {"flows0", "flows1"}
        by_codec = await raw.typed(key=IfIndex, value=Struct("=QQ"))
        assert await by_codec["flows1"] == (info.clocks.boottime, number)


async def test_cgroups_are_told_by_id_and_together(ground: Ground) -> None:
    number = ground.cgroup.stat().st_ino
    async with mapd_client.connect(ground.target("ops")) as client:
        asked = await client.host_info(devices=False, cgroups=False, cgroup_ids=[number, 2**63])
        assert asked.cgroups == {number: ground.path}
        assert asked.cgroup_mount == ground.mount
        every = await client.host_info(devices=False)
        assert every.cgroups[number] == ground.path
        assert "/" in every.cgroups.values()


async def test_without_the_right_values_stay_numbers_and_it_is_said_why(
    ground: Ground, mapctl: Mapctl
) -> None:
    async with mapd_client.connect(ground.target("web")) as client:
        with pytest.raises(PermissionDenied, match="no rule of the policy allows you host"):
            await client.host_info()
        types = blob_of(KEY, VALUE, ORDER)
        shape = client.create_map(
            "own-typed", "hash", key=U32, value=Struct("=QQ"), max_entries=16, btf=types
        )
        async with shape as raw:
            await raw.update(FLOWS, (5, 1))
            typed = await raw.typed(hints={"key.ifindex": "ifindex", "value.seen": "ktime"})
            ((key, value),) = [entry async for entry in typed.items()]
            assert (key["ifindex"], value["seen"]) == (FLOWS, 5)
            assert "(key.ifindex is a number: " in repr(typed)
            assert "allows you host" in repr(typed)
            printed = await mapctl(
                "--address", ground.target("web"), "dump", "own-typed", "--as", "key.ifindex=ifindex"
            )
            assert printed.out.startswith(f'{{"ifindex": "{FLOWS}"}}  ')
            assert printed.err.startswith("mapctl: key.ifindex is a number: host_info")
        made = client.create_map("own", "hash", key=IfIndex, value=Ktime, max_entries=16)
        async with made as flows:
            await flows.update(FLOWS, 12_345)
            assert [entry async for entry in flows.items()] == [(FLOWS, 12_345)]
            assert "IfIndex (numbers: " in repr(flows)
            assert "allows you host" in repr(flows)
            with pytest.raises(mapd_client.TypeMismatch, match="allows you host"):
                await flows.update("flows0", 1)
    async with (
        mapd_client.connect(ground.target("ops")) as client,
        client.open_map("web/own", key=IfIndex, value=Ktime, read_only=True) as seen,
    ):
        assert isinstance(await seen.lookup("flows0"), datetime)


async def test_a_daemon_with_the_loopback_device_alone_says_that_it_sees_no_others() -> None:
    require_bpf()
    with private_place() as place:
        extra = "backend = 'memory'\n"
        prefix = ("unshare", "--net", "--")
        with daemon_process(place, extra=extra, prefix=prefix) as daemon:
            target = str(daemon.place.socket)
            async with mapd_client.connect(target) as client:
                info = await client.host_info(cgroups=False)
    assert info.devices == {1: "lo"}
    assert any("loopback device alone" in line for line in info.not_looked_at)

"""Metrics of real daemons: what was done is told, where it was asked for, and nothing of any key or value."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mapd.bpf import FaultyKernel, LinuxKernel
from mapd.bpf.faulty import Fault
from mapd.bpf.kernel import CreateMap
from mapd.daemon import running
from mapd_api.reasons import Reason
from mapd_client import (
    U32,
    U64,
    Bytes,
    Client,
    KeyExists,
    MapdError,
    MapFull,
    MapNotFound,
    PerCpu,
    QuotaExceeded,
    connect,
)
from tests.support.daemon import DaemonProcess, Place, daemon_process

ON = "[metrics]\nlisten = '127.0.0.1:0'\nevery_s = 0.1\n"
WAIT_S = 15.0

Told = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def port_of(daemon: DaemonProcess) -> str:
    """Where a daemon process says that its metrics are."""
    lines = (json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{"))
    (address,) = [line["address"] for line in lines if line["event"] == "metrics"]
    return str(address)


def read(address: str, path: str = "/metrics") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=WAIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scraped(text: str) -> Told:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(address: str) -> Told:
    return scraped((await asyncio.to_thread(read, address))[1])


async def scraped_when(address: str, holds: Callable[[Told], bool]) -> Told:
    """The first page of which this holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds(told := await scrape(address)):
            pass
    return told


def value(told: Told, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    wanted = set(labels.items())
    return sum(number for (found, its), number in told.items() if found == name and wanted <= its)


def listening(daemon: DaemonProcess) -> int:
    """TCP sockets of a process that listen."""
    states: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{daemon.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            states[f"socket:[{fields[9]}]"] = fields[3]
    return sum(states.get(fd) == "0A" for fd in daemon.fds())


def test_without_an_address_nothing_is_listened_on_and_with_one_that_alone(place: Place) -> None:
    with daemon_process(place) as daemon:
        assert listening(daemon) == 0
    with daemon_process(place, extra=ON) as daemon:
        assert listening(daemon) == 1
        assert read(port_of(daemon), "/healthz") == (200, "serving\n")


CONTENTS = (
    f"{ON}maps = ['admin/*']\n"
    "[[metrics.contents]]\nmap = 'admin/flows'\nname = 'flow_packets_total'\nhelp = 'Packets.'\ntype = 'counter'\n"
    "labels = [{name = 'saddr', size = 4, decoder = 'ip'},"
    " {name = 'proto', offset = 4, size = 1, static_map = {6 = 'tcp', 17 = 'udp'}}]\n"
    "[[metrics.contents]]\nmap = 'admin/percpu'\nname = 'drops'\nhelp = 'Drops.'\ntype = 'gauge'\ncpu = 'cpu'\n"
    "[[metrics.contents]]\nmap = 'admin/none'\nname = 'nothing'\nhelp = 'None.'\ntype = 'gauge'\n"
)


async def test_what_was_done_is_what_is_told_by_two_processes_that_are_locked_in(place: Place) -> None:
    with daemon_process(place, extra=CONTENTS) as daemon:
        async with (
            connect(str(place.socket)) as client,
            client.create_map("flows", "hash", key=Bytes(8), value=U64, max_entries=64) as flows,
            client.create_map("percpu", "percpu_array", key=U32, value=PerCpu(U64), max_entries=1) as percpu,
        ):
            for number in range(1, 6):
                await flows.update(
                    bytes([192, 0, 2, number % 2, 6 if number < 5 else 7, 0, 0, number]), number
                )
            assert await flows.lookup(bytes(8)) is None
            slots = len(await percpu[0])
            await percpu.update(0, list(range(slots)))
            with pytest.raises(MapNotFound):
                await client.open_map("none", key=U32, value=U64)
            text = read(port_of(daemon))[1]
        told = scraped(text)
        log = daemon.log.read_text()
    assert value(told, "mapd_rpc_duration_seconds_count", method="CreateMap", reason="OK") == 2
    assert value(told, "mapd_rpc_duration_seconds_count", method="OpenMap", reason="MAP_NOT_FOUND") == 1
    assert value(told, "mapd_rpc_duration_seconds_bucket", method="CreateMap", reason="OK", le="+Inf") == 2
    assert value(told, "mapd_session_message_duration_seconds_count") >= 7
    assert value(told, "mapd_syscalls_total", operation="BPF_MAP_UPDATE_ELEM", errno="OK") >= 6
    assert value(told, "mapd_syscalls_total", operation="BPF_MAP_LOOKUP_ELEM", errno="ENOENT") >= 1
    assert value(told, "mapd_lane_calls_total") >= value(told, "mapd_lane_hops_total") > 0
    assert value(told, "mapd_sessions") == 1
    assert value(told, "mapd_handles") == 2
    assert value(told, "mapd_leases") == 0
    assert value(told, "mapd_build_info", backend="kernel") == 1
    assert {number for (name, _), number in told.items() if name == "mapd_service_serving"} == {1.0}
    assert value(told, "process_start_time_seconds") > 0
    assert value(told, "mapd_map_entries", map="admin/flows", type="hash") == 5
    assert value(told, "mapd_map_max_entries", map="admin/flows") == 64
    assert value(told, "mapd_map_fill_ratio", map="admin/flows") == 5 / 64
    assert value(told, "mapd_map_memory_bytes", map="admin/flows") == flows.info.memlock_bytes
    assert value(told, "mapd_map_elements_written_total", map="admin/flows") == 5
    contents = {its: number for (name, its), number in told.items() if name == "flow_packets_total"}
    assert contents == {
        frozenset({("saddr", "192.0.2.0"), ("proto", "tcp")}): 2.0 + 4.0,
        frozenset({("saddr", "192.0.2.1"), ("proto", "tcp")}): 1.0 + 3.0,
        frozenset({("saddr", "192.0.2.1"), ("proto", "unknown:7")}): 5.0,
    }
    assert [value(told, "drops", cpu=str(cpu)) for cpu in range(slots)] == list(range(slots))
    assert value(told, "mapd_content_up", metric="nothing") == 0
    assert value(told, "mapd_content_up") == 2
    assert log.count("a map's content is not told") == 1


async def test_what_is_quarantined_is_told(place: Place) -> None:
    """A pin that is no map where names are."""
    async with running(place.config(extra=ON)) as ready, connect(str(place.socket)) as client:
        for name in ("one", "two"):
            await client.create_map(name, "hash", key=U32, value=U64, max_entries=8)
        await client.create_map("web/three", "hash", key=U32, value=U64, max_entries=8)
        (place.names / "admin" / "one").rename(place.names / "admin" / "No Name")
        told = await scraped_when(ready.metrics, lambda told: value(told, "mapd_pins_quarantined") == 1)
        assert value(told, "mapd_pins_served") == 2
        (place.names / "admin" / "No Name").rename(place.names / "admin" / "one")
        told = await scraped_when(ready.metrics, lambda told: value(told, "mapd_pins_quarantined") == 0)
        assert value(told, "mapd_pins_mended_total") == 1


async def test_a_daemon_that_drains_says_so_to_the_last(place: Place) -> None:
    """Held open by a call that stands still in the kernel."""
    held, go_on = threading.Event(), threading.Event()
    kernel = FaultyKernel(LinuxKernel())
    config = place.config(extra=ON)
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with running(config, kernel) as ready:
            address.set_result(ready.metrics)
            await stop.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        where = await address
        async with connect(str(place.socket)) as client:
            await client.server_info()
            assert await asyncio.to_thread(read, where, "/healthz") == (200, "serving\n")
            kernel.add(Fault(target=CreateMap, nth=1, reached=held, wait=go_on))
            creating = group.create_task(_created(client))
            assert await asyncio.to_thread(held.wait, WAIT_S)
            stop.set()
            try:
                async with asyncio.timeout(WAIT_S):
                    while (await asyncio.to_thread(read, where, "/healthz"))[0] == 200:
                        pass
                assert await asyncio.to_thread(read, where, "/healthz") == (503, "the daemon is stopping\n")
                told = await scrape(where)
                assert {n for (name, _), n in told.items() if name == "mapd_service_serving"} == {0.0}
                assert value(told, "mapd_rpc_running") == 1
            finally:
                go_on.set()
            await creating


async def _created(client: Client) -> None:
    async with client.create_map("late", "hash", key=U32, value=U64, max_entries=8):
        pass


POLICY = """
[principals.admin]
[principals.web]
users = [0]
[principals.web.quotas]
handles = 1
[[rules]]
who = ["web"]
role = "owner"
names = ["web/*"]
"""


async def test_quotas_are_counted_by_whose_they_are(place: Place) -> None:
    async with running(place.config(extra=ON, policy=POLICY)) as ready:
        async with (
            connect(str(place.runtime_dir / "web" / "mapd.sock")) as client,
            client.create_map("one", "hash", key=U32, value=U64, max_entries=8),
        ):
            for _ in range(3):
                with pytest.raises(QuotaExceeded):
                    await client.open_map("one", key=U32, value=U64)
            told = await scrape(ready.metrics)
        assert value(told, "mapd_quota_refusals_total", principal="web", quota="handles") == 3
        assert value(told, "mapd_quota_refusals_total") == 3


SECRETS = (b"\xfeKEY-\xc3\x9f\x01\x02", b"\xfdVAL-\xc3\x9f\x03\x04")


def spellings(secret: bytes) -> list[str]:
    """As a log or a page might have it."""
    return [
        secret.hex(),
        secret.hex(" "),
        base64.b64encode(secret).decode(),
        repr(secret)[2:-1],
        repr(secret)[2:-1].replace("\\", "\\\\"),
        str(int.from_bytes(secret, "little")),
        str(int.from_bytes(secret, "big")),
        ", ".join(map(str, secret)),
        secret.decode("latin-1"),
    ]


async def test_neither_the_log_nor_the_metrics_have_a_key_or_value(place: Place) -> None:
    """At the level that says most, of what is done, what is refused, and what the daemon itself is at fault for."""
    key, kept = SECRETS
    extra = f"log_level = 'debug'\n{ON}maps = ['admin/*']\n"
    sizes = Bytes(len(key)), Bytes(len(kept))
    with daemon_process(place, extra=extra, program=("-m", "tests.e2e.faulty_daemon")) as daemon:
        async with (
            connect(str(place.socket)) as client,
            client.create_map("flows", "hash", key=sizes[0], value=sizes[1], max_entries=1) as flows,
        ):
            await flows.update(key, kept)
            assert await flows.lookup(key) == kept
            with pytest.raises(KeyExists):
                await flows.update(key, kept, flags="noexist")
            with pytest.raises(MapFull):
                await flows.update(bytes(len(key)), kept)
            assert [each async for each in flows.items()] == [(key, kept)]
            with pytest.raises(MapdError) as fault:
                await flows.delete(key)
            assert fault.value.reason is Reason.INTERNAL
        page = read(port_of(daemon))[1]
        lines = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    (loud,) = [line for line in lines if line["event"] == "fault"]
    assert (loud["level"], loud["incident"]) == ("error", fault.value.metadata["incident"])
    assert loud["request_id"] == fault.value.metadata["request_id"]
    assert loud["exception"][0]["exc_type"] == "RuntimeError"
    calls = [line for line in lines if line["event"] in {"served", "refused", "cancelled"}]
    assert {line["level"] for line in calls} == {"debug"}
    assert all(line["request_id"] and line["method"] and line["seconds"] >= 0 for line in calls)
    said = daemon.log.read_text() + page
    assert [spelt for secret in SECRETS for spelt in spellings(secret) if spelt in said] == []

"""A daemon that may not, one that is not there, and one that is older than its client."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import pytest

import mapd_client
import mapd_client.testing
from mapd.bpf import CreateMap
from mapd.daemon import Ready, running
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2, maps_pb2, types_pb2
from mapd_client import (
    U32,
    U64,
    DaemonCapability,
    DeadlineExceeded,
    Id,
    Map,
    NotSent,
    Pin,
    Unavailable,
    Unsupported,
)
from mapd_client.failures import Asked
from mapd_client.link import Link
from mapd_client.methods import Method
from tests.e2e.bad_input import RawClient, check, nothing_created, pin_foreign, refused, unique_name
from tests.support.counts import kernel_maps
from tests.support.daemon import NOBODY, SOURCE, Place, daemon_process, spawn
from tests.support.pinned import read_pin, unchanged

SMALL = CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=4)

WITHOUT_BPF = ("setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon,-net_admin", "--inh-caps=-bpf,-sys_admin")
"""Root, but not in the kernel's eyes where bpf(2) asks."""


# ---- a daemon without rights -----------------------------------------------------------------------


async def test_a_daemon_without_cap_bpf_creates_nothing_and_says_which_and_how_to_mend_it(
    place: Place,
) -> None:
    """An LRU map, for which Linux asks for CAP_BPF whatever kernel.unprivileged_bpf_disabled says."""
    name = unique_name()
    with daemon_process(place, prefix=WITHOUT_BPF) as daemon:
        assert not effective(daemon.pid) & {21, 39}
        async with mapd_client.connect(str(place.socket)) as client:
            assert (await client.server_info()).profile == "none"
            with (
                nothing_created(place, name),
                refused(
                    DaemonCapability, Reason.DAEMON_CAPABILITY, f"create admin/{name}", "lru_hash", "CAP_BPF"
                ) as caught,
            ):
                await client.create_map(name, "lru_hash", key=U32, value=U64, max_entries=4)
            error = caught.value
            assert (error.capability, error.errno, error.operation) == ("CAP_BPF", 1, "create")
            assert "AmbientCapabilities=CAP_BPF" in error.fix
            assert "pinned where mapd may open it" in error.fix
            assert error.fix in str(error)


async def test_a_daemon_without_cap_sys_admin_opens_no_id_and_says_how_to_mend_it(place: Place) -> None:
    pin = place.bpffs / "theirs"
    with pin_foreign(pin, SMALL), unchanged(pin), daemon_process(place, prefix=WITHOUT_BPF):
        async with mapd_client.connect(str(place.socket)) as client:
            ref = Id(read_pin(pin).info.id)
            with refused(
                DaemonCapability, Reason.DAEMON_CAPABILITY, f"open {ref}", "CAP_SYS_ADMIN"
            ) as caught:
                await client.open_map(ref)
            assert caught.value.capability == "CAP_SYS_ADMIN"
            assert "AmbientCapabilities=CAP_SYS_ADMIN" in caught.value.fix
            # Whether there is such a map it does not say either.
            with refused(DaemonCapability, Reason.DAEMON_CAPABILITY, "CAP_SYS_ADMIN"):
                await client.open_map(Id(4_000_000_000))


async def test_a_daemon_without_cap_bpf_serves_maps_that_others_made(place: Place) -> None:
    """The way out that the message of a refused creation names."""
    pin = place.bpffs / "theirs"
    with pin_foreign(pin, SMALL), daemon_process(place, prefix=WITHOUT_BPF):
        async with mapd_client.connect(str(place.socket)) as client:
            theirs = await client.open_map(Pin(str(pin)), key=U32, value=U64)
            await theirs.update_many({1: 10, 2: 20})
            assert {key: value async for key, value in theirs.items()} == {1: 10, 2: 20}


@contextmanager
def other_users_place(place: Place) -> Generator[tuple[str, ...]]:
    """A place that uid 65534 may run a daemon in with CAP_BPF alone; what to start it with."""
    with tempfile.TemporaryDirectory(prefix="mapd-source-") as folder:
        sources = Path(folder)
        sources.chmod(0o755)
        for package in ("mapd", "mapd_api", "mapd_client"):
            shutil.copytree(SOURCE / package, sources / package, ignore=shutil.ignore_patterns("__pycache__"))
        place.bpffs.chmod(0o755)
        for path in (place.names, place.runtime_dir, place.root / "state"):
            path.mkdir(exist_ok=True)
            os.chown(path, NOBODY, NOBODY)
        user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        rights = ("--inh-caps=-all,+bpf", "--ambient-caps=-all,+bpf", "--bounding-set=-all,+bpf")
        yield ("env", f"PYTHONPATH={sources}", "setpriv", *user, *rights)


async def test_a_daemon_whom_a_pins_mode_does_not_admit_says_the_path_and_how_to_mend_it(
    place: Place,
) -> None:
    pin = place.bpffs / "roots"
    with pin_foreign(pin, SMALL), other_users_place(place) as prefix, unchanged(pin):
        assert pin.stat().st_uid == 0
        assert pin.stat().st_mode & 0o777 == 0o600
        with daemon_process(place, prefix=prefix) as daemon:
            assert rights(daemon.pid) == (set(), {39})
            async with mapd_client.connect(str(place.socket)) as client:
                for read_only in (False, True):
                    with refused(
                        DaemonCapability, Reason.DAEMON_CAPABILITY, "open pin:", pin, "modes", "EACCES"
                    ) as caught:
                        await client.open_map(Pin(str(pin)), read_only=read_only)
                    assert caught.value.capability == "CAP_DAC_OVERRIDE"
                    assert "chown or chmod" in caught.value.fix
                    assert "CAP_DAC_READ_SEARCH" in caught.value.fix
                assert (await client.server_info()).profile == "minimal"
                # Mended as it says, it opens.
                pin.chmod(0o666)
                async with client.open_map(Pin(str(pin)), key=U32, value=U64) as roots:
                    assert await roots.lookup(1) is None
                pin.chmod(0o600)


async def test_a_daemon_that_may_read_a_pin_only_says_what_writing_takes(place: Place) -> None:
    pin = place.bpffs / "roots"
    with pin_foreign(pin, SMALL), other_users_place(place) as prefix:
        pin.chmod(0o644)
        with daemon_process(place, prefix=prefix), unchanged(pin):
            async with mapd_client.connect(str(place.socket)) as client:
                async with client.open_map(Pin(str(pin)), read_only=True) as reader:
                    assert [entry async for entry in reader.items()] == []
                with refused(DaemonCapability, Reason.DAEMON_CAPABILITY, "open pin:", "CAP_DAC_OVERRIDE"):
                    await client.open_map(Pin(str(pin)))
            await looks_by_pin_are_served_and_writes_are_not(place, types_pb2.MapRef(pin=str(pin)))


def int_and_long() -> bytes:
    """BTF of two integers, 4 bytes (type 1) and 8 bytes (type 2)."""
    strings = b"\0u32\0u64\0"
    types = b"".join(
        struct.pack("<IIII", name, 1 << 24, bits // 8, bits) for name, bits in ((1, 32), (5, 64))
    )
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


async def test_a_daemon_with_cap_bpf_gives_the_types_of_the_maps_it_made_and_of_no_others(
    place: Place,
) -> None:
    blob = int_and_long()
    name = unique_name()
    with other_users_place(place) as prefix:
        for create in (True, False):  # the second time in another daemon
            with daemon_process(place, prefix=prefix) as daemon:
                assert rights(daemon.pid) == (set(), {39})
                channel = grpc.aio.insecure_channel(f"unix:{place.socket}")
                try:
                    raw = RawClient(channel)
                    if create:
                        await raw.call(
                            "CreateMap",
                            maps_pb2.CreateMapRequest(
                                type=types_pb2.MAP_TYPE_HASH,
                                key_size=4,
                                value_size=8,
                                max_entries=4,
                                named=maps_pb2.Named(name=name),
                                btf=types_pb2.Btf(blob=blob, key_type_id=1, value_type_id=2),
                            ),
                            maps_pb2.CreateMapResponse,
                        )
                    request = maps_pb2.GetBtfRequest(map=types_pb2.MapRef(name=name))
                    found = (await raw.call("GetBtf", request, maps_pb2.GetBtfResponse)).btf
                    assert (found.blob, found.key_type_id, found.value_type_id) == (blob, 1, 2)
                    (kept,) = (path for path in (place.root / "state").rglob("*") if path.is_file())
                    assert kept.stat().st_mode & 0o777 == 0o600
                    if not create:
                        kept.unlink()
                        check(await raw.refusal("GetBtf", request), Reason.DAEMON_CAPABILITY, "CAP_SYS_ADMIN")
                finally:
                    await channel.close()


def test_a_daemon_that_cannot_keep_its_state_does_not_start_and_says_where(place: Place) -> None:
    with other_users_place(place) as prefix:
        (place.root / "state").rmdir()
        daemon = spawn(place, prefix=prefix)
        assert daemon.process.wait(20) != 0
    said = daemon.log.read_text()
    assert f"{place.root}/state: Permission denied" in said
    assert "[daemon] state_dir" in said


async def looks_by_pin_are_served_and_writes_are_not(place: Place, ref: types_pb2.MapRef) -> None:
    channel = grpc.aio.insecure_channel(f"unix:{place.socket}")
    try:
        raw = RawClient(channel)
        found = await raw.call("GetMap", maps_pb2.GetMapRequest(map=ref), maps_pb2.GetMapResponse)
        assert found.info.pin_path == ref.pin
        lookup = elements_pb2.LookupRequest(map=ref, key=bytes(4))
        assert not (await raw.call("Lookup", lookup, elements_pb2.LookupResponse)).HasField("value")
        dump = elements_pb2.DumpRequest(map=ref)
        assert (await raw.download("Dump", dump, elements_pb2.DumpResponse))[-1].trailer.complete
        update = elements_pb2.UpdateRequest(map=ref, key=bytes(4), value=bytes(8))
        check(await raw.refusal("Update", update), Reason.DAEMON_CAPABILITY, "modes", errno="EACCES")
    finally:
        await channel.close()


def effective(pid: int) -> set[int]:
    """A process' effective capabilities by number (linux/capability.h)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return {number for number in range(64) if mask >> number & 1}


def rights(pid: int) -> tuple[set[int], set[int]]:
    """Those of the process that speaks to clients, and of its opener."""
    (opener,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return effective(pid), effective(int(opener))


# ---- a daemon that is not there --------------------------------------------------------------------


@pytest.mark.parametrize("there", ["nothing", "a folder without it", "a dead socket", "a file"])
async def test_a_dead_socket_is_unavailable_with_its_path_and_the_likely_cause(
    tmp_path: Path, there: str
) -> None:
    path = tmp_path / "no" / "mapd.sock" if there == "a folder without it" else tmp_path / "mapd.sock"
    if there == "a dead socket":
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    elif there == "a file":
        path.write_text("")
    cause = "nobody listens" if there in ("a dead socket", "a file") else "no such socket"
    with refused(Unavailable, None, "no daemon at", path, cause) as caught:
        await mapd_client.connect(str(path), timeout=5)
    assert isinstance(caught.value, ConnectionError)


async def test_a_mutation_for_a_daemon_that_has_gone_was_not_sent(place: Place) -> None:
    """What never left is told from what may have arrived."""
    with daemon_process(place) as daemon:
        # Calls wait that long for a daemon that may come back.
        async with mapd_client.connect(str(place.socket), timeout=0.5) as client:
            flows = await client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
            await flows.update(1, 10)
            with unchanged(place.names / "admin" / "flows"):
                daemon.process.send_signal(signal.SIGKILL)
                daemon.process.wait()
                with pytest.raises((NotSent, Unavailable, mapd_client.OutcomeUnknown)):
                    await flows.update(2, 20)  # may meet the connection as it breaks
                with refused(NotSent, None, "update flows", place.socket, "daemon has stopped"):
                    await flows.update(2, 20)
                with refused(DeadlineExceeded, None, "lookup flows", place.socket, "daemon has stopped"):
                    await flows.lookup(1)
                with refused(Unavailable, None, place.socket, "daemon has stopped"):
                    await client.create_map("other", "hash", key=U32, value=U64, max_entries=4)


async def test_addresses_that_are_none_are_refused_with_what_is_one() -> None:
    for target, says in (("nonsense", ("'nonsense'", "unix:/")), ("unix:relative", ("unix:/",))):
        with refused(mapd_client.Misuse, None, *says):
            await mapd_client.connect(target)
    with refused(mapd_client.Misuse, None, "localhost:50051", "tls="):
        await mapd_client.connect("localhost:50051")


# ---- a daemon older than its client ------------------------------------------------------------------


@pytest.fixture
async def ready(place: Place) -> AsyncGenerator[Ready]:
    async with running(place.config()) as found:
        yield found


@pytest.fixture
async def link(ready: Ready) -> AsyncGenerator[Link]:
    """The way that a client's calls take."""
    found = Link(f"unix:{ready.socket}", 10)
    yield found
    await found.aclose()


@pytest.mark.parametrize("path", ["/mapd_api.v1.ElementService/Watch", "/mapd_api.v2.MapService/OpenMap"])
@pytest.mark.parametrize("mutates", [False, True])
async def test_a_call_that_the_daemon_does_not_know_is_unsupported_and_names_both_sides(
    link: Link, path: str, mutates: bool
) -> None:
    """Nothing was executed, also where the call would have changed something."""
    await link.ask_server()
    version = (await link.server()).version
    unknown = Method(path, maps_pb2.GetMapRequest, maps_pb2.GetMapResponse.FromString)
    with refused(Unsupported, None, "watch flows", link.transport.target, f"version {version}", "older"):
        await link.call(unknown, maps_pb2.GetMapRequest(), Asked("watch", "flows", mutates=mutates))


async def test_a_stream_that_the_daemon_does_not_know_is_unsupported(link: Link) -> None:
    unknown = Method(
        "/mapd_api.v1.ElementService/Watch", elements_pb2.DumpRequest, elements_pb2.DumpResponse.FromString
    )
    stream = link.transport.download(unknown, elements_pb2.DumpRequest(), Asked("watch", "flows"), 10)
    with refused(Unsupported, None, "watch flows", "does not know this call"):
        await anext(stream)


async def test_a_feature_that_the_daemon_lacks_is_refused_unsent_by_its_name() -> None:
    """Maps in memory: no program runs there, so no lookup refreshes recency."""
    async with mapd_client.testing.daemon() as target, mapd_client.connect(target) as client:
        server = await client.server_info()
        assert "touch" not in server.features
        recent: Map[int, int] = await client.create_map(
            "recent", "lru_hash", key=U32, value=U64, max_entries=64
        )
        await recent.update(1, 10)
        for call in (lambda: recent.lookup(1, touch=True), lambda: recent.lookup_many([1], touch=True)):
            with refused(Unsupported, None, "lookup recent", "touch=True", f"version {server.version}"):
                await call()


async def test_a_field_of_a_newer_client_changes_nothing(ready: Ready) -> None:
    """Proto drops what it does not know; what a field means must therefore never be a restriction."""
    async with mapd_client.connect(str(ready.socket)) as client:
        await client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
        newer = maps_pb2.GetMapRequest()
        newer.map.name = "flows"
        data = newer.SerializeToString() + b"\xa2\x06\x03new"  # field 100
        method = Method(
            "/mapd_api.v1.MapService/GetMap",
            maps_pb2.GetMapRequest,
            maps_pb2.GetMapResponse.FromString,
            lambda _: data,
        )
        link = Link(f"unix:{ready.socket}", 10)
        answer = await link.call(method, newer, Asked("get"))
        await link.aclose()
        assert answer.info.name == "admin/flows"
        assert answer.info.id in kernel_maps()

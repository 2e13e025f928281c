"""A daemon that starts takes over the pins it finds: what fits is served, what does not is told, and left as it is."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import mapd_client
from mapd.bpf import (
    CreateMap,
    Fault,
    FaultyKernel,
    Kernel,
    LinuxKernel,
    OpenPin,
    Pin,
    ProgramType,
    load_program,
)
from mapd.bpf.kernel import RawMapInfo
from mapd.daemon import Ready, running
from mapd.maps.adoption import Misfit, differences
from mapd_api.uapi import MapType
from mapd_client import U32, U64, Incompatible, Reason
from tests.e2e.settling import until
from tests.kernel.programs import pin_program, returning
from tests.support.daemon import NOBODY, DaemonProcess, Place, daemon_process, environment

FLOWS = CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=8, kernel_name="flows")


def put_map(place: Place, *names: str, spec: CreateMap = FLOWS) -> int:
    """Pin one map under names, as anybody with the rights can; its id."""
    kernel = LinuxKernel()
    with kernel.control(spec) as owned, owned.lease() as map_fd:
        for name in names:
            kernel.control(Pin(root=str(place.names), path=f"{place.names}/{name}", mkdir=True), [map_fd])
        return kernel.info(map_fd).id


def put_program(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with load_program(returning(0), ProgramType.SOCKET_FILTER, "other") as owned, owned.lease() as prog_fd:
        pin_program(path, prog_fd)


def misfits(ready: Ready) -> dict[str, str]:
    """Why, by path, of all that is told."""
    return {one.path: one.why for one in ready.adopting.adoption.misfits}


def looked_again(ready: Ready, before: int) -> bool:
    return ready.adopting.counts.looks > before


async def not_looked_at(place: Place) -> str:
    async with mapd_client.connect(str(place.socket)) as client:
        listing = client.list_maps()
        names = [one.name async for one in listing]
        assert names == sorted(names)
        return "\n".join(listing.not_looked_at)


async def mapctl_doctor(place: Place) -> str:
    code = "import sys; from mapd_client.cli import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "--address", f"unix:{place.socket}", "doctor", "--output", "ndjson"),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def refusal(place: Place, name: str) -> Incompatible:
    """What is said of a name to who wants to open it or to make it; nothing is changed by that."""
    path = place.names / name
    there = path.exists()
    inode = path.stat().st_ino if there else 0
    async with mapd_client.connect(str(place.socket)) as client:
        with pytest.raises(Incompatible) as refused:
            async with client.create_map(name, "hash", key=U32, value=U64, max_entries=8, exist_ok=True):
                pass
        if there:
            with pytest.raises(Incompatible) as refused:
                async with client.open_map(name):
                    pass
    assert refused.value.reason is Reason.INCOMPATIBLE
    assert path.exists() == there, "neither unpinned nor made anew"
    assert not there or path.stat().st_ino == inode
    return refused.value


async def count(place: Place, name: str) -> int:
    """How many elements a map has; it is served then."""
    async with (
        mapd_client.connect(str(place.socket)) as client,
        client.open_map(name, key=U32, value=U64) as found,
    ):
        await found.update(1, 2)
        return (await found.count()).entries


async def test_what_is_pinned_is_served_at_once_and_said_in_the_log(place: Place) -> None:
    put_map(place, "admin/flows", "agent/flows")
    with daemon_process(place) as daemon:
        assert await count(place, "agent/flows") == 1
        assert '"event": "pins adopted"' in daemon.log.read_text()
        assert '"pins": 2' in daemon.log.read_text()


async def test_a_program_under_a_name_is_quarantined_until_somebody_puts_a_map_there(place: Place) -> None:
    path = place.names / "agent" / "prog"
    put_program(path)
    put_map(place, "agent/flows")
    with daemon_process(place) as daemon:
        said = daemon.log.read_text()
        assert "quarantined: not served, and left as it is" in said
        assert "not a map: a program or a link is pinned there [EINVAL]" in said
        assert f"{path}: not a map" in await not_looked_at(place)
        assert f"{path}: quarantined: not a map" in await mapctl_doctor(place)
        assert await count(place, "agent/flows") == 1
        async with mapd_client.connect(str(place.socket)) as client:
            with pytest.raises(mapd_client.MapdError, match="not a map"):
                async with client.open_map("agent/prog"):
                    pass
            path.unlink()
            put_map(place, "agent/prog")
            assert await count(place, "agent/prog") == 1
        assert await until(lambda: "no longer quarantined" in daemon.log.read_text())


OTHERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "a folder that a group may write": (
        lambda path: path.chmod(0o770),
        lambda path: path.chmod(0o700),
        "mode 0770",
    ),
    "a folder that all may write": (
        lambda path: path.chmod(0o1777),
        lambda path: path.chmod(0o755),
        "mode 1777",
    ),
    "a folder of somebody else's": (
        lambda path: os.chown(path, NOBODY, NOBODY),
        lambda path: os.chown(path, 0, 0),
        f"belongs to uid {NOBODY}",
    ),
}


@pytest.mark.parametrize("how", OTHERS)
async def test_names_in_a_folder_where_others_can_pin_are_quarantined_until_it_is_mended(
    place: Place, how: str
) -> None:
    spoil, mend, why = OTHERS[how]
    put_map(place, "agent/flows", "admin/flows")
    spoil(place.names / "agent")
    async with running(place.config()) as ready:
        assert why in misfits(ready)[f"{place.names}/agent"]
        assert ready.adopting.counts.adopted == 1
        for name in ("agent/flows", "agent/new"):
            said = await refusal(place, name)
            assert why in str(said)
            assert "quarantined" in str(said)
        assert (await not_looked_at(place)).count(why) == 1
        assert await count(place, "admin/flows") == 1
        mend(place.names / "agent")
        # Whoever asks need not wait for the next look.
        assert await count(place, "agent/flows") == 1
        assert await until(lambda: ready.adopting.counts.mended == 1)
        assert misfits(ready) == {}


async def test_a_folder_that_is_spoilt_while_the_daemon_runs_is_quarantined_within_a_look(
    place: Place,
) -> None:
    put_map(place, "agent/flows")
    async with running(place.config()) as ready:
        assert await count(place, "agent/flows") == 1
        (place.names / "agent").chmod(0o777)
        assert await until(lambda: ready.adopting.counts.quarantined == 1)
        assert "mode 0777" in str(await refusal(place, "agent/flows"))


async def test_what_was_found_is_compared_where_it_delays_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65,536 pins that do not fit take 27 ms, which every call would wait for in the thread of the event loop."""
    where: list[str] = []

    def observed(
        before: Iterable[Misfit], after: Iterable[Misfit]
    ) -> tuple[Sequence[Misfit], Sequence[Misfit]]:
        where.append(threading.current_thread().name)
        return differences(before, after)

    async with running(place.config()) as ready:
        monkeypatch.setattr("mapd.runtime.adopting.differences", observed)
        before = ready.adopting.counts.looks
        assert await until(lambda: looked_again(ready, before))
    assert where
    assert all(name.startswith("mapd-bulk") for name in where)


async def test_the_root_of_names_in_others_hands_closes_all_of_them(place: Place) -> None:
    put_map(place, "agent/flows")
    place.names.chmod(0o777)
    async with running(place.config()) as ready:
        assert list(misfits(ready)) == [str(place.names)]
        assert ready.adopting.counts.adopted == 0
        await refusal(place, "agent/flows")
        place.names.chmod(0o700)
        assert await count(place, "agent/flows") == 1


async def test_what_is_no_name_is_told_and_does_no_harm(place: Place) -> None:
    put_map(place, "agent/flows", "agent/Not-A-Name")
    (place.names / "agent" / "deeper").mkdir()
    (place.names / "No-Namespace").mkdir()
    put_program(place.names / "above")
    async with running(place.config()) as ready:
        assert sorted(misfits(ready)) == [
            f"{place.names}/No-Namespace",
            f"{place.names}/above",
            f"{place.names}/agent/Not-A-Name",
            f"{place.names}/agent/deeper",
        ]
        assert await count(place, "agent/flows") == 1


@pytest.mark.parametrize(("mode", "leases"), [(0o700, 1), (0o777, 0)])
async def test_what_others_could_have_pinned_is_no_lease_and_never_ends(
    place: Place, mode: int, leases: int
) -> None:
    folder = place.names / "_leases" / "agent"
    folder.mkdir(mode=0o700, parents=True)
    put_map(place, "_leases/agent/theirs-1000ms/flows")
    folder.chmod(mode)
    async with running(place.config()) as ready:
        assert len(ready.leases) == leases
    assert (folder / "theirs-1000ms" / "flows").exists()


class NewerKernel(FaultyKernel):
    """A kernel with a map type that this mapd has never heard of."""

    def __init__(self, inner: Kernel, map_id: int) -> None:
        super().__init__(inner)
        self._map_id = map_id

    def info(self, map_fd: int) -> RawMapInfo:
        found = super().info(map_fd)
        return replace(found, map_type=4_711) if found.id == self._map_id else found


async def test_a_map_of_a_type_that_the_daemon_does_not_know_is_quarantined(place: Place) -> None:
    map_id = put_map(place, "agent/new")
    async with running(place.config(), NewerKernel(LinuxKernel(), map_id)) as ready:
        assert "does not know map type" in misfits(ready)[f"{place.names}/agent/new"]
        assert "a newer mapd serves it" in str(await refusal(place, "agent/new"))
        assert "does not know map type" in await not_looked_at(place)
    async with running(place.config()):
        assert await count(place, "agent/new") == 1


async def test_a_map_whose_kept_types_are_damaged_is_served_without_them(place: Place) -> None:
    async with (
        running(place.config()),
        mapd_client.connect(str(place.socket)) as client,
        client.create_map("agent/typed", "hash", key=U32, value=U64, max_entries=8, btf=True) as found,
    ):
        map_id = found.info.id
        assert found.info.btf_id
    blob = next((place.root / "state" / "btf").glob(f"*/{map_id}"))
    blob.write_bytes(blob.read_bytes()[:-1])
    async with running(place.config()) as ready:
        assert "served without its types" in misfits(ready)[f"{place.names}/agent/typed"]
        assert (ready.adopting.counts.adopted, ready.adopting.counts.quarantined) == (1, 0)
        assert await count(place, "agent/typed") == 1
        blob.unlink()
        assert await until(lambda: not misfits(ready))


async def test_pins_that_never_answer_hold_nobody_else_up(place: Place) -> None:
    put_map(place, *(f"agent/m{number}" for number in range(200)))
    wait = threading.Event()
    kernel = FaultyKernel(LinuxKernel())
    for nth in (3, 90):
        kernel.add(Fault(target=OpenPin, nth=nth, wait=wait))
    try:
        async with running(place.config(), kernel) as ready:
            assert ready.adopting.counts.unanswered == 2
            assert ready.adopting.counts.adopted == 198
            assert all("said nothing within 1 s" in why for why in misfits(ready).values())
            for path in misfits(ready):
                name = path.removeprefix(f"{place.names}/")
                assert await count(place, name) == 1, "it answers now, and is served to who asks"
    finally:
        wait.set()


async def test_a_pin_that_was_replaced_is_reported_once_and_counted(place: Place) -> None:
    put_map(place, "agent/flows")
    async with (
        running(place.config()) as ready,
        mapd_client.connect(str(place.socket)) as client,
        client.open_map("agent/flows", key=U32, value=U64) as found,
    ):
        (place.names / "agent" / "flows").unlink()
        other = put_map(place, "agent/flows")
        with capture_logs() as logged:
            assert await until(lambda: ready.adopting.counts.replaced == 1)
            for _ in range(2):  # two more looks, and no other word
                before = ready.adopting.counts.looks
                assert await until(partial(looked_again, ready, before))
        assert [one["by"] for one in logged if one["event"] == "a pin was replaced"] == [other]
        assert ready.adopting.counts.replaced == 1
        with pytest.raises(Incompatible) as refused:
            await found.update(1, 2)
        assert refused.value.reason is Reason.MAP_REPLACED
        assert str(other) in str(refused.value)


async def test_ten_thousand_pins_do_not_keep_a_daemon_from_starting(place: Place) -> None:
    names: Sequence[str] = [f"n{number % 50}/m{number}" for number in range(10_000)]
    put_map(place, *names)
    with daemon_process(place) as daemon:
        assert '"pins": 10000' in adopted(daemon)
        # CPU, for time is the machine's: 1.7 s were measured, 0.6 of them without a pin. Looking at each pin for each
        # other one would take minutes.
        assert cpu_s(daemon.pid) < 6
        assert await count(place, names[-1]) == 1


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, in seconds (proc(5), stat: utime and stime)."""
    utime, stime = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK")


def adopted(daemon: DaemonProcess) -> str:
    return next(line for line in daemon.log.read_text().splitlines() if '"pins adopted"' in line)

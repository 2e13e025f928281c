"""The two processes of ``mapd serve``: what each may do, seen from outside and tried from inside, and how they end.

The probes run in the real front, put there by a sitecustomize of the test's own; the canary runs the same ones in
``--single-process``, where each succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mapd_client
from mapd.launch.settings import OpenerSettings
from mapd.sandbox import Held, bits_of, capabilities_of, held
from mapd_api.uapi import MapType
from mapd_client import U32, U64
from mapd_client.info import ServerInfo
from tests.e2e.settling import until
from tests.support.activation import FRONT, activated_openers, front_at, openers_at
from tests.support.daemon import SOURCE, DaemonProcess, Place, daemon_process, environment, spawn

PROBING = Path(__file__).parent / "probing"
OPENER = 65_502
"""Users that no host has names for; nothing of theirs is left."""
TWO_USERS = f"user = {FRONT}\n[opener]\nuser = {OPENER}\n"

REFUSED = {
    **dict.fromkeys(
        (
            "map_create",
            "btf_load",
            "prog_load",
            "obj_get",
            "obj_pin",
            "map_get_next_id",
            "map_get_fd_by_id",
            "prog_get_next_id",
            "prog_get_fd_by_id",
            "btf_get_fd_by_id",
            "btf_get_next_id",
            "link_get_fd_by_id",
            "freeze",
            "run a program",
            "fork",
            "signal another",
            "inet socket",
            "become another",
            "dumps again",
        ),
        "EPERM",
    ),
    **dict.fromkeys(("mkdir in bpffs", "unlink a pin", "read /", "write /tmp"), "EACCES"),
}


@dataclass(frozen=True, slots=True)
class Watched:
    """A process that is looked at until it ends."""

    pid: int
    pidfd: int

    def ended(self, timeout: float = 15.0) -> bool:
        return bool(select.select([self.pidfd], [], [], timeout)[0])


@contextlib.contextmanager
def watched(pid: int) -> Generator[Watched]:
    pidfd = os.pidfd_open(pid)
    try:
        yield Watched(pid, pidfd)
    finally:
        os.close(pidfd)


def opener_of(pid: int) -> int:
    """The front's one child."""
    (child,) = children(pid)
    return child


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def written(pid: int) -> Path:
    """What the probe of that process could write, where it could."""
    return Path(f"/tmp/mapd-probe-{pid}")


def threads(pid: int) -> list[Held]:
    return [held(task / "status") for task in Path(f"/proc/{pid}/task").iterdir()]


def uids(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {int(uid) for line in lines if line.startswith("Uid:") for uid in line.split()[1:]}


async def worked(place: Place) -> ServerInfo:
    """All threads that work makes are there: points, dumps, creation."""
    async with mapd_client.connect(str(place.socket)) as client:
        made = client.create_map("flows", "hash", key=U32, value=U64, max_entries=64, exist_ok=True)
        async with made as flows:
            await asyncio.gather(*(flows.update(n, n) for n in range(64)))
            assert await flows.lookup(1) == 1
            assert len([entry async for entry in flows.items()]) == 64
        return await client.server_info()


def prefix(folder: Path) -> tuple[str, ...]:
    return ("env", f"PYTHONPATH={PROBING}:{SOURCE}", f"MAPD_TEST_PROBES={folder}")


async def probed(place: Place, daemon: DaemonProcess, folder: Path, opener: int) -> dict[str, str]:
    """What the probes inside the daemon say, with a map open."""
    async with mapd_client.connect(str(place.socket)) as client:
        made = client.create_map("flows", "hash", key=U32, value=U64, max_entries=64)
        async with made as flows:
            await flows.update(1, 1)
            pin = flows.info.pin_path
            asked = {"bpffs": str(place.bpffs), "pin": pin, "map_id": flows.info.id, "opener": opener}
            (folder / "ask.json").write_text(json.dumps(asked))
            (folder / "ask.json").chmod(0o644)
            os.kill(daemon.pid, signal.SIGUSR1)
            assert await until((folder / "told.json").exists), daemon.log.read_text()
            told: dict[str, str] = json.loads((folder / "told.json").read_text())
    return told


# ---- the front -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["", TWO_USERS], ids=["one user", "two users"])
async def test_every_thread_of_the_front_has_no_rights_and_a_filter(place: Place, extra: str) -> None:
    place.bpffs.chmod(0o711)
    with daemon_process(place, extra=extra) as daemon:
        info = await worked(place)
        found = threads(daemon.pid)
        assert len(found) > 5
        nothing = Held(
            effective=0,
            permitted=0,
            inheritable=0,
            bounding=0,
            ambient=0,
            no_new_privs=True,
            seccomp=2,
        )
        assert set(found) == {nothing}
        assert uids(daemon.pid) == {FRONT if extra else 0}
        assert "two-processes" in info.features
        assert "single-process" not in info.features


@pytest.mark.parametrize("extra", ["", TWO_USERS], ids=["one user", "two users"])
async def test_an_intruder_in_the_front_can_do_nothing_but_use_what_is_open(place: Place, extra: str) -> None:
    place.bpffs.chmod(0o711)
    folder = place.root / "state"
    with daemon_process(place, extra=extra, prefix=prefix(folder)) as daemon:
        opener = opener_of(daemon.pid)
        told = await probed(place, daemon, folder, opener)
        beyond = {"opener's memory": "EACCES", "signal the opener": "EPERM"}
        assert told == {"lookup": "ok", **REFUSED, **beyond}
        assert opener_of(daemon.pid) == opener
        assert (place.names / "admin" / "flows").exists()
        await worked(place)


async def test_the_canary_the_same_intruder_in_a_single_process_can_do_it_all(place: Place) -> None:
    folder = place.root / "state"
    folder.mkdir()
    starting = [str(PROBING / "one.py")]
    with daemon_process(place, prefix=prefix(folder), program=starting) as daemon:
        told = await probed(place, daemon, folder, 0)
        assert told == dict.fromkeys(("lookup", *REFUSED), "ok")
        assert not (place.names / "admin" / "flows").exists()
        async with mapd_client.connect(str(place.socket)) as client:
            assert "single-process" in (await client.server_info()).features
        assert "--single-process: no sandbox" in daemon.log.read_text()
        written(daemon.pid).unlink()


async def test_maps_in_memory_need_no_opener_and_the_process_is_locked_in_all_the_same(place: Place) -> None:
    with daemon_process(place, extra="backend = 'memory'") as daemon:
        info = await worked(place)
        assert not {"two-processes", "single-process"} & set(info.features)
        assert {(one.effective, one.bounding, one.seccomp) for one in threads(daemon.pid)} == {(0, 0, 2)}
        assert children(daemon.pid) == []


# ---- the opener ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "profile"),
    [
        ("'auto'", "inspector"),
        ("'minimal'", "minimal"),
        ("'pins-ro'", "pins-ro"),
        ("['network', 'pins-rw']", "pins-rw"),
        ("'inspector'", "inspector"),
    ],
)
async def test_the_opener_keeps_its_profile_and_never_any_other_right(
    place: Place, said: str, profile: str
) -> None:
    place.bpffs.chmod(0o711)
    names = json.loads(said.replace("'", '"'))
    kept = bits_of(capabilities_of(names))
    with daemon_process(place, extra=f"{TWO_USERS}profile = {said}\n") as daemon:
        info = await worked(place)
        opener = opener_of(daemon.pid)
        assert set(threads(opener)) == {
            Held(
                effective=kept,
                permitted=kept,
                inheritable=0,
                bounding=kept,
                ambient=0,
                no_new_privs=True,
                seccomp=2,
            )
        }
        assert uids(opener) == {OPENER}
        assert info.profile == profile
        assert (place.names / "admin" / "flows").stat().st_uid == OPENER


@pytest.mark.parametrize(("profile", "ids"), [("minimal", False), ("pins-rw", False), ("inspector", True)])
def test_ids_are_a_limit_of_the_opener_too_and_not_left_to_the_kernel_alone(
    place: Place, profile: str, ids: bool
) -> None:
    code = (
        "import sys; from mapd.launch.openerprocess import lock_in; "
        "from mapd.launch.settings import OpenerSettings; "
        "print(lock_in(OpenerSettings.from_json(sys.argv[1]))[1].ids)"
    )
    settings = OpenerSettings(
        fd=-1,
        uid=-1,
        gid=-1,
        profile=(profile,),
        bpffs=str(place.bpffs),
        names_root=str(place.names),
        limits={},
        with_front=False,
    )
    done = subprocess.run(
        [sys.executable, "-c", code, settings.to_json()],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(ids)


async def test_a_profile_says_what_can_be_made(place: Place) -> None:
    """The opener's rights count, whoever started it."""
    with daemon_process(place, extra="[opener]\nprofile = 'minimal'\n"):
        async with mapd_client.connect(str(place.socket)) as client:
            with pytest.raises(mapd_client.MapdError, match="CAP_NET_ADMIN"):
                await client.create_map("ports", "devmap", key=U32, value=U32, max_entries=4)
    with daemon_process(place, extra="[opener]\nprofile = ['minimal', 'network']\n"):
        async with mapd_client.connect(str(place.socket)) as client:
            made = await client.create_map("ports", "devmap", key=U32, value=U32, max_entries=4)
            assert made.info.type is MapType.DEVMAP


def test_a_folder_for_names_that_the_opener_cannot_reach_is_said_before_anybody_connects(
    place: Place,
) -> None:
    place.bpffs.chmod(0o700)
    daemon = spawn(place, extra=f"{TWO_USERS}profile = 'minimal'\n")
    assert daemon.process.wait(15) == 1
    said = daemon.log.read_text()
    assert f"chmod a+x {place.bpffs}" in said
    assert not place.socket.exists()


# ---- beginning and ending together -----------------------------------------------------------------------------------


@contextlib.contextmanager
def both(place: Place, extra: str = "") -> Generator[tuple[DaemonProcess, Watched]]:
    place.bpffs.chmod(0o711)
    with daemon_process(place, extra=extra) as daemon, watched(opener_of(daemon.pid)) as opener:
        yield daemon, opener


def test_the_opener_ends_with_the_front(place: Place) -> None:
    with both(place, TWO_USERS) as (daemon, opener):
        daemon.process.kill()
        assert opener.ended()


def test_after_a_clean_stop_nothing_is_left(place: Place) -> None:
    with both(place, TWO_USERS) as (daemon, opener):
        assert daemon.stop() == 0
        assert opener.ended(0), "it was to be waited for"


def test_what_the_starter_left_open_is_not_the_fronts(place: Place) -> None:
    """Landlock and users judge opening; a descriptor that is there already passes both."""
    secret = place.root / "secret"
    secret.write_text("root's")
    place.bpffs.chmod(0o711)
    command = f"exec 57>>'{secret}' && exec \"$@\""  # a shell hands on what it has; subprocess would close it
    with daemon_process(place, extra=TWO_USERS, prefix=("bash", "-c", command, "shell")) as daemon:
        assert str(secret) not in daemon.fds()
        opener = Path(f"/proc/{opener_of(daemon.pid)}/fd")
        assert str(secret) not in {str(link.readlink()) for link in opener.iterdir()}


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


async def test_of_the_starters_environment_the_opener_has_nothing_and_one_heap(place: Place) -> None:
    with both(place, TWO_USERS) as (_, opener):
        await worked(place)
        assert environment_of(opener.pid) == "MALLOC_ARENA_MAX=1\0"


def test_once_all_is_stopped_the_process_ends_and_takes_nothing_apart(place: Place) -> None:
    """Taking grpc and numpy apart took most of the time from SIGTERM to the end."""
    folder = place.root / "hooks"
    folder.mkdir()
    hook = "import atexit, os, sys\natexit.register(lambda: sys.stderr.write('TAKEN APART\\n'))\n"
    (folder / "sitecustomize.py").write_text(hook)
    with daemon_process(place, prefix=("env", f"PYTHONPATH={folder}:{SOURCE}")) as daemon:
        assert daemon.stop() == 0
        said = daemon.log.read_text()
        assert '"event": "stopped"' in said
        assert "TAKEN APART" not in said


def test_the_front_ends_with_the_opener_and_says_so(place: Place) -> None:
    with both(place, TWO_USERS) as (daemon, opener):
        os.kill(opener.pid, signal.SIGKILL)
        assert daemon.process.wait(15) == 3
        events = [json.loads(line) for line in daemon.log.read_text().splitlines()]
        (line,) = [event for event in events if event["event"].startswith("the opener has ended")]
        assert line["level"] == "error"
        assert not place.socket.exists()
    with both(place, TWO_USERS) as (daemon, _):
        assert daemon.stop() == 0


async def test_who_is_waiting_when_the_opener_ends_hears_that_mapd_stops_and_what_is_known(
    place: Place,
) -> None:
    """Neither a fault of the daemon's nor one of the caller's: what to do about it is to come again."""
    with both(place, TWO_USERS) as (daemon, opener):
        async with mapd_client.connect(str(place.socket), timeout=5) as client:
            for name in ("flows", "other", "third"):
                await client.create_map(name, "hash", key=U32, value=U64, max_entries=64)
            async with client.open_map("flows", key=U32, value=U64) as flows:
                os.kill(opener.pid, signal.SIGSTOP)  # it takes requests, and answers none
                asked = {
                    "create": client.create_map("new", "hash", key=U32, value=U64, max_entries=64),
                    "open": client.open_map("other", key=U32, value=U64),
                    "rename": client.rename_map("third", "fourth"),
                    "unpin": client.unpin_map("other"),
                    "freeze": flows.freeze(),
                }
                waiting = asyncio.gather(*asked.values(), return_exceptions=True)
                for _ in range(3):  # asked behind them, and answered without the opener
                    await client.server_info()
                os.kill(opener.pid, signal.SIGKILL)
                told = dict(zip(asked, await waiting, strict=True))
    # What was not executed is asked again, of a daemon that does not come here.
    kinds = {name: type(error) for name, error in told.items()}
    changes = {"rename", "unpin", "freeze"}
    refused = {mapd_client.Unavailable, mapd_client.NotSent}
    assert {kinds[name] for name in told.keys() - changes} <= refused
    assert {kinds[name] for name in changes} <= refused | {mapd_client.OutcomeUnknown}
    assert '"event": "fault"' not in daemon.log.read_text()


async def test_signals_to_the_whole_group_end_the_front_first(place: Place) -> None:
    """Ctrl-C reaches both; the front still needs the opener while it drains."""
    with both(place) as (daemon, opener):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(opener.pid, number)
        assert (await worked(place)).principal == "admin"
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(15) == 0
        assert opener.ended(0)


def test_the_end_of_standard_input_ends_both(place: Place) -> None:
    file = place.root / "mapd.toml"
    file.write_text(place.toml())
    command = [sys.executable, "-m", "mapd", "serve", "--config", str(file), "--until-stdin-ends"]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        said = next(line for line in process.stderr if '"event": "ready"' in line)
        with watched(opener_of(process.pid)) as opener:
            process.stdin.close()
            assert process.wait(15) == 0
            assert opener.ended(0)
    assert json.loads(said)["processes"] == 2


# ---- what is said ----------------------------------------------------------------------------------------------------


def banner(place: Place, extra: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place.runtime_dir)
    file = place.root / "mapd.toml"
    file.write_text(place.toml(extra=extra).replace("'json'", "'console'"))
    with subprocess.Popen(
        [sys.executable, "-m", "mapd", "serve", "--config", str(file)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "ready" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    return "".join(said)


def test_one_user_for_both_is_said_with_what_makes_two(place: Place) -> None:
    said = banner(place, "user = 0\n[opener]\nuser = 0\n")
    assert "ONE USER: capabilities alone keep the two apart" in said
    assert "It is root, whose files' modes and access lists the front can change: for trying out" in said
    assert "[daemon] user and [opener] user are both uid 0: name two" in said


def test_two_users_are_said_with_what_each_keeps(place: Place) -> None:
    place.bpffs.chmod(0o711)
    said = banner(place, f"{TWO_USERS}profile = 'minimal'\n")
    assert "ONE USER" not in said
    assert f"this process: uid {FRONT}, no capability; seccomp, landlock" in said
    assert f"opener: uid {OPENER}, CAP_BPF; seccomp, landlock" in said


# ---- folders that are handed over ------------------------------------------------------------------------------------


async def test_what_a_daemon_of_root_left_is_handed_over_and_nothing_else(place: Place) -> None:
    """A link that somebody put into a folder of ours must not give away what it leads to."""
    place.bpffs.chmod(0o711)
    with daemon_process(place):
        await worked(place)
    precious = place.root / "precious"
    precious.write_text("root's")
    kept = place.root / "state" / "btf"
    (kept / "link").symlink_to(precious)
    os.link(precious, kept / "second name")
    with daemon_process(place, extra=f"{TWO_USERS}profile = 'minimal'\n"):
        await worked(place)
    assert precious.stat().st_uid == 0
    assert (place.runtime_dir / "mapd.lock").stat().st_uid == FRONT
    assert (place.names / "admin" / "flows").stat().st_uid == OPENER


def test_a_folder_that_holds_what_is_not_mapds_is_not_handed_over(place: Place) -> None:
    """Somebody may name /run, or /var/lib."""
    state = place.root / "state"
    state.mkdir()
    (state / "others").write_text("theirs")
    daemon = spawn(place, extra=TWO_USERS)
    assert daemon.process.wait(15) == 1
    assert f"{state} is to be mapd's own, and holds 'others'" in daemon.log.read_text()
    assert (state.stat().st_uid, (state / "others").stat().st_uid) == (0, 0)


async def test_an_audit_trail_is_written_by_a_front_of_a_user_of_its_own(place: Place) -> None:
    place.bpffs.chmod(0o711)
    trail = place.root / "audit" / "audit.jsonl"
    with daemon_process(place, extra=f"{TWO_USERS}[audit]\npath = '{trail}'\n"):
        await worked(place)
        assert await until(lambda: trail.exists() and trail.stat().st_size > 0)
    assert trail.stat().st_uid == FRONT


def test_a_link_in_the_place_of_a_folder_is_refused(place: Place) -> None:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    (place.root / "state").symlink_to(elsewhere)
    daemon = spawn(place, extra=TWO_USERS)
    assert daemon.process.wait(15) == 1
    assert f"{place.root}/state: " in daemon.log.read_text()
    assert elsewhere.stat().st_uid == 0


# ---- an opener that systemd starts -----------------------------------------------------------------------------------


@pytest.fixture
def activated(place: Place) -> Generator[Path]:
    with activated_openers(place) as path:
        yield path


async def test_a_front_without_any_right_uses_an_opener_that_listens(place: Place, activated: Path) -> None:
    for _ in range(2):  # and once more after a restart
        with front_at(place, activated) as daemon:
            info = await worked(place)
            assert {environment_of(pid) for pid in openers_at(activated)} == {"MALLOC_ARENA_MAX=1\0"}
            assert uids(daemon.pid) == {FRONT}
            assert set(threads(daemon.pid)) == {
                Held(
                    effective=0,
                    permitted=0,
                    inheritable=0,
                    bounding=0,
                    ambient=0,
                    no_new_privs=True,
                    seccomp=2,
                )
            }
            assert info.profile == "inspector"


def test_without_an_opener_that_listens_the_start_is_refused(place: Place) -> None:
    daemon = spawn(place, extra=f"[opener]\nsocket = '{place.root}/none.sock'\n")
    assert daemon.process.wait(15) == 1
    assert f"the opener's socket {place.root}/none.sock: No such file or directory" in daemon.log.read_text()

"""Another policy while the daemon runs: who is new gets in, who is gone is cut off, and others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import structlog
from structlog.testing import capture_logs

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd.rpc import sockets
from mapd_api import contract
from mapd_api.v1 import elements_pb2 as pb
from mapd_client import U32, U64, Client, Map
from mapd_client.errors import MapdError, OutcomeUnknown
from tests.e2e.settling import until
from tests.support.daemon import DaemonProcess, Place, client_sources, daemon_process, spawn_unprivileged

FIRST, SECOND = 41_001, 41_002

SESSION = contract.ELEMENT_SERVICE.methods_by_name["Session"]

RULES = """
[[rules]]
who = ["*"]
role = "admin"
every_map = true
"""

BAD = "the policy cannot be used; the last good one stays in force"


def policy(**principals: str) -> str:
    """A policy whose principals may do everything: rights are not the question here."""
    tables = "".join(f"[principals.{name}]\n{text}\n" for name, text in principals.items())
    return f"[principals.admin]\n{tables}{RULES if principals else ''}"


ALICE = f"users = [{FIRST}]"
BOTH = f"users = [{FIRST}, {SECOND}]"


@pytest.fixture(autouse=True)
def own_logs() -> None:
    structlog.reset_defaults()


@pytest.fixture
async def ready(place: Place) -> AsyncGenerator[Ready]:
    """A daemon in this loop, with one principal beside the admin."""
    async with running(place.config(policy=policy(web=ALICE))) as found:
        yield found


def socket_of(place: Place, principal: str, *, mount: bool = False) -> Path:
    folder = place.runtime_dir / principal
    return (folder / sockets.MOUNTED if mount else folder) / "mapd.sock"


async def reload(ready: Ready, place: Place, text: str) -> None:
    """Put another policy in force, as SIGHUP does; returns when it is."""
    place.policy.write_text(text)
    with capture_logs() as said:
        ready.reloading.ask()
        assert await until(lambda: any("policy" in str(line["event"]) for line in said)), said
    assert [line["event"] for line in said if "policy" in str(line["event"])] == ["policy reloaded"], said


def words(client: Client) -> mapd_client.Opening[Map[int, int]]:
    return client.create_map("kept", "hash", key=U32, value=U64, max_entries=8, exist_ok=True)


# ---- who is new, who is gone --------------------------------------------------------------------


async def test_a_changed_file_is_found_without_being_told(ready: Ready, place: Place) -> None:
    place.policy.write_text(policy(web=ALICE, ops=f"groups = [{SECOND}]"))
    assert await until(socket_of(place, "ops").exists)
    async with mapd_client.connect(str(socket_of(place, "ops"))) as client:
        assert (await client.server_info()).principal == "ops"
    assert await until(lambda: set(ready.servers.sockets) == {"admin", "web", "ops"})


async def test_a_principal_that_is_gone_is_refused_by_name_and_leaves_nothing_behind(
    ready: Ready, place: Place
) -> None:
    async with (
        mapd_client.connect(str(socket_of(place, "admin"))) as admin,
        words(admin) as others,
        mapd_client.connect(str(socket_of(place, "web"))) as client,
        words(client) as found,
    ):
        await others.update(1, 1)
        await found.update(1, 2)
        assert (len(ready.sessions), len(ready.host.handles)) == (2, 2)
        await reload(ready, place, policy())
        assert not socket_of(place, "web").exists()
        assert (len(ready.sessions), len(ready.host.handles)) == (1, 1)
        with pytest.raises(MapdError) as caught:
            await found.lookup(1, timeout=2)
        assert "web" in str(caught.value)
        assert await others.lookup(1) == 1
    assert set(ready.servers.sockets) == {"admin"}


async def test_a_stream_of_a_principal_that_goes_is_ended_with_the_reason(ready: Ready, place: Place) -> None:
    async with grpc.aio.insecure_channel(f"unix:{socket_of(place, 'web')}") as channel:
        untyped: Any = channel
        stream: Any = untyped.stream_stream(contract.full_name(SESSION))()
        await stream.write(pb.SessionRequest(open=pb.SessionOpen()).SerializeToString())
        assert pb.SessionResponse.FromString(await stream.read()).opened.session
        await reload(ready, place, policy())
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await stream.details() == "web is no principal of this daemon any more"


async def test_a_load_of_a_principal_that_goes_is_told_that_it_may_be_executed(place: Place) -> None:
    """Its message is in the kernel, where nobody can stop it: a refusal would say that nothing was done."""
    reached, wait = threading.Event(), threading.Event()
    kernel = FaultyKernel(LinuxKernel())
    async with (
        running(place.config(policy=policy(web=ALICE)), kernel) as ready,
        mapd_client.connect(str(socket_of(place, "web"))) as client,
        words(client) as found,
    ):
        kernel.add(Fault(target=Command.MAP_UPDATE_BATCH, reached=reached, wait=wait))
        load = asyncio.create_task(found.load(dict.fromkeys(range(8), 100)))
        try:
            assert await asyncio.to_thread(reached.wait, 20)
            await reload(ready, place, policy())
            with pytest.raises(OutcomeUnknown, match="web is no principal of this daemon any more"):
                await load
        finally:
            wait.set()


# ---- who is admitted ---------------------------------------------------------------------------


CLIENT = """
import asyncio, sys, mapd_client
from mapd_client import U32, U64

async def main():
    loop = asyncio.get_running_loop()
    async with mapd_client.connect(sys.argv[1]) as client:
        async with client.create_map("kept", "hash", key=U32, value=U64, max_entries=8, exist_ok=True) as found:
            await found.update(1, 100)
            print("ready", flush=True)
            while await loop.run_in_executor(None, sys.stdin.readline):
                try:
                    print(await found.lookup(1, timeout=float(sys.argv[2])), flush=True)
                except mapd_client.MapdError as error:
                    print(type(error).__name__, str(error).replace("\\n", " "), flush=True)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def client_of(
    sources: Path, path: Path, user: int, patience_s: float = 20.0
) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """A client of that uid with a session and an open map; it answers each line with what a lookup gives."""
    with spawn_unprivileged(
        sources, CLIENT, str(path), str(patience_s), user=user, group=user, stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            began = await asyncio.to_thread(process.stdout.readline)
            assert began == b"ready\n", await asyncio.to_thread(process.stderr.read)
            yield process
        finally:
            process.stdin.close()
            process.kill()


async def ask(process: subprocess.Popen[bytes]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return (await asyncio.to_thread(process.stdout.readline)).decode().strip()


async def refused(process: subprocess.Popen[bytes]) -> str:
    """What it is told when it is answered no more."""
    for _ in range(200):
        if (said := await ask(process)) != "100":
            return said
        await asyncio.sleep(0.02)
    return "it was answered for ever"


async def test_who_is_admitted_no_more_is_cut_off_and_others_of_the_principal_go_on(place: Place) -> None:
    """Who is connected has passed the kernel's check for good, so the connection itself must end."""
    path = socket_of(place, "web")
    with client_sources() as sources:
        async with (
            running(place.config(policy=policy(web=BOTH))) as ready,
            client_of(sources, path, FIRST) as stays,
            client_of(sources, path, SECOND, patience_s=2) as goes,
        ):
            assert (await ask(stays), await ask(goes)) == ("100", "100")
            await reload(ready, place, policy(web=ALICE))
            said = await refused(goes)
            assert said.startswith(("DeadlineExceeded", "NotSent", "Unavailable")), said
            assert "this user may not open it" in said
            for _ in range(3):
                assert await ask(stays) == "100"


async def test_who_is_admitted_anew_can_connect_and_nobody_is_disturbed(ready: Ready, place: Place) -> None:
    path = socket_of(place, "web")
    before = path.stat()
    with client_sources() as sources:
        async with client_of(sources, path, FIRST) as stays:
            (session,) = (caller for caller in ready.guard.callers if caller.principal.name == "web")
            await reload(ready, place, policy(web=BOTH))
            assert path.stat().st_ino == before.st_ino
            async with client_of(sources, path, SECOND) as comes:
                assert (await ask(comes), await ask(stays)) == ("100", "100")
                assert session in ready.guard.callers


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        (f"{ALICE}\nnamespace = 'other'", False),
        (f"{ALICE}\nquotas = {{connections = 3}}", False),
        ("grant = 'mount'", True),
    ],
    ids=["another namespace", "another limit of connections", "a mount instead of users"],
)
async def test_what_is_of_a_server_for_good_is_changed_by_another_server(
    ready: Ready, place: Place, text: str, mount: bool
) -> None:
    before = socket_of(place, "web").stat()
    await reload(ready, place, policy(web=text))
    after = socket_of(place, "web", mount=mount).stat()
    assert (after.st_ino, after.st_ctime_ns) != (before.st_ino, before.st_ctime_ns)
    async with mapd_client.connect(str(socket_of(place, "web", mount=mount))) as client:
        assert (await client.server_info()).principal == "web"
    assert await until(lambda: socket_of(place, "web").exists() is not mount)


# ---- what cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[principals.web", "Expected"),
        ("[principals.web]\nuser = 5", "unknown key 'user'"),
        (f"[principals.web]\n{ALICE}\n[principals.ops]\n{ALICE}", f"{FIRST} is [principals.web]'s already"),
        (None, "No such file"),
    ],
    ids=["no TOML", "a wrong key", "one user two principals", "no file"],
)
async def test_of_a_file_that_cannot_be_used_nothing_is_used_and_it_is_said_once(
    ready: Ready, place: Place, text: str | None, words: str
) -> None:
    version = ready.policy.policy.version
    with capture_logs() as said:
        if text is None:
            place.policy.unlink()
        else:
            place.policy.write_text(text)
        ready.reloading.ask()
        assert await until(lambda: ready.policy.failures == 1)
        ready.reloading.ask()
        assert await until(lambda: ready.policy.failures == 2)
        async with mapd_client.connect(str(socket_of(place, "web"))) as client:
            assert (await client.server_info()).principal == "web"
    (complaint,) = [line for line in said if line["event"] == BAD]
    assert words in str(complaint["message"])
    assert (complaint["log_level"], complaint["in_force"]) == ("error", version)
    assert ready.policy.policy.version == version
    await reload(ready, place, policy(web=ALICE, ops=""))
    assert "ops" in ready.servers.sockets


async def test_a_principal_whose_folder_is_not_the_daemons_is_not_served_and_others_are(
    ready: Ready, place: Place
) -> None:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    (place.runtime_dir / "ops").symlink_to(elsewhere)
    with capture_logs() as said:
        place.policy.write_text(policy(web=ALICE, ops=f"users = [{SECOND}]", dev=""))
        ready.reloading.ask()
        assert await until(lambda: any(line["event"] == "policy reloaded" for line in said))
    (complaint,) = [line for line in said if line["event"] == "a principal is not served"]
    assert complaint["principal"] == "ops"
    assert "not a folder of uid" in str(complaint["message"])
    assert set(ready.servers.sockets) == {"admin", "web", "dev"}
    assert list(elsewhere.iterdir()) == []


# ---- many, and the end ---------------------------------------------------------------------------


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_of_hundreds_of_principals_each_has_its_socket_and_none_is_left(place: Place) -> None:
    many = {f"p{number}": f"users = [{50_000 + number}]" for number in range(300)}
    before = descriptors()
    async with running(place.config(policy=policy(**many))) as ready:
        assert len(ready.servers.sockets) == 301
        assert all(path.is_socket() for path in ready.servers.sockets.values())
        # A listening socket each; what gRPC has besides is the same for one.
        assert descriptors() - before < 350
        async with mapd_client.connect(str(socket_of(place, "p299"))) as client:
            assert (await client.server_info()).principal == "p299"
        await reload(ready, place, policy(p299=many["p299"], fresh=""))
        assert set(ready.servers.sockets) == {"admin", "p299", "fresh"}
        assert sorted(place.runtime_dir.glob("*/mapd.sock")) == sorted(ready.servers.sockets.values())
    assert list(place.runtime_dir.glob("*/mapd.sock")) == []
    assert list((place.runtime_dir / ".staging").iterdir()) == []


async def test_a_daemon_that_stops_while_it_reloads_leaves_no_socket(place: Place) -> None:
    many = {f"p{number}": f"users = [{50_000 + number}]" for number in range(40)}
    async with running(place.config(policy=policy(web=ALICE))) as ready:
        place.policy.write_text(policy(**many))
        ready.reloading.ask()
        assert await until(lambda: len(ready.servers.sockets) > 5)
    assert list(place.runtime_dir.glob("*/mapd.sock")) == []
    assert list((place.runtime_dir / ".staging").iterdir()) == []


async def test_a_daemon_that_stops_while_a_replaced_server_ends_leaves_no_call_in_it(place: Place) -> None:
    async with contextlib.AsyncExitStack() as client:
        async with running(place.config(policy=policy(web=BOTH))) as ready:
            channel = await client.enter_async_context(
                grpc.aio.insecure_channel(f"unix:{socket_of(place, 'web')}")
            )
            untyped: Any = channel
            stream: Any = untyped.stream_stream(contract.full_name(SESSION))()
            await stream.write(pb.SessionRequest(open=pb.SessionOpen()).SerializeToString())
            assert pb.SessionResponse.FromString(await stream.read()).opened.session
            await reload(ready, place, policy(web=ALICE))
            assert [caller.principal.name for caller in ready.guard.callers] == ["web"]
        assert ready.guard.callers == []


async def test_a_killed_daemons_socket_of_a_principal_that_is_gone_is_removed_at_the_next_start(
    place: Place,
) -> None:
    with daemon_process(place, policy=policy(web=ALICE, box="grant = 'mount'")) as daemon:
        daemon.process.kill()
        daemon.process.wait()
    assert socket_of(place, "web").exists()
    async with running(place.config(policy=policy(box=ALICE))):
        assert not socket_of(place, "web").exists()
        assert not socket_of(place, "box", mount=True).exists()
        assert socket_of(place, "box").exists()


async def test_what_is_raised_beside_a_daemon_is_raised_as_it_is(place: Place) -> None:
    with pytest.raises(ZeroDivisionError):
        async with running(place.config()):
            raise ZeroDivisionError


# ---- signals -----------------------------------------------------------------------------------


def said_by(log: Path, event: str) -> int:
    return log.read_text().count(f'"event": "{event}"')


async def test_sighup_reads_it_again_and_ends_nothing(place: Place) -> None:
    with daemon_process(place, policy=policy(web=ALICE)) as daemon:
        async with mapd_client.connect(str(socket_of(place, "web"))) as client, words(client) as found:
            await found.update(1, 100)
            os.kill(daemon.pid, signal.SIGHUP)
            assert await until(lambda: said_by(daemon.log, "policy read again, unchanged") == 1)
            assert await found.lookup(1) == 100
        assert daemon.stop() == 0


async def test_a_service_manager_is_told_when_it_begins_and_when_it_is_done(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place.root / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(place.root / "notify"))
        async with running(place.config(policy=policy(web=ALICE))) as ready:
            await reload(ready, place, policy())
            told = [
                dict(line.split("=", 1) for line in manager.recv(4_096).decode().splitlines())
                for _ in range(2)
            ]
    began, done = told
    assert began["RELOADING"] == "1"
    assert int(began["MONOTONIC_USEC"]) > 0
    assert done == {"READY": "1", "STATUS": f"serving 1 principal, policy {ready.policy.policy.version}"}


# ---- the place where it is looked for unless told ----------------------------------------------

PRIVATE_ETC = """
mount -t tmpfs tmpfs "$0" && mkdir "$0/upper" "$0/work" &&
mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" overlay /etc && rm -rf /etc/mapd &&
exec "$@"
"""


class ByDefault(Place):
    """A place whose configuration names no policy."""

    def toml(self, users: Sequence[int] = (), extra: str = "", policy: str | None = None) -> str:
        return super().toml(users, extra, policy).replace(f"policy = '{self.policy}'\n", "")


def written_below(daemon: DaemonProcess, path: str, text: str) -> None:
    """As who shares the daemon's mounts."""
    Path(f"/proc/{daemon.pid}/root{path}").write_text(text)


async def test_a_first_policy_is_read_where_its_folder_was_not_there_at_the_start(
    place: Place, tmp_path: Path
) -> None:
    """Both processes are root's: such a front reads of /etc only what was there when it was locked in."""
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE_ETC, str(tmp_path))
    with daemon_process(ByDefault(place.root, place.bpffs), prefix=prefix) as daemon:
        assert not socket_of(place, "web").exists()
        written_below(daemon, "/etc/mapd/policy.toml", policy(web=ALICE))
        daemon.process.send_signal(signal.SIGHUP)
        assert await until(lambda: said_by(daemon.log, "policy reloaded") == 1)
        assert socket_of(place, "web").exists()
        assert daemon.stop() == 0


HUNG_UP_EARLY = """
import os, signal, sys
from mapd import cli, openerwatch
watching = openerwatch.watching_opener
def hung_up(*given):
    os.kill(os.getpid(), signal.SIGHUP)
    return watching(*given)
openerwatch.watching_opener = hung_up
os._exit(cli.run(sys.argv[1:]))
"""
"""``mapd serve`` that is told to read its policy again while it starts."""


async def test_who_asks_for_the_policy_during_the_start_has_it_read_again(place: Place) -> None:
    with daemon_process(place, program=("-c", HUNG_UP_EARLY)) as daemon:
        assert await until(lambda: said_by(daemon.log, "policy read again, unchanged") == 1)

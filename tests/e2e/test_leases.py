"""Leased maps, from a client that is open, closed or killed to the pins of a real bpffs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

import mapd_client
from mapd.daemon import Ready, running
from mapd.runtime.leases import PAUSE_S
from mapd_api.limits import LEASE_RETURN_S
from mapd_api.reasons import Reason
from mapd_client import (
    U32,
    U64,
    Client,
    Lease,
    Map,
    MapExists,
    MapNotFound,
    Misuse,
    PermissionDenied,
    QuotaExceeded,
    blocking,
)
from tests.support.daemon import Place, daemon_process, environment

TTL_S = 1.0
LATE_S = 2.5
"""A lease ends at the first look after it is over, and looks are a second apart; the rest is for a busy machine."""

POLICY = """
[principals.admin]
[principals.team]
[principals.crew]
namespace = "team"
[principals.other]

[principals.busy]

[principals.team.quotas]
maps = 3

[principals.busy.quotas]
ops_per_second = 1
burst = 3

[[rules]]
who = ["team", "other", "busy"]
role = "owner"
owners = ["self"]

[[rules]]
who = ["crew"]
role = "viewer"
owners = ["self"]
"""

CLIENT = """
import sys
from mapd_client import U32, U64, blocking
client = blocking.connect(sys.argv[1])
made = client.create_map(None, "hash", key=U32, value=U64, max_entries=8, lease=float(sys.argv[2]))
made.update(1, 10)
print(made.info.pin_path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def ready(place: Place) -> AsyncGenerator[Ready]:
    """A daemon in this loop, with three principals of which two share a namespace."""
    trail = f"[audit]\npath = '{place.root}/audit.jsonl'\n"
    async with running(place.config(policy=POLICY, extra=trail)) as found:
        yield found


def connected(place: Place, principal: str = "admin") -> mapd_client.Opening[Client]:
    return mapd_client.connect(f"unix:{place.runtime_dir / principal / 'mapd.sock'}")


def leased(client: Client, lease: float | Lease = TTL_S, **more: Any) -> mapd_client.Opening[Map[int, int]]:
    return client.create_map(None, "hash", key=U32, value=U64, max_entries=8, lease=lease, **more)


async def until(true: Callable[[], object], within: float = 20.0) -> float:
    """Wait for what nothing announces; how long it took."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110 - a bpffs tells nobody
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def passed(seconds: float) -> None:
    """Time itself is what these tests are about."""
    end = time.monotonic() + seconds
    await until(lambda: time.monotonic() >= end)


def there(pin: str) -> bool:
    return Path(pin).exists()


def gone(pin: str) -> Callable[[], bool]:
    return lambda: not there(pin)


def client_process(place: Place, ttl: float = TTL_S) -> tuple[subprocess.Popen[str], str]:
    """A client that has made a leased map, and its pin."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(place.socket), str(ttl)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


# ---- how long it lives -------------------------------------------------------------------------


async def test_a_leased_map_lives_while_it_is_open_and_its_ttl_longer(ready: Ready, place: Place) -> None:
    async with connected(place) as client:
        async with leased(client) as made:
            pin = made.info.pin_path
            await made.update(1, 10)
            await until(lambda: ready.leases.counts.kept_alive >= 6)  # two ttls
            assert await made.lookup(1) == 10
            assert there(pin)
        took = await until(gone(pin))
        assert TTL_S * 0.5 < took < TTL_S + LATE_S
    assert not there(str(Path(pin).parent)), "the folder of a lease goes with it"
    assert len(ready.leases) == 0


async def test_the_map_of_a_client_that_is_killed_goes_after_its_ttl(place: Place) -> None:
    with daemon_process(place):
        process, pin = client_process(place)
        with process:
            await passed(1.5 * TTL_S)
            assert there(pin), "the client lives"
            process.send_signal(signal.SIGKILL)
            took = await until(gone(pin))
            await until(gone(str(Path(pin).parent)))
    assert TTL_S * 0.5 < took < TTL_S + LATE_S


async def test_a_blocking_client_keeps_its_leases_alive_by_a_thread(ready: Ready, place: Place) -> None:
    def live() -> str:
        with (
            blocking.connect(str(place.socket)) as client,
            client.create_map(None, "hash", key=U32, value=U64, max_entries=8, lease=TTL_S) as made,
        ):
            end = time.monotonic() + 10.0
            while ready.leases.counts.kept_alive < 6 and time.monotonic() < end:
                made.update(1, 10)
            assert made[1] == 10
            return made.info.pin_path

    pin = await asyncio.to_thread(live)
    assert ready.leases.counts.kept_alive >= 6
    assert there(pin)
    await until(gone(pin))


async def test_an_open_map_that_has_lost_its_lease_is_told_of_and_works_while_it_is_open(
    ready: Ready, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(place) as client, leased(client) as made:
        await made.update(1, 10)
        with caplog.at_level(logging.WARNING, logger="mapd_client"):
            assert made.info.lease is not None
            assert list(await client.revoke_lease(made.info.lease)) == [made.info.pin_path]
            await until(lambda: "no such lease" in caplog.text)
        assert await made.lookup(1) == 10
        assert len(ready.leases) == 0


# ---- restarts and pauses -----------------------------------------------------------------------


async def test_a_daemon_that_was_killed_gives_its_leases_their_ttl_again(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with connected(place) as client, leased(client) as made:
            await made.update(1, 10)
            daemon.process.kill()
            daemon.process.wait()
            await passed(1.5 * TTL_S)  # nobody could keep it alive
            with daemon_process(place):
                assert await made.lookup(1) == 10
                await passed(1.5 * TTL_S)
                assert there(made.info.pin_path), "the same client keeps it alive again"
                assert await made.lookup(1) == 10


async def test_a_lease_whose_client_is_gone_too_ends_after_the_restart(place: Place) -> None:
    with daemon_process(place) as daemon:
        process, pin = client_process(place)
        with process:
            process.kill()
            daemon.process.kill()
            daemon.process.wait()
    await passed(TTL_S)
    with daemon_process(place):
        assert there(pin), "nothing ends before the daemon could be told"
        took = await until(gone(pin))
        assert LEASE_RETURN_S * 0.9 < took < LEASE_RETURN_S + LATE_S


async def test_a_stopped_daemon_expires_no_lease(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with connected(place) as client, leased(client) as made:
            await made.update(1, 10)
            daemon.process.send_signal(signal.SIGSTOP)
            try:
                await passed(PAUSE_S + 0.5)
            finally:
                daemon.process.send_signal(signal.SIGCONT)
            assert await made.lookup(1) == 10
            await passed(1.5 * TTL_S)
            assert there(made.info.pin_path)
        assert '"stopped for a while: leases begin anew"' in daemon.log.read_text()


async def test_a_stopped_opener_expires_no_lease_whose_client_lives(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with connected(place) as client, leased(client) as made:
            opener = daemon.opener()
            os.kill(opener, signal.SIGSTOP)
            try:
                await passed(2 * TTL_S)
                left = await client.lease_time_to_live(made.info.lease or "")
                assert left.remaining > 0, "it is kept alive without the opener"
            finally:
                os.kill(opener, signal.SIGCONT)
            await passed(1.5)  # a look at least
            assert there(made.info.pin_path)


# ---- several maps, names, words ----------------------------------------------------------------


async def test_several_maps_share_a_lease_and_end_with_it(ready: Ready, place: Place) -> None:
    async with connected(place, "team") as client:
        lease = Lease(30.0, "job-7")
        first = await leased(client, lease, kernel_name="first")
        second = await leased(client, lease, kernel_name="second")
        left = await client.lease_time_to_live("job-7")
        assert list(left.pins) == [first.info.pin_path, second.info.pin_path]
        assert (left.ttl, 29.0 < left.remaining <= 30.0) == (30.0, True)
        assert first.info.lease == second.info.lease == Lease(30.0, "team/job-7")
        with pytest.raises(MapExists):
            await leased(client, lease, kernel_name="first")
        again = await leased(client, lease, kernel_name="first", exist_ok=True)
        assert (again.created, again.info.id) == (False, first.info.id)
        with pytest.raises(Misuse, match="has a ttl of 30 s, not 31"):
            await leased(client, Lease(31.0, "job-7"), kernel_name="third")
        assert await client.keep_lease_alive("team/job-7") == 30.0
        assert len(await client.revoke_lease("job-7")) == 2
        with pytest.raises(MapNotFound, match="no such lease"):
            await client.lease_time_to_live("job-7")
    assert len(ready.leases) == 0


async def test_a_leased_map_is_listed_and_opened_by_its_pin(ready: Ready, place: Place) -> None:
    del ready
    async with connected(place, "team") as client, leased(client, 30.0) as made:
        (one,) = [one async for one in client.list_maps()]
        assert (one.name, one.pin_path, one.lease) == ("", made.info.pin_path, made.info.lease)
        async with client.open_map(f"pin:{made.info.pin_path}", key=U32, value=U64) as opened:
            assert opened.info.lease == made.info.lease
            await made.update(1, 10)
            assert await opened.lookup(1) == 10


async def test_it_is_its_namespaces_and_nobody_elses(ready: Ready, place: Place) -> None:
    del ready
    async with (
        connected(place, "team") as team,
        connected(place, "crew") as crew,
        connected(place, "other") as other,
        leased(team, Lease(30.0, "job")) as made,
    ):
        assert [one.id async for one in crew.list_maps()] == [made.info.id]
        assert (await crew.lease_time_to_live("job")).ttl == 30.0
        for refused in (crew.keep_lease_alive("job"), crew.revoke_lease("job")):
            with pytest.raises(PermissionDenied):
                await refused
        assert [one async for one in other.list_maps()] == []
        for hidden in (
            other.keep_lease_alive("team/job"),
            other.revoke_lease("team/job"),
            other.lease_time_to_live("team/job"),
        ):
            with pytest.raises(MapNotFound, match="no such lease"):
                await hidden
        with pytest.raises(PermissionDenied):
            await leased(other, Lease(30.0, "team/job"), kernel_name="mine")
        assert (await made.lookup(1)) is None


async def test_leased_maps_count_against_the_quota_of_maps(ready: Ready, place: Place) -> None:
    del ready
    async with connected(place, "team") as client:
        await client.create_map("named", "hash", key=U32, value=U64, max_entries=8)
        maps = [await leased(client, Lease(30.0, f"job-{number}")) for number in range(2)]
        with pytest.raises(QuotaExceeded, match="3") as caught:
            await leased(client)
        assert caught.value.reason is Reason.QUOTA
        await client.revoke_lease("job-0")
        await maps[0].aclose()
        await leased(client)


async def test_a_client_that_has_used_up_its_operations_keeps_its_leases(ready: Ready, place: Place) -> None:
    async with connected(place, "busy") as client:
        made = await leased(client, Lease(30.0, "job"))
        updates = (made.update(1, 10) for _ in range(10))
        done = await asyncio.gather(*updates, return_exceptions=True)
        assert any(isinstance(one, QuotaExceeded) for one in done)
        for _ in range(10):
            assert await client.keep_lease_alive("job") == 30.0
    assert ready.leases.counts.kept_alive == 10


async def test_a_lease_of_which_one_map_may_not_be_unpinned_stays_whole(place: Place) -> None:
    denied = (
        POLICY
        + """
[[rules]]
effect = "deny"
who = ["team"]
verbs = ["pin"]
types = ["array"]
"""
    )
    async with running(place.config(policy=denied)), connected(place, "team") as client:
        lease = Lease(30.0, "job")
        first = await leased(client, lease, kernel_name="first")
        array = client.create_map(
            None, "array", key=U32, value=U64, max_entries=8, lease=lease, kernel_name="second"
        )
        second = await array
        with pytest.raises(PermissionDenied):
            await client.revoke_lease(lease)
        assert there(first.info.pin_path)
        assert there(second.info.pin_path)


async def test_who_unpins_the_last_map_of_a_lease_ends_it(ready: Ready, place: Place) -> None:
    async with connected(place, "team") as client, leased(client, 30.0) as made:
        await client.unpin_map(f"pin:{made.info.pin_path}")
        await until(lambda: len(ready.leases) == 0)
        assert not there(str(Path(made.info.pin_path).parent))


async def test_the_audit_trail_has_who_made_it_and_that_it_has_expired(ready: Ready, place: Place) -> None:
    async with (
        connected(place, "team") as client,
        leased(client, Lease(TTL_S, "job"), kernel_name="flows") as made,
    ):
        pin, map_id = made.info.pin_path, made.info.id
        await client.keep_lease_alive("job")
    await until(gone(pin))
    await until(lambda: len(ready.leases) == 0)
    trail = place.root / "audit.jsonl"

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in trail.read_text().splitlines()]
        return [line for line in found if line.get("pin") == pin]

    await until(lambda: len(lines()) == 2)
    create, expire = lines()
    about = {"event": "mutation", "map": "lease:team/job/flows", "map_id": map_id, "statuses": {"DONE": 1}}
    assert about.items() <= create.items()
    assert about.items() <= expire.items()
    assert (create["principal"], create["operation"]) == ("team", "create")
    assert ("principal" in expire, expire["operation"]) == (False, "expire")


@pytest.mark.parametrize("ttl", [0.5, 90_000.0, float("nan"), -1.0])
async def test_a_ttl_that_no_lease_has_is_refused(ready: Ready, place: Place, ttl: float) -> None:
    async with connected(place) as client:
        with pytest.raises(Misuse):
            await leased(client, ttl)
    assert len(ready.leases) == 0


async def test_a_map_has_a_name_or_a_lease(ready: Ready, place: Place) -> None:
    del ready
    async with connected(place) as client:
        with pytest.raises(Misuse, match="either a name"):
            await client.create_map("flows", "hash", key=U32, value=U64, max_entries=8, lease=TTL_S)
        with pytest.raises(Misuse, match="either a name"):
            await client.create_map(None, "hash", key=U32, value=U64, max_entries=8)

"""``mapctl lease``: maps without a name are listed, kept and ended from a command line."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mapd_api.limits import LEASE_RETURN_S
from mapd_client import U32, connect
from tests.e2e.test_leases import gone, passed, there, until
from tests.support.daemon import DaemonProcess, Place, daemon_process, environment

MAPCTL = ("-c", "import sys; from mapd_client.cli import main; sys.exit(main())")
TTL_S = 1.0


class Leases:
    """Commands at one daemon."""

    def __init__(self, place: Place) -> None:
        self.address = str(place.socket)

    def run(self, *words: str, hosts: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """One command, at the daemon or at several."""
        where = [word for host in hosts for word in ("-H", host)] or ["--address", self.address]
        return subprocess.run(
            [sys.executable, *MAPCTL, *where, *words],
            env=environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def made(self, ttl_s: float) -> tuple[str, Path]:
        """A map that nobody keeps: the id of its lease, its pin."""
        kind = ("--type", "hash", "--key", "4", "--value", "4", "--entries", "1")
        done = self.run("create", "--lease", str(ttl_s), *kind, "-o", "json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["lease"], Path(found["pin_path"])

    async def keeping(self) -> tuple[asyncio.subprocess.Process, str, Path]:
        """A command that keeps a lease alive, once it says so; the lease, and the pin of its map.

        Until then the map's maker keeps it: a command may need longer to start than the lease lives.
        """
        async with (
            connect(self.address) as client,
            client.create_map(None, "hash", key=U32, value=U32, max_entries=1, lease=TTL_S) as made,
        ):
            assert made.info.lease is not None
            name = made.info.lease.id
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *MAPCTL, "--address", self.address, "lease", "keep-alive", name),
                env=dict(environment()),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 20)
            return process, name, Path(made.info.pin_path)


@pytest.fixture
def leases(place: Place, daemon: DaemonProcess) -> Leases:
    del daemon
    return Leases(place)


async def test_a_lease_lives_as_long_as_the_command_that_keeps_it(leases: Leases) -> None:
    process, _, pin = await leases.keeping()
    await passed(3 * TTL_S)
    assert there(str(pin))
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 130
    await until(gone(str(pin)))


async def test_a_command_that_keeps_a_lease_goes_on_with_the_next_daemon(place: Place) -> None:
    leases = Leases(place)
    with daemon_process(place) as first:
        process, _, pin = await leases.keeping()
        first.process.kill()
        first.process.wait()
    with daemon_process(place):
        await passed(LEASE_RETURN_S + 2 * TTL_S)
        assert there(str(pin))
        assert process.returncode is None
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def test_a_command_ends_with_the_lease_that_it_keeps(leases: Leases) -> None:
    process, name, _ = await leases.keeping()
    assert leases.run("lease", "revoke", name, "--yes").returncode == 0
    assert await asyncio.wait_for(process.wait(), 20) == 3
    assert process.stderr is not None
    assert b"no such lease: it has ended" in await process.stderr.read()


def test_leases_are_listed_with_their_maps_and_revoked_with_all_of_them(leases: Leases) -> None:
    made = dict(leases.made(60) for _ in range(2))
    rows = json.loads(leases.run("lease", "list", "-o", "json").stdout)
    assert {row["lease"]: row["pins"] for row in rows} == {name: [str(pin)] for name, pin in made.items()}
    assert [(row["ttl_s"], row["maps"]) for row in rows] == [(60.0, 1)] * 2
    name = rows[0]["lease"]
    assert leases.run("lease", "revoke", name, "-n").stdout == ""
    assert made[name].exists()
    assert leases.run("lease", "revoke", name, "--yes").stdout == f"{made[name]}\n"
    assert not made[name].exists()
    assert leases.run("lease", "list", "-o", "csv").stdout.count("\n") == 2, "a head and the other one"


def test_the_leases_of_several_hosts_are_told_with_their_hosts(leases: Leases) -> None:
    name, _ = leases.made(60)
    done = leases.run("lease", "list", "-o", "json", hosts=[leases.address, "/nowhere/mapd.sock"])
    assert done.returncode == 7
    assert [(row["host"], row["lease"]) for row in json.loads(done.stdout)] == [(leases.address, name)]

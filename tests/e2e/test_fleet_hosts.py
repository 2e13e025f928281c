"""Six hosts on a network of their own, with mTLS: one is dead, one is stopped; the others' results are whole."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from mapd_client import U32, U64, connect
from mapd_client.cli import outcomes
from tests.repo.sources import ROOT
from tests.support.daemon import DaemonProcess, environment, private_place, spawn, wait_ready
from tests.support.netns import Namespace, hosts
from tests.support.pki import Authority, uri

WHO = "spiffe://example.org/fleet"
POLICY = f"""
[principals.admin]
users = []
[principals.fleet]
tls = ["{WHO}"]
[[rules]]
name = "fleet-reads"
who = ["fleet"]
role = "viewer"
names = ["admin/flows"]
"""
DEAD, STOPPED = 4, 5
TIMEOUT_S = "2"


@dataclass(frozen=True)
class Six:
    """Six daemons, and what the client has of them."""

    client: Namespace
    daemons: Sequence[DaemonProcess]
    file: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command where the client is."""
        return subprocess.run(
            [*self.client.prefix, sys.executable, *command],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def mapctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        main = "from mapd_client.cli import main; main()"
        return self.run("-c", main, "--hosts", str(self.file), "--timeout", TIMEOUT_S, *arguments)


def _tcp(root: Path, ca: Authority, address: str) -> str:
    files = ca.issue(x509.IPAddress(ipaddress.ip_address(address))).write(root / "tls", ca.pem)
    return (
        f"[tcp]\nlisten = ['{address}:7433']\ncertificate = '{files.certificate}'\nkey = '{files.key}'\n"
        f"client_ca = '{files.ca}'\n"
    )


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Generator[Six]:
    """Six daemons that serve; for all of these tests."""
    folder, ca = tmp_path_factory.mktemp("fleet"), Authority()
    mine = ca.issue(uri(WHO)).write(folder / "mine", ca.pem)
    text = f"[tls]\nca = '{mine.ca}'\ncertificate = '{mine.certificate}'\nkey = '{mine.key}'\n"
    with hosts(6) as (client, there), ExitStack() as places:
        daemons: list[DaemonProcess] = []
        try:
            for at, one in enumerate(there):
                place = places.enter_context(private_place())
                extra = _tcp(place.root, ca, one.address)
                daemons.append(spawn(place, extra=extra, policy=POLICY, prefix=one.prefix))
                text += f"[hosts.edge{at}]\naddress = '{one.address}:7433'\n"
            for daemon in daemons:
                wait_ready(daemon)
            file = folder / "hosts.toml"
            file.write_text(text)
            yield Six(client, daemons, file)
        finally:
            for daemon in daemons:
                os.kill(daemon.pid, signal.SIGCONT)
                daemon.stop()


async def _fill(socket: Path, at: int) -> None:
    async with (
        connect(str(socket)) as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=5000, btf=True) as flows,
    ):
        await flows.load((key, key * (at + 1)) for key in range(1000 + at))


@pytest.fixture(scope="module")
def sums(six: Six) -> dict[str, int]:
    """Fills a map on each host; what bpftool says that the sum of its values is, by host."""
    found: dict[str, int] = {}
    for at, daemon in enumerate(six.daemons):
        asyncio.run(_fill(daemon.place.socket, at))
        done = subprocess.run(
            ["bpftool", "-j", "map", "dump", "pinned", str(daemon.place.names / "admin" / "flows")],
            check=True,
            capture_output=True,
        )
        found[f"edge{at}"] = sum(one["formatted"]["value"] for one in json.loads(done.stdout))
    return found


@pytest.fixture(scope="module")
def hurt(six: Six, sums: dict[str, int]) -> dict[str, int]:
    """One host's cable is out, one daemon is stopped; the sums of the others."""
    subprocess.run(
        ["ip", "-n", six.client.name.removesuffix("c") + f"h{DEAD}", "link", "set", "eth0", "down"],
        check=True,
    )
    os.kill(six.daemons[STOPPED].pid, signal.SIGSTOP)
    return {host: total for host, total in sums.items() if host not in (f"edge{DEAD}", f"edge{STOPPED}")}


def test_the_fleets_sum_is_what_bpftool_says_on_each(six: Six, sums: dict[str, int]) -> None:
    found = _asked(six)
    assert found["sums"] == sums
    assert (found["total"], found["exact"], found["unreachable"]) == (sum(sums.values()), True, {})
    assert found["items"] == {f"edge{at}": 1000 + at for at in range(6)}
    assert found["entries"] == sum(found["items"].values())


def test_the_others_results_come_and_who_does_not_answer_is_named(six: Six, hurt: dict[str, int]) -> None:
    found = _asked(six)
    assert found["sums"] == hurt
    assert found["open"] == sorted(hurt)
    assert found["items"] == {host: 1000 + int(host[-1]) for host in hurt}
    assert not found["exact"], "not all were asked"
    assert found["unreachable"].keys() == {f"edge{DEAD}", f"edge{STOPPED}"}
    for kind, said in found["unreachable"].values():
        assert kind in ("DeadlineExceeded", "Unavailable")
        assert "within 2 s" in said or "10.77.0." in said


def _asked(six: Six) -> dict[str, Any]:
    done = six.run("-m", "tests.e2e.fleet_client", str(six.file), TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("hurt")
def test_mapctl_prints_what_came_and_names_the_rest(six: Six, hurt: dict[str, int]) -> None:
    done = six.mapctl("dump", "admin/flows", "-o", "ndjson")
    assert done.returncode == outcomes.SOME_HOSTS
    sums = dict.fromkeys(hurt, 0)
    for line in done.stdout.splitlines():
        record = json.loads(line)
        sums[record["host"]] += record["value"]
    assert sums == hurt
    told = [json.loads(line)["error"]["message"] for line in done.stderr.splitlines()]
    assert {message.partition(":")[0] for message in told} == {f"edge{DEAD}", f"edge{STOPPED}"}


@pytest.mark.usefixtures("hurt")
def test_the_state_of_each_host_is_listed(six: Six) -> None:
    done = six.mapctl("hosts", "-o", "ndjson")
    assert done.returncode == outcomes.SOME_HOSTS
    states = {row["host"]: row["state"] for row in map(json.loads, done.stdout.splitlines())}
    assert states == {f"edge{at}": "unreachable" if at in (DEAD, STOPPED) else "serving" for at in range(6)}

"""R18: whatever the network does, nothing is executed twice, and who cannot know what became of a change is told so.

Each worker adds one to a key of its own. What the map says at the end lies between what was done and that with what is
unknown: less were lost, more were executed twice or told as not done.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import shutil
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

import mapd_client
from mapd_client import U32, U64
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.network import faults
from tests.support.daemon import DaemonProcess, Place, daemon_process, environment
from tests.support.netns import Namespace, hosts
from tests.support.pki import Authority, uri

ROOT = Path(__file__).parents[2]
WHO = "spiffe://example.org/adder"
POLICY = f"""
[principals.admin]
users = []
[principals.adder]
tls = ["{WHO}"]
[[rules]]
who = ["adder"]
role = "owner"
names = ["admin/sums"]
"""
PORT = 7433
WORKERS = 8


@dataclass(frozen=True)
class Wire:
    """A daemon and the namespace of its clients, with one cable between them."""

    client: Namespace
    host: Namespace
    daemon: DaemonProcess
    folder: Path

    @property
    def address(self) -> str:
        return f"{self.host.address}:{PORT}"


@contextmanager
def wire(place: Place) -> Generator[Wire]:
    """Inside the block."""
    if shutil.which("nft") is None:
        pytest.skip("nft is missing: apt-get install nftables")
    ca = Authority()
    mine = place.root / "mine"
    ca.issue(uri(WHO)).write(mine, ca.pem)
    with hosts(1) as (client, (host,)):
        files = ca.issue(x509.IPAddress(ipaddress.ip_address(host.address))).write(place.root / "tls", ca.pem)
        extra = (
            f"[tcp]\nlisten = ['{host.address}:{PORT}']\ncertificate = '{files.certificate}'\n"
            f"key = '{files.key}'\nclient_ca = '{files.ca}'\n"
        )
        with daemon_process(place, extra=extra, policy=POLICY, prefix=host.prefix) as daemon:
            yield Wire(client, host, daemon, mine)


@dataclass
class Adding:
    """Workers that add, and what they were told."""

    outcomes: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    more: asyncio.Condition = field(default_factory=asyncio.Condition)

    def count(self, outcome: str) -> Counter[int]:
        """How often each worker was told so."""
        return Counter(worker for worker, told in self.outcomes if told == outcome)

    async def read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            worker, outcome = json.loads(line)
            self.outcomes.append((worker, outcome))
            async with self.more:
                self.more.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was told says so."""
        async with asyncio.timeout(60), self.more:
            await self.more.wait_for(condition)

    async def go_on(self, times: int, outcome: str = "") -> None:
        """Wait until so many more additions have ended, or have ended so."""
        before = len(self.outcomes)
        await self.until(
            lambda: sum(not outcome or told == outcome for _, told in self.outcomes[before:]) >= times
        )


@asynccontextmanager
async def adding(there: Wire, how: str) -> AsyncGenerator[Adding]:
    """Workers inside the block; behind it all of them have ended."""
    program = ("-m", "tests.reliability.network.adder", there.address, str(there.folder), str(WORKERS), how)
    process = await asyncio.create_subprocess_exec(
        *there.client.prefix,
        sys.executable,
        *program,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found = Adding()
    reading = asyncio.create_task(found.read(process.stdout))
    try:
        yield found
        process.stdin.close()
        await asyncio.wait_for(reading, 60)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.wait({reading})


async def sums(place: Place) -> Counter[int]:
    """What the map says, by the daemon's own socket."""
    async with (
        mapd_client.connect(str(place.socket)) as client,
        client.open_map("sums", key=U32, value=U64) as opened,
    ):
        return Counter({key: value async for key, value in opened.items()})


async def make(place: Place) -> None:
    async with (
        mapd_client.connect(str(place.socket)) as client,
        client.create_map("sums", "hash", key=U32, value=U64, max_entries=WORKERS) as opened,
    ):
        await opened.update_many((worker, 0) for worker in range(WORKERS))


async def through(adders: Adding, fault: AbstractContextManager[None], times: int, outcome: str = "") -> None:
    """Go on with a fault, and then without."""
    with fault:
        await adders.go_on(times, outcome)
    await adders.go_on(4 * WORKERS, "done")


async def test_nothing_is_executed_twice_and_what_is_unknown_is_told(
    place: Place, size: Size, figure: Figures
) -> None:
    times = size.pick(quick=100, full=2_000)
    with wire(place) as there:
        await make(place)
        async with adding(there, "careful") as adders:
            await adders.go_on(100, "done")
            for per_mille in (200,) if size.quick else (10, 50, 200):
                await through(adders, faults.lossy(there.client, per_mille), times)
                await through(adders, faults.lossy(there.host, per_mille), times)
            await through(adders, faults.narrow(there.host), times)
            for _ in range(size.pick(quick=1, full=5)):
                await through(adders, faults.unplugged(there.host), 2 * WORKERS, "not done")
                await through(adders, faults.deaf(there.client, PORT), WORKERS, "unknown")
                await through(adders, faults.resetting(there.host, PORT, 20), times)
        found = await sums(place)
        done, unknown = adders.count("done"), adders.count("unknown")
        other = {told for _, told in adders.outcomes} - {"done", "unknown", "not done"}
        assert not other
        twice = sum(max(0, found[one] - done[one] - unknown[one]) for one in range(WORKERS))
        lost = sum(max(0, done[one] - found[one]) for one in range(WORKERS))
        figure("R18", "additions done", done.total(), at_least=times)
        figure("R18", "told as not done", adders.count("not done").total(), at_least=1)
        figure("R18", "told as unknown", unknown.total(), at_least=1)
        figure("R18", "of these executed", found.total() - done.total(), of=unknown.total())
        figure("R18", "executed twice, or told as not done", twice, at_most=0, of=done.total())
        figure("R18", "acknowledged and lost", lost, at_most=0, of=done.total())


async def test_who_asks_again_after_every_error_counts_twice(place: Place, canary: Canaries) -> None:
    with wire(place) as there:
        await make(place)
        async with adding(there, "naive") as adders:
            await adders.go_on(20, "done")
            with faults.resetting(there.host, PORT, 20):
                await adders.go_on(40)
            deaf = faults.deaf(there.client, PORT)
            with deaf:  # no answer, so no line either: until each call has been made again
                await asyncio.sleep(3)
            await adders.go_on(WORKERS, "done")
        found = await sums(place)
        twice = found.total() - adders.count("done").total()
        canary("R18", "a client that asks again after every error", caught=int(twice > 0), of=1)

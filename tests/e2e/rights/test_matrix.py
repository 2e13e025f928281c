"""Every (RPC, op) of the contract by every kind of caller on every kind of map, against the reference evaluator.

Each cell is a call of a process that is that user to the kernel, through that socket or with that certificate. Nothing
is wrongly admitted, nothing wrongly refused; what is hidden is answered as what is not there; refused calls change
nothing.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
from collections import Counter

import pytest

from mapd_api import contract
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2
from tests.e2e.rights import cells
from tests.e2e.rights.matrix import Matrix, callers
from tests.e2e.rights.tcp import Tcp
from tests.e2e.rights.world import GONE, KINDS, NOBODY, REMOTE, Kind, World, by_tcp, made_world
from tests.support.daemon import DaemonProcess, Place, client_sources, daemon_process
from tests.support.pki import uri

ASK = cells.METHODS["GetServerInfo"], maps_pb2.GetServerInfoRequest()
ENDS_SOON = by_tcp("certificate that ends while connected", "short", NOBODY)
LEAVER = next(kind for kind in KINDS if kind.name == "removed by a reload")
REMOVED = Kind(name=LEAVER.name, principal=LEAVER.principal, user=LEAVER.user, refused=GONE)


def test_every_method_of_the_contract_has_a_request() -> None:
    assert cells.without_builder() == set()
    methods = {method.name for service in contract.SERVICES for method in service.methods}
    per_op = {action.op for action in cells.actions() if action.method.name == "Apply"}
    assert {action.method.name for action in cells.actions()} == methods
    assert per_op == set(Op)


@pytest.mark.timeout(300)
async def test_every_cell_is_as_the_reference_says(place: Place) -> None:
    with client_sources() as sources, made_world(place) as world:
        tcp = Tcp.make(world)
        trail = place.root / "audit" / "audit.jsonl"
        audit = f"[audit]\npath = '{trail}'\n"
        with daemon_process(place, policy=world.policy, extra=tcp.config + audit) as daemon:
            async with callers(world, sources, (*KINDS, ENDS_SOON), tcp.at(daemon)) as agents:
                matrix = Matrix(world, agents)
                report = await matrix.run(KINDS)
                await certificate_ends(matrix, tcp.at(daemon))
                await principal_is_removed(matrix, world, daemon)
        print(f"{report.calls} calls by {len(KINDS) + 2} kinds of caller, {report.refused.total()} refused")
        log, lines = daemon.log.read_text(), trail.read_text().splitlines()
    faults = report.faults()
    assert not faults, f"{len(faults)} of {report.calls} cells:\n" + "\n".join(faults)
    assert {action.name for action in cells.actions()} - report.done == set()
    assert '"event": "fault"' not in log
    audited = Counter(
        (str(line.get("principal", NOBODY)), str(line["method"]))
        for line in map(json.loads, lines)
        if line["event"] == "refusal"
    )
    lost = {key: (audited[key], most) for key, most in report.refused.items() if audited[key] < most}
    more = {
        key: (found, report.refused[key] + report.unsure[key])
        for key, found in audited.items()
        if found > report.refused[key] + report.unsure[key]
    }
    assert not lost, f"refusals without a line (lines, refusals): {lost}"
    assert not more, f"lines without a refusal (lines, refusals): {more}"


async def certificate_ends(matrix: Matrix, tcp: Tcp) -> None:
    """A connection that was admitted is refused by all methods when its certificate's time is over."""
    tcp.put("short", tcp.authority.issue(uri(REMOTE), lasts=datetime.timedelta(seconds=3)))
    agent = matrix.agents[ENDS_SOON.name]
    await agent.connect(tcp.target, tls=tcp.shown("short"))
    answer = await agent.call(*ASK)
    assert answer.code == "OK", answer
    async with asyncio.timeout(30):
        while answer.code == "OK":
            answer = await agent.call(*ASK)
    matrix.report.refused[NOBODY, contract.full_name(ASK[0])] += answer.reason is Reason.UNAUTHENTICATED
    await matrix.run([ENDS_SOON])


async def principal_is_removed(matrix: Matrix, world: World, daemon: DaemonProcess) -> None:
    """A connection that was admitted ends with its principal, and there is no other."""
    agent = matrix.agents[LEAVER.name]
    answer = await agent.call(*ASK)
    assert answer.code == "OK", answer
    world.place.policy.write_text(world.policy_without_leaver)
    daemon.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(30):
        while answer.code == "OK":
            answer = await agent.call(*ASK)
    # The session that it had is ended with a refusal, and so is what was asked while it was removed.
    for method in (ASK[0], cells.METHODS["Session"]):
        matrix.report.unsure[LEAVER.principal, contract.full_name(method)] += 1
    await matrix.run([REMOVED])

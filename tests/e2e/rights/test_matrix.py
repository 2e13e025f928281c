"""Every (RPC, op) of the contract by every kind of caller on every kind of map, against the reference evaluator.

Each cell is a call of a process that is that user to the kernel, through that socket. Nothing is wrongly admitted,
nothing wrongly refused; what is hidden is answered as what is not there; refused calls change nothing.
"""

from __future__ import annotations

from mapd_api import contract
from mapd_api.ops import Op
from tests.e2e.rights import cells
from tests.e2e.rights.matrix import Matrix, callers
from tests.e2e.rights.world import KINDS, made_world
from tests.support.daemon import Place, client_sources, daemon_process


def test_every_method_of_the_contract_has_a_request() -> None:
    assert cells.without_builder() == set()
    methods = {method.name for service in contract.SERVICES for method in service.methods}
    per_op = {action.op for action in cells.actions() if action.method.name == "Apply"}
    assert {action.method.name for action in cells.actions()} == methods
    assert per_op == set(Op)


async def test_every_cell_is_as_the_reference_says(place: Place) -> None:
    with client_sources() as sources, made_world(place) as world:
        with daemon_process(place, policy=world.policy) as daemon:
            async with callers(
                world,
                sources,
                [k for k in KINDS if k.principal == "admin" or (not k.admitted and k.principal != "box")],
            ) as agents:
                report = await Matrix(world, agents).run()
        print(f"{report.calls} calls by {len(KINDS)} kinds of caller, {dict(report.refused)} refused")
        log = daemon.log.read_text()
    faults = report.faults()
    assert not faults, f"{len(faults)} of {report.calls} cells:\n" + "\n".join(faults)
    assert {action.name for action in cells.actions()} - report.done == set()
    assert '"event": "fault"' not in log

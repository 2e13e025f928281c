"""Servers: built from the contract's descriptors, with the standard services beside ours."""

from __future__ import annotations

from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from mapd.access.authorize import Authorizer
from mapd.rpc.caller import Caller, always
from mapd.rpc.guard import Guard
from mapd.rpc.health import Health
from mapd.rpc.server import build
from mapd_api import contract
from mapd_api.contract import ContractError
from tests.unit.mapd.rpc.wire import ADMIN, METHODS, WAIT_S, serving

pytestmark = pytest.mark.usefixtures("watched_loop")

WITHOUT_RIGHTS: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]
"""A service whose methods have no option (access)."""


async def test_a_method_without_rights_keeps_the_server_from_being_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ContractError, match=r"grpc\.health\.v1\.Health\.Check states no rights"):
        contract.check((*contract.SERVICES, WITHOUT_RIGHTS))
    monkeypatch.setattr(contract.check, "__defaults__", ((*contract.SERVICES, WITHOUT_RIGHTS),))
    with pytest.raises(ContractError, match="states no rights"):
        build(always(Caller(principal=ADMIN, attested_by="test")), Guard(Authorizer()), {}, Health())


async def test_a_method_without_a_handler_keeps_the_server_from_being_built() -> None:
    with pytest.raises(KeyError, match=r"/mapd_api\.v1\.MapService/"):
        build(always(Caller(principal=ADMIN, attested_by="test")), Guard(Authorizer()), {}, Health())


def test_no_two_methods_share_a_name() -> None:
    assert len(METHODS) == sum(len(service.methods) for service in contract.SERVICES)


@pytest.mark.parametrize("service", ["", "mapd_api.v1.MapService", "mapd_api.v1.ElementService"])
async def test_health_serves_until_the_daemon_drains(service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    async with serving() as wire:
        check = wire.raw("/grpc.health.v1.Health/Check")
        await wire.health.set_serving()
        answer = health_pb2.HealthCheckResponse.FromString(await check(request, timeout=WAIT_S))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await wire.health.set_draining()
        answer = health_pb2.HealthCheckResponse.FromString(await check(request, timeout=WAIT_S))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING

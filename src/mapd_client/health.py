"""What the daemon says of its own health: grpc.health.v1, which load balancers and Kubernetes ask too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mapd_client.failures import Asked
from mapd_client.link import Link
from mapd_client.methods import Method
from mapd_client.tables.needs import need


async def ask(link: Link) -> str:
    """SERVING, NOT_SERVING; raises as ``Client.health``."""
    need("health", "grpc_health")
    messages: Any = import_module("grpc_health.v1.health_pb2")
    response = messages.HealthCheckResponse
    check: Method[Any, Any] = Method(
        "/grpc.health.v1.Health/Check", messages.HealthCheckRequest, response.FromString
    )
    found = await link.call(check, messages.HealthCheckRequest(), Asked("health"), impatient=True)
    name: str = response.ServingStatus.Name(found.status)
    return name

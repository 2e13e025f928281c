"""Health: told for each service by what it needs, to everybody who watches, and for good when the daemon drains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from mapd.rpc.health import SERVICES, Dependency, Health, Services, watching
from tests.unit.mapd.rpc.wire import WAIT_S, Wire, serving

MAPS, ELEMENTS, HOST = (f"mapd_api.v1.{name}Service" for name in ("Map", "Element", "Host"))
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

NOBODY: Final[Any] = None
"""No context is asked for anything where the service is known."""


@pytest.fixture(autouse=True)
def own_logs() -> None:
    structlog.reset_defaults()


class Opener:
    """Something to depend on."""

    why = ""

    def lacking(self) -> dict[str, Dependency]:
        return {"opener": Dependency(lambda: self.why, frozenset({MAPS, ELEMENTS}))}


async def check(wire: Wire, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    answer = await wire.raw("/grpc.health.v1.Health/Check")(request, timeout=WAIT_S)
    return health_pb2.HealthCheckResponse.FromString(answer).status


class Watcher:
    """A stream of statuses."""

    def __init__(self, channel: Any, service: str) -> None:
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        self.call = channel.unary_stream("/grpc.health.v1.Health/Watch")(request, timeout=WAIT_S)

    async def next(self) -> int:
        return health_pb2.HealthCheckResponse.FromString(await self.call.read()).status


@pytest.mark.usefixtures("watched_loop")
async def test_a_service_that_lacks_something_does_not_serve_and_the_others_do() -> None:
    opener = Opener()
    async with serving() as wire:
        await wire.health.set_serving()
        await wire.guard.services.look(opener.lacking())
        assert {await check(wire, service) for service in ("", *SERVICES)} == {SERVING}
        opener.why = "it has ended"
        await wire.guard.services.look(opener.lacking())
        assert {service: await check(wire, service) for service in ("", MAPS, ELEMENTS, HOST)} == {
            "": NOT_SERVING,
            MAPS: NOT_SERVING,
            ELEMENTS: NOT_SERVING,
            HOST: SERVING,
        }
        opener.why = ""
        await wire.guard.services.look(opener.lacking())
        assert {await check(wire, service) for service in ("", *SERVICES)} == {SERVING}


@pytest.mark.usefixtures("watched_loop")
async def test_every_method_of_the_standard_service_is_answered() -> None:
    """List came with a later release of grpcio-health-checking, and a server that lacks it does not start."""
    methods = [method.name for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods]
    assert set(methods) <= {"Check", "Watch", "List"}
    async with serving() as wire:
        await wire.health.set_serving()
        if "List" in methods:
            answer = await wire.raw("/grpc.health.v1.Health/List")(b"", timeout=WAIT_S)
            listed: Any = vars(health_pb2)["HealthListResponse"].FromString(answer)
            assert {name: one.status for name, one in listed.statuses.items()} == dict.fromkeys(
                ("", *SERVICES), SERVING
            )


async def test_a_server_that_begins_while_something_is_lost_says_so_from_the_start() -> None:
    opener, services = Opener(), Services()
    opener.why = "it has ended"
    await services.look(opener.lacking())
    late = Health(services)
    await late.set_serving()
    assert not services.serving("")
    answer = await late.servicer.Check(health_pb2.HealthCheckRequest(service=MAPS), NOBODY)
    assert answer.status == NOT_SERVING


@pytest.mark.usefixtures("watched_loop")
async def test_what_drains_serves_no_more_whatever_comes_back() -> None:
    opener = Opener()
    opener.why = "it has ended"
    async with serving() as wire:
        await wire.health.set_serving()
        await wire.guard.services.look(opener.lacking())
        await wire.health.set_draining()
        opener.why = ""
        await wire.guard.services.look(opener.lacking())
        assert {await check(wire, service) for service in ("", *SERVICES)} == {NOT_SERVING}


@pytest.mark.usefixtures("watched_loop")
async def test_the_log_says_once_what_is_lost_and_once_that_it_is_back() -> None:
    opener, services = Opener(), Services()
    with capture_logs() as said:
        for opener.why in ("", "it has ended", "it has ended", "", ""):
            await services.look(opener.lacking())
    assert [(line["log_level"], line["what"], line["why"]) for line in said] == [
        ("error", "opener", "it has ended"),
        ("info", "opener", "it is back"),
    ]


@pytest.mark.usefixtures("watched_loop")
async def test_it_is_looked_at_while_the_daemon_runs_and_not_after() -> None:
    opener, services, told = Opener(), Services(), asyncio.Event()

    class Told(Health):
        async def tell(self) -> None:
            await super().tell()
            told.set()

    follower = Told(services)
    async with watching(services, opener.lacking(), every=0.001):
        opener.why = "it has ended"
        async with asyncio.timeout(WAIT_S):
            await told.wait()
        assert services.lost == {"opener": "it has ended"}
    assert [task.get_name() for task in asyncio.all_tasks()].count("health") == 0
    del follower


@pytest.mark.usefixtures("watched_loop")
async def test_a_fault_in_one_look_does_not_end_the_looking() -> None:
    """Health would stay as it was told last, whatever happens to the opener."""
    answers, services, seen = iter(("", "raise", "it has ended")), Services(), asyncio.Event()

    def why_not() -> str:
        answer = next(answers, "it has ended")
        if answer == "raise":
            raise RuntimeError(answer)
        if answer:
            seen.set()
        return answer

    with capture_logs() as said:
        async with watching(services, {"opener": Dependency(why_not, frozenset({MAPS}))}, every=0.001):
            async with asyncio.timeout(WAIT_S):
                await seen.wait()
    assert services.lost == {"opener": "it has ended"}
    assert [line["event"] for line in said if line.get("exc_info")] == [
        "what services depend on was not looked at"
    ]


async def one_of_two_leaves(servicer: Any, drain: Callable[[], Awaitable[None]]) -> int | None:
    """What the other of two who watch a service hears when it drains; None: nothing."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        leaving, staying = Watcher(channel, MAPS), Watcher(channel, MAPS)
        assert await leaving.next() == await staying.next() == SERVING
        watching = [task for task in asyncio.all_tasks() if "Watch" in repr(task)]
        assert len(watching) == 2
        leaving.call.cancel()
        await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
        await drain()
        heard = asyncio.ensure_future(staying.next())
        done, _ = await asyncio.wait({heard}, timeout=0.5)
        staying.call.cancel()
        await asyncio.wait({heard})
    await server.stop(0)
    return heard.result() if done else None


async def test_who_stops_watching_takes_the_news_from_nobody() -> None:
    of_one = Health()
    await of_one.set_serving()
    assert await one_of_two_leaves(of_one.servicer, of_one.set_draining) == NOT_SERVING


async def test_grpcs_own_servicer_loses_the_news_where_it_does_not_count_watchers() -> None:
    """The canary: grpcio-health-checking 1.81 does, 1.85 does not. Once the floor is such a one, use its own."""
    known = health.aio.HealthServicer()
    mended = "_watcher_count_by_service" in vars(known)
    await known.set(MAPS, SERVING)
    told = await one_of_two_leaves(known, known.enter_graceful_shutdown)
    assert told == (NOT_SERVING if mended else None)


async def test_of_an_unknown_service_a_watcher_is_told_so() -> None:
    async with serving() as wire:
        watcher = Watcher(wire.channel, "no.Service")
        assert await watcher.next() == UNKNOWN
        watcher.call.cancel()


async def test_a_watcher_who_takes_nothing_holds_up_nobody() -> None:
    """Its generator stands where grpc does not go on asking."""
    of_one = Health()
    await of_one.set_serving()
    stalled = of_one.servicer.Watch(health_pb2.HealthCheckRequest(service=MAPS), NOBODY)
    assert (await anext(stalled)).status == SERVING
    async with asyncio.timeout(WAIT_S):
        await of_one.set_draining()
    assert (await anext(stalled)).status == NOT_SERVING
    await stalled.aclose()

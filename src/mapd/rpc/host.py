"""HostService: facts of the daemon's host."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mapd.access.policy.explain import Asked
from mapd.maps.errors import MapError
from mapd.maps.hostfacts import Facts, Wanted
from mapd.rpc import convert
from mapd.rpc.admit import decided
from mapd.rpc.guard import Call, Handler
from mapd.runtime.host import MapHost
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.v1 import host_pb2 as pb

OPERATION = "host_info"


class HostHandlers:
    """One coroutine for each method of the service."""

    def __init__(self, host: MapHost) -> None:
        self._host = host

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {"GetHostInfo": self.get_host_info}

    async def get_host_info(self, call: Call, request: pb.GetHostInfoRequest) -> pb.GetHostInfoResponse:
        """Clocks, and names of devices and cgroups."""
        asked = Asked(operation=OPERATION, what="the daemon's host", selector="")
        refused = MapError(
            Reason.POLICY,
            f"{OPERATION}: no rule of the policy gives you, {call.principal.name!r}, host with every_map = true",
            operation=OPERATION,
            principal=call.principal.name,
        )
        facts = decided(call, self._host.facts, call.access.verbs, None, asked, refused)
        _check_count("ifindexes", request.ifindexes)
        _check_count("cgroup_ids", request.cgroup_ids)
        wanted = Wanted(
            ifindexes=frozenset(request.ifindexes),
            cgroup_ids=frozenset(request.cgroup_ids),
            all_devices=request.all_devices,
            all_cgroups=request.all_cgroups,
        )
        return pb.GetHostInfoResponse(host=await self._host.look_at_host(facts, wanted, message))


def message(found: Facts) -> pb.HostInfo:
    """As it is sent."""
    clocks = found.clocks
    return pb.HostInfo(
        clocks=None
        if clocks is None
        else pb.Clocks(
            realtime_ns=clocks.realtime_ns,
            monotonic_ns=clocks.monotonic_ns,
            boottime_ns=clocks.boottime_ns,
            error_ns=clocks.error_ns,
        ),
        devices=[pb.Device(ifindex=index, name=name) for index, name in sorted(found.devices.items())],
        netns=found.netns,
        cgroups=[
            pb.Cgroup(id=number, path=path)
            for number, path in sorted(found.cgroups.items(), key=lambda one: (one[1], one[0]))
        ],
        cgroup_mount=found.cgroup_mount,
        page_size=found.page_size,
        kernel_release=found.kernel_release,
        machine=found.machine,
        boot_id=found.boot_id,
        not_looked_at=found.not_looked_at,
    )


def _check_count(field: str, ids: Collection[int]) -> None:
    if len(ids) > limits.HOST_IDS:
        raise convert.bad_spec(
            f"{field} has {len(ids)} ids, and one call names at most {limits.HOST_IDS}; ask in several, or for all",
            OPERATION,
        )

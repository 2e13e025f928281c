"""Facts of the daemon's host as they are told: what they are, how they are asked for. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mapd_api.v1 import host_pb2
from mapd_client.errors import Misuse, Unsupported
from mapd_client.info import ServerInfo

FEATURE: Final = "host-facts"
MOST_IDS: Final = 1_024
"""Ids of one kind in one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClocks:
    """The clocks of the daemon's host at one moment, in nanoseconds.

    Attributes:
        realtime: CLOCK_REALTIME, since 1970-01-01 UTC.
        monotonic: CLOCK_MONOTONIC, which bpf_ktime_get_ns() reads. It stands while the host is suspended.
        boottime: CLOCK_BOOTTIME, which bpf_ktime_get_boot_ns() reads.
        error: the three were read within so long.
    """

    realtime: int
    monotonic: int
    boottime: int
    error: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """What times, network devices and cgroups in keys and values mean on the daemon's host.

    Attributes:
        clocks: None where the daemon is in a time namespace that it cannot see through.
        devices: names by ifindex, in the daemon's network namespace.
        netns: inode number of that namespace; 0 where it is not known.
        cgroups: paths below ``cgroup_mount`` by cgroup id.
        cgroup_mount: where cgroup2 is mounted on the daemon's host; "" where it is not.
        page_size: bytes.
        kernel_release: ``uname -r``.
        machine: ``uname -m``.
        boot_id: facts of one boot mean nothing in another.
        not_looked_at: what the daemon was asked for and could not see, a line each.
    """

    clocks: HostClocks | None
    devices: Mapping[int, str]
    netns: int
    cgroups: Mapping[int, str]
    cgroup_mount: str
    page_size: int
    kernel_release: str
    machine: str
    boot_id: str
    not_looked_at: Sequence[str]


def request(
    *,
    devices: bool = True,
    cgroups: bool = True,
    ifindexes: Iterable[int] = (),
    cgroup_ids: Iterable[int] = (),
) -> host_pb2.GetHostInfoRequest:
    """A question.

    Raises:
        Misuse: more than ``MOST_IDS`` ids of one kind, or a number that is no id.
    """
    return host_pb2.GetHostInfoRequest(
        all_devices=devices,
        all_cgroups=cgroups,
        ifindexes=_ids("ifindexes", ifindexes, 32),
        cgroup_ids=_ids("cgroup_ids", cgroup_ids, 64),
    )


def check(server: ServerInfo) -> None:
    """Raises Unsupported: a daemon that is older than this question."""
    if FEATURE not in server.features:
        raise Unsupported(
            f"host_info: the daemon (version {server.version}) has no feature {FEATURE!r}; a newer one has",
            operation="host_info",
        )


def host_info(message: host_pb2.HostInfo) -> HostInfo:
    """As it came."""
    clocks = message.clocks
    return HostInfo(
        clocks=HostClocks(
            realtime=clocks.realtime_ns,
            monotonic=clocks.monotonic_ns,
            boottime=clocks.boottime_ns,
            error=clocks.error_ns,
        )
        if message.HasField("clocks")
        else None,
        devices=MappingProxyType({one.ifindex: one.name for one in message.devices}),
        netns=message.netns,
        cgroups=MappingProxyType({one.id: one.path for one in message.cgroups}),
        cgroup_mount=message.cgroup_mount,
        page_size=message.page_size,
        kernel_release=message.kernel_release,
        machine=message.machine,
        boot_id=message.boot_id,
        not_looked_at=tuple(message.not_looked_at),
    )


def _ids(name: str, ids: Iterable[int], bits: int) -> list[int]:
    found = list(dict.fromkeys(ids))
    if len(found) > MOST_IDS:
        raise Misuse(
            f"host_info: {len(found)} {name}, and one call names at most {MOST_IDS}; ask in several, or for all",
            operation="host_info",
        )
    for one in found:
        if not 0 <= one < 1 << bits:
            raise Misuse(f"host_info: {name}: {one} is no number of {bits} bits", operation="host_info")
    return found

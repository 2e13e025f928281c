"""How full maps are, and what goes through the daemon: what ``Client.map_stats`` asks and is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mapd_api.uapi import MapType
from mapd_api.v1 import maps_pb2
from mapd_client import methods, requests
from mapd_client.errors import Unsupported
from mapd_client.failures import Asked

if TYPE_CHECKING:
    from mapd_client.info import ServerInfo
    from mapd_client.link import Link

FEATURE: Final = "map-stats"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapStats:
    """One map, counted. No element was read for it.

    Attributes:
        id: the kernel's, unique on the host until it reboots.
        name: "namespace/name", "" if mapd has no name for it.
        pin_path: a pin of it, "" if it has none.
        kernel_name: at most 15 characters, not unique.
        type: a plain int for a type that this library does not know.
        max_entries: elements that fit.
        memlock_bytes: kernel memory as fdinfo says.
        entries: elements; None where nothing counts them without reading them (``Map.count`` reads them), or where
            this client may not read the map.
        exact: False where the entries were worked out from something else.
        method: "sum_elem_count", "max_entries", "memory"; "" without entries.
        read_elements: that clients of this daemon have read since it started; None where this client may not read the
            map.
        written_elements: likewise written and deleted.
    """

    id: int
    name: str
    pin_path: str
    kernel_name: str
    type: MapType | int
    max_entries: int
    memlock_bytes: int
    entries: int | None
    exact: bool
    method: str
    read_elements: int | None
    written_elements: int | None

    @property
    def label(self) -> str:
        """How messages call it, and how it is opened: its name, else its pin, else its id."""
        return self.name or (f"pin:{self.pin_path}" if self.pin_path else f"id:{self.id}")

    @property
    def type_name(self) -> str:
        """The type as bpftool writes it."""
        return self.type.name.lower() if isinstance(self.type, MapType) else f"type {self.type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSample:
    """Maps at one moment.

    Attributes:
        maps: those with names first, then by pin, then by id.
        epoch: of the daemon's start, since which it counts what clients do.
        uptime: seconds that the daemon had run when it had counted. Between two samples of one epoch as many seconds
            lie as their difference, however long the answers were on their way.
        not_looked_at: where the daemon did not look, and why.
    """

    maps: Sequence[MapStats]
    epoch: str
    uptime: float
    not_looked_at: Sequence[str]


async def ask(link: Link, wanted: requests.Wanted, *, impatient: bool = False) -> StatsSample:
    """All maps, page by page; ``impatient`` as for ``Link.call``. Cancelling costs nothing.

    Raises:
        Unsupported: the daemon is older.
    """
    _check(await link.server())
    asked = Asked("map_stats", wanted.glob)
    maps: list[MapStats] = []
    epoch = token = ""
    while True:
        page = await link.call(methods.LIST_MAP_STATS, _request(wanted, token), asked, impatient=impatient)
        if epoch not in ("", page.epoch):
            maps, epoch, token = [], "", ""  # another start of the daemon: its counters begin anew
            continue
        maps.extend(map(_stats, page.stats))
        epoch, token = page.epoch, page.next_page_token
        if not token:
            return StatsSample(
                maps=tuple(maps),
                epoch=epoch,
                uptime=page.uptime.ToNanoseconds() / 1e9,
                not_looked_at=tuple(page.not_looked_at),
            )


def _check(server: ServerInfo) -> None:
    if FEATURE not in server.features:
        raise Unsupported(
            f"map_stats: the daemon (version {server.version}) has no feature {FEATURE!r}; a newer one has",
            operation="map_stats",
        )


def _request(wanted: requests.Wanted, token: str) -> maps_pb2.ListMapStatsRequest:
    glob = requests.text("map_stats: glob", wanted.glob)
    return maps_pb2.ListMapStatsRequest(
        glob="" if glob == "*" else glob, page_token=token, pins=wanted.pins, ids=wanted.ids
    )


def _stats(message: maps_pb2.MapStats) -> MapStats:
    number = int(message.type)
    return MapStats(
        id=message.id,
        name=message.name,
        pin_path=message.pin_path,
        kernel_name=message.kernel_name,
        type=_TYPES.get(number, number),
        max_entries=message.max_entries,
        memlock_bytes=message.memlock_bytes,
        entries=message.entries if message.HasField("entries") else None,
        exact=message.exact,
        method=message.method,
        read_elements=message.read_elements if message.HasField("read_elements") else None,
        written_elements=message.written_elements if message.HasField("written_elements") else None,
    )


_TYPES: Final = {int(one): one for one in MapType}

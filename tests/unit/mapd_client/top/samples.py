"""Samples as a daemon sends them."""

from __future__ import annotations

from typing import Any

from mapd_api.uapi import MapType
from mapd_client.stats import MapStats, StatsSample


def stats(name: str, entries: int | None = 0, **more: Any) -> MapStats:
    """One map; a hash of 100 entries unless said otherwise."""
    given: dict[str, Any] = {
        "id": sum(map(ord, name)),
        "name": f"web/{name}" if name else "",
        "pin_path": "",
        "kernel_name": name,
        "type": MapType.HASH,
        "max_entries": 100,
        "memlock_bytes": 4096,
        "entries": entries,
        "exact": entries is not None,
        "method": "sum_elem_count" if entries is not None else "",
        "read_elements": 0,
        "written_elements": 0,
    }
    return MapStats(**(given | more))


def sample(*maps: MapStats, uptime: float = 10.0, epoch: str = "a") -> StatsSample:
    """What was answered."""
    return StatsSample(maps=maps, epoch=epoch, uptime=uptime, not_looked_at=("maps without a pin",))

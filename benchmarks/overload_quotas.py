"""What the abuser of ``benchmarks.overload`` may have, and how hard everybody tries."""

from __future__ import annotations

from typing import Final

TIMES: Final = 10
"""So many times its quota the abuser asks for, in each second."""

RATE: Final = 2_000
BURST: Final = 500
OPS: Final = 100
"""Operations of one group of the abuser's."""

DUMPED: Final = 50_000
"""Elements of the map that it dumps."""

VICTIM_RATE: Final = 200
"""Calls a second."""

QUOTAS: Final = {
    "ops_per_second": RATE,
    "dumps": 2,
    "streams": 8,
    "handles": 32,
    "maps": 16,
    "map_bytes": 4 << 20,
    "connections": 8,
}

"""Maps in a file: what they are and what was in them, to be restored, compared or kept (docs/how-to/snapshots.md).

``take`` writes one, ``read`` opens one and has checked all of it, ``restore`` writes one map of it into a map.
"""

from mapd_client.snapshots.manifest import VERSION, BadSnapshot, Kept
from mapd_client.snapshots.reading import Snapshot, SnapshotMap, read
from mapd_client.snapshots.restoring import Policy, Restored, restore
from mapd_client.snapshots.taking import LeftOut, Taken, take, unfit

__all__ = [
    "VERSION",
    "BadSnapshot",
    "Kept",
    "LeftOut",
    "Policy",
    "Restored",
    "Snapshot",
    "SnapshotMap",
    "Taken",
    "read",
    "restore",
    "take",
    "unfit",
]

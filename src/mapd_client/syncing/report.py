"""What a sync did, or would do. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What ``Map.sync`` changed; with ``dry_run`` what it would have.

    True where anything differed: ``if await m.sync(wanted): ...``.

    Attributes:
        added: elements that were not there.
        removed: elements that nobody wanted.
        changed: elements that had another value.
        unchanged: elements that were there as wanted: nothing was written for them.
        merged: wanted elements that are another wanted one over again: equal keys, or networks that differ in their
            host bits alone.
        canonicalised: wanted networks whose host bits were set, and are taken as zero.
        removed_first: the map has no room for the new elements beside the old ones, so that the old ones went first.
        dry_run: nothing was written.
    """

    added: int
    removed: int
    changed: int
    unchanged: int
    merged: int
    canonicalised: int = 0
    removed_first: bool = False
    dry_run: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        return f"+{self.added} -{self.removed} ~{self.changed}"

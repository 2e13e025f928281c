"""The audit trail: what a line says, and how a chain of lines shows that one was changed or taken out.

Each line is a JSON object with the SHA-256 of the line before it. Whoever changes, removes or inserts a line breaks the
chain there, unless he writes every later line anew; what is cut off at the end shows when another line follows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from mapd_api.reasons import Reason

START: Final = "start"
STOP: Final = "stop"
OPENED: Final = "opened"

REFUSALS: Final = frozenset({Reason.POLICY, Reason.UNAUTHENTICATED, Reason.QUOTA, Reason.AUDIT})
"""What leaves a line when a call or a group is refused for it; MAP_NOT_FOUND too, where the policy said so."""


def digest(line: bytes) -> str:
    """What the next line has as ``prev``: of the line without its newline, 64 hexadecimal digits."""
    return hashlib.sha256(line).hexdigest()


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What became of checking a chain.

    Attributes:
        lines: that were looked at, torn ones included.
        broken: the first break, "" where there is none; nothing behind it was looked at.
        notes: what is no break, and worth knowing: where a chain begins, torn lines, ends without a stop.
        last: the digest of the last line, for the next file.
    """

    lines: int = 0
    broken: str = ""
    notes: list[str] = field(default_factory=list[str])
    last: str = ""


class Chain:
    """Checks lines one after the other, over several files if need be. The first line begins the chain."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self._prev: str | None = None
        self._epoch = ""
        self._seq = 0
        self._stopped = True
        self._torn = ""  # where a line is that is none, until the next says that it was torn

    def check(self, source: str, lines: Iterable[bytes]) -> bool:
        """Look at one file's lines, without their newlines; False at the first break."""
        for number, line in enumerate(lines, start=1):
            self.verdict.lines += 1
            if not self._line(f"{source}:{number}", line):
                return False
        self.verdict.last = self._prev or ""
        return True

    def end(self) -> Verdict:
        """No more lines: what is left open is a note, or a break."""
        if self.verdict.broken:
            return self.verdict
        if self._torn:
            self._break(self._torn, "is no JSON object, and nothing after it says that it was torn")
        elif not self._stopped:
            self.verdict.notes.append(
                f"the last line is not the daemon's stop: it runs still, was killed, or lines behind sequence "
                f"{self._seq} of epoch {self._epoch} were cut off"
            )
        return self.verdict

    def torn_end(self, source: str, size: int) -> None:
        """The file ends in the middle of a line: the daemon was killed, or the disk was full."""
        self.verdict.notes.append(f"{source}: ends in the middle of a line, {size} bytes of it")

    def _line(self, where: str, line: bytes) -> bool:
        found = _object(line)
        if found is None:
            if self._torn:
                return self._break(self._torn, "is no JSON object")
            self._torn, self._prev = where, digest(line)
            return True
        if self._torn:
            if found.get("event") != START or not found.get("torn"):
                return self._break(
                    self._torn, "is no JSON object, and the line after it does not say that it was torn"
                )
            self.verdict.notes.append(f"{self._torn}: a torn line, which the daemon's next start tells of")
            self._torn = ""
        return self._link(where, found) and self._count(where, found, line)

    def _link(self, where: str, found: Mapping[str, Any]) -> bool:
        prev = found.get("prev")
        if self._prev is not None and not prev and found.get("event") == START and where.endswith(":1"):
            self.verdict.notes.append(
                f"{where}: a new chain begins with this file; whether lines were cut off the one before cannot be told"
            )
            self._prev = None
        if self._prev is None:
            if prev:
                self.verdict.notes.append(f"{where}: the chain goes on from a line that is not here ({prev})")
            return True
        if prev != self._prev:
            return self._break(
                where, f"names {prev} as the line before it, which is {self._prev}: that was changed, or lines between "
                "were removed or inserted"
            )  # fmt: skip
        return True

    def _count(self, where: str, found: Mapping[str, Any], line: bytes) -> bool:
        epoch, seq, event = found.get("epoch"), found.get("seq"), found.get("event")
        if not isinstance(seq, int) or not isinstance(epoch, str):
            return self._break(where, "has no epoch and seq")
        if event == START:
            if not self._stopped:
                self.verdict.notes.append(
                    f"{where}: the daemon before it ended without a stop line, after sequence {self._seq}: it was "
                    "killed, or lines were cut off"
                )
        elif self._prev is not None and (epoch, seq) != (self._epoch, self._seq + 1):
            return self._break(
                where, f"is sequence {seq} of epoch {epoch}; {self._seq + 1} of {self._epoch} was due"
            )
        if dropped := found.get("dropped"):
            self.verdict.notes.append(f"{where}: {dropped} lines before it could not be written")
        self._epoch, self._seq, self._stopped = epoch, seq, event == STOP
        self._prev = digest(line)
        return True

    def _break(self, where: str, why: str) -> bool:
        self.verdict.broken = f"{where}: this line {why}"
        return False


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None

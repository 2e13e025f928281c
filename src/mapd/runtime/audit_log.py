"""The file of the audit trail, and the thread that writes it.

The event loop only queues what happened; a thread makes lines of it, chains them and writes many at once. A line is
written about ``GATHER_S`` after what it tells of, and is on the disk within a second (fdatasync): a killed daemon
loses the lines of its last moment, a host without power those of its last second.

What is queued is bounded. ``on_full = "deny"``: a mutation reserves its place before it is executed, and is refused
where there is none or the last write failed; so nothing is changed that would not be told. ``on_full = "count"``: what
finds no place is counted, and the next line says how many.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import structlog

from mapd.access.audit import OPENED, START, STOP, digest
from mapd.maps.errors import MapError
from mapd.runtime.audit_file import AuditError, AuditFile
from mapd_api import __version__
from mapd_api.reasons import Reason

_log = structlog.stdlib.get_logger("mapd.audit")

GATHER_S: Final = 0.025
"""Lines of so long are written together: a wake-up and a write for each cost more than the lines."""

RETRY_S: Final = 1.0
"""A write that failed is tried again so often, and what was written goes to the disk so often."""

BATCH: Final = 1_024
"""Lines of one write at most."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one line tells beside its place in the chain.

    Attributes:
        event: "mutation", "refusal", "read".
        told: the reason that the caller was told, where that is another (a map that it may not know of).
        ops, statuses: how many of each operation, and of each reason.
        verbs: the rights that were asked for and not there.
        policy: the version in force.
        rule: the rules that decided, as messages name them.
    """

    event: str
    principal: str = ""
    attested_by: str = ""
    method: str = ""
    operation: str = ""
    map_id: int = 0
    map: str = ""
    pin: str = ""
    map_type: str = ""
    ops: dict[str, int] = {}
    count: int = 0
    statuses: dict[str, int] = {}
    reason: str = ""
    told: str = ""
    verbs: list[str] = []
    policy: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class _Head:
    """Where the chain is: the last line's digest and number, and the lost lines that were told of."""

    prev: str
    seq: int
    told: int


class AuditLog:
    """One daemon's trail. ``reserve``, ``write`` and the rest are the event loop's; the thread is its own.

    Args:
        path: the file; made with mode 0600 if it is missing, in a folder that is there.
        deny: a mutation without a place is refused; otherwise what finds none is counted.
        queue: lines that wait at most.

    Raises:
        AuditError: the file cannot be used.
    """

    def __init__(
        self, path: str, *, epoch: str, on_full: Literal["deny", "count"] = "deny", queue: int = 16_384
    ) -> None:
        self.path: Final = path
        self._epoch = epoch
        self._deny = on_full == "deny"
        self._most = queue
        self._queue: deque[tuple[int, Entry | dict[str, object]]] = deque()
        self._reserved = 0
        self._dropped = 0
        self._failure = ""
        self._reopen = False
        self._closing = False
        self._end = threading.Lock()
        self._ended = self._left_behind = False
        self._asleep = True
        self._encoder = msgspec.json.Encoder()
        self._second = (-1, "")
        self._file = AuditFile.open(path)
        self._head = _Head(self._file.prev, 0, 0)
        start: dict[str, object] = {"event": START, "version": __version__, "pid": os.getpid()}
        if self._file.torn:
            start["torn"] = True
        self._queue.append((time.time_ns(), start))
        self._bell = os.eventfd(1, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="mapd-audit", daemon=True)
        self._thread.start()

    # ---- the event loop's ----------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """Lines that found no place since the daemon started."""
        return self._dropped

    @property
    def failure(self) -> str:
        """Why nothing can be written now; "" where it can."""
        return self._failure

    def reserve(self) -> None:
        """A place for the line of a mutation that is about to be executed; ``write`` or ``release`` ends it.

        Raises:
            MapError: AUDIT, there is none, and what cannot be told must not be done.
        """
        if self._deny:
            why = self._failure
            if not why and len(self._queue) + self._reserved >= self._most:
                why = f"{self._most} lines wait to be written"
            if why:
                raise MapError(
                    Reason.AUDIT,
                    f"the daemon cannot write its audit trail ({why}), and changes nothing that it could not tell of; "
                    "try again in a second, or have somebody look at the daemon's log",
                    operation="audit",
                )
        self._reserved += 1

    def release(self) -> None:
        """Nothing was changed in a place that was reserved."""
        self._reserved -= 1

    def write(self, entry: Entry, *, reserved: bool = False) -> None:
        """Queue a line; one without a place that finds none is counted.

        Those without a place (refusals) fill half of the queue at most: whoever is refused often must not keep others
        from changing what they may.
        """
        if reserved:
            self._reserved -= 1
        held = len(self._queue) + (self._reserved if self._deny else 0)
        most = self._most if reserved else self._most // 2
        if held >= most and not (reserved and self._deny):
            self._dropped += 1
            return
        self._queue.append((time.time_ns(), entry))
        if self._asleep and not self._closing:
            self._asleep = False
            os.eventfd_write(self._bell, 1)

    def reopen(self) -> None:
        """Go on in the file that is at ``path`` now (logrotate has moved the old one); not while it is being closed."""
        if not self._closing:
            self._reopen = True
            os.eventfd_write(self._bell, 1)

    def close(self, timeout: float) -> bool:
        """Write what is queued and the last line; False if not all of it was. Blocks ``timeout`` seconds at most."""
        self._queue.append((time.time_ns(), {"event": STOP}))
        self._closing = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(timeout)
        with self._end:
            ended, self._left_behind = self._ended, not self._ended
        if ended:
            os.close(self._bell)
        if not ended or self._queue:
            _log.error("audit lines are lost", lines=len(self._queue), path=self.path, why=self._failure)
        return ended and not self._queue

    # ---- the thread's --------------------------------------------------------------------------

    def _work(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        synced = time.monotonic()
        try:
            while True:
                if poll.poll(RETRY_S * 1_000 if self._failure or self._file.unsynced else None):
                    os.eventfd_read(self._bell)
                    if not self._closing:
                        time.sleep(GATHER_S)
                if self._reopen:
                    self._reopen = False
                    self._go_on()
                # A disk that took no fdatasync is asked for that first.
                if not (self._failure and self._file.unsynced) or self._sync():
                    self._drain()
                if self._closing or time.monotonic() - synced >= RETRY_S:
                    self._sync()
                    synced = time.monotonic()
                if self._closing and (self._failure or not self._queue):
                    return
                # From here on a new line rings, and one that came just before is seen now. While nothing can be
                # written none rings: time is what brings the next try.
                self._asleep = not self._failure
                if self._queue and self._asleep:
                    self._asleep = False
                    os.eventfd_write(self._bell, 1)
        finally:
            self._file.close()
            # The bell is ``close``'s, which may be about to ring it: its number would be another file's by then.
            with self._end:
                self._ended, left_behind = True, self._left_behind
            if left_behind:
                os.close(self._bell)

    def _drain(self) -> None:
        """Write all that waits, or as much as can be; what cannot stays in the queue, in order."""
        try:
            while self._queue:
                lines, heads = self._lines(min(len(self._queue), BATCH))
                done = self._file.append(lines)
                for _ in range(done):
                    self._queue.popleft()
                self._head = heads[done - 1]
        except OSError as error:
            self._failed(error)
            return
        if self._failure:
            _log.warning("the audit trail is written again", path=self.path, after=self._failure)
            self._failure = ""

    def _lines(self, count: int) -> tuple[list[bytes], list[_Head]]:
        """The next lines with their newlines, and where the chain is after each."""
        lines: list[bytes] = []
        heads: list[_Head] = []
        head = self._head
        for at in range(count):
            now, entry = self._queue[at]
            dropped = self._dropped
            lost = f',"dropped":{dropped - head.told}' if dropped > head.told else ""
            place = f'"epoch":"{self._epoch}","seq":{head.seq + 1},"prev":"{head.prev}"{lost},'
            line = f'{{"ts":"{self._stamp(now)}",{place}'.encode() + self._encoder.encode(entry)[1:]
            head = _Head(digest(line), head.seq + 1, dropped)
            lines.append(line + b"\n")
            heads.append(head)
        return lines, heads

    def _stamp(self, nanoseconds: int) -> str:
        """RFC 3339, to the microsecond."""
        second, rest = divmod(nanoseconds, 1_000_000_000)
        if self._second[0] != second:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{rest // 1_000:06d}Z"

    def _sync(self) -> bool:
        try:
            self._file.sync()
        except OSError as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: OSError) -> None:
        why = error.strerror or type(error).__name__
        if not self._failure:
            then = "refused" if self._deny else "executed, and their lines counted"
            _log.error("the audit trail cannot be written", path=self.path, error=why, mutations=then)
        self._failure = why

    def _go_on(self) -> None:
        """Close the old file and go on in the one that is at the path now; what waits goes to the new one."""
        if not self._file.moved:
            return
        self._drain()
        self._sync()
        try:
            new = AuditFile.open(self.path)
        except AuditError as error:
            _log.error("the audit trail goes on in the old file", error=str(error))
            return
        self._file.close()
        self._file = new
        _log.info("audit file opened", path=self.path, seq=self._head.seq, prev=self._head.prev)
        self._queue.appendleft((time.time_ns(), {"event": OPENED}))

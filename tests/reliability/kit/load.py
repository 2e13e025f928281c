"""The test's end of ``worker``: the clients' processes, and the history that grows while they work."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.reliability.kit import worker
from tests.reliability.kit.history import OK, History
from tests.reliability.kit.worker import Settings
from tests.support.daemon import environment

END_S = 60.0


class Load:
    """Clients at work, and what they said so far.

    Attributes:
        history: to be read once the load has ended.
        said: events that are no operations.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.history = History()
        self.said: list[str] = []
        self._done = threading.Condition()
        self._acknowledged: dict[int, tuple[int, float]] = {}
        self._started = 0
        self._thread = threading.Thread(target=self._listen, args=(process.stdout,), name="history")
        self._thread.start()

    def _listen(self, lines: IO[bytes]) -> None:
        for line in iter(lines.readline, b""):
            event = json.loads(line)
            returned = self.history.event(event)
            if event["event"] not in {"invoke", "return"}:
                self.said.append(line.decode())
            if event["event"] == "started" or any(each.outcome == OK for each in returned):
                client, invoked = event["client"], returned[0].invoked if returned else 0.0
                with self._done:
                    self._started += not returned
                    count, _ = self._acknowledged.get(client, (0, 0.0))
                    self._acknowledged[client] = count + len(returned), invoked
                    self._done.notify_all()

    def wait_started(self, clients: int) -> None:
        """Wait until so many clients have their map."""
        with self._done:
            assert self._done.wait_for(lambda: self._started >= clients, 30), self.said

    def wait_served(self, since: float, operations: int, *, timeout: float) -> bool:
        """Wait until every client has been answered one that it invoked after ``since``, and all of them so many.

        False where that did not come in time.
        """
        with self._done:
            before = sum(count for count, _ in self._acknowledged.values())

            def served() -> bool:
                found = self._acknowledged.values()
                return (
                    sum(count for count, _ in found) - before >= operations
                    and min(invoked for _, invoked in found) > since
                )

            return self._done.wait_for(served, timeout)

    def end(self) -> int:
        """Let each client end what it does; the exit status of their process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(END_S)
        self._finish()
        return status

    def kill(self) -> None:
        """End them as they are."""
        if self.process.poll() is None:
            for child in children(self.process.pid):
                subprocess.run(["kill", "-9", str(child)], check=False)
            self.process.kill()
            self.process.wait()
        self._finish()

    def _finish(self) -> None:
        """Read what is left of what they said. Idempotent."""
        self._thread.join(END_S)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def children(pid: int) -> list[int]:
    """The processes that a process started and that are there still."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@contextmanager
def loading(settings: Settings) -> Generator[Load]:
    """Clients at work inside the block; if it fails, their history is kept and they are ended as they are."""
    process = subprocess.Popen(
        [sys.executable, worker.__file__, settings.to_json()],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    load = Load(process)
    try:
        with load.history.kept():
            load.wait_started(settings.clients)
            yield load
    finally:
        load.kill()


def now() -> float:
    """The clock of histories."""
    return time.monotonic()

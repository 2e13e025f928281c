"""What clients did to maps, operation by operation, for whoever has to explain a failure.

A history is a list of operations with the times at which each was invoked and had returned, on the
clock that all processes of a host share. One whose outcome is unknown has no return: it may take
effect at any later time, or never.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

OK = "ok"
UNKNOWN = "unknown"


@dataclass(slots=True)
class Operation:
    """One operation; ``outcome`` is "ok", "unknown", or the class of the exception that refused it.

    Times are CLOCK_MONOTONIC, in seconds.
    """

    client: int
    op: str
    key: int | None
    value: int | None
    invoked: float
    returned: float | None = None
    outcome: str = UNKNOWN


@dataclass(slots=True)
class History:
    """Operations in the order in which they became known."""

    operations: list[Operation] = field(default_factory=list[Operation])

    def event(self, event: Mapping[str, Any]) -> None:
        """One line of a client: that it begins an operation, or that its last one has returned."""
        if event["event"] == "invoke":
            fields = {name: event[name] for name in ("client", "op", "key", "value")}
            self.operations.append(Operation(**fields, invoked=event["time"]))
        elif event["event"] == "return":
            last = next(o for o in reversed(self.operations) if o.client == event["client"])
            last.returned, last.outcome = event["time"], event["outcome"]

    def of(self, client: int) -> list[Operation]:
        return [operation for operation in self.operations if operation.client == client]

    @contextmanager
    def kept(self) -> Generator[None]:
        """If the block fails, leave the history in a file, and its path in the traceback."""
        try:
            yield
        except BaseException as error:
            with tempfile.NamedTemporaryFile(
                "w", prefix="mapd-history-", suffix=".jsonl", delete=False
            ) as file:
                file.writelines(json.dumps(asdict(operation)) + "\n" for operation in self.operations)
            error.add_note(f"history of {len(self.operations)} operations: {file.name}")
            raise

"""What clients did to a map, operation by operation.

A history is a list of operations with the times at which each was invoked and had returned, on the clock that all
processes of a host share (CLOCK_MONOTONIC). One whose outcome is unknown has no return: it may take effect at any
later time, or never. Clients write it as JSON lines, two for each call; a call has one element or several.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

OK: Final = "ok"
REFUSED: Final = "refused"
"""Nothing of it was executed, and nothing will be: the service says so."""
UNKNOWN: Final = "unknown"

OUTCOMES: Final = frozenset({OK, REFUSED, UNKNOWN})


@dataclass(frozen=True, slots=True)
class End:
    """How one element ended. ``result`` is ``model``'s, where the outcome is OK."""

    outcome: str
    result: int | None = None
    why: str = ""


@dataclass(slots=True)
class Operation:
    """One element of one call.

    Attributes:
        call: tells the calls of one client apart.
        op: a name of ``model.OPERATIONS``, with its arguments but for the key.
        returned: None while its outcome is unknown.
        why: the class of the exception, where there was one.
    """

    client: int
    call: int
    op: str
    key: int
    args: tuple[int, ...]
    invoked: float
    returned: float | None = None
    outcome: str = UNKNOWN
    result: int | None = None
    why: str = ""


class Recorder:
    """One client's lines, each handed to ``write`` in one piece, so that those of several do not mix."""

    def __init__(self, client: int, write: Callable[[bytes], object]) -> None:
        self._client = client
        self._write = write
        self._call = 0

    def say(self, event: str, **fields: object) -> None:
        """One line."""
        line = json.dumps({"client": self._client, "event": event, "time": time.monotonic(), **fields})
        self._write(line.encode() + b"\n")

    def invoke(self, op: str | Sequence[str], keys: Sequence[int], args: Sequence[Sequence[int]]) -> int:
        """A call begins; its number. Written before anything of it is done. ``op``: of all elements, or of each."""
        self._call += 1
        self.say("invoke", call=self._call, op=op, keys=list(keys), args=[list(each) for each in args])
        return self._call

    def returned(self, call: int, ends: Sequence[End]) -> None:
        """It has ended, element by element."""
        self.say("return", call=call, ends=[[end.outcome, end.result, end.why] for end in ends])


@dataclass(slots=True)
class History:
    """Operations in the order in which they became known."""

    operations: list[Operation] = field(default_factory=list[Operation])
    _open: dict[tuple[int, int], list[Operation]] = field(
        default_factory=dict[tuple[int, int], list[Operation]]
    )

    def event(self, event: Mapping[str, Any]) -> Sequence[Operation]:
        """Take one line of a client; the operations that have returned by it. Others than a Recorder's pass."""
        kind = event["event"]
        if kind == "invoke":
            client, call = event["client"], event["call"]
            op, keys = event["op"], event["keys"]
            ops = [op] * len(keys) if isinstance(op, str) else op
            begun = [
                Operation(client, call, each, key, tuple(args), event["time"])
                for each, key, args in zip(ops, keys, event["args"], strict=True)
            ]
            self.operations += begun
            self._open[client, call] = begun
        elif kind == "return":
            ended = self._open.pop((event["client"], event["call"]))
            for operation, (outcome, result, why) in zip(ended, event["ends"], strict=True):
                assert outcome in OUTCOMES, outcome
                operation.outcome, operation.result, operation.why = outcome, result, why
                operation.returned = None if outcome == UNKNOWN else event["time"]
            return ended
        return ()

    def of(self, client: int) -> list[Operation]:
        """One client's."""
        return [operation for operation in self.operations if operation.client == client]

    def by_key(self) -> Mapping[int, Sequence[Operation]]:
        """Each key's, apart: maps promise nothing between keys."""
        found: dict[int, list[Operation]] = defaultdict(list)
        for operation in self.operations:
            found[operation.key].append(operation)
        return found

    def count(self, outcome: str, ops: Iterable[str] | None = None) -> int:
        """How many ended so."""
        wanted = None if ops is None else frozenset(ops)
        return sum(
            each.outcome == outcome and (wanted is None or each.op in wanted) for each in self.operations
        )

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

"""Points at which a process of the daemon stands still until the test says so. Standard library alone.

A point is ``before`` or ``after`` one of the steps of a request. The front's: ``decide`` (the policy is asked),
``syscall`` (the elements half of the kernel), ``opener`` (a request to the opener), ``audit`` (the line of the audit
trail) and ``reply``; the opener's: ``control`` (its syscalls) and ``answer``. A process that reaches its point says so
to the test and waits; the test kills it there, or the other one, or lets it go on. A wait in the event loop's thread
stops the whole front, one in a thread of the pool that thread.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")

OPENER_STEPS: Final = ("control", "answer")
STEPS: Final = ("decide", "syscall", "opener", "audit", "reply", *OPENER_STEPS)
POINTS: Final = tuple(f"{when} {step}" for step in STEPS for when in ("before", "after"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a daemon is to do.

    Attributes:
        point: of POINTS; "": none.
        nth: which passing of the point stands still, of those after the test has armed it.
        errnos: from the first request on, the part of the syscalls on elements that fail, undone.
        seed: of the choice.
    """

    point: str = ""
    nth: int = 1
    errnos: float = 0.0
    seed: int = 0

    @property
    def in_opener(self) -> bool:
        """Whether the point is one of the opener's."""
        return self.point.rpartition(" ")[2] in OPENER_STEPS

    def to_json(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """What ``to_json`` wrote."""
        return cls(**json.loads(text))


class Points:
    """Counts the passings of one point; says when it is reached, and waits there. Armed by a byte from the test."""

    def __init__(self, rules: Rules, gate: socket.socket | None) -> None:
        self._rules = rules
        self._gate = gate
        self._lock = threading.Lock()
        self._met = 0
        self._armed = False

    def reach(self, name: str) -> None:
        """Pass a point, or stand there. Blocks the thread that calls."""
        if name != self._rules.point or self._gate is None:
            return
        with self._lock:
            if not self._armed:
                if not select.select([self._gate], [], [], 0)[0]:
                    return
                self._armed = bool(self._gate.recv(1))
            self._met += 1
            if self._met != self._rules.nth:
                return
        self._gate.sendall(name.encode() + b"\n")
        self._gate.recv(1)

    def around(self, step: str, action: Callable[[], T]) -> T:
        """One step between its two points."""
        self.reach(f"before {step}")
        answer = action()
        self.reach(f"after {step}")
        return answer

    def wrap(self, owner: type, name: str, step: str) -> None:
        """Make a method of a class a step."""
        inner = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            return self.around(step, lambda: inner(*args, **kwargs))

        setattr(owner, name, method)


def connect(path: str) -> socket.socket:
    """The test's end of what is said here."""
    gate = socket.socket(socket.AF_UNIX)
    gate.connect(path)
    return gate

"""Logs on stderr: JSON lines for machines, aligned text on a terminal. Never keys or values."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

# Without local variables: among them are users' keys and values.
_TRACEBACK = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


LIBRARY_LINES: Final = 10
"""Of each library that so many lines are written of in LIBRARY_S; what more it says is counted."""
LIBRARY_S: Final = 10.0


class Libraries(logging.Handler):
    """What libraries say, from warnings up, in our own form: gRPC and asyncio speak of what strangers send.

    Whoever may connect can make gRPC speak with every call, so each library has its lines for a time, and its next line
    behind that says how many are missing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._began = clock()
        self._lines: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it."""
        if self._clock() - self._began >= LIBRARY_S:
            self._began = self._clock()
            self._lines.clear()
        if self._lines[record.name] == LIBRARY_LINES:
            self._missing[record.name] += 1
            return
        self._lines[record.name] += 1
        more = {"missing": missing} if (missing := self._missing.pop(record.name, 0)) else {}
        log = structlog.stdlib.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info, **more)


def configure(style: str, level: str) -> None:
    """Set structlog up; ``style`` is json, console, or auto (console on a terminal)."""
    if style == "auto":
        style = "console" if sys.stderr.isatty() else "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACK), structlog.processors.JSONRenderer()]
        if style == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, Libraries)]:
        root.removeHandler(handler)
    root.addHandler(Libraries())

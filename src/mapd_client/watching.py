"""Who sees the calls that this library is about to make, and may keep them from being made. No I/O.

For ``mapctl --print-grpcurl``. While somebody watches, operations on elements are calls of their own and not messages
of a session, for another client to be able to make them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol

from google.protobuf.message import Message

from mapd_client.methods import Method


class Watcher(Protocol):
    """Is told of calls; what it raises, the caller gets in the place of an answer."""

    def asks(self, target: str, method: Method[Any, Any], requests: Iterable[Message]) -> None:
        """A call is about to be made; of a stream the messages are made as they are read here."""
        ...

    def answered(self, request: Message, response: Message) -> None:
        """A call of one request was answered."""
        ...


_WATCHER: Final[ContextVar[Watcher | None]] = ContextVar("mapd_client watcher", default=None)

current: Final = _WATCHER.get
"""Who watches in this context; None: nobody."""


@contextmanager
def watched_by(watcher: Watcher) -> Generator[None]:
    """All calls that are begun in this context."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)

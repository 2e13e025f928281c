"""Between a caller's thread and grpc's, which reads what a stream is to carry; and a bound for waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

T = TypeVar("T")


class Feed(Iterator[T], Generic[T]):
    """One message at a time, from who puts it to grpc's thread; never more than one is held."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[T] = []
        self._ended = False
        self._closed = False

    def put(self, message: T, timeout: float | None) -> bool:
        """Hand over a message; False where nobody takes it any more.

        Raises:
            TimeoutError: the last one was not taken in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or not self._waiting, timeout):
                raise TimeoutError
            if self._closed:
                return False
            self._waiting.append(message)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """Nothing comes after what was put."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self, _call: object = None) -> None:
        """Nobody takes or gives any more: whoever waits goes on. Idempotent."""
        with self._changed:
            self._ended = self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._waiting)
            if not self._waiting:
                raise StopIteration
            message = self._waiting.pop()
            self._changed.notify_all()
            return message


class _Cancelled(Protocol):
    def cancel(self) -> object: ...


class Alarm:
    """Cancels a stream whose next message does not come in time: grpc bounds streams as a whole only.

    Attributes:
        rang: it has.
    """

    def __init__(self, call: _Cancelled, timeout: float | None) -> None:
        self.rang = False
        self._call = call
        self._timer: threading.Timer | None = None
        if timeout is not None:
            self._timer = threading.Timer(timeout, self._ring)
            self._timer.daemon = True

    def _ring(self) -> None:
        self.rang = True
        self._call.cancel()

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

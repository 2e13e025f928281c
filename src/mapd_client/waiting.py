"""What coroutines of this library wait with: an event loop, or, for ``mapd_client.blocking``, the thread itself.

A driven coroutine is one that ``drive`` runs to its end: all that it awaits blocks the thread. No event loop has a part
in it, not even one that runs in this thread, as in a notebook.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, Protocol, TypeVar, cast

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Here(threading.local):
    depth = 0


_HERE: Final = _Here()


class Steps(Protocol[T_co]):
    """A coroutine, or what ``__await__`` gives."""

    def send(self, value: None, /) -> object:
        """As of a coroutine."""
        ...

    def close(self) -> object:
        """As of a coroutine."""
        ...


def driven() -> bool:
    """Whether the code that asks is run by ``drive``."""
    return _HERE.depth > 0


def drive(steps: Steps[Any]) -> Any:
    """Run a coroutine to its end in this thread, and give what it returns or raises.

    An exception of the thread, KeyboardInterrupt, is raised in the coroutine where it waits.
    """
    _HERE.depth += 1
    try:
        while (awaited := steps.send(None)) is None:
            pass  # asyncio.sleep(0): there is nobody else to have a turn
    except StopIteration as end:
        return end.value
    finally:
        _HERE.depth -= 1
    steps.close()
    raise RuntimeError(f"a blocking call waits for an event loop: {awaited!r}")


class Settled(Generic[T]):
    """A future of driven code: who waits for it finds it done."""

    __slots__ = ("_done", "_error", "_result")

    def __init__(self) -> None:
        self._done = False
        self._error: BaseException | None = None
        self._result: T | None = None

    def set_result(self, result: T) -> None:
        """As of asyncio.Future."""
        self._result, self._done = result, True

    def set_exception(self, error: BaseException) -> None:
        """As of asyncio.Future."""
        self._error, self._done = error, True

    def done(self) -> bool:
        """As of asyncio.Future."""
        return self._done

    def cancelled(self) -> bool:
        """As of asyncio.Future: nobody cancels what is done."""
        return False

    def cancel(self) -> bool:
        """As of asyncio.Future."""
        return False

    def exception(self) -> BaseException | None:
        """As of asyncio.Future."""
        return self._error

    def __await__(self) -> Generator[Any, Any, T]:
        if not self._done:
            yield self  # drive() says who waits for what
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


def future() -> asyncio.Future[Any]:
    """A future of the running loop; of driven code one of its own."""
    if driven():
        return cast("asyncio.Future[Any]", Settled[Any]())
    return asyncio.get_running_loop().create_future()


def begin(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """A task; in driven code the work is done when this returns."""
    if not driven():
        return asyncio.create_task(work)
    done = Settled[T]()
    try:
        done.set_result(drive(work))
    except Exception as error:
        done.set_exception(error)
    return cast("asyncio.Future[T]", done)


async def pause(seconds: float) -> None:
    """``asyncio.sleep``; driven code keeps its thread waiting."""
    if driven():
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop drives this
    else:
        await asyncio.sleep(seconds)


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """``asyncio.to_thread``; driven code has nobody to keep waiting, and does it here."""
    return work(*arguments) if driven() else await asyncio.to_thread(work, *arguments)

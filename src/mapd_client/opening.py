"""What connect(), open_map() and create_map() return."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from mapd_client.errors import Misuse


class _Closable(Protocol):
    async def aclose(self) -> None: ...


T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T", bound=_Closable)


class Opening(AbstractAsyncContextManager[T_co], Awaitable[T_co], Protocol[T_co]):
    """Something about to be opened: ``x = await f()`` or ``async with f() as x``.

    Awaited, the caller closes it with ``aclose``; the context manager does so by itself.
    Nothing happens before.
    """


class Opener(Opening[T], Generic[T]):
    """An Opening that calls a function, once. Like a coroutine it warns if it is never awaited."""

    def __init__(self, open: Callable[[], Awaitable[T]], label: str = "an Opening") -> None:
        self._open = open
        self._used = False
        self._opened: T | None = None
        self._label = label

    def __await__(self) -> Generator[Any, Any, T]:
        return self._once().__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._once()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    def __del__(self) -> None:
        if hasattr(self, "_label") and not self._used:
            what = f"{self._label} was never awaited: 'await' it, or use it in 'async with'"
            warnings.warn(what, RuntimeWarning, stacklevel=2, source=self)

    def _once(self) -> Awaitable[T]:
        if self._used:
            raise Misuse("this was opened already: call the function again for another")
        self._used = True
        return self._open()

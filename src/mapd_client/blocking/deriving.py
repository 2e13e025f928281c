"""Blocking classes made of the asynchronous ones: each method drives the coroutine of its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from types import FunctionType, GenericAlias
from typing import Any, Final, Self, TypeGuard

from mapd_client.opening import Opener
from mapd_client.waiting import Steps, drive

RENAMED: Final[Mapping[str, str]] = {"aclose": "close"}
"""Methods that are called otherwise where nobody awaits them."""

_KEPT: Final = ("__getitem__",)
"""Special methods that are derived as others are; those for iteration and ``with`` are written here."""

_INNER: Final = attrgetter("_inner")

_OF: Final[dict[type, type[Derived]]] = {}
"""What stands for each asynchronous class."""


class Derived:
    """One object of the asynchronous client, for callers that do not await."""

    __slots__ = ("__weakref__", "_inner")

    _inner: Any

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __class_getitem__(cls, item: Any) -> GenericAlias:
        return GenericAlias(cls, item)

    @classmethod
    def around(cls, inner: Any) -> Self:
        """What stands for an object of the asynchronous client."""
        made = object.__new__(cls)
        Derived.__init__(made, inner)
        return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return blocking(getattr(self._inner, name))

    def __dir__(self) -> list[str]:
        inner = (name for name in dir(self._inner) if not name.startswith("_"))
        return sorted({*object.__dir__(self), *inner} - set(RENAMED))

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"


class Closable(Derived):
    """What ``with`` closes."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        drive(self._inner.aclose())


class Iterated(Derived):
    """What ``for`` goes through, in one thread at a time."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return drive(self._inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


def blocking(made: Any) -> Any:
    """What a blocking caller gets for what the asynchronous client gives."""
    while (steps := _steps(made)) is not None:
        made = drive(steps)
    for kind in type(made).__mro__:
        if kind in _OF:
            return _OF[kind].around(made)
    return made


def _is_opening(made: Any) -> TypeGuard[Opener[Any]]:
    return isinstance(made, Opener)


def _steps(made: Any) -> Steps[Any] | None:
    if _is_opening(made):
        return made.__await__()
    return made if inspect.iscoroutine(made) else None


def inner(given: Any) -> Any:
    """What the asynchronous client is given for what a blocking caller gives."""
    return _INNER(given) if isinstance(given, Derived) else given


def public(original: type) -> dict[str, Callable[..., Any]]:
    """The methods that users call, by their names here."""
    names = [name for name in dir(original) if not name.startswith("_") or name in _KEPT]
    found = {name: inspect.getattr_static(original, name) for name in names}
    return {RENAMED.get(name, name): one for name, one in found.items() if isinstance(one, FunctionType)}


def stands_for(original: type) -> Callable[[type[Any]], type[Any]]:
    """A class decorator: give the class the methods of ``original`` that it does not write itself."""

    def derive(made: type[Any]) -> type[Any]:
        made.__doc__ = made.__doc__ or original.__doc__
        for name, method in public(original).items():
            if name not in vars(made):
                setattr(made, name, _method(name, method, made))
        _OF[original] = made
        return made

    return derive


def _method(name: str, original: Callable[..., Any], owner: type) -> Callable[..., Any]:
    called = original.__name__

    @functools.wraps(original)
    def call(self: Derived, *args: Any, **kwargs: Any) -> Any:
        # The object's own method, not `original`: a subclass may have another.
        method = getattr(_INNER(self), called)
        if kwargs:
            kwargs = {key: inner(value) for key, value in kwargs.items()}
        return blocking(method(*args, **kwargs))

    call.__name__, call.__qualname__, call.__module__ = name, f"{owner.__name__}.{name}", owner.__module__
    return call

"""What a value in a message may be: each shape writes one into JSON, and takes nothing else back out of it.

Bounds are those of the kernel's own fields: a number that bpf(2) would cut off to 32 bits is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from typing import Any, Final, Generic, TypeAlias, TypeGuard, TypeVar

from mapd.opener.wire import Malformed

Json: TypeAlias = Any
"""What json.loads() gives: checked by whoever takes it."""

T = TypeVar("T")

PATH_CHARACTERS: Final = 8_192
"""Twice what the kernel takes: it is the kernel that says ENAMETOOLONG."""


def _is_list(value: Json) -> TypeGuard[list[Json]]:
    return type(value) is list


def _is_dict(value: Json) -> TypeGuard[dict[str, Json]]:
    return type(value) is dict


def as_list(value: Json) -> list[Json]:
    """The value, which must be a list."""
    if not _is_list(value):
        raise Malformed("no list")
    return value


def as_dict(value: Json) -> dict[str, Json]:
    """The value, which must be an object."""
    if not _is_dict(value):
        raise Malformed("no object")
    return value


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """One kind of value: ``put`` into plain values, ``take`` out of them. Both raise Malformed for any other."""

    put: Callable[[T], Json]
    take: Callable[[Json], T]


def whole(bits: int) -> Shape[int]:
    """A number of so many bits, without a sign."""

    def check(value: Json) -> int:
        if type(value) is not int or value < 0 or value >> bits:
            raise Malformed(f"no number of {bits} bits")
        return value

    def put(value: int) -> Json:
        return check(int(value) if isinstance(value, (IntEnum, IntFlag)) else value)

    return Shape(put, check)


def _flag(value: Json) -> bool:
    if type(value) is not bool:
        raise Malformed("neither true nor false")
    return value


def text(most: int = PATH_CHARACTERS) -> Shape[str]:
    """A string of so many characters, NULs and bytes that are no UTF-8 included: the kernel's functions judge."""

    def check(value: Json) -> str:
        if type(value) is not str or len(value) > most:
            raise Malformed(f"no text of {most} characters")
        return value

    def put(value: str) -> Json:
        return check(str(value) if isinstance(value, StrEnum) else value)

    return Shape(put, check)


def octets(most: int) -> Shape[bytes]:
    """So many bytes, as hexadecimal digits."""

    def put(value: bytes) -> Json:
        if len(value) > most:
            raise Malformed(f"more than {most} bytes")
        return value.hex()

    def take(value: Json) -> bytes:
        if type(value) is not str or len(value) > 2 * most or not set(value) <= set("0123456789abcdef"):
            raise Malformed(f"no {most} bytes in hexadecimal")
        if len(value) % 2:
            raise Malformed("half a byte")
        return bytes.fromhex(value)

    return Shape(put, take)


def optional(inner: Shape[T]) -> Shape[T | None]:
    """That, or null."""

    def put(value: T | None) -> Json:
        return None if value is None else inner.put(value)

    def take(value: Json) -> T | None:
        return None if value is None else inner.take(value)

    return Shape(put, take)


def many(inner: Shape[T], most: int) -> Shape[Sequence[T]]:
    """So many of them at most."""

    def put(values: Sequence[T]) -> Json:
        if len(values) > most:
            raise Malformed(f"{len(values)} values where {most} are taken")
        return [inner.put(value) for value in values]

    def take(values: Json) -> list[T]:
        found = as_list(values)
        if len(found) > most:
            raise Malformed(f"{len(found)} values where {most} are taken")
        return [inner.take(value) for value in found]

    return Shape(put, take)


Fields: TypeAlias = Mapping[str, Shape[Any]]


def put_fields(value: object, fields: Fields) -> Json:
    """The named attributes of a value."""
    return {name: shape.put(getattr(value, name)) for name, shape in fields.items()}


def take_fields(value: Json, fields: Fields) -> dict[str, Any]:
    """The named values: all of them, and no others."""
    found = as_dict(value)
    if found.keys() != fields.keys():
        raise Malformed("other fields")
    return {name: shape.take(found[name]) for name, shape in fields.items()}


def record(kind: type[T], **fields: Shape[Any]) -> Shape[T]:
    """A dataclass that is made from these fields."""
    return Shape(lambda value: put_fields(value, fields), lambda value: kind(**take_fields(value, fields)))


def mapped(inner: Shape[Any], put: Callable[[T], Any], take: Callable[[Any], T]) -> Shape[T]:
    """Another type in the same plain values."""
    return Shape(lambda value: inner.put(put(value)), lambda value: take(inner.take(value)))


U32: Final = whole(32)
U64: Final = whole(64)
FLAG: Final[Shape[bool]] = Shape(_flag, _flag)
TEXT: Final = text()

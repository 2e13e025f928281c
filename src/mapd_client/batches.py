"""Many elements cut into messages that both sides accept. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar, cast

from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_client.codec import Codec
from mapd_client.errors import MapdError, Misuse, SizeMismatch, TypeMismatch
from mapd_client.failures import Asked
from mapd_client.info import Limits, MapInfo

K = TypeVar("K")
V = TypeVar("V")

_ENVELOPE: Final = limits.MESSAGE_BYTES - limits.COLUMN_BYTES


@dataclass(frozen=True, slots=True)
class Batch:
    """One message's worth of elements.

    Attributes:
        first: the place of its first element in what the caller passed.
        count: elements.
        keys: their packed keys.
        values: their packed values; empty where the operation takes none.
    """

    first: int
    count: int
    keys: bytes
    values: bytes = b""


class BadElement(Exception):
    """Internal: an element that cannot be encoded, at its place; becomes ``error`` outside."""

    def __init__(self, index: int, error: MapdError) -> None:
        super().__init__(f"element {index}: {error}")
        self.index = index
        self.error = error


def message_elements(op: Op, info: MapInfo, bounds: Limits, asked: Asked) -> int:
    """How many elements of an operation one message carries, there and back.

    Raises:
        SizeMismatch: not even one; the message gives both numbers.
    """
    question = info.key_stride + (info.value_stride if op in TAKES_VALUE else 0)
    answer = 1 + (info.value_stride if op in ANSWERS_VALUE else 0)
    budget = min(limits.COLUMN_BYTES, bounds.message_bytes - _ENVELOPE)
    return min(bounds.batch_elements, _fitting(max(question, answer), budget, asked))


def chunk_elements(info: MapInfo, bounds: Limits, asked: Asked) -> int:
    """How many elements one message of a load carries; raises as ``message_elements``.

    An element larger than a chunk, yet not than a message, travels alone.
    """
    element = info.key_stride + info.value_stride
    budget = min(limits.COLUMN_BYTES, bounds.message_bytes - _ENVELOPE)
    chunk = min(limits.CHUNK_MAX_BYTES, bounds.chunk_bytes)
    return max(1, min(chunk // max(element, 1), _fitting(element, budget, asked)))


def _fitting(element: int, budget: int, asked: Asked) -> int:
    if element > budget:
        raise SizeMismatch(
            f"{asked}: an element of {element} bytes, a message carries at most {budget}",
            operation=asked.operation,
            map=asked.map,
            metadata={"size": str(element), "limit": str(budget)},
        )
    return budget // max(element, 1)


def of_keys(keys: Iterable[K], codec: Codec[K], per_message: int) -> Iterator[Batch]:
    """Keys in order, encoded a message at a time; raises BadElement, and what ``keys`` raises."""
    source = iter(keys)
    first = 0
    while part := list(islice(source, per_message)):
        yield Batch(first, len(part), _column(codec, part, first, "key"))
        first += len(part)


def of_pairs(
    pairs: Mapping[K, V] | Iterable[tuple[K, V]], key: Codec[K], value: Codec[V], per_message: int
) -> Iterator[Batch]:
    """Pairs in order, encoded a message at a time; raises BadElement, and what ``pairs`` raises."""
    source = _pairs(pairs)
    first = 0
    while part := list(islice(source, per_message)):
        keys, values = _unzip(part, first)
        yield Batch(
            first, len(part), _column(key, keys, first, "key"), _column(value, values, first, "value")
        )
        first += len(part)


def of_values(values: Iterable[V], codec: Codec[V], per_message: int) -> Iterator[Batch]:
    """Values without keys in order, encoded a message at a time; raises BadElement."""
    source = iter(values)
    first = 0
    while part := list(islice(source, per_message)):
        yield Batch(first, len(part), b"", _column(codec, part, first, "value"))
        first += len(part)


def _pairs(pairs: Mapping[K, V] | Iterable[tuple[K, V]]) -> Iterator[tuple[K, V]]:
    if isinstance(pairs, Mapping):
        return iter(cast("Mapping[K, V]", pairs).items())
    return iter(pairs)


def _unzip(part: list[tuple[Any, Any]], first: int) -> tuple[list[Any], list[Any]]:
    try:
        return [key for key, _ in part], [value for _, value in part]
    except (TypeError, ValueError):
        index = next(at for at, pair in enumerate(part) if not _is_pair(pair))
        error = TypeMismatch(f"element {first + index} is no (key, value) pair: {part[index]!r}")
        raise BadElement(first + index, error) from None


def _is_pair(pair: object) -> bool:
    try:
        _, _ = pair  # type: ignore[misc]  # that it may not unpack is the question
    except (TypeError, ValueError):
        return False
    return True


def _column(codec: Codec[Any], values: list[Any], first: int, what: str) -> bytes:
    try:
        column = codec.encode_many(values)
    except Exception as error:
        culprit = _culprit(codec, values, first, what, error)
        if culprit is None:
            raise
        raise culprit from None
    if len(column) != len(values) * codec.stride:
        at, size = _misfit(codec, values)
        raise BadElement(
            first + at,
            SizeMismatch(
                f"{what} of element {first + at}: {codec!r} made {size} bytes, {codec.stride} are due"
            ),
        )
    return column


def _misfit(codec: Codec[Any], values: list[Any]) -> tuple[int, int]:
    """Of the first value that becomes too few or too many bytes: its place, and how many."""
    sizes = (len(codec.encode(value)) for value in values)
    return next(((at, size) for at, size in enumerate(sizes) if size != codec.stride), (0, 0))


def _culprit(
    codec: Codec[Any], values: list[Any], first: int, what: str, error: Exception
) -> BadElement | None:
    """Which element ``error`` is about; None, and a note of it, where it is a codec's own exception."""
    for at, value in enumerate(values):
        try:
            codec.encode(value)
        except Misuse as found:
            kind = type(found)
            return BadElement(first + at, kind(f"{what} of element {first + at}: {found}"))
        except Exception:  # the same again, now with its place
            error.add_note(f"{what} of element {first + at}")
            return None
    return BadElement(first, error) if isinstance(error, MapdError) else None

"""Many elements cut into messages that both sides accept. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from operator import index
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, cast

from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, ATOMICS, TAKES_VALUE, Op
from mapd_client import arrays
from mapd_client.codec import BadElement, Codec, as_bytes, shown
from mapd_client.errors import MapdError, Misuse, SizeMismatch, TypeMismatch
from mapd_client.failures import Asked
from mapd_client.info import Limits, MapInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_FIELD: Final = 8
"""Bytes of what an atomic works on, at most."""

TAKES_TWO: Final = frozenset({Op.COMPARE_EXCHANGE, Op.COMPARE_UPDATE})
"""Operations that take what is expected beside what is new."""

ENVELOPE: Final = limits.MESSAGE_BYTES - limits.COLUMN_BYTES
"""What is left of a message for everything around its columns."""


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


def message_elements(op: Op, info: MapInfo, bounds: Limits, asked: Asked) -> int:
    """How many elements of an operation one message carries, there and back.

    Raises:
        SizeMismatch: not even one; the message gives both numbers.
    """
    value = _FIELD if op in ATOMICS else info.value_stride
    taken = 2 * value if op in TAKES_TWO else value
    question = info.key_stride + (taken if op in TAKES_VALUE else 0)
    answer = 1 + (value if op in ANSWERS_VALUE else 0)
    budget = min(limits.COLUMN_BYTES, bounds.message_bytes - ENVELOPE)
    return min(bounds.batch_elements, _fitting(max(question, answer), budget, asked))


def chunk_elements(info: MapInfo, bounds: Limits, asked: Asked) -> int:
    """How many elements one message of a load carries; raises as ``message_elements``.

    An element larger than a chunk, yet not than a message, travels alone.
    """
    element = info.key_stride + info.value_stride
    budget = min(limits.COLUMN_BYTES, bounds.message_bytes - ENVELOPE)
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


def of_keys(keys: Iterable[K] | NDArray[Any], codec: Codec[K], per_message: int) -> Iterator[Batch]:
    """Keys in order, encoded a message at a time; raises BadElement, and what ``keys`` raises."""
    for first, count, column in _parts(keys, codec, "key", per_message):
        yield Batch(first, count, column)


def of_values(values: Iterable[V], codec: Codec[V], per_message: int) -> Iterator[Batch]:
    """Values without keys in order, encoded a message at a time; raises BadElement."""
    for first, count, column in _parts(values, codec, "value", per_message):
        yield Batch(first, count, b"", column)


def of_pairs(
    items: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]],
    key: Codec[K],
    value: Codec[V],
    per_message: int,
) -> Iterator[Batch]:
    """Pairs in order, encoded a message at a time; raises BadElement, and what ``items`` raises."""
    if _are_arrays(items):
        yield from of_columns(*items, key, value, per_message, "value")
        return
    source = _pairs(cast("Mapping[K, V] | Iterable[tuple[K, V]]", items))
    first = 0
    while part := list(islice(source, per_message)):
        keys, values = _unzip(part, first)
        yield Batch(
            first, len(part), _column(key, keys, first, "key"), _column(value, values, first, "value")
        )
        first += len(part)


def of_columns(
    keys: Sequence[K] | NDArray[Any],
    values: Sequence[V] | NDArray[Any] | int,
    key: Codec[K],
    value: Codec[V],
    per_message: int,
    what: str,
) -> Iterator[Batch]:
    """Keys, and as many values in the same order, encoded a message at a time.

    Args:
        keys: a sequence, or an array.
        values: likewise, by itself; one int, numpy's too, is the same for all keys.
        key: codec of the keys.
        value: codec of the values, which may be another than the map's.
        per_message: elements of one message.
        what: one of the values, for messages: "value", "operand".

    Raises:
        BadElement: an element; or not as many values as keys.
    """
    one = _one_int(values)
    if one is not None:
        (same,) = _parts([one], cast("Codec[int]", value), what, 1)
        for first, count, packed in _parts(keys, key, "key", per_message):
            yield Batch(first, count, packed, same[2] * count)
        return
    each = cast("Sequence[V] | NDArray[Any]", values)
    counts = (
        _length(keys, "key", "a sequence or an array is taken"),
        _length(each, what, "one int for all keys, or a sequence or an array of one for each, is taken"),
    )
    if counts[0] != counts[1]:
        raise BadElement(
            0, SizeMismatch(f"{counts[0]} keys and {counts[1]} {what}s: as many of both are due")
        )
    parts = zip(_parts(keys, key, "key", per_message), _parts(each, value, what, per_message), strict=True)
    for (first, count, packed), (_, _, operands) in parts:
        yield Batch(first, count, packed, operands)


def _one_int(values: object) -> int | None:
    """What stands for all keys; None for an array, which may have __index__ as well, and what is no int."""
    if arrays.is_array(values) or not hasattr(values, "__index__"):
        return None
    try:
        return index(cast("int", values))
    except TypeError:
        return None


def _length(elements: object, what: str, taken: str) -> int:
    if arrays.is_array(elements) and not elements.ndim:
        raise BadElement(
            0, SizeMismatch(f"{what}s: an array without axes; its first one counts the elements")
        )
    if not isinstance(elements, Sized):
        raise _no_elements(elements, what, taken)
    return len(elements)


def _no_elements(given: object, what: str, taken: str) -> BadElement:
    text = shown(given) if isinstance(given, int) else repr(given)
    return BadElement(0, TypeMismatch(f"{what}s: {text} ({type(given).__name__}): {taken}"))


def _iterates(source: object) -> bool:
    # Not by iter(): a TypeError that the caller's own __iter__ raises is passed on as it is.
    return isinstance(source, Iterable) or hasattr(type(source), "__getitem__")


def _parts(
    source: Iterable[T] | NDArray[Any], codec: Codec[T], what: str, per_message: int
) -> Iterator[tuple[int, int, bytes]]:
    """What goes into one message after the other: the first's place, how many, and their packed column."""
    first = 0
    if arrays.is_array(source):
        column, stride = arrays.column(source, codec, what), codec.stride
        for first in range(0, len(source), per_message):
            count = min(per_message, len(source) - first)
            yield first, count, bytes(column[first * stride : (first + count) * stride])
        return
    if not _iterates(source):
        raise _no_elements(source, what, "an iterable or a numpy array is taken")
    elements = iter(source)
    while part := list(islice(elements, per_message)):
        yield first, len(part), _column(codec, part, first, what)
        first += len(part)


def _are_arrays(items: object) -> TypeGuard[tuple[NDArray[Any], NDArray[Any]]]:
    """Whether it is (keys, values) as arrays, and no sequence of pairs; raises BadElement if only one is."""
    if not isinstance(items, tuple):
        return False
    parts = cast("tuple[object, ...]", items)
    others = [part for part in parts if not arrays.is_array(part)]
    if len(parts) != 2 or len(others) == 2:
        return False
    if others:
        kind = type(others[0]).__name__
        error = TypeMismatch(f"(keys, values): an array and a {kind}; give both as numpy arrays, or pairs")
        raise BadElement(0, error)
    return True


def _pairs(pairs: Mapping[K, V] | Iterable[tuple[K, V]]) -> Iterator[tuple[K, V]]:
    if isinstance(pairs, Mapping):
        return iter(cast("Mapping[K, V]", pairs).items())
    if not _iterates(pairs):
        raise _no_elements(pairs, "pair", "a mapping, (key, value) pairs or two numpy arrays are taken")
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
        if type(column) is not bytes:
            column = as_bytes(codec, column, "encode_many")
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
            as_bytes(codec, codec.encode(value))
        except Misuse as found:
            kind = type(found)
            return BadElement(first + at, kind(f"{what} of element {first + at}: {found}"))
        except Exception:  # the same again, now with its place
            error.add_note(f"{what} of element {first + at}")
            return None
    return BadElement(first, error) if isinstance(error, MapdError) else None

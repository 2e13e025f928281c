"""numpy arrays over packed columns, and packed columns of numpy arrays. Sans-I/O.

numpy is imported where it is used; the client does without it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard, cast

from mapd_api.layout import round_up8
from mapd_client.codec import BadElement, Buffer, Bytes, Codec, shown
from mapd_client.errors import Misuse, SizeMismatch, TypeMismatch, Unsupported
from mapd_client.percpu import PerCpuReduced, has_slots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INTEGERS: Final = "iu"


class Found(NamedTuple):
    """What ``lookup_many`` found for an array of keys.

    Attributes:
        values: one for each key, in their order; zeros where the key was not there.
        present: whether it was there.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]


def is_array(thing: object) -> TypeGuard[NDArray[Any]]:
    """Whether it is a numpy array. Imports nothing: who has one has imported numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.ndarray)


def over(column: Buffer, codec: Codec[Any], count: int) -> NDArray[Any]:
    """``count`` elements of a column as an array over its memory; read-only if that is.

    Raises:
        Unsupported: numpy cannot read what the codec describes, or is not installed.
    """
    dtype = dtype_of(codec)
    import numpy as np

    if not has_slots(codec):
        return np.ndarray((count,), dtype, column)
    slot = round_up8(codec.size)
    shape, strides = (count, codec.stride // max(slot, 1)), (codec.stride, slot)
    return np.ndarray(shape, dtype, column, strides=strides)


def dtype_of(codec: Codec[Any]) -> np.dtype[Any]:
    """One element (of one CPU) as numpy reads it; raises Unsupported as ``over``."""
    try:
        import numpy as np
    except ImportError:
        raise Unsupported(
            "arrays need numpy, which is not installed: pip install 'bpf-mapd[numpy]'"
        ) from None
    if isinstance(codec, PerCpuReduced):
        raise Unsupported(
            f"{codec!r} is no array, but all CPUs' values: open the map with {codec.per_cpu!r} and reduce the array's "
            f"axis 1, or ask for chunks(reduce=[Reduce({codec.kind!r}, ...)])"
        )
    if codec.dtype is None:
        raise Unsupported(
            f"{codec!r} cannot be read by numpy: it has no dtype (Codec.dtype); decode its elements instead"
        )
    dtype = np.dtype(codec.dtype)
    if dtype.itemsize != codec.size or dtype.hasobject:
        raise Misuse(
            f"{codec!r}: its dtype {dtype} has {dtype.itemsize} bytes an element, {codec.size} are due"
        )
    return dtype


def column(array: NDArray[Any], codec: Codec[Any], what: str) -> memoryview:
    """An array as the packed column of its elements: its own memory where that is one already.

    Integers of another type are converted if each number fits; other dtypes must have the codec's
    layout, whatever their fields are called. Padding is zeros, as in what a codec encodes. An empty array of one
    axis may have any dtype.

    Args:
        array: elements along its first axis.
        codec: how the map has them.
        what: one of the elements, for messages: "key".

    Raises:
        BadElement: a number that does not fit, at its place. At place 0 what is wrong with the array: TypeMismatch
            for another kind of numbers, or records of another layout; SizeMismatch for another shape; Unsupported
            as ``over``.
    """
    try:
        return _column(array, codec, what)
    except Misuse as error:
        raise BadElement(0, error) from None


def _column(array: NDArray[Any], codec: Codec[Any], what: str) -> memoryview:
    import numpy as np

    if isinstance(array, np.ma.MaskedArray):
        raise TypeMismatch(f"{what}s: a masked array; pass the elements that count: array.compressed()")
    empty = array.ndim == 1 and not array.size  # numpy makes an empty list float64: its dtype says nothing
    if isinstance(codec, Bytes):
        return memoryview(b"") if empty else _packed(_raw(array, codec, what))
    dtype = dtype_of(codec)
    if empty:
        return memoryview(b"")
    shape = dtype.shape
    if has_slots(codec):
        shape = (codec.stride // round_up8(codec.size), *shape)
    if not array.ndim or array.shape[1:] != shape:
        due = ", ".join(("n", *map(str, shape))) + ("" if shape else ",")
        raise SizeMismatch(f"{what}s: an array of shape {array.shape}, {codec!r} takes ({due})")
    array = _converted(array, dtype.base, codec, what)
    if has_slots(codec) and codec.size % 8:
        padded = np.zeros(len(array) * codec.stride, np.uint8)
        over(padded.data, codec, len(array))[...] = array
        array = padded
    return _packed(array)


def _raw(array: NDArray[Any], codec: Bytes, what: str) -> NDArray[Any]:
    """An array whose elements are so many bytes, whatever they mean."""
    each = prod(array.shape[1:]) * array.itemsize
    if not array.ndim or each != codec.size or array.dtype.hasobject:
        raise SizeMismatch(
            f"{what}s: an array of shape {array.shape} and dtype {array.dtype}, {codec!r} takes {codec.size} bytes "
            "for each element of its first axis"
        )
    return array


def _converted(array: NDArray[Any], dtype: np.dtype[Any], codec: Codec[Any], what: str) -> NDArray[Any]:
    """The array in that dtype; itself where it has it."""
    import numpy as np

    given = array.dtype
    if dtype.names is not None:
        if not _same_layout(given, dtype):
            raise TypeMismatch(
                f"{what}s: an array of dtype {given}, {codec!r} takes {dtype}; array.astype() of that dtype converts"
            )
        if not _has_padding(dtype):
            return array
        # What lies in an array's padding is left over from anything, and a hash map compares it in keys.
        clean: NDArray[Any] = np.zeros(array.shape, dtype)
        _copy_fields(clean, array)
        return clean
    if given == dtype:
        return array
    if dtype.kind in _INTEGERS:
        if given.kind not in _INTEGERS:
            raise TypeMismatch(f"{what}s: {codec!r} takes integers, not an array of dtype {given}")
        _check_range(array, dtype, codec, what)
        if given.itemsize == dtype.itemsize and given.isnative == dtype.isnative:
            return array.view(dtype)  # the same bytes: int64 of no negative numbers
    elif not np.can_cast(given, dtype, "same_kind"):
        raise TypeMismatch(f"{what}s: an array of dtype {given}, {codec!r} takes {dtype}")
    return array.astype(dtype)


def _check_range(array: NDArray[Any], dtype: np.dtype[Any], codec: Codec[Any], what: str) -> None:
    import numpy as np

    bounds = np.iinfo(dtype)
    low, high = int(bounds.min), int(bounds.max)
    if not array.size or (low <= int(array.min()) and int(array.max()) <= high):
        return
    flat: list[int] = array.reshape(-1).tolist()
    at, number = next((at, one) for at, one in enumerate(flat) if not low <= one <= high)
    index = at // prod(array.shape[1:])
    raise BadElement(
        index,
        SizeMismatch(
            f"{what} of element {index}: {shown(number)} is outside {codec!r}: {dtype.itemsize} bytes hold "
            f"{low} to {high}"
        ),
    )


def _same_layout(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    return one.itemsize == other.itemsize and _fields(one) == _fields(other)


def _fields(dtype: np.dtype[Any]) -> list[tuple[np.dtype[Any], int]]:
    """Type and offset of each field of a record, in order."""
    fields = cast("Mapping[str, tuple[Any, ...]]", dtype.fields or {})
    return [(fields[name][0], fields[name][1]) for name in dtype.names or ()]


def _has_padding(dtype: np.dtype[Any]) -> bool:
    fields = sorted(_fields(dtype), key=lambda field: field[1])
    end = 0
    for field, offset in fields:  # those of a union lie over each other
        if offset > end:
            return True
        end = max(end, offset + field.itemsize)
    return bool(fields) and (end != dtype.itemsize or any(_has_padding(field.base) for field, _ in fields))


def _copy_fields(target: NDArray[Any], source: NDArray[Any]) -> None:
    """What is in the fields of records, and nothing of what lies between them."""
    if target.dtype.names is None or source.dtype.names is None:
        target[...] = source
        return
    for mine, given in zip(target.dtype.names, source.dtype.names, strict=True):
        _copy_fields(target[mine], source[given])


def _packed(array: NDArray[Any]) -> memoryview:
    """The memory of an array whose rows lie one after the other; of a copy where they do not."""
    import numpy as np

    if not array.size:
        return memoryview(b"")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

"""Codecs: between Python values and the bytes that the kernel holds. Sans-I/O.

A codec describes one key or value. Those of integers are in the byte order of the daemon's host;
``bind`` fixes it (and the number of CPUs) when a map is opened. Bulk methods work on packed
columns, without slicing element by element where the format allows it.
"""

from __future__ import annotations

import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from mapd_client.errors import MapdError, Misuse, SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

T = TypeVar("T")

Buffer: TypeAlias = bytes | bytearray | memoryview

ORDER: Final[dict[ByteOrder, str]] = {"little": "<", "big": ">"}
"""As the struct module and numpy write it."""

_Letter: TypeAlias = Literal["b", "B", "h", "H", "i", "I", "q", "Q"]
_SIGNED: Final[dict[int, _Letter]] = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNSIGNED: Final[dict[int, _Letter]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def shown(number: object) -> str:
    """A number for a message. Python refuses to write ints of more than 4,300 digits."""
    if isinstance(number, int) and number.bit_length() > 128:
        return f"an int of {number.bit_length()} bits"
    return f"{number:g}" if isinstance(number, float) else str(number)


class BadElement(Exception):
    """Internal: an element that cannot be encoded, at its place; becomes ``error`` outside."""

    def __init__(self, index: int, error: MapdError) -> None:
        super().__init__(f"element {index}: {error}")
        self.index = index
        self.error = error


class Codec(ABC, Generic[T]):
    """How one key or value lies in memory.

    Attributes:
        size: bytes, as the map's key_size or value_size.
        stride: bytes in a packed column; differs from ``size`` for per-CPU values only.
    """

    size: int

    @property
    def stride(self) -> int:
        """Bytes of one element in a packed column."""
        return self.size

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[T]:
        """This codec for a daemon whose host has that byte order and so many possible CPUs."""
        del byteorder, possible_cpus
        return self

    @property
    def dtype(self) -> DTypeLike | None:
        """What ``numpy.dtype()`` takes for one element of ``size`` bytes; None: not to be read by numpy.

        A codec of one's own that has one travels as arrays too. Needs no numpy by itself.
        """
        return None

    @abstractmethod
    def encode(self, value: T) -> bytes:
        """One element of ``stride`` bytes.

        Raises:
            TypeMismatch: the value is of another type.
            SizeMismatch: it does not fit.
        """

    @abstractmethod
    def decode_many(self, column: Buffer) -> list[T]:
        """The elements of a column; its length is a multiple of ``stride``.

        Raises:
            SizeMismatch: it is not.
            TypeMismatch: bytes that this codec cannot express.
        """

    def decode(self, data: Buffer) -> T:
        """One element of ``stride`` bytes; raises as ``decode_many``."""
        if len(data) != self.stride:
            raise SizeMismatch(f"{self!r} reads {self.stride} bytes, not {len(data)}")
        return self.decode_many(data)[0]

    def encode_many(self, values: Iterable[T]) -> bytes:
        """A packed column; raises as ``encode``."""
        return b"".join(map(self.encode, values))

    def _whole(self, column: Buffer) -> memoryview:
        view = memoryview(column)
        if not self.stride or view.nbytes % self.stride:
            raise SizeMismatch(f"a column of {view.nbytes} bytes is not made of {self.stride}-byte elements")
        return view


def as_bytes(codec: Codec[Any], data: object, method: str = "encode") -> bytes:
    """A copy of what a codec of the caller's own has made: it may fill the same buffer again before this one leaves.

    Raises:
        TypeMismatch: no bytes.
    """
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]  # whether it is a buffer is the question
    except TypeError:
        raise TypeMismatch(f"{codec!r}.{method}() gave {type(data).__name__}, not bytes") from None


def decoded(codec: Codec[T], column: Buffer, count: int) -> list[T]:
    """The ``count`` elements of a column.

    A codec of the caller's own may give fewer, and a StopIteration of its own would end whoever iterates as if there
    were no more.

    Raises:
        TypeMismatch: it gave another number of elements.
        RuntimeError: it raised what ends a generator, or a task.
        Exception: whatever else it raises.
    """
    try:
        made = cast("Iterable[T] | None", codec.decode_many(column))
        values = made if isinstance(made, list) else list[T](() if made is None else made)
    except BaseException as error:
        if harmless(error):
            raise
        raise RuntimeError(f"{codec!r} raised {error!r}") from error
    if len(values) != count:
        raise TypeMismatch(f"{codec!r}.decode_many() gave {len(values)} elements of a column of {count}")
    return values


def harmless(error: BaseException) -> bool:
    """Whether what a codec of the caller's own raised may be passed on: it ends no generator, and no task."""
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        return False
    return isinstance(error, (Exception, KeyboardInterrupt, SystemExit))


class Bytes(Codec[bytes]):
    """``size`` bytes as they are.

    Raises:
        SizeMismatch: negative size.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise SizeMismatch(f"Bytes({size}): no negative number of bytes")
        self.size = size

    def __repr__(self) -> str:
        return f"Bytes({self.size})"

    @property
    def dtype(self) -> DTypeLike:
        """A row of ``size`` numbers from 0 to 255: numpy's own bytes ("S") end before trailing NULs."""
        return ("u1", (self.size,))

    def encode(self, value: bytes) -> bytes:  # noqa: D102 - as Codec
        # Whatever has the buffer interface will do; str and int have not.
        try:
            data = bytes(memoryview(value))
        except TypeError:
            raise TypeMismatch(f"{self!r} takes bytes, not {type(value).__name__}") from None
        if len(data) != self.size:
            raise SizeMismatch(f"{len(data)} bytes given, {self.size} needed")
        return data

    def decode_many(self, column: Buffer) -> list[bytes]:  # noqa: D102 - as Codec
        if not self.size:
            return []
        return [data for (data,) in struct.iter_unpack(f"{self.size}s", self._whole(column))]


class Int(Codec[int]):
    """An integer of 1, 2, 4 or 8 bytes: U8 to U64 and I8 to I64; ``signed``: two's complement."""

    def __init__(self, size: int, *, signed: bool, byteorder: ByteOrder = "little") -> None:
        self.size = size
        self.signed = signed
        self._byteorder: ByteOrder = byteorder
        self._letter: _Letter = _SIGNED[size] if signed else _UNSIGNED[size]
        self._one = struct.Struct(ORDER[byteorder] + self._letter)

    def __repr__(self) -> str:
        return f"{'I' if self.signed else 'U'}{self.size * 8}"

    @property
    def dtype(self) -> DTypeLike:
        """The integer of this size, in the byte order of the daemon's host."""
        return f"{ORDER[self._byteorder]}{'i' if self.signed else 'u'}{self.size}"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[int]:  # noqa: ARG002, D102 - as Codec
        return (
            self if byteorder == self._byteorder else Int(self.size, signed=self.signed, byteorder=byteorder)
        )

    def encode(self, value: int) -> bytes:  # noqa: D102 - as Codec
        try:
            return self._one.pack(value)
        except struct.error:
            raise self._refusal(value) from None

    def encode_many(self, values: Iterable[int]) -> bytes:  # noqa: D102 - as Codec
        numbers = values if isinstance(values, (list, tuple)) else list(values)
        try:
            return struct.pack(f"{ORDER[self._byteorder]}{len(numbers)}{self._letter}", *numbers)
        except struct.error:
            return super().encode_many(numbers)  # says which

    def decode_many(self, column: Buffer) -> list[int]:  # noqa: D102 - as Codec
        view = self._whole(column)
        if self._byteorder == sys.byteorder:
            # Half the time of struct, which reads a byte at a time where the order is given.
            return view.cast("B").cast(self._letter).tolist()
        return list(struct.unpack(f"{ORDER[self._byteorder]}{view.nbytes // self.size}{self._letter}", view))

    def _refusal(self, value: object) -> Misuse:
        if not hasattr(value, "__index__"):
            return TypeMismatch(f"{self!r} takes an int, not {type(value).__name__}")
        low, high = (
            (-(1 << self.size * 8 - 1), (1 << self.size * 8 - 1) - 1)
            if self.signed
            else (
                0,
                (1 << self.size * 8) - 1,
            )
        )
        return SizeMismatch(f"{shown(value)} is outside {self!r}: {self.size} bytes hold {low} to {high}")


U8: Final[Codec[int]] = Int(1, signed=False)
U16: Final[Codec[int]] = Int(2, signed=False)
U32: Final[Codec[int]] = Int(4, signed=False)
U64: Final[Codec[int]] = Int(8, signed=False)
I8: Final[Codec[int]] = Int(1, signed=True)
I16: Final[Codec[int]] = Int(2, signed=True)
I32: Final[Codec[int]] = Int(4, signed=True)
I64: Final[Codec[int]] = Int(8, signed=True)

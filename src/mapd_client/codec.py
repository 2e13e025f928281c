"""Codecs: between Python values and the bytes that the kernel holds. Sans-I/O.

A codec describes one key or value. Those of integers are in the byte order of the daemon's host;
``bind`` fixes it (and the number of CPUs) when a map is opened. Bulk methods work on packed
columns, without slicing element by element where the format allows it.
"""

from __future__ import annotations

import re
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypeGuard, TypeVar, cast

from mapd_api.layout import round_up8
from mapd_client.errors import Misuse, SizeMismatch, TypeMismatch, Unsupported
from mapd_client.info import ByteOrder

T = TypeVar("T")

Buffer: TypeAlias = bytes | bytearray | memoryview

_ORDER: Final[dict[ByteOrder, str]] = {"little": "<", "big": ">"}
_Letter: TypeAlias = Literal["b", "B", "h", "H", "i", "I", "q", "Q"]
_SIGNED: Final[dict[int, _Letter]] = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNSIGNED: Final[dict[int, _Letter]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def shown(number: object) -> str:
    """A number for a message. Python refuses to write ints of more than 4,300 digits."""
    if isinstance(number, int) and number.bit_length() > 128:
        return f"an int of {number.bit_length()} bits"
    return f"{number:g}" if isinstance(number, float) else str(number)


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
    """An integer of 1, 2, 4 or 8 bytes: U8 to U64 and I8 to I64."""

    def __init__(self, size: int, *, signed: bool, byteorder: ByteOrder = "little") -> None:
        self.size = size
        self._signed = signed
        self._byteorder: ByteOrder = byteorder
        self._letter: _Letter = _SIGNED[size] if signed else _UNSIGNED[size]
        self._one = struct.Struct(_ORDER[byteorder] + self._letter)

    def __repr__(self) -> str:
        return f"{'I' if self._signed else 'U'}{self.size * 8}"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[int]:  # noqa: ARG002, D102 - as Codec
        return (
            self if byteorder == self._byteorder else Int(self.size, signed=self._signed, byteorder=byteorder)
        )

    def encode(self, value: int) -> bytes:  # noqa: D102 - as Codec
        try:
            return self._one.pack(value)
        except struct.error:
            raise self._refusal(value) from None

    def encode_many(self, values: Iterable[int]) -> bytes:  # noqa: D102 - as Codec
        numbers = values if isinstance(values, (list, tuple)) else list(values)
        try:
            return struct.pack(f"{_ORDER[self._byteorder]}{len(numbers)}{self._letter}", *numbers)
        except struct.error:
            return super().encode_many(numbers)  # says which

    def decode_many(self, column: Buffer) -> list[int]:  # noqa: D102 - as Codec
        view = self._whole(column)
        if self._byteorder == sys.byteorder:
            # Half the time of struct, which reads a byte at a time where the order is given.
            return view.cast("B").cast(self._letter).tolist()
        return list(struct.unpack(f"{_ORDER[self._byteorder]}{view.nbytes // self.size}{self._letter}", view))

    def _refusal(self, value: object) -> Misuse:
        if not hasattr(value, "__index__"):
            return TypeMismatch(f"{self!r} takes an int, not {type(value).__name__}")
        low, high = (
            (-(1 << self.size * 8 - 1), (1 << self.size * 8 - 1) - 1)
            if self._signed
            else (
                0,
                (1 << self.size * 8) - 1,
            )
        )
        return SizeMismatch(f"{shown(value)} is outside {self!r}: {self.size} bytes hold {low} to {high}")


class Struct(Codec[tuple[Any, ...]]):
    """Several fields, written as for the struct module; the value is a tuple.

    ``"="`` is the byte order of the daemon's host without padding, ``"<"``, ``">"`` and ``"!"`` fix it.
    Without any of these the layout is this host's C layout, with its padding: the kernel's own where
    client and daemon are of one architecture, and refused where their byte orders differ. Bytes for
    ``"4s"`` may be fewer than 4, then NULs follow; more are refused.

    Raises:
        TypeMismatch: no such format.
    """

    def __init__(self, format: str) -> None:
        self._format = format
        try:
            self._struct = struct.Struct(format)
        except struct.error as error:
            raise TypeMismatch(f"{format!r} is no struct format: {error}") from None
        self.size = self._struct.size
        self._fields = _struct_fields(format)
        # struct cuts what is too long for "4s" without a word.
        self._texts = [(at, room) for at, (letter, room) in enumerate(self._fields) if letter in "sp"]

    def __repr__(self) -> str:
        return f"Struct({self._format!r})"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[tuple[Any, ...]]:  # noqa: ARG002, D102 - as Codec
        if byteorder == sys.byteorder or self._format[:1] in ("<", ">", "!"):
            return self
        if self._format[:1] != "=":
            raise Unsupported(
                f"{self!r} is laid out as on this {sys.byteorder}-endian host, the daemon's is "
                f"{byteorder}-endian: begin the format with '=' and spell the padding out"
            )
        return Struct(_ORDER[byteorder] + self._format[1:])

    def encode(self, value: tuple[Any, ...]) -> bytes:  # noqa: D102 - as Codec
        try:
            data = self._struct.pack(*value)
        except (struct.error, TypeError, OverflowError) as error:
            kind = SizeMismatch if self._fits_in_kind(value) else TypeMismatch
            raise kind(f"{self!r} cannot hold {value!r}: {error}") from None
        for at, room in self._texts:
            if len(value[at]) > room:
                raise SizeMismatch(f"{self!r}: field {at} has {len(value[at])} bytes, at most {room} fit")
        return data

    def _fits_in_kind(self, value: object) -> bool:
        """Whether only numbers or lengths are wrong: as many fields as are due, each of its kind."""
        if not isinstance(value, (tuple, list)):
            return False
        fields = cast("Sequence[object]", value)
        return len(fields) == len(self._fields) and all(
            isinstance(field, (bytes, bytearray))
            if letter in "spc"
            else hasattr(field, _NUMBER[letter in "efd"])
            for field, (letter, _) in zip(fields, self._fields, strict=True)
        )

    def decode_many(self, column: Buffer) -> list[tuple[Any, ...]]:  # noqa: D102 - as Codec
        return list(self._struct.iter_unpack(self._whole(column)))


_NUMBER: Final = ("__index__", "__float__")


def _struct_fields(format: str) -> list[tuple[str, int]]:
    """The letter of each value of a struct format, and how many bytes fit into it where it is text."""
    fields: list[tuple[str, int]] = []
    for count, letter in re.findall(r"([0-9]*)([a-zA-Z?])", format):
        number = int(count or 1)
        if letter in "sp":
            fields.append((letter, number if letter == "s" else max(number - 1, 0)))
        elif letter != "x":
            fields.extend([(letter, 0)] * number)
    return fields


class PerCpu(Codec[list[T]]):
    """A per-CPU value: one element for each possible CPU, CPU 0 first.

    ``PerCpu(U64)`` is a list of as many ints as the daemon's host has possible CPUs (an update needs
    just as many); ``PerCpu(U64).sum()`` is their sum, for reading.
    """

    def __init__(self, inner: Codec[T], possible_cpus: int | None = None) -> None:
        if isinstance(inner, (PerCpu, PerCpuSum)):
            raise TypeMismatch(f"PerCpu({inner!r}): a value is per CPU once")
        self.inner = inner
        self.size = inner.size
        self._cpus = possible_cpus

    def __repr__(self) -> str:
        return f"PerCpu({self.inner!r})"

    @property
    def stride(self) -> int:
        """Bytes of one element in a column: a slot of round_up(size, 8) for each possible CPU.

        Raises:
            Misuse: not bound yet.
        """
        return round_up8(self.size) * self._bound

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> PerCpu[T]:
        """As Codec.bind; fixes the number of slots."""
        return PerCpu(self.inner.bind(byteorder, possible_cpus), possible_cpus)

    def sum(self: PerCpu[int]) -> Codec[int]:
        """The sum over all CPUs, as one int. Reads only: a sum cannot be written back."""
        return PerCpuSum(self)

    def encode(self, value: list[T]) -> bytes:
        """Every CPU's slot; raises SizeMismatch unless there is one element per possible CPU."""
        given = cast("object", value)  # as a caller without a type checker may pass it
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes, bytearray)):
            raise TypeMismatch(f"{self!r} takes a list, an element for each CPU, not {type(given).__name__}")
        if len(value) != self._bound:
            raise SizeMismatch(f"{len(value)} elements given, {self._bound} needed: one per possible CPU")
        padding = bytes(round_up8(self.size) - self.size)
        return b"".join(self.inner.encode(one) + padding for one in value)

    def decode_many(self, column: Buffer) -> list[list[T]]:  # noqa: D102 - as Codec
        flat = self._flat(column)
        cpus = self._bound
        return [flat[at : at + cpus] for at in range(0, len(flat), cpus)]

    @property
    def _bound(self) -> int:
        if self._cpus is None:
            raise Misuse(f"{self!r} is used before a map was opened with it: the number of CPUs is unknown")
        return self._cpus

    def _flat(self, column: Buffer) -> list[T]:
        view = self._whole(column)
        slot = round_up8(self.size)
        if slot == self.size:
            return self.inner.decode_many(view)
        picked = b"".join(view[at : at + self.size] for at in range(0, view.nbytes, slot))
        return self.inner.decode_many(picked)


class PerCpuSum(Codec[int]):
    """The sum over all CPUs of a per-CPU integer: ``PerCpu(U64).sum()``."""

    def __init__(self, per_cpu: PerCpu[int]) -> None:
        self.per_cpu = per_cpu
        self.size = per_cpu.size

    def __repr__(self) -> str:
        return f"{self.per_cpu!r}.sum()"

    @property
    def stride(self) -> int:
        """As PerCpu.stride."""
        return self.per_cpu.stride

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Self:
        """As Codec.bind."""
        return type(self)(self.per_cpu.bind(byteorder, possible_cpus))

    def encode(self, value: int) -> bytes:
        """Raises TypeMismatch: a sum does not say what each CPU is to hold."""
        raise TypeMismatch(f"{self!r} only reads: write {value} through {self.per_cpu!r}, one int per CPU")

    def decode_many(self, column: Buffer) -> list[int]:  # noqa: D102 - as Codec
        return [sum(slots) for slots in self.per_cpu.decode_many(column)]


U8: Final[Codec[int]] = Int(1, signed=False)
U16: Final[Codec[int]] = Int(2, signed=False)
U32: Final[Codec[int]] = Int(4, signed=False)
U64: Final[Codec[int]] = Int(8, signed=False)
I8: Final[Codec[int]] = Int(1, signed=True)
I16: Final[Codec[int]] = Int(2, signed=True)
I32: Final[Codec[int]] = Int(4, signed=True)
I64: Final[Codec[int]] = Int(8, signed=True)


def _has_slots(codec: Codec[Any]) -> TypeGuard[PerCpu[Any]]:
    return isinstance(codec, PerCpu)


def of_one_cpu(codec: Codec[Any]) -> Codec[Any] | None:
    """The codec of one CPU's slot, None where the codec knows no slots."""
    if isinstance(codec, PerCpuSum):
        return codec.per_cpu.inner
    return codec.inner if _has_slots(codec) else None


def is_per_cpu(codec: Codec[Any]) -> bool:
    """Whether the codec reads every CPU's slot."""
    return isinstance(codec, (PerCpu, PerCpuSum))

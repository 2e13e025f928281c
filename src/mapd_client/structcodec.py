"""Codec of C structs, written as for the struct module. Sans-I/O."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import starmap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from mapd_client.codec import ORDER, Buffer, Codec
from mapd_client.errors import SizeMismatch, TypeMismatch, Unsupported
from mapd_client.info import ByteOrder

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys("bhilqn", "i")
    | dict.fromkeys("BHILQNP", "u")
    | dict.fromkeys("efd", "f")
    | {"?": "b", "c": "S"}
)
"""numpy's kinds of the struct module's letters. It has none for "p", strings with their length before them."""


class Struct(Codec[tuple[Any, ...]]):
    """Several fields, written as for the struct module; the value is a tuple.

    ``"="`` is the byte order of the daemon's host without padding, ``"<"``, ``">"`` and ``"!"`` fix it.
    Without any of these the layout is this host's C layout, with its padding: the kernel's own where
    client and daemon are of one architecture, and refused where their byte orders differ. Bytes for
    ``"4s"`` may be fewer than 4, then NULs follow; more are refused. ``format`` is as it was given.

    Raises:
        TypeMismatch: no such format.
    """

    def __init__(self, format: str) -> None:
        self.format = format
        try:
            self._struct = struct.Struct(format)
        except struct.error as error:
            raise TypeMismatch(f"{format!r} is no struct format: {error}") from None
        self.size = self._struct.size
        self._fields = _struct_fields(format)
        # struct cuts what is too long for "4s" without a word.
        self._texts = [(at, room) for at, (letter, room) in enumerate(self._fields) if letter in "sp"]

    def __repr__(self) -> str:
        return f"Struct({self.format!r})"

    @property
    def dtype(self) -> DTypeLike | None:
        """A record of the same layout; its fields are f0, f1 ..., one for each of the tuple's.

        None where a field has no counterpart ("p"). Bytes ("4s") are numpy's, which end before trailing NULs.
        """
        return _record(self.format)

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[tuple[Any, ...]]:  # noqa: ARG002, D102 - as Codec
        if byteorder == sys.byteorder or self.format[:1] in ("<", ">", "!"):
            return self
        if self.format[:1] != "=":
            raise Unsupported(
                f"{self!r} is laid out as on this {sys.byteorder}-endian host, the daemon's is "
                f"{byteorder}-endian: begin the format with '=' and spell the padding out"
            )
        return Struct(ORDER[byteorder] + self.format[1:])

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

    def encode_many(self, values: Iterable[tuple[Any, ...]]) -> bytes:
        """A packed column; raises as ``encode``."""
        rows = values if isinstance(values, (list, tuple)) else list(values)
        if not self._texts:  # 64 ns a row, against 280 with a call of encode() each
            with suppress(struct.error, TypeError, OverflowError):
                return b"".join(starmap(self._struct.pack, rows))
        return super().encode_many(rows)  # says which

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


def _record(format: str) -> DTypeLike | None:
    """The numpy dtype of a struct format, None if there is none."""
    prefix = format[:1] if format[:1] in "@=<>!" else ""
    order = {"": "=", "@": "=", "!": ">"}.get(prefix, prefix)
    formats: list[str] = []
    offsets: list[int] = []
    for token in re.finditer(r"([0-9]*)([a-zA-Z?])", format):
        number, letter = int(token[1] or 1), token[2]
        end = struct.calcsize(format[: token.end()])
        if letter == "s":
            formats.append(f"S{number}")
            offsets.append(end - number)
        elif letter in _KINDS:
            size = struct.calcsize(prefix + letter)
            formats += [f"{order}{_KINDS[letter]}{size}"] * number
            offsets += range(end - number * size, end, size)
        elif letter != "x":
            return None
    names = [f"f{at}" for at in range(len(formats))]
    itemsize = struct.calcsize(format)
    return {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}

"""Codecs of parts: arrays, and what they share with records. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from mapd_client.codec import Buffer, Codec
from mapd_client.errors import Misuse, SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Array, Layout
from mapd_client.tables.dtypes import dtype_of_layout
from mapd_client.typed.naming import Wrong, refused

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

BYTES: Final = (bytes, bytearray, memoryview)


class Composite(Codec[Any]):
    """A codec of parts, whose errors say which of them."""

    layout: Layout
    path: str
    rebind: Callable[[ByteOrder, int], Codec[Any]] | None = None
    """Compiles it for another host; None for a part of another one, which is compiled with that."""
    hints: Mapping[str, Codec[Any]] = MappingProxyType({})
    """The codecs that hints gave its fields, bound, by path; where ``rebind`` is."""
    byteorder: ByteOrder = "little"
    """Of the host that it was compiled for; where ``rebind`` is."""

    @property
    def dtype(self) -> DTypeLike:
        """Every field at its place, by its type; hints have no say."""
        return dtype_of_layout(self.layout, self.byteorder)

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        return self.rebind(byteorder, possible_cpus) if self.rebind else self

    def pack(self, value: Any) -> bytes:
        """As ``encode``; raises Wrong for a part of it, which knows the way down to it."""
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        """Raises SizeMismatch or TypeMismatch, which name the field by its path ("key.saddr")."""
        try:
            return self.pack(value)
        except Wrong as wrong:
            raise wrong.misuse(self.path) from None


def packed(codec: Codec[Any], value: Any, step: str) -> bytes:
    """One part's bytes; raises Wrong with the step that leads to it."""
    try:
        return codec.pack(value) if isinstance(codec, Composite) else codec.encode(value)
    except Wrong as wrong:
        raise wrong.within(step) from None
    except Misuse as error:
        raise Wrong(step, refused(value, error)) from None


class Elements(Composite):
    """A C array: a tuple; any sequence is taken, and bytes where its elements are single bytes."""

    def __init__(self, layout: Array, element: Codec[Any], path: str) -> None:
        self.layout = layout
        self.path = path
        self.size = layout.size
        self._element = element
        self._count = layout.count if element.size else 0

    def __repr__(self) -> str:
        return f"{self._element!r}[{self._count}]"

    def pack(self, value: Any) -> bytes:
        """As Composite.pack."""
        if isinstance(value, BYTES) and self._element.size == 1:
            data = bytes(cast("Buffer", value))
            if len(data) != self.size:
                raise SizeMismatch(f"{len(data)} bytes given, {self.size} needed")
            return data
        if isinstance(value, (str, *BYTES)) or not isinstance(value, Sequence):
            raise TypeMismatch(f"{self!r} takes a list or a tuple, not {_kind(cast('object', value))}")
        elements = cast("Sequence[Any]", cast("object", value))
        if len(elements) != self._count:
            raise SizeMismatch(f"{len(elements)} elements given, {self!r} has {self._count}")
        if not isinstance(self._element, Composite):
            try:
                return self._element.encode_many(elements)
            except Misuse:
                pass  # said again below, with its place
        return b"".join(packed(self._element, one, f"[{at}]") for at, one in enumerate(elements))

    def decode(self, data: Buffer) -> tuple[Any, ...]:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} reads {self.size} bytes, not {len(data)}")
        return tuple(self._element.decode_many(data)) if self._count else ()

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        if not self._count:
            return []
        flat = self._element.decode_many(self._whole(column))
        count = self._count
        return [tuple(flat[at : at + count]) for at in range(0, len(flat), count)]


def _kind(value: object) -> str:
    return type(value).__name__

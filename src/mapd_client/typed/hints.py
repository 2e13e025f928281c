"""What a field means beyond its type: codecs by field path, and by names that files and command lines use. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, runtime_checkable

from mapd_client.codec import Buffer, Codec
from mapd_client.errors import Misuse, TypeMismatch
from mapd_client.facts_codecs import NAMES
from mapd_client.info import ByteOrder
from mapd_client.layouts import Integer, Layout
from mapd_client.netcodec import Cidr4, Cidr6, Ipv4, Ipv6, Mac
from mapd_client.typed.naming import nearest
from mapd_client.typed.scalars import Ordered

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Hint: TypeAlias = Codec[Any] | str
"""A codec of a field's size, or the name of one that is registered."""

Port: Final[Codec[int]] = Ordered(Integer(size=2, signed=False, order="big", type_name="port"), "big")
"""Two bytes in network byte order: a port that a program copied from a header as it was."""

_registered: Final[dict[str, Codec[Any]]] = {
    "ipv4": Ipv4,
    "ipv6": Ipv6,
    "cidr4": Cidr4,
    "cidr6": Cidr6,
    "mac": Mac,
    "port": Port,
    **NAMES,
}


def register(name: str, codec: Codec[Any]) -> None:
    """Let ``name`` stand for a codec in hints, hints files and ``mapctl --as``.

    Raises:
        Misuse: the name stands for another codec already.
    """
    if _registered.setdefault(name, codec) is not codec:
        raise Misuse(f"hint {name!r} is {_registered[name]!r} already")


def known() -> Mapping[str, Codec[Any]]:
    """Every name with its codec."""
    return dict(_registered)


def resolve(hint: Hint) -> Codec[Any]:
    """The codec of a hint.

    Raises:
        Misuse: a name that is not registered.
        TypeMismatch: neither a codec nor a name.
    """
    if isinstance(hint, str):
        if hint not in _registered:
            raise Misuse(f"hint {hint!r} is not known: {nearest(hint, _registered)}")
        return _registered[hint]
    given = cast("object", hint)  # as a caller without a type checker may pass it
    if not isinstance(given, Codec):
        raise TypeMismatch(f"a hint is a codec or its name, not {type(given).__name__} {given!r}")
    return hint


@runtime_checkable
class Parsing(Protocol):
    """A codec whose values have a usual way to be written."""

    def parse(self, text: str) -> Any:
        """The value that is written so; raises TypeMismatch."""
        ...


class Hinted(Codec[Any]):
    """A field's codec by a hint, which takes text as well where the codec reads some (``parse``).

    Bytes that the codec cannot express raise its error with the path of the field.
    """

    def __init__(self, codec: Codec[Any], layout: Layout, path: str) -> None:
        self.layout = layout
        self.path = path
        self.codec = codec
        self.size = codec.size
        # To ask a protocol costs 4 us, more than all else that is done for a key.
        self._parse: Callable[[str], Any] | None = codec.parse if isinstance(codec, Parsing) else None

    def __repr__(self) -> str:
        return repr(self.codec)

    @property
    def dtype(self) -> DTypeLike | None:
        """The codec's."""
        return self.codec.dtype

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        return Hinted(self.codec.bind(byteorder, possible_cpus), self.layout, self.path)

    def encode(self, value: Any) -> bytes:
        """As Codec.encode."""
        if self._parse is not None and isinstance(value, str):
            value = self._parse(value)
        return self.codec.encode(value)

    def decode(self, data: Buffer) -> Any:
        """As Codec.decode."""
        try:
            return self.codec.decode(data)
        except Misuse as error:
            raise type(error)(f"{self.path}: {error}") from None

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        try:
            return self.codec.decode_many(column)
        except Misuse as error:
            raise type(error)(f"{self.path}: {error}") from None

"""How to name a map. Sans-I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mapd_api import names
from mapd_client.errors import Misuse, TypeMismatch

_FORMS: Final = '"flows", "ns/flows", "pin:/sys/fs/bpf/x" or "id:42"'
_U32: Final = 0xFFFF_FFFF


class MapRef:
    """One map, by ``Name``, ``Pin`` or ``Id``. Wherever one is taken, its string form is too."""

    __slots__ = ()

    @staticmethod
    def parse(text: str) -> MapRef:
        """``"flows"``, ``"ns/flows"``, ``"pin:/sys/fs/bpf/x"`` or ``"id:42"``.

        Raises:
            Misuse: none of these; the message says which rule is broken.
        """
        if text.startswith("pin:"):
            return Pin(text[4:])
        if text.startswith("id:"):
            if re.fullmatch(r"[0-9]{1,10}", text[3:], re.ASCII) is None:
                raise Misuse(f"{text!r} is no map id: digits follow 'id:', as in 'id:42'")
            return Id(int(text[3:]))
        return Name(text)


@dataclass(frozen=True, slots=True)
class Name(MapRef):
    """``"namespace/name"``, or ``"name"`` in the caller's own namespace.

    Raises:
        Misuse: a part is not 1 to 63 of a-z, 0-9, '_', '-'.
    """

    name: str

    def __post_init__(self) -> None:
        _check_str(self.name, "name")
        try:
            names.split_name(self.name, "own")
        except ValueError as error:
            raise Misuse(f"{error}; a map is {_FORMS}") from None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Pin(MapRef):
    """The absolute path of a pin in a bpffs of the daemon's host.

    Raises:
        Misuse: not absolute, or it has a NUL, or bytes that are no UTF-8.
    """

    path: str

    def __post_init__(self) -> None:
        _check_str(self.path, "pin")
        if not self.path.startswith("/") or "\0" in self.path:
            raise Misuse(f"{self.path!r} is no pin: an absolute path on the daemon's host is needed")
        try:
            self.path.encode()
        except UnicodeEncodeError:
            raise Misuse(f"{self.path!r} is no pin: a path travels as UTF-8, and this is none") from None

    def __str__(self) -> str:
        return f"pin:{self.path}"


@dataclass(frozen=True, slots=True)
class Id(MapRef):
    """The kernel's map id, 1 to 2**32 - 1. Needs the right ``open_by_id``.

    Raises:
        Misuse: no such number.
    """

    id: int

    def __post_init__(self) -> None:
        if not hasattr(self.id, "__index__"):
            raise TypeMismatch(f"{self.id!r} is no map id: an int, not {type(self.id).__name__}")
        if not 0 < self.id <= _U32:
            raise Misuse(f"{self.id} is no map id: the kernel counts from 1 to {_U32}")

    def __str__(self) -> str:
        return f"id:{self.id}"


def _check_str(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise TypeMismatch(f"{text!r} is no {what}: a str, not {type(text).__name__}")


def as_ref(ref: MapRef | str) -> MapRef:
    """``ref`` itself, or its string form parsed; raises Misuse as ``MapRef.parse`` does."""
    return MapRef.parse(ref) if isinstance(ref, str) else ref

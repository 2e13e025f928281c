"""Two opinions on what a map holds, compared field by field. Sans-I/O.

What counts is what the bytes mean: names of structs and typedefs do not matter, nor whether an anonymous struct is
around some members, nor what lies in padding. Names of fields and of enum members do. Beyond that

* integers are equal by size, sign and byte order; a pointer is an unsigned integer of its size;
* an integer stands for an enum of its size and byte order, whose members it does not name; two enums have the same
  names for the same bytes;
* a bool is no integer, though it may have the size of one;
* ``char[4]``, ``u8[4]`` and ``s8[4]`` are equal;
* bytes of which nothing is known (``Opaque``) are equal to whatever has their size;
* a bit-field is its first bit, its width and its sign, whatever integer it was declared in; of all bits of whole bytes
  it is an integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from mapd_client.info import ByteOrder
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    MapLayout,
    Member,
    Opaque,
    Order,
    Pointer,
    Record,
    Special,
    Text,
)

Change: TypeAlias = Literal["added", "removed", "renamed", "moved", "resized", "retyped"]

_SHOWN: Final = 16
"""Differences that a message names; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as it was wanted.

    Attributes:
        path: of the field, "value.stats.packets"; the elements of an array are "value.slots[]".
        change: what happened to it, seen from the map: "added" is wanted and not there, "removed" is there and not
            wanted; "renamed" is there under another name; "moved", "resized" and "retyped" as they say.
        wanted: the type that was wanted, and where: "u32 at 8"; "" for what was not wanted.
        there: the same of what the map has; "" for what it has not.
    """

    path: str
    change: Change
    wanted: str
    there: str

    def __str__(self) -> str:
        if not self.there:
            return f"{self.path}: wanted {self.wanted}, is not there"
        if not self.wanted:
            return f"{self.path}: not wanted, is {self.there}"
        return f"{self.path}: wanted {self.wanted}, is {self.there}"


def differences(
    wanted: MapLayout, there: MapLayout, *, byteorder: ByteOrder | None = None
) -> list[Difference]:
    """What of a map's types is not as wanted, in the order of the wanted fields; empty: they are compatible.

    A key or value of which either side knows nothing is not compared.

    Args:
        wanted: by a class, an object file, a map to be created.
        there: what the map has.
        byteorder: of the daemon's host; with it a host's own integer equals one whose type fixes that same order.
    """
    comparing = _Comparing(byteorder)
    for path, ours, theirs in (("key", wanted.key, there.key), ("value", wanted.value, there.value)):
        if ours is not None and theirs is not None:
            comparing.layouts(path, ours, theirs)
    return comparing.found


def listed(found: Sequence[Difference]) -> str:
    """Differences for a message, a line each; at most 16 are named."""
    lines = [f"  {difference}" for difference in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  and {len(found) - _SHOWN} more")
    return "\n".join(lines)


class _Comparing:
    def __init__(self, byteorder: ByteOrder | None) -> None:
        self.found: list[Difference] = []
        self._host: ByteOrder | None = byteorder

    def layouts(self, path: str, wanted: Layout, there: Layout, at: tuple[str, str] = ("", "")) -> None:
        """``at``: where each is, for messages: " at 8"."""
        if wanted is there and at[0] == at[1]:
            return
        match wanted, there:
            case (Opaque(), _) | (_, Opaque()) if wanted.size == there.size:
                pass
            case Record(), Record():
                self._members(path, wanted, there)
            case Array(), Array() if wanted.count == there.count and not (_chars(wanted) and _chars(there)):
                self.layouts(f"{path}[]", wanted.element, there.element)
            case Enumeration(), Enumeration() if self._alike(wanted, there):
                self._enum(path, wanted, there)
            case _ if not self._alike(wanted, there):
                change: Change = "resized" if wanted.size != there.size else "retyped"
                self._report(path, change, wanted, there, at)
                return
            case _:
                pass
        if at[0] != at[1]:
            self._report(path, "moved", wanted, there, at)

    def _report(self, path: str, change: Change, wanted: Layout, there: Layout, at: tuple[str, str]) -> None:
        ours, theirs = type_text(wanted), type_text(there)
        if ours == theirs and at[0] == at[1]:  # two structs of one name
            ours, theirs = f"{ours} of {wanted.size} bytes", f"{theirs} of {there.size} bytes"
        self.found.append(
            Difference(path=path, change=change, wanted=f"{ours}{at[0]}", there=f"{theirs}{at[1]}")
        )

    def _alike(self, wanted: Layout, there: Layout) -> bool:
        """Whether two layouts without parts mean the same by their bytes."""
        if wanted.size != there.size:
            return False
        if _chars(wanted) and _chars(there):
            return True
        ours, theirs = self._number(wanted), self._number(there)
        if ours is None or theirs is None:
            return (
                isinstance(wanted, Special)
                and isinstance(there, Special)
                and (wanted.type_name == there.type_name)
            )
        if isinstance(wanted, Enumeration) or isinstance(there, Enumeration):
            integers = isinstance(wanted, (Integer, Enumeration)) and isinstance(
                there, (Integer, Enumeration)
            )
            return integers and ours[2] == theirs[2]
        return ours == theirs

    def _number(self, layout: Layout) -> tuple[str, int, Order, bool] | None:
        """What makes two numbers equal: kind, size, byte order, sign; None for what is none."""
        match layout:
            case Integer() | Enumeration():
                kind, signed = "int", layout.signed
            case Pointer():
                kind, signed = "int", False
            case Boolean():
                kind, signed = "bool", False
            case Float():
                kind, signed = "float", True
            case _:
                return None
        fixed = layout.size > 1 and layout.order != self._host
        return kind, layout.size, layout.order if fixed else "host", signed

    def _members(self, path: str, wanted: Record, there: Record) -> None:
        ours = {member.name: member for member in wanted.named() if member.name}
        theirs = {member.name: member for member in there.named() if member.name}
        before = len(self.found)
        lost = [member for name, member in theirs.items() if name not in ours]
        for name, member in ours.items():
            mine = f"{path}.{name}"
            if (other := theirs.get(name)) is not None:
                self._member(mine, member, other)
            elif (other := self._renamed(member, lost)) is not None:
                lost.remove(other)
                text = _member_text(other)
                self.found.append(
                    Difference(
                        path=mine,
                        change="renamed",
                        wanted=_member_text(member),
                        there=f"{other.name}, {text}",
                    )
                )
            else:
                self.found.append(
                    Difference(path=mine, change="added", wanted=_member_text(member), there="")
                )
        self.found += [
            Difference(path=f"{path}.{member.name}", change="removed", wanted="", there=_member_text(member))
            for member in lost
        ]
        if wanted.size != there.size and len(self.found) == before:
            self._report(path, "resized", wanted, there, ("", ""))

    def _member(self, path: str, wanted: Member, there: Member) -> None:
        if wanted.bits is None and there.bits is None:
            at = (f" at {wanted.offset}", f" at {there.offset}")
            self.layouts(path, wanted.layout, there.layout, at)
            return
        if self._same_bits(wanted, there):
            if isinstance(wanted.layout, Enumeration) and isinstance(there.layout, Enumeration):
                self._enum(path, wanted.layout, there.layout)
            return
        first, width = _bits(wanted)
        if width != _bits(there)[1]:
            change: Change = "resized"
        else:
            change = "moved" if first != _bits(there)[0] else "retyped"
        self.found.append(
            Difference(path=path, change=change, wanted=_member_text(wanted), there=_member_text(there))
        )

    def _same_bits(self, wanted: Member, there: Member) -> bool:
        ours, theirs = self._number(wanted.layout), self._number(there.layout)
        if _bits(wanted) != _bits(there) or ours is None or theirs is None:
            return False
        return (ours[0], *ours[2:]) == (theirs[0], *theirs[2:])

    def _renamed(self, member: Member, lost: Sequence[Member]) -> Member | None:
        """What lies where a field was wanted, of its type, under a name that was not wanted."""
        for other in lost:
            trial = _Comparing(self._host)
            trial._member("", member, other)
            if not trial.found:
                return other
        return None

    def _enum(self, path: str, wanted: Enumeration, there: Enumeration) -> None:
        ours, theirs = dict(wanted.members), dict(there.members)
        # Older BTF has no sign, and says 4294967295 of the bytes that newer says -1 of.
        same = 1 << 8 * wanted.size
        by_value: dict[int, list[str]] = {}
        for name, value in theirs.items():
            if name not in ours:
                by_value.setdefault(value % same, []).append(name)
        for name, value in ours.items():
            mine = f"{path}.{name}"
            if name in theirs:
                if (theirs[name] - value) % same:
                    self.found.append(
                        Difference(path=mine, change="moved", wanted=str(value), there=str(theirs[name]))
                    )
            elif others := by_value.get(value % same):
                other = others.pop(0)
                self.found.append(
                    Difference(
                        path=mine, change="renamed", wanted=str(value), there=f"{other}, {theirs[other]}"
                    )
                )
            else:
                self.found.append(Difference(path=mine, change="added", wanted=str(value), there=""))
        for names in by_value.values():
            for name in names:
                self.found.append(
                    Difference(path=f"{path}.{name}", change="removed", wanted="", there=str(theirs[name]))
                )


def _bits(member: Member) -> tuple[int, int]:
    """Where a number lies: its first bit and its width."""
    if member.bits is None:
        return 8 * member.offset, 8 * member.layout.size
    return member.bit_offset, member.bits


def _chars(layout: Layout) -> bool:
    if isinstance(layout, Text):
        return True
    return isinstance(layout, Array) and isinstance(layout.element, Integer) and layout.element.size == 1


def type_text(layout: Layout) -> str:
    """A type as a person writes it; what a typedef stands for is in brackets: "pid_t (s32)"."""
    plain = _plain(layout)
    name = layout.type_name
    if not name or name in (plain, f"__{plain}") or isinstance(layout, (Record, Special, Array, Text)):
        return plain
    return f"{name} ({plain})"


def _plain(layout: Layout) -> str:
    match layout:
        case Integer():
            letter = "s" if layout.signed else "u"
            prefix = "" if layout.order == "host" else "be" if layout.order == "big" else "le"
            return (
                f"{prefix}{8 * layout.size}"
                if prefix and not layout.signed
                else (f"{prefix}{letter}{8 * layout.size}")
            )
        case Boolean():
            return "bool" if layout.size == 1 else f"bool of {layout.size} bytes"
        case Float():
            return f"f{8 * layout.size}"
        case Pointer():
            return "pointer"
        case Enumeration():
            return f"enum of {layout.size} bytes"
        case Text():
            return f"char[{layout.size}]"
        case Array():
            *_, element = _elements(layout)
            counts = "".join(f"[{one.count}]" for one in _elements(layout) if isinstance(one, Array))
            return f"{type_text(element)}{counts}"
        case Record():
            kind = "union" if layout.union else "struct"
            return f"{kind} {layout.type_name}" if layout.type_name else f"{kind} of {layout.size} bytes"
        case Special():
            return layout.type_name
        case Opaque():
            return f"{layout.size} bytes"


def _elements(layout: Layout) -> Iterator[Layout]:
    yield layout
    while isinstance(layout, Array):
        layout = layout.element
        yield layout


def _member_text(member: Member) -> str:
    text = type_text(member.layout)
    if member.bits is None:
        return f"{text} at {member.offset}"
    return f"{text}:{member.bits} at bit {member.bit_offset}"

"""Cells of a file as bytes of a map's keys and values, and where in the file they were."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from mapd_api.uapi import MapType
from mapd_client.cli.types import Shown
from mapd_client.errors import Misuse
from mapd_client.syncing.networks import KEY_SIZES, Family, OtherFamily, network

_DIGITS: Final = re.compile(r"[0-9a-fA-F]*")
"""A key as dump writes what nothing is known of."""

_SAYS_HOW: Final = ("{", "[", "json:", "hex:", "0x")


@dataclass(slots=True)
class Cells:
    """The elements of one file as they are read.

    Attributes:
        name: of the file, for messages.
        unit: what it has: a line, a row.
        records: whether its texts are those of records, in which bytes are hex digits; else they are typed words, in
            which digits are a number.
        shown: the types of the map.
        family: of which networks are taken; None: of the map's, and others are refused.
        constant: the value of elements that are given none.
        keys: so far.
        values: so far.
        lines: where each was.
        passed_over: networks of the other family.
    """

    name: str
    unit: Literal["line", "row"]
    records: bool
    shown: Shown
    family: Family | None = None
    constant: bytes | None = None
    keys: list[bytes] = field(default_factory=list[bytes])
    values: list[bytes] = field(default_factory=list[bytes])
    lines: list[int] = field(default_factory=list[int])
    passed_over: int = 0

    def __post_init__(self) -> None:
        info = self.shown.info
        there = KEY_SIZES.get(info.key_size) if info.type == MapType.LPM_TRIE else None
        if self.family not in (None, there):
            raise Misuse(
                f"--family {self.family}: the keys of {info.label} are not networks of {self.family}"
            )
        self._networks = there

    _networks: Family | None = None

    def add(self, number: int, key: Any, value: Any = None) -> None:
        """An element; None and "" are no value.

        Raises:
            Misuse: it is no element of the map; the message says where it is.
        """
        try:
            if key is None:
                raise Misuse("no key")
            found = self._key(key)
            self.values.append(self.value_of_all() if value in (None, "") else self._value(value))
        except OtherFamily as error:
            if self.family is None:
                raise self.bad(number, f"{error}; --family {self._networks} passes over such lines") from None
            self.passed_over += 1
        except Misuse as error:
            raise self.bad(number, str(error)) from None
        else:
            self.keys.append(found)
            self.lines.append(number)

    def value_of_all(self) -> bytes:
        """What --value says; raises Misuse if it does not."""
        if self.constant is None:
            raise Misuse("a key without a value: say which they all have, as in --value u32=1")
        return self.constant

    def bad(self, number: int, text: str) -> Misuse:
        """What is wrong, and where."""
        return Misuse(f"{self.name}: {self.unit} {number}: {text}")

    def _key(self, what: Any) -> bytes:
        if isinstance(what, str):
            if self._networks is not None and not what.startswith(_SAYS_HOW):
                if len(what) == 2 * self.shown.info.key_size and _DIGITS.fullmatch(what):
                    return bytes.fromhex(what)  # as dump writes them that was not told what they are
                return network(what, self._networks, self.shown.byteorder)
            return self._text(what, "key", self.shown.info.key_size, self.shown.key)
        return self.shown.key(_json(what))

    def _value(self, what: Any) -> bytes:
        if isinstance(what, str):
            return self._text(what, "value", self.shown.info.value_size, self.shown.value)
        return self.shown.value(_json(what))

    def _text(self, text: str, side: str, size: int, encode: Callable[[str], bytes]) -> bytes:
        if text.startswith(_SAYS_HOW):
            return encode(text)
        if self.shown.known[side]:
            try:
                return encode("json:" + json.dumps(text))
            except Misuse:
                return encode(text)
        if len(text) == 2 * size and _DIGITS.fullmatch(text):  # as records have what nothing is known of
            if not self.records and text.isdecimal():
                raise Misuse(
                    f"{text!r} may be a number or hex digits: write u{8 * size}:{text} or hex:{text}"
                )
            return encode(f"hex:{text}")
        return encode(text)


def gathered(row: Mapping[str, Any], names: Mapping[str, str], side: str) -> Any:
    """What a row says of one side, nested as a record has it."""
    if side in names:
        return row[names[side]]
    whole: dict[str, Any] = {}
    for path, column in names.items():
        inner, *rest = path.split(".")[1:]
        place = whole
        for part in rest:
            place, inner = place.setdefault(inner, {}), part
        cell = row[column]
        place[inner] = json.loads(cell) if isinstance(cell, str) and cell[:1] in ("[", "{") else cell
    return whole


def _json(value: Any) -> str:
    """What Arrow and JSON make of an element, as ``Shown`` takes it."""
    if isinstance(value, bytes):
        return f"hex:{value.hex()}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return "json:" + json.dumps(value, default=_plain)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)

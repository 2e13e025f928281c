"""Elements as JSON, packed into columns: lines of records, lists of records, and what bpftool prints. No I/O."""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mapd_api.layout import round_up8
from mapd_client.cli import literals
from mapd_client.codec import Codec
from mapd_client.errors import Misuse
from mapd_client.layouts import Array, Layout, Opaque
from mapd_client.percpu import PerCpu
from mapd_client.records.reading import from_json
from mapd_client.typed.compiling import codec_of

if TYPE_CHECKING:
    from mapd_client.cli.types import Shown

Packed: TypeAlias = tuple[bytes, bytes, Sequence[int]]
"""Keys, values, and where each element was."""

_LONGEST: Final = 64 << 20
"""Bytes of JSON without an end of line, or of an object; an element is at most 4 MiB."""

_HEX: Final = re.compile(r"[0-9a-fA-F]*")
_BYTE: Final = re.compile(r"0x[0-9a-fA-F]{2}")
_BYTES: Final = re.compile(r"(?:0x[0-9a-fA-F]{2})*")


class Packer:
    """Records of one map as its bytes, a column at a time.

    Args:
        shown: the types of the map.
        name: of the file, for messages.
        value: of the records that have none.

    Raises:
        Misuse: ``value`` is none of the map's.
    """

    def __init__(self, shown: Shown, name: str, value: str | None) -> None:
        self._shown = shown
        self.name = name
        self._constant = None if value is None else shown.value(re.sub(r"^([ui]\d+)=", r"\1:", value))
        self._keys, self._values = self.codec("key"), self.codec("value")

    def codec(self, side: str) -> Codec[Any]:
        """Of the map's keys, or of its values with all CPUs'."""
        info = self._shown.info
        one = codec_of(self._layout(side), hints=self._shown.hints, path=side)
        if side == "value" and info.per_cpu:
            return PerCpu(one).bind(self._shown.byteorder, info.slots())
        return one.bind(self._shown.byteorder, 1)

    def _layout(self, side: str) -> Layout:
        info = self._shown.info
        return self._shown.layouts[side] or Opaque(size=info.key_size if side == "key" else info.value_size)

    def pack(self, rows: Sequence[Any], places: Sequence[int], unit: str) -> Iterator[Packed]:
        """The columns of all rows; where one of them is no element, of those before it, and then what it raises.

        Raises:
            Misuse: a row that is no element; says where.
        """
        try:
            yield (*self._columns(cast("Sequence[Mapping[str, Any]]", rows)), places)
            return
        except (Misuse, KeyError, TypeError, AttributeError):
            pass  # one by one they are told apart
        keys: list[bytes] = []
        values: list[bytes] = []
        for row, place in zip(rows, places, strict=True):
            try:
                key, value = self._element(row)
            except Misuse as error:
                if keys:
                    yield b"".join(keys), b"".join(values), places[: len(keys)]
                raise self.bad(unit, place, str(error)) from None
            keys.append(key)
            values.append(value)
        yield b"".join(keys), b"".join(values), places

    def bad(self, unit: str, place: int, text: str) -> Misuse:
        """What is wrong, and where."""
        return Misuse(f"{self.name}: {unit} {place}: {text}")

    def _columns(self, rows: Sequence[Mapping[str, Any]]) -> tuple[bytes, bytes]:
        info = self._shown.info
        if rows and _is_bytes(rows[0]["key"], info.key_size):
            if info.per_cpu:
                raise TypeError  # one by one
            keys = _column([row["key"] for row in rows], info.key_size)
            return keys, _column([row["value"] for row in rows], info.value_size)
        of_key, of_value = self._python("key"), self._slots(self._python("value"))
        keys = self._keys.encode_many([of_key(row["key"]) for row in rows])
        return keys, self._values.encode_many([of_value(row["value"]) for row in rows])

    def _element(self, row: Any) -> tuple[bytes, bytes]:
        if not isinstance(row, dict) or "key" not in row:
            raise Misuse('an element is written {"key": ..., "value": ...}')
        fields = cast("dict[str, Any]", row)
        if _is_bytes(fields["key"], self._shown.info.key_size):
            return self._of_bpftool(fields)
        key = self._one("key", self._keys, fields["key"], self._python("key"))
        if "value" in fields:
            return key, self._one("value", self._values, fields["value"], self._slots(self._python("value")))
        if self._constant is None:
            raise Misuse("a key without a value: say which they all have, as in --value u32=1")
        return key, self._constant

    def _one(self, side: str, codec: Codec[Any], value: Any, python: Callable[[Any], Any]) -> bytes:
        try:
            return codec.encode(python(value))
        except Misuse:
            if not isinstance(value, str):
                raise
            try:  # 10.0.0.0/8, whatever the fields of the key are called
                return self._shown.key(value) if side == "key" else self._shown.value(value)
            except Misuse:
                pass
            raise

    def _python(self, side: str) -> Callable[[Any], Any]:
        """What the codec takes for what JSON has."""
        layout, hints = self._layout(side), self._shown.hints
        if self._shown.known[side]:
            return lambda value: from_json(layout, value, hints, side)
        info, byteorder = self._shown.info, self._shown.byteorder

        def opaque(value: Any) -> bytes:
            if isinstance(value, str) and len(value) == 2 * layout.size and _HEX.fullmatch(value):
                return bytes.fromhex(value)
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                raise Misuse(
                    f"{side}: {value!r}: the map's types are not known: write hex digits, or say --as"
                )
            if side == "key":
                return literals.parse_key(str(value), info, byteorder)
            return literals.parse(str(value), layout.size, byteorder)

        return opaque

    def _slots(self, python: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same for a value of all CPUs: a list of theirs, or one for each of them."""
        info = self._shown.info
        if not info.per_cpu:
            return python
        array, slots = isinstance(self._layout("value"), Array), info.slots()

        def each(value: Any) -> list[Any]:
            listed: list[Any] | None = cast("Any", value) if isinstance(value, list) else None
            if listed is None or (array and not (listed and isinstance(listed[0], list))):
                return [python(value)] * slots
            return [python(one) for one in listed]

        return each

    def _of_bpftool(self, row: dict[str, Any]) -> tuple[bytes, bytes]:
        info = self._shown.info
        key, size = _bytes(row["key"], info.key_size, "key"), info.value_size
        if not info.per_cpu:
            if "value" not in row:
                raise Misuse(f"no value: {row.get('error', 'bpftool could not read it')}")
            return key, _bytes(row["value"], size, "value")
        cpus = {one["cpu"]: one["value"] for one in cast("list[dict[str, Any]]", row.get("values", []))}
        if sorted(cpus) != list(range(info.slots())):
            raise Misuse(f"values of {len(cpus)} CPUs, the daemon's host has {info.slots()}")
        slots = [
            _bytes(cpus[cpu], size, "value").ljust(round_up8(size), b"\0") for cpu in range(info.slots())
        ]
        return key, b"".join(slots)


class Lines:
    """NDJSON, in pieces."""

    unit = "line"

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._rest = b""
        self._next = 1

    def feed(self, data: bytes, most: int) -> Iterator[Packed]:
        """What became whole; raises Misuse behind what came before it."""
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        if len(rest) > _LONGEST:
            raise self._packer.bad(
                self.unit, self._next, f"more than {_LONGEST >> 20} MiB without an end of line"
            )
        if newline:
            yield from self._lines(whole.split(b"\n"), most)

    def end(self, most: int) -> Iterator[Packed]:
        """The last line, where nothing ends it; raises as ``feed``."""
        if self._rest:
            yield from self._lines([self._rest], most)

    def _lines(self, lines: list[bytes], most: int) -> Iterator[Packed]:
        first, self._next = self._next, self._next + len(lines)
        numbered = [(at, line) for at, line in enumerate(lines, first) if line.strip()]
        for begin in range(0, len(numbered), most):
            part = numbered[begin : begin + most]
            places = [at for at, _ in part]
            try:
                # A line may be no JSON and all of them together be some: then there are more or fewer rows.
                rows: list[Any] = json.loads(b"[" + b",".join([line for _, line in part]) + b"]")
            except (ValueError, RecursionError):
                rows = []
            if len(rows) == len(part):
                yield from self._packer.pack(rows, places, self.unit)
            else:
                yield from self._one_by_one(part, places)

    def _one_by_one(self, part: Sequence[tuple[int, bytes]], places: Sequence[int]) -> Iterator[Packed]:
        rows: list[Any] = []
        for at, line in part:
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                if rows:
                    yield from self._packer.pack(rows, places[: len(rows)], self.unit)
                raise self._packer.bad(self.unit, at, f"no JSON: {error}") from None
        yield from self._packer.pack(rows, places, self.unit)


class Documents:
    """A JSON list of records, as ``dump -o json`` and bpftool write it, in pieces."""

    unit = "element"

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._decode = getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._next = 1
        self._depth = 0

    def feed(self, data: bytes, most: int, *, final: bool = False) -> Iterator[Packed]:
        """What became whole; raises Misuse behind what came before it."""
        try:
            self._text += self._decode(data, final)
        except UnicodeDecodeError as error:
            raise self._packer.bad(self.unit, self._next, f"no UTF-8: {error}") from None
        rows: list[Any] = []
        at = 0
        while True:
            at = self._between(at)
            if at == len(self._text):
                break
            try:
                row, at = self._scan(self._text, at)
            except (ValueError, RecursionError) as error:
                if final or len(self._text) - at > _LONGEST:
                    yield from self._flush(rows)
                    raise self._packer.bad(self.unit, self._next, f"no JSON: {error}") from None
                break  # its end has not come yet
            rows.append(row)
            if len(rows) == most:
                yield from self._flush(rows)
                rows = []
        self._text = self._text[at:]
        yield from self._flush(rows)

    def end(self, most: int) -> Iterator[Packed]:
        """What is left; raises as ``feed``, and where the list is not ended: the file was cut."""
        yield from self.feed(b"", most, final=True)
        if self._depth:
            raise self._packer.bad(self.unit, self._next, "the list has no end: the file was cut off")

    def _flush(self, rows: list[Any]) -> Iterator[Packed]:
        if rows:
            first, self._next = self._next, self._next + len(rows)
            yield from self._packer.pack(rows, range(first, self._next), self.unit)

    def _between(self, at: int) -> int:
        """Behind what stands between elements."""
        while at < len(self._text) and self._text[at] in " \t\r\n,[]":
            self._depth += {"[": 1, "]": -1}.get(self._text[at], 0)
            at += 1
        return at


def _is_bytes(key: Any, size: int) -> bool:
    """Whether it is a key as bpftool prints it; in a record no list of as many strings is one of as many bytes."""
    if not isinstance(key, list):
        return False
    listed: list[Any] = cast("Any", key)
    return len(listed) == size and all(isinstance(one, str) and _BYTE.fullmatch(one) for one in listed)


def _column(elements: Sequence[list[str]], size: int) -> bytes:
    """Many keys or values as bpftool prints them; raises TypeError for what is none."""
    text = "".join(map("".join, elements))
    if {len(one) for one in elements} - {size} or not _BYTES.fullmatch(text):
        raise TypeError
    return bytes.fromhex(text.replace("0x", ""))


def _bytes(listed: Any, size: int, what: str) -> bytes:
    if not isinstance(listed, list) or not _is_bytes(listed, size):
        raise Misuse(f'{what}: {size} bytes are due, as in ["0x0a", ...]')
    return bytes(int(one, 16) for one in cast("list[str]", listed))

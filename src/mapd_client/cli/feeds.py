"""Elements from a file, for ``sync`` and ``diff``: lists of keys, CSV, NDJSON, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Final, Literal, cast

from cyclopts import Parameter

from mapd_api.uapi import MapType
from mapd_client.cli.types import Shown
from mapd_client.codec import Codec
from mapd_client.errors import Misuse, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Opaque
from mapd_client.syncing.networks import KEY_SIZES, Family, OtherFamily, network
from mapd_client.typed.compiling import codec_of

Format = Literal["list", "csv", "ndjson", "parquet", "arrow"]

SUFFIXES: Final[Mapping[str, Format]] = {
    ".txt": "list",
    ".list": "list",
    ".cidr": "list",
    ".netset": "list",
    ".ipset": "list",
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}

_COMMENT: Final = re.compile(r"(?:^|\s)[#;].*")
"""As in most lists, and in those of Spamhaus."""

_DIGITS: Final = re.compile(r"[0-9a-fA-F]*")
"""A key as dump writes what nothing is known of."""

_SAYS_HOW: Final = ("{", "[", "json:", "hex:", "0x")

Element = tuple[bytes, bytes]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Reading:
    """How a file of elements is read.

    Attributes:
        format: list (a key a line, # and ; begin comments), csv, ndjson, parquet or arrow; default: as the file is
            called, or begins.
        value: of all elements that the file gives none: u32=1, as in a list of keys.
        key_column: which column of a table is the key, where it is not "key"; others are ignored then.
        value_column: which is the value, likewise.
        family: of an LPM trie's keys in a list of both: ipv4 or ipv6; lines of the other are passed over.
    """

    format: Format | None = None
    value: str | None = None
    key_column: str | None = None
    value_column: str | None = None
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Feed:
    """What a file asks for.

    Attributes:
        name: of the file, for messages.
        elements: key and value of each.
        lines: where in the file each is: a line, or a row.
        unit: which of both.
        passed_over: lines of the other family of addresses.
    """

    name: str
    elements: Sequence[Element]
    lines: Sequence[int]
    unit: str = "line"
    passed_over: int = 0

    def where(self, at: int) -> str:
        """The place of an element."""
        return f"{self.unit} {self.lines[at]}"


def read_feed(path: str, reading: Reading, shown: Shown) -> Feed:
    """The elements of a file; "-" is stdin.

    Raises:
        Misuse: no such file, or a line that is no element; the message says which.
    """
    name = "stdin" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Misuse(f"{name}: {error.strerror}") from None
    kind = reading.format or SUFFIXES.get(Path(path).suffix.lower()) or _sniffed(data)
    return _Reader(name, reading, shown, shown.byteorder).read(kind, data)


def _sniffed(data: bytes) -> Format:
    if data.startswith(b"PAR1"):
        return "parquet"
    if data.startswith(b"ARROW1"):
        return "arrow"
    begin = data[:4096].lstrip().split(b"\n", 1)[0].strip()
    if begin.startswith(b"{"):
        return "ndjson"
    return "csv" if re.search(rb"(^|,)\"?(key|value)[\".,]", begin + b",") and b"," in begin else "list"


@dataclass(slots=True)
class _Reader:
    """One file, by the types of one map."""

    name: str
    reading: Reading
    shown: Shown
    byteorder: ByteOrder
    passed_over: int = 0
    _lines: list[int] = field(default_factory=list[int])
    _constant: bytes | None = None
    _family: Family | None = None

    def read(self, kind: Format, data: bytes) -> Feed:
        info = self.shown.info
        if info.type == MapType.LPM_TRIE:
            self._family = KEY_SIZES.get(info.key_size)
        wanted = self.reading.family
        if wanted is not None and wanted != self._family:
            raise Misuse(f"--family {wanted}: the keys of {info.label} are not networks of {wanted}")
        if self.reading.value is not None:
            text = re.sub(r"^([ui](?:8|16|32|64))=", r"\1:", self.reading.value)
            self._constant = self.shown.value(text)
        elements: Sequence[Element]
        if kind in ("parquet", "arrow"):
            elements = self._table(kind, data)
            return Feed(
                self.name, elements, self._lines or range(1, len(elements) + 1), "row", self.passed_over
            )
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise Misuse(f"{self.name}: line {line} is no UTF-8; say what it is with --format") from None
        rows = {"list": self._list, "csv": self._csv, "ndjson": self._ndjson}[kind](text)
        return Feed(self.name, [*rows], self._lines, "line", self.passed_over)

    # Formats

    def _list(self, text: str) -> Iterator[Element]:
        keys: list[bytes] = []
        for number, line in enumerate(text.splitlines(), 1):
            word = line.strip()
            if "#" in word or ";" in word:
                word = _COMMENT.sub("", word).strip()
            if word:
                self._add(number, keys, word, self._key)
        return zip(keys, repeat(self._value_of_all(bool(keys))), strict=False)

    def _csv(self, text: str) -> Iterator[Element]:
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
        sides = self._sides(reader.fieldnames or [], "column")
        return self._rows(((reader.line_num, row) for row in reader), sides)

    def _ndjson(self, text: str) -> Iterator[Element]:
        def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
            for number, line in enumerate(text.splitlines(), 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise self._bad(number, f"no JSON: {error}") from None
                if not isinstance(row, dict):
                    raise self._bad(number, 'write {"key": ..., "value": ...}')
                yield number, cast("Mapping[str, Any]", row)

        return self._rows(rows(), None)

    def _table(self, kind: Format, data: bytes) -> list[Element]:
        from mapd_client.tables.needs import arrow, need_arrow

        need_arrow(f"--format {kind}")
        pa = arrow()
        try:
            if kind == "parquet":
                from pyarrow import parquet

                table: Any = cast("Any", parquet).read_table(io.BytesIO(data))
            else:
                table = pa.ipc.open_file(io.BytesIO(data)).read_all()
        except pa.ArrowException as error:
            raise Misuse(f"{self.name}: {error}") from None
        sides = self._sides(table.column_names, "column")
        renamed = table.select([name for names in sides.values() for name in names.values()])
        packed = self._packed(renamed, sides)
        if packed is not None:
            return packed
        rows: list[Mapping[str, Any]] = renamed.to_pylist()
        return [*self._rows(enumerate(rows, 1), sides)]

    def _packed(self, table: Any, sides: Mapping[str, Mapping[str, str]]) -> list[Element] | None:
        """Whole columns at once, where each is what ``dump`` makes of the map; else None."""
        from mapd_client.batches import Batch
        from mapd_client.codec import BadElement
        from mapd_client.syncing.shape import cells
        from mapd_client.tables.needs import packed

        if self.shown.info.per_cpu or not sides["value"]:
            return None
        given = table.rename_columns([path for names in sides.values() for path in names])
        codecs = {side: self._codec(side) for side in sides}
        try:
            batches: list[Batch] = [*packed(given, codecs["key"], codecs["value"], self.byteorder, 65_536)]
        except BadElement as bad:
            if isinstance(bad.error, TypeMismatch):
                return None  # texts, and numbers for bytes: row by row, which says what is wrong with them
            raise Misuse(f"{self.name}: {bad.error}") from None
        info = self.shown.info
        keys = cells(b"".join(batch.keys for batch in batches), info.key_stride)
        return [
            *zip(keys, cells(b"".join(batch.values for batch in batches), info.value_stride), strict=True)
        ]

    def _codec(self, side: str) -> Codec[Any]:
        info = self.shown.info
        layout = self.shown.layouts[side] or Opaque(size=info.key_size if side == "key" else info.value_size)
        return codec_of(layout, hints=self.shown.hints, path=side).bind(self.byteorder, 1)

    # Rows

    def _sides(self, columns: Iterable[str], what: str) -> dict[str, dict[str, str]]:
        """For key and value: the columns of the file by their paths in the record."""
        there = [*columns]
        sides: dict[str, dict[str, str]] = {"key": {}, "value": {}}
        for side, chosen in (("key", self.reading.key_column), ("value", self.reading.value_column)):
            if chosen is None:
                sides[side] = {one: one for one in there if one == side or one.startswith(f"{side}.")}
            elif chosen in there:
                sides[side] = {side: chosen}
            else:
                raise Misuse(f"{self.name}: no {what} {chosen!r}; there are {', '.join(there) or 'none'}")
        if not sides["key"]:
            raise Misuse(
                f"{self.name}: no {what} 'key' among {', '.join(there) or 'none'}; say which it is with --key-column"
            )
        used = {name for names in sides.values() for name in names.values()}
        unused = [one for one in there if one not in used]
        if unused and self.reading.key_column is None and self.reading.value_column is None:
            raise Misuse(
                f"{self.name}: {what} {unused[0]!r} is neither of the key nor of the value; to leave others out, say "
                "--key-column key"
            )
        return sides

    def _rows(
        self,
        rows: Iterable[tuple[int, Mapping[str, Any]]],
        sides: Mapping[str, Mapping[str, str]] | None,
    ) -> Iterator[Element]:
        keys: list[bytes] = []
        values: list[bytes] = []
        for number, row in rows:
            named = self._sides(row, "field") if sides is None else sides
            before = len(keys)
            self._add(number, keys, _gathered(row, named["key"], "key"), self._key)
            if len(keys) == before:
                continue
            if not named["value"] or (value := _gathered(row, named["value"], "value")) in (None, ""):
                values.append(self._value_of_all(needed=True))
            else:
                self._add(number, values, value, self._value, counted=False)
        return zip(keys, values, strict=True)

    def _add(
        self,
        number: int,
        column: list[bytes],
        what: Any,
        encode: Callable[[Any], bytes],
        *,
        counted: bool = True,
    ) -> None:
        try:
            column.append(encode(what))
        except OtherFamily as error:
            if self.reading.family is None:
                raise self._bad(number, f"{error}; --family {self._family} passes over such lines") from None
            self.passed_over += 1
        except Misuse as error:
            raise self._bad(number, str(error)) from None
        else:
            if counted:
                self._lines.append(number)

    def _key(self, what: Any) -> bytes:
        if isinstance(what, str):
            if self._family is not None and not what.startswith(_SAYS_HOW) and not _DIGITS.fullmatch(what):
                return network(what, self._family, self.byteorder)
            return self._text(what, "key", self.shown.key)
        return self.shown.key(_json(what))

    def _value(self, what: Any) -> bytes:
        if isinstance(what, str):
            return self._text(what, "value", self.shown.value)
        return self.shown.value(_json(what))

    def _text(self, text: str, side: str, encode: Callable[[str], bytes]) -> bytes:
        info = self.shown.info
        size = info.key_size if side == "key" else info.value_size
        if not self.shown.known[side] and re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", text) and size > 1:
            return encode(f"hex:{text}")  # as dump writes what nothing is known of
        if self.shown.known[side] and not text.startswith(_SAYS_HOW):
            try:
                return encode("json:" + json.dumps(text))
            except Misuse:
                return encode(text)
        return encode(text)

    def _value_of_all(self, needed: bool) -> bytes:
        if self._constant is None:
            if needed:
                raise Misuse(
                    f"{self.name} has keys without values: say which they all have, as in --value u32=1"
                )
            return b""
        return self._constant

    def _bad(self, number: int, text: str) -> Misuse:
        unit = "row" if self.reading.format in ("parquet", "arrow") else "line"
        return Misuse(f"{self.name}: {unit} {number}: {text}")


def _gathered(row: Mapping[str, Any], names: Mapping[str, str], side: str) -> Any:
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

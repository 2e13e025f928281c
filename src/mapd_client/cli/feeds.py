"""Elements from a file, for ``sync`` and ``diff``: lists of keys, CSV, NDJSON, Parquet and Arrow."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from cyclopts import Parameter

from mapd_client.cli.feedcells import Cells, gathered
from mapd_client.cli.types import Shown
from mapd_client.errors import Misuse
from mapd_client.syncing.networks import Family

Format = Literal["list", "csv", "json", "ndjson", "parquet", "arrow"]

SUFFIXES: Final[Mapping[str, Format]] = {
    ".txt": "list",
    ".list": "list",
    ".cidr": "list",
    ".netset": "list",
    ".ipset": "list",
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}

_COMMENT: Final = re.compile(r"(?:^|\s)[#;].*")
"""As in most lists, and in those of Spamhaus."""

_ARROW: Final = (b"ARROW1", b"\xff\xff\xff\xff")
"""How files and streams begin: https://arrow.apache.org/docs/format/Columnar.html."""

_DOCUMENT: Final = re.compile(rb'\s*\[\s*\{|\s*\{.*"elements"\s*:\s*\[', re.DOTALL)

_TYPED: Final = re.compile(r"^([ui](?:8|16|32|64))=")

Element = tuple[bytes, bytes]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Reading:
    """How a file of elements is read.

    Attributes:
        format: list (a key a line, # and ; begin comments), csv, json, ndjson, parquet or arrow; default: as the file
            is called, or begins.
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


@dataclass(frozen=True, slots=True)
class File:
    """A file's bytes, and what messages call it."""

    path: str
    name: str
    data: bytes


def read_file(path: str) -> File:
    """A whole file, before any daemon waits for it; "-" is stdin. Blocks.

    Raises:
        Misuse: no such file.
    """
    name = "stdin" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Misuse(f"{name}: {error.strerror}") from None
    return File(path, name, data)


def read_feed(file: File, reading: Reading, shown: Shown) -> Feed:
    """The elements of a file.

    Raises:
        Misuse: a line that is no element; the message says which.
    """
    name, data = file.name, file.data
    kind = file_format(file, reading)
    constant = None
    if reading.value is not None:
        try:
            constant = shown.value(_TYPED.sub(r"\1:", reading.value))
        except Misuse as error:
            raise type(error)(f"--value {reading.value}: {error}") from None
    table = kind in ("parquet", "arrow")
    cells = Cells(
        name,
        "row" if table or kind == "json" else "line",
        records=table or kind in ("json", "ndjson"),
        shown=shown,
        family=reading.family,
        constant=constant,
    )
    return _Reader(name, reading, cells).read(kind, data)


def file_format(file: File, reading: Reading) -> Format:
    """How it is read: as the user says, as it is called, or as it begins."""
    return reading.format or SUFFIXES.get(Path(file.path).suffix.lower()) or _sniffed(file.data)


def _sniffed(data: bytes) -> Format:
    if data.startswith(b"PAR1"):
        return "parquet"
    if data.startswith(_ARROW):
        return "arrow"
    if _DOCUMENT.match(data[:4096]):
        return "json"
    begin = data[:4096].lstrip().split(b"\n", 1)[0].strip()
    if begin.startswith(b"{"):
        return "ndjson"
    return "csv" if re.search(rb"(^|,)\"?(key|value)[\".,]", begin + b",") and b"," in begin else "list"


@dataclass(frozen=True, slots=True)
class _Reader:
    """One file, by the types of one map."""

    name: str
    reading: Reading
    cells: Cells

    def read(self, kind: Format, data: bytes) -> Feed:
        cells = self.cells
        packed = None
        if kind in ("parquet", "arrow"):
            packed = self._table(kind, data)
        else:
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = data[: error.start].count(b"\n") + 1
                raise Misuse(f"{self.name}: line {line} is no UTF-8; say what it is with --format") from None
            {"list": self._list, "csv": self._csv, "json": self._json, "ndjson": self._ndjson}[kind](text)
        if packed is not None:
            return Feed(self.name, packed, range(1, len(packed) + 1), cells.unit)
        elements = [*zip(cells.keys, cells.values, strict=True)]
        return Feed(self.name, elements, cells.lines, cells.unit, cells.passed_over)

    # Formats

    def _list(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            word = line.strip()
            if "#" in word or ";" in word:
                word = _COMMENT.sub("", word).strip()
            if word:
                self.cells.add(number, word)

    def _csv(self, text: str) -> None:
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
        sides = self._sides(reader.fieldnames or [], "column")

        def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
            for row in reader:
                if "" in row or None in row.values():
                    raise self.cells.bad(reader.line_num, "not as many cells as the header has")
                yield reader.line_num, row

        self._rows(rows(), sides)

    def _json(self, text: str) -> None:
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Misuse(f"{self.name} is no JSON: {error}") from None
        elements: Any = cast("dict[str, Any]", found).get("elements") if isinstance(found, dict) else found
        if not isinstance(elements, list):
            raise Misuse(f'{self.name}: a list of elements is due, or {{"elements": [...]}}')
        given = cast("Sequence[Any]", elements)

        def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
            for number, row in enumerate(given, 1):
                yield number, self._record(number, row)

        self._rows(rows(), None)

    def _record(self, number: int, row: Any) -> Mapping[str, Any]:
        if not isinstance(row, dict):
            raise self.cells.bad(number, 'write {"key": ..., "value": ...}')
        return cast("Mapping[str, Any]", row)

    def _ndjson(self, text: str) -> None:
        def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
            for number, line in enumerate(text.splitlines(), 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise self.cells.bad(number, f"no JSON: {error}") from None
                yield number, self._record(number, row)

        self._rows(rows(), None)

    def _table(self, kind: Format, data: bytes) -> Sequence[Element] | None:
        """Its elements where whole columns can be taken; else None, and they are in ``cells``."""
        from mapd_client.cli.feedtables import packed, read_table

        table = read_table(data, self.name, parquet=kind == "parquet")
        sides = self._sides(table.column_names, "column")
        table = table.select([name for names in sides.values() for name in names.values()])
        elements = packed(table, sides, self.cells.shown, self.name)
        if elements is None:
            rows: list[Mapping[str, Any]] = table.to_pylist()
            self._rows(enumerate(rows, 1), sides)
        return elements

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
    ) -> None:
        for number, row in rows:
            named = self._sides(row, "field") if sides is None else sides
            value = gathered(row, named["value"], "value") if named["value"] else None
            self.cells.add(number, gathered(row, named["key"], "key"), value)

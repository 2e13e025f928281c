"""Elements as text: lines for people, JSON, NDJSON, CSV, and bpftool's JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import TextIOWrapper
from operator import itemgetter
from typing import Any, Final, cast

from mapd_client.cli.outputs.writers import Write, Writer
from mapd_client.cli.types import Shown
from mapd_client.codec import Buffer
from mapd_client.errors import Misuse
from mapd_client.info import Trailer
from mapd_client.layouts import Array, Boolean, Float, Layout, Opaque, Record, Special, Text
from mapd_client.records import Records

_NOT_A_NUMBER: Final = "NaN"
"""As polars and pandas guess it; Python's float() takes it too."""


def _lines(records: Records, host: str | None, *, keys_only: bool) -> Callable[[Buffer, Buffer, int], str]:
    """NDJSON of a chunk: ``{"host": ..., "key": ..., "value": ...}``."""
    head = "{" if host is None else f'{{"host": {json.dumps(host)}, '

    def keys_alone(keys: Buffer, values: Buffer, count: int) -> str:
        del values
        return "".join([f'{head}"key": {key}}}\n' for key in records.key_texts(keys, count)])

    def both(keys: Buffer, values: Buffer, count: int) -> str:
        pairs = zip(*records.texts(keys, values, count).values(), strict=True)
        return "".join([f'{head}"key": {key}, "value": {value}}}\n' for key, value in pairs])

    return keys_alone if keys_only else both


class Ndjson(Writer):
    """A line for each element."""

    def part(self, shown: Shown, host: str | None) -> Write:
        """As Writer."""
        lines = _lines(shown.records, host, keys_only=self.keys_only)
        write = self.file.write

        def part(keys: Buffer, values: Buffer, count: int) -> None:
            write(lines(keys, values, count))

        return part


class Json(Writer):
    """One document: a list of elements, a line for each; the object alone where there is only one."""

    _before = "["

    def part(self, shown: Shown, host: str | None) -> Write:
        """As Writer."""
        lines = _lines(shown.records, host, keys_only=self.keys_only)

        def part(keys: Buffer, values: Buffer, count: int) -> None:
            text = lines(keys, values, count)
            if self.one:
                self.file.write(text)
                return
            # A text of JSON has no line feed of its own.
            self.file.write(self._before + "\n" + text[:-1].replace("\n", ",\n"))
            self._before = ","

        return part

    def end(self, trailer: Trailer | None) -> None:
        """As Writer."""
        del trailer
        if not self.one:
            self.file.write("[]\n" if self._before == "[" else "\n]\n")


class BpftoolJson(Writer):
    """What ``bpftool -j map dump`` prints, to the byte; of one element what ``bpftool -j map lookup`` prints."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._before = "" if self.one else "["

    def part(self, shown: Shown, host: str | None) -> Write:
        """As Writer."""
        from mapd_client.records.bpftool import Bpftool

        if host is not None:
            raise Misuse("--bpftool-json: bpftool knows no hosts; ask one host, or take -o ndjson")
        printer = Bpftool(shown.info, shown.btf, shown.byteorder)

        def part(keys: Buffer, values: Buffer, count: int) -> None:
            self.file.write(self._before + ",".join(printer.objects(keys, values, count)))
            self._before = ","

        return part

    def end(self, trailer: Trailer | None) -> None:
        """As Writer."""
        del trailer
        self.file.write("\n" if self.one else "[]\n" if self._before == "[" else "]\n")


class Table(Writer):
    """A line for each element, for people."""

    def part(self, shown: Shown, host: str | None) -> Write:
        """As Writer."""
        head = "" if host is None else f"{host}  "

        def part(keys: Buffer, values: Buffer, count: int) -> None:
            rows: Iterable[str] = (
                (f"{key}\n" for key in shown.keys(keys, count))
                if self.keys_only
                else shown.rows(keys, values, count)
            )
            self.file.writelines(head + row for row in rows) if head else self.file.writelines(rows)

        return part


class Csv(Writer):
    """A column for each field, named by its path: ``key.saddr``. UTF-8; strings are quoted, numbers are not.

    Unknown bytes are ``0x0a00``, which no reader that guesses types takes for a number, and mapctl takes for bytes.
    Lists, as those of a per-CPU value, are JSON text.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        wrapper: object = self.file
        if isinstance(wrapper, TextIOWrapper):
            cast("TextIOWrapper", wrapper).reconfigure(encoding="utf-8")
        self._writer = csv.writer(self.file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        self._header: Sequence[str] | None = None

    def part(self, shown: Shown, host: str | None) -> Write:
        """As Writer."""
        columns = list(_columns(shown, keys_only=self.keys_only))
        header = [*(["host"] if host is not None else []), *(".".join(path) for path, _ in columns)]
        if self._header is None:
            self._writer.writerow(header)
        elif header != self._header:
            raise Misuse(
                f"-o csv: {shown.info.label} of {host} has other fields than the host before; take ndjson"
            )
        self._header = header
        lines = _lines(shown.records, None, keys_only=self.keys_only)

        def part(keys: Buffer, values: Buffer, count: int) -> None:
            records = json.loads(f"[{lines(keys, values, count)[:-1].replace(chr(10), ',')}]")
            cells = [_cells(records, path, layout) for path, layout in columns]
            if host is not None:
                cells.insert(0, [host] * count)
            self._writer.writerows(zip(*cells, strict=True))

        return part


def _columns(shown: Shown, *, keys_only: bool) -> Iterator[tuple[Sequence[str], Layout]]:
    """Path and layout of each column."""
    for side in ("key",) if keys_only else ("key", "value"):
        layout = shown.layouts[side] or Opaque(size=1)
        if side == "value" and shown.info.per_cpu:
            layout = Array(element=layout, count=shown.info.slots())
        yield from _leaves((side,), layout, shown)


def _leaves(path: Sequence[str], layout: Layout, shown: Shown) -> Iterator[tuple[Sequence[str], Layout]]:
    hint = shown.hints.get(".".join(path))
    if not isinstance(layout, Record) or (hint is not None and hint.size == layout.size):
        yield path, Text(size=layout.size) if hint is not None and not isinstance(layout, Array) else layout
        return
    for member in layout.named():
        if member.name and not isinstance(member.layout, Special):
            yield from _leaves((*path, member.name), member.layout, shown)


def _cells(records: Sequence[Any], path: Sequence[str], layout: Layout) -> Iterable[object]:
    cells: Iterable[Any] = records
    for name in path:
        cells = map(itemgetter(name), cells)
    match layout:
        case Array():
            return [cell if isinstance(cell, str) else json.dumps(cell) for cell in cells]
        case Boolean():
            return ["true" if cell else "false" for cell in cells]
        case Opaque():
            return map("0x".__add__, cells)
        case Float():
            return [_NOT_A_NUMBER if cell is None else cell for cell in cells]
        case _:
            return cells

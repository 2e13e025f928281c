"""Hints kept in a file: which fields of which maps are addresses, times or names. TOML; read strictly.

::

    ["web/flows"]                    # or "web/*", "/sys/fs/bpf/tc/globals/*", "flows" in any namespace
    key.saddr = "ipv4"
    key.ifindex = "ifindex"
    value.last_seen = "ktime"
"""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from mapd_client.codec import Codec
from mapd_client.errors import Misuse
from mapd_client.info import MapInfo
from mapd_client.typed.hints import resolve

BYTES: Final = 256 << 10
"""A file at most."""
LINE: Final = 1 << 10
"""Characters of a line at most: tomllib takes a time that grows with the square of a dotted key."""
DEPTH: Final = 64
"""Parts of a field's path at most."""
FAULTS: Final = 20
"""Faults that one error tells of."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says of the maps of one pattern.

    Attributes:
        pattern: a name as "web/flows", a pin's path, or a name without its namespace; ``*``, ``?`` and ``[...]`` as in
            shells, within one part of it.
        hints: codecs by field path.
    """

    pattern: str
    hints: Mapping[str, Codec[Any]]

    def matches(self, info: MapInfo) -> bool:
        """Whether a map is meant, by any of its names and pins; by the kernel's name if it has neither."""
        names = [name for name in (info.name, info.pin_path, *info.pins) if name] or [info.kernel_name]
        if "/" not in self.pattern:
            names = [name.rpartition("/")[2] for name in names if not name.startswith("/")]
        return any(_alike(name, self.pattern) for name in names)


@dataclass(frozen=True, slots=True)
class HintsFile:
    """A file of hints.

    Attributes:
        path: where it was read.
        tables: in the order of the file.
    """

    path: str
    tables: Sequence[Table]

    def for_map(self, info: MapInfo) -> dict[str, Codec[Any]]:
        """The hints for one map: ``await m.typed(hints=load_hints(path).for_map(m.info))``.

        Of several tables that say something about a field the last one counts.
        """
        found: dict[str, Codec[Any]] = {}
        for table in self.tables:
            if table.matches(info):
                found.update(table.hints)
        return found


def load_hints(path: str | os.PathLike[str]) -> HintsFile:
    """Read a file of hints. Blocks: it is a file.

    Raises:
        Misuse: it cannot be read, is no TOML, or says something that is no hint; with a line for each fault.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(BYTES + 1)
    except OSError as error:
        raise Misuse(f"hints: {path}: {error.strerror}", operation="hints") from None
    return parse_hints(data, str(path))


def parse_hints(data: bytes, path: str = "hints") -> HintsFile:
    """The same of a file's content.

    Raises:
        Misuse: as ``load_hints``.
    """
    if len(data) > BYTES:
        raise _wrong(path, [f"it has more than {BYTES} bytes"])
    try:
        text = data.decode("utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > LINE:
                raise _wrong(path, [f"line {number}: it has more than {LINE} characters"])
        document: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError tells line and column
        raise _wrong(path, [str(error) or "nested too deeply"]) from None
    faults: list[tuple[tuple[str, ...], str]] = []
    tables: list[Table] = []
    for pattern, said in document.items():
        if not pattern:
            faults.append(((pattern,), '[""]: no map has this name'))
        elif not isinstance(said, dict):
            faults.append(((pattern,), f'{pattern}: hints stand below a map, as in ["web/flows"]'))
        else:
            tables.append(_table(pattern, cast("dict[str, Any]", said), faults))
    if faults:
        lines = _lines(text)
        raise _wrong(path, [_at(lines, place) + fault for place, fault in faults])
    return HintsFile(path, tuple(tables))


def _table(pattern: str, said: Mapping[str, Any], faults: list[tuple[tuple[str, ...], str]]) -> Table:
    hints: dict[str, Codec[Any]] = {}
    for parts, value in _leaves(said):
        field = ".".join(parts)
        try:
            hint = _hint(parts, value)
            if field in hints:
                raise Misuse("said twice")
            hints[field] = hint
        except Misuse as error:
            faults.append(((pattern, field), f'["{pattern}"] {field}: {error}'))
    return Table(pattern, hints)


def _hint(parts: tuple[str, ...], value: object) -> Codec[Any]:
    if parts[0] not in ("key", "value"):
        raise Misuse(f"paths begin with key or value: key.{'.'.join(parts)}, or value.{'.'.join(parts)}?")
    if len(parts) > DEPTH or not all(parts):
        raise Misuse("this is no path of a field")
    if not isinstance(value, str):
        raise Misuse(
            f'a hint is the name of a codec in quotes, as "ipv4", not {type(value).__name__} {value!r}'
        )
    return resolve(value)


def _leaves(
    table: Mapping[str, Any], before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Everything that is no table, by its path. ``key.saddr`` and ``"key.saddr"`` are one path."""
    for name, value in table.items():
        here = (*before, *name.split("."))
        if isinstance(value, dict) and value and len(here) <= DEPTH:
            yield from _leaves(cast("dict[str, Any]", value), here)
        else:
            yield here, value


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each key stands: tomllib does not tell. A key that is written in a rarer way has no line."""
    found: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        try:
            path = _only(tomllib.loads(said))
        except (ValueError, RecursionError):
            continue
        if said.startswith("["):
            header = path
            found.setdefault(header[:1], number)
        elif path:
            path = (*header, *path)
            found[path[0], ".".join(path[1:])] = number
            found.setdefault(path[:1], number)
    return found


def _only(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The path to the one thing in a document."""
    path: tuple[str, ...] = ()
    while len(document) == 1:
        name = next(iter(document))
        path = (*path, name)
        if not isinstance(document[name], dict):
            break
        document = document[name]
    return path


def _at(lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> str:
    number = lines.get(path)
    return "" if number is None else f"line {number}: "


def _wrong(path: str, faults: Sequence[str]) -> Misuse:
    told = list(faults[:FAULTS])
    if len(faults) > FAULTS:
        told.append(f"and {len(faults) - FAULTS} more")
    return Misuse("\n".join(f"hints: {path}: {fault}" for fault in told), operation="hints")


def _alike(name: str, pattern: str) -> bool:
    """By parts: no wildcard stands for a ``/``."""
    names, patterns = name.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))

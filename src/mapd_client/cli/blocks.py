"""A file of elements for ``load``: read as it comes, packed a block at a time; a block is loaded by one call."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from mapd_api import limits
from mapd_client.cli.feeds import SUFFIXES, Reading, read_feed, read_file
from mapd_client.cli.jsonrows import Documents, Lines, Packer
from mapd_client.codec import BadElement
from mapd_client.errors import Misuse

if TYPE_CHECKING:
    from mapd_client.cli.types import Shown

Format = Literal["ndjson", "json", "bpftool", "csv", "list", "parquet", "arrow"]

_READ_BYTES: Final = 1 << 20
_MOST: Final = 65_536
_TABLES: Final = frozenset({"parquet", "arrow"})
_MAGIC: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),  # how a message of the stream format begins
)


@dataclass(frozen=True, slots=True)
class Block:
    """Elements that follow one another.

    Attributes:
        keys: packed.
        values: packed, with all CPUs' slots.
        places: where in the file each is, from 1.
    """

    keys: bytes
    values: bytes
    places: Sequence[int]


@dataclass(frozen=True, slots=True)
class Blocks:
    """The elements of one file, in its order.

    What cannot be read ends them, behind a block of what came before it.

    Attributes:
        name: of the file, for messages.
        unit: what ``Block.places`` counts: line, element, row.
        blocks: to be read once.
    """

    name: str
    unit: str
    blocks: AsyncIterator[Block]


@asynccontextmanager
async def opened(path: str, format: Format | None, reading: Reading, shown: Shown) -> AsyncGenerator[Blocks]:
    """Open a file; "-" is stdin. Holds a block of it, of CSV and lists all.

    Cancelled: stdin is not read any further.

    Raises:
        Misuse: no such file, or a format that is not that of its content.
        Unsupported: pyarrow is not installed.
    """
    name = "stdin" if path == "-" else path
    kind = format or _by_name(path)
    if kind in ("csv", "list"):
        found = Blocks(name, "line", _fed(path, kind, reading, shown))
        yield found
        return
    try:
        file = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Misuse(f"{name}: {error.strerror}") from None
    try:
        chunks = _chunks(file, name)
        begin = await anext(chunks, b"")
        kind = kind or _sniffed(begin)
        if kind is None:
            raise Misuse(f"{name}: it begins as no format that is known here; say what it is with --format")
        if kind in _TABLES:
            # Both have their offsets from the beginning of a file, and a pipe has none to go back to.
            source: Any = (
                BytesIO(begin + await _all(chunks)) if path == "-" else os.fdopen(os.dup(file), "rb")
            )
            with source:
                source.seek(0)
                yield Blocks(name, "row", _tabular(source, kind, name, reading, shown))
            return
        packer = Packer(shown, name, reading.value)
        parser = Lines(packer) if kind == "ndjson" else Documents(packer)
        yield Blocks(name, parser.unit, _parsed(begin, chunks, parser, block_elements(shown)))
    finally:
        os.close(file)


def block_elements(shown: Shown) -> int:
    """How many elements one message of a load has room for: a block is written or refused as a whole call."""
    info = shown.info
    return max(1, min(_MOST, limits.CHUNK_MAX_BYTES // max(info.key_stride + info.value_stride, 1)))


def _by_name(path: str) -> Format | None:
    suffix = Path(path).suffix.lower()
    return "json" if suffix == ".json" else cast("Format | None", SUFFIXES.get(suffix))


def _sniffed(begin: bytes) -> Format | None:
    for magic, kind in _MAGIC:
        if begin.startswith(magic):
            return kind
    text = begin.lstrip()
    if not text or text.startswith(b"{"):
        return "ndjson"
    return "json" if text.startswith(b"[") else None


async def _chunks(file: int, name: str) -> AsyncGenerator[bytes]:
    """What can be read, when it can: Ctrl-C has not to wait for who writes a pipe."""
    loop = asyncio.get_running_loop()
    while True:
        ready = asyncio.Event()
        try:
            loop.add_reader(file, ready.set)
        except PermissionError:
            pass  # epoll(7) takes no regular files: those are always ready
        else:
            try:
                await ready.wait()
            finally:
                loop.remove_reader(file)
        try:
            data = os.read(file, _READ_BYTES)
        except OSError as error:
            raise Misuse(f"{name}: {error.strerror}") from None
        if not data:
            return
        yield data


async def _all(chunks: AsyncGenerator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _parsed(
    begin: bytes, chunks: AsyncGenerator[bytes], parser: Lines | Documents, most: int
) -> AsyncIterator[Block]:
    """Blocks of JSON, each as soon as its text is there."""
    for packed in parser.feed(begin, most):
        yield Block(*packed)
    async for chunk in chunks:
        for packed in parser.feed(chunk, most):
            yield Block(*packed)
    for packed in parser.end(most):
        yield Block(*packed)


async def _fed(
    path: str, kind: Literal["csv", "list"], reading: Reading, shown: Shown
) -> AsyncIterator[Block]:
    """Text tables and lists of keys, as ``sync`` reads them: whole, and checked before the first is written."""
    feed = read_feed(
        read_file(path),
        Reading(kind, reading.value, reading.key_column, reading.value_column, reading.family),
        shown,
    )
    if feed.passed_over:
        sys.stderr.write(f"mapctl: lines passed over, of the other family of addresses: {feed.passed_over}\n")
    most = block_elements(shown)
    for at in range(0, len(feed.elements), most):
        part = feed.elements[at : at + most]
        yield Block(
            b"".join([key for key, _ in part]),
            b"".join([value for _, value in part]),
            feed.lines[at : at + most],
        )


async def _tabular(
    source: Any, kind: Format, name: str, reading: Reading, shown: Shown
) -> AsyncIterator[Block]:
    """Record batches, packed a column at a time."""
    from mapd_client.tables.needs import arrow, need_arrow, packed

    need_arrow(f"--format {kind}")
    pa = arrow()
    packer = Packer(shown, name, None)
    codecs = packer.codec("key"), packer.codec("value")
    first, most = 1, block_elements(shown)
    try:
        batches = _batches(source, kind)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            table = _renamed(pa.Table.from_batches([batch]), reading, name)
            try:
                for one in packed(table, *codecs, shown.byteorder, most):
                    begin = first + one.first
                    yield Block(one.keys, one.values, range(begin, begin + one.count))
            except BadElement as bad:
                raise Misuse(f"{name}: row {first + bad.index}: {bad.error}") from None
            first += batch.num_rows
    except pa.ArrowException as error:
        raise Misuse(f"{name}: {error}") from None


def _batches(source: Any, kind: Format) -> Iterator[Any]:
    if kind == "parquet":
        from pyarrow import parquet

        yield from cast("Any", parquet).ParquetFile(source).iter_batches(batch_size=_MOST)
        return
    from pyarrow import ipc

    begin = source.read(6)
    source.seek(0)
    if begin == b"ARROW1":
        found: Any = cast("Any", ipc).open_file(source)
        for at in range(found.num_record_batches):
            yield found.get_batch(at)
    else:
        yield from cast("Any", ipc).open_stream(source)


def _renamed(table: Any, reading: Reading, name: str) -> Any:
    """With --key-column and --value-column, those alone."""
    wanted = {"key": reading.key_column, "value": reading.value_column}
    if not any(wanted.values()):
        return table
    columns: dict[str, str] = {}
    for side, column in wanted.items():
        if column is not None and column not in table.column_names:
            raise Misuse(f"{name}: no column {column!r}; there are {', '.join(table.column_names)}")
        for one in [column] if column else [c for c in table.column_names if c.split(".")[0] == side]:
            columns[side if column else one] = one
    return table.select(list(columns.values())).rename_columns(list(columns))

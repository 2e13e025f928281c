"""Elements on stdout, a chunk at a time, of one host or of several."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Literal, TextIO, TypeAlias

from mapd_client.cli.outputs import texts
from mapd_client.cli.outputs.kinds import BINARY, Output, fit_for
from mapd_client.cli.outputs.percpu import PerCpuForm
from mapd_client.cli.outputs.writers import Write, Writer
from mapd_client.cli.types import Shown
from mapd_client.codec import Buffer
from mapd_client.errors import Misuse
from mapd_client.info import Trailer

Format: TypeAlias = Literal[Output, "bpftool"]


class Document:
    """The elements of one map, or of maps of several hosts, in one format.

    Nothing of it is held but a chunk, and a row group of Parquet. A document that is not closed is not whole: a JSON
    list is not ended, a Parquet file has no footer.

    Args:
        output: the format; "bpftool" is bpftool's own JSON.
        file: stdout.
        per_cpu: how per-CPU values are written.
        keys_only: no values; ``write`` takes b"" for them.
        one: of a single element: json writes the object, no list.

    Raises:
        Misuse: bytes for a terminal; bpftool's form of what it does not have.
        Unsupported: pyarrow is not installed.
    """

    def __init__(
        self,
        output: Format,
        file: TextIO,
        *,
        per_cpu: PerCpuForm = "list",
        keys_only: bool = False,
        one: bool = False,
    ) -> None:
        fit_for(output, file)
        if output == "bpftool" and (keys_only or per_cpu != "list"):
            raise Misuse("--bpftool-json is what bpftool prints: it goes without --keys-only and --per-cpu")
        self._writer = _writer(output)(file, keys_only=keys_only, one=one)
        self._per_cpu: PerCpuForm = per_cpu

    @classmethod
    async def prepared(
        cls, output: Format, file: TextIO, *, per_cpu: PerCpuForm = "list", keys_only: bool = False
    ) -> Document:
        """The same; what it has to import it imports in a thread, while the event loop has other things to do."""
        if output in BINARY:
            await asyncio.to_thread(_writer, output)
        return cls(output, file, per_cpu=per_cpu, keys_only=keys_only)

    def sink(self, shown: Shown, host: str | None = None) -> Sink:
        """One map's part; ``host`` becomes the first field of each record.

        Raises:
            Misuse: a sum of values that have none; a host whose map has other columns than the one before.
        """
        shown = shown.formed(self._per_cpu)
        return Sink(self, shown, self._writer.part(shown, host))

    def close(self, trailer: Trailer | None = None) -> None:
        """After the last element of all; ``trailer``: of the one map."""
        self._writer.end(trailer)


class Sink:
    """Takes one map's elements.

    Attributes:
        shown: how they are written.
    """

    __slots__ = ("_document", "_write", "shown")

    def __init__(self, document: Document, shown: Shown, write: Write) -> None:
        self._document = document
        self.shown = shown
        self._write = write

    def write(self, keys: Buffer, values: Buffer, count: int) -> None:
        """So many elements, packed as a chunk has them; raises as writing to the file does."""
        if count:
            self._write(keys, self.shown.converted(values), count)

    def close(self, trailer: Trailer | None = None) -> None:
        """End the document, where this is the only map of it."""
        self._document.close(trailer)


def elements(
    shown: Shown,
    output: Format,
    file: TextIO,
    *,
    per_cpu: PerCpuForm = "list",
    keys_only: bool = False,
    host: str | None = None,
) -> Sink:
    """A document of one map's elements; ``close`` ends it. Raises as ``Document``."""
    return Document(output, file, per_cpu=per_cpu, keys_only=keys_only).sink(shown, host)


def _writer(output: Format) -> type[Writer]:
    if output not in BINARY:
        return _TEXTS[output]
    from mapd_client.tables.needs import need_arrow

    need_arrow(f"-o {output}")
    from mapd_client.cli.outputs import columnar

    return columnar.Arrow if output == "arrow" else columnar.Parquet


_TEXTS: Final[Mapping[str, type[Writer]]] = {
    "table": texts.Table,
    "json": texts.Json,
    "ndjson": texts.Ndjson,
    "csv": texts.Csv,
    "bpftool": texts.BpftoolJson,
}

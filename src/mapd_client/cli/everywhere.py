"""The elements of one map on many hosts: ``lookup`` and ``dump``. One document; each record begins with its host."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping

from mapd_client.cli import fanout
from mapd_client.cli.complaints import HOST
from mapd_client.cli.options import Options
from mapd_client.cli.outputs import Document, Output, PerCpuForm, Sink
from mapd_client.cli.outputs.documents import Format
from mapd_client.cli.reading_verbs import say_incomplete
from mapd_client.cli.sources import Source
from mapd_client.cli.types import saying, shown_by
from mapd_client.client import Client
from mapd_client.errors import Misuse
from mapd_client.map import Map


class Elements:
    """What is to be printed of a map, wherever it is.

    Chunks are written as they come, those of several hosts in turn; a host that is slow slows nobody, and each holds
    one chunk. Of a host that fails in the middle what came until then is printed, and stderr names it.
    """

    def __init__(
        self,
        options: Options,
        ref: str,
        types: Source,
        form: Format,
        *,
        per_cpu: PerCpuForm,
        keys_only: bool = False,
    ) -> None:
        if form == "bpftool":
            raise Misuse("--bpftool-json: bpftool knows no hosts; ask one host, or take -o ndjson")
        self._options = options
        self._ref = ref
        self._types = types
        self._form: Format = form
        self._document = Document(form, sys.stdout, per_cpu=per_cpu, keys_only=keys_only)
        self._keys_only = keys_only

    async def _sink(self, verb: str, opened: Map[bytes, bytes], client: Client, host: str) -> Sink:
        with saying(verb, self._ref):
            return self._document.sink(await shown_by(opened, client, self._types), host)

    def _note(self, sink: Sink) -> None:
        if self._form == "table" and sink.shown.note:
            sys.stderr.write(f"{HOST.get()}: {sink.shown.note}")

    def lookup(self, key: str) -> int:
        """The value of one key on each host; a host that does not have it counts as one that failed."""

        async def work(client: Client, host: str) -> None:
            async with client.open_map(self._ref) as opened:
                sink = await self._sink("lookup", opened, client, host)
                with saying("lookup", self._ref):
                    data = sink.shown.key(key)
                sink.write(data, await opened[data], 1)
                self._note(sink)

        return self._asked(work)

    def dump(self, begins: bytes, *, limit: int | None, nonzero: bool, partial_ok: bool) -> int:
        """Every element of each host; ``limit`` is each host's."""

        async def work(client: Client, host: str) -> None:
            async with client.open_map(self._ref) as opened:
                sink = await self._sink("dump", opened, client, host)
                chunks = opened.chunks(
                    prefix=begins,
                    limit=limit,
                    keys_only=self._keys_only,
                    nonzero=nonzero,
                    partial_ok=partial_ok,
                )
                async with chunks:
                    async for chunk in chunks:
                        sink.write(chunk.keys, chunk.values, chunk.count)
                self._note(sink)
                say_incomplete(chunks.trailer)

        return self._asked(work)

    def _asked(self, work: Callable[[Client, str], Awaitable[None]]) -> int:
        def end(found: Mapping[str, None]) -> None:
            del found
            self._document.close()

        output: Output = "json" if self._form in ("json", "ndjson") else "table"
        return fanout.on_each(self._options, work, end, output=output, deadline=False, always=True)

"""Where ``mapctl top`` has its maps from: a daemon."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mapd_client.client import Client
from mapd_client.map import Map
from mapd_client.stats import MapStats, StatsSample
from mapd_client.top.paging import Page, fields, page_elements

if TYPE_CHECKING:
    from mapd_client.cli.types import Shown


class Reader(Protocol):
    """The elements of one open map."""

    async def read(self, start: bytes) -> Page:
        """The page that begins there; raises MapdError. Cancelling costs nothing."""
        ...


class Source(Protocol):
    """Maps to look at."""

    async def sample(self) -> StatsSample:
        """All of them as they are now; raises MapdError. Cancelling costs nothing."""
        ...

    def browse(self, stats: MapStats) -> AbstractAsyncContextManager[Reader]:
        """One of them, opened for as long as somebody looks at its elements; raises MapdError."""
        ...


@dataclass(frozen=True, slots=True)
class MapReader:
    """A map through the client, shown as ``mapctl dump`` shows it."""

    opened: Map[bytes, bytes]
    shown: Shown

    async def read(self, start: bytes) -> Page:
        """As Reader.read: a dump of as many elements as a page has, ended where they were read.

        Where that is inside a kernel bucket no token goes on from there: the elements of it come with the next page.
        """
        info = self.opened.info
        most = page_elements(info.key_stride + info.value_stride)
        keys: list[bytes] = []
        values: list[bytes] = []
        covered, token = 0, start
        async with self.opened.items(limit=most, resume=start or None, partial_ok=True) as dump:
            async for key, value in dump:
                keys.append(key)
                values.append(value)
                if dump.token != token:  # it moves with the last element of a chunk
                    covered, token = len(keys), dump.token
        if len(keys) < most:
            token = b""
        elif covered:
            del keys[covered:], values[covered:]
        texts = self.shown.records.texts(b"".join(keys), b"".join(values), len(keys))
        shown = [fields(key, value) for key, value in zip(texts["key"], texts["value"], strict=True)]
        return Page(keys, values, shown, token)


@dataclass(frozen=True, slots=True)
class ClientSource:
    """The maps of one daemon.

    Attributes:
        glob, pins, ids: as ``Client.map_stats`` takes them.
    """

    client: Client
    glob: str = "*"
    pins: bool = False
    ids: bool = False

    async def sample(self) -> StatsSample:
        """As Source.sample."""
        return await self.client.map_stats(self.glob, pins=self.pins, ids=self.ids, wait_for_ready=False)

    @asynccontextmanager
    async def browse(self, stats: MapStats) -> AsyncGenerator[Reader]:
        """As Source.browse."""
        from mapd_client.cli.sources import Source as TypeSource
        from mapd_client.cli.types import shown_by

        async with self.client.open_map(stats.label, read_only=True) as opened:
            yield MapReader(opened, await shown_by(opened, self.client, TypeSource()))

"""The maps that a caller may see."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable

from mapd_client import methods, replies, requests
from mapd_client.failures import Asked
from mapd_client.info import MapInfo
from mapd_client.link import Links


class Listing(AsyncIterator[MapInfo]):
    """The maps that the caller may see, those with names first, asked for page by page.

    Iterate it once.
    """

    sources: tuple[str, ...]
    """Where the daemon looked; filled as pages come in."""

    not_looked_at: tuple[str, ...]
    """Where it did not, and why; filled as pages come in."""

    def __init__(self, links: Links, wanted: requests.Wanted) -> None:
        self._links = links
        self._wanted = wanted
        self._page: deque[MapInfo] = deque()
        self._token: str | None = ""
        self.sources = ()
        self.not_looked_at = ()

    async def __anext__(self) -> MapInfo:
        """The next map; raises as any call, cancelling costs nothing."""
        while not self._page:
            if self._token is None:
                raise StopAsyncIteration
            await self._next_page(self._token)
        return self._page.popleft()

    async def _next_page(self, token: str) -> None:
        link = await self._links.current()
        request = requests.list_maps(self._wanted, token)
        asked = Asked("list", self._wanted.glob)
        page = replies.map_page(await link.call(methods.LIST_MAPS, request, asked))
        self._page.extend(page.maps)
        self._token = page.next_token or None
        self.sources = _merged(self.sources, page.sources)
        self.not_looked_at = _merged(self.not_looked_at, page.not_looked_at)


def _merged(known: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*known, *more)))

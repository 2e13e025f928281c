"""Which map may have been meant, where there is none of a name: the same name elsewhere, or one like it."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from mapd_client.client import Client
from mapd_client.errors import MapdError, MapNotFound

_PATIENCE_S: Final = 0.5  # who mistyped does not wait for a daemon that is slow besides
_MANY: Final = 2000  # comparing this many names takes less than the listing
_SHOWN: Final = 3


async def note(client: Client, error: MapNotFound) -> None:
    """Note on the error which maps may have been meant; nothing where none is, or the daemon does not tell.

    Asks the daemon for the maps that the caller may see, for half a second at most. Cancelling costs nothing.
    """
    if not error.map:
        return  # it was no map that was looked for
    names: list[str] = []
    with suppress(MapdError, TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            async for one in client.list_maps():
                names.append(one.name or "")
                if len(names) == _MANY:
                    break
    meant = likely(error.map or "", names)
    if meant:
        error.add_note(f"did you mean {' or '.join(meant)}? 'mapctl list' has the maps that you may see")


def likely(name: str, names: Iterable[str]) -> list[str]:
    """The names that may have been meant by ``name``, the same in another namespace first; three at most."""
    namespace, slash, last = name.rpartition("/")
    if not slash or not last or name.startswith(("pin:", "id:")):
        return []
    there = sorted({one for one in names if one and one != name})
    same = [one for one in there if one.rpartition("/")[2] == last]
    beside = {one.rpartition("/")[2]: one for one in there if one.rpartition("/")[0] == namespace}
    typed = [beside[one] for one in difflib.get_close_matches(last, beside, n=_SHOWN, cutoff=0.7)]
    alike = {one: difflib.SequenceMatcher(None, last, one.rpartition("/")[2]).ratio() for one in there}
    near = difflib.get_close_matches(name, there, n=_SHOWN, cutoff=0.8)
    whole = [one for one in near if alike[one] >= 0.7]  # not by the namespace alone
    return list(dict.fromkeys([*same, *typed, *whole]))[:_SHOWN]

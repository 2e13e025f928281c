"""Single elements written: ``update``, ``delete``."""

from __future__ import annotations

from mapd_client.cli import outcomes
from mapd_client.cli.complaints import complain
from mapd_client.cli.options import Given
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import saying, shown_by
from mapd_client.client import Client
from mapd_client.info import UpdateFlag
from mapd_client.map import Map


def update(
    map: Ref,
    key: str,
    value: str,
    flags: UpdateFlag = "any",
    /,
    *,
    types: Source | None = None,
    options: Given,
) -> int:
    """Create or replace one element; in a per-CPU map every CPU gets the value.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01.
        value: in the same forms.
        flags: any; noexist (only create); exist (only replace).
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("update", map):
            shown = await shown_by(opened, client, types or Source())
            element = shown.key(key), shown.value(value)
        await opened.update(*element, flags=flags)
        return outcomes.OK

    return with_map(options, map, work)


def delete(map: Ref, key: str, /, *, types: Source | None = None, options: Given) -> int:
    """Remove one element; exit code 3 if it was not there.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("delete", map):
            data = (await shown_by(opened, client, types or Source())).key(key)
        if await opened.delete(data):
            return outcomes.OK
        return complain(f"delete {map}: no such key {data.hex()}", "nothing was removed", outcomes.NOT_FOUND)

    return with_map(options, map, work)

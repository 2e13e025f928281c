"""The demo's second principal: another user, whom the policy lets read one map and nothing else."""

from __future__ import annotations

import asyncio
import os
import sys

import mapd_client
from mapd_client import U32, U64, Client, MapNotFound, PermissionDenied


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


async def main(address: str, readable: str, hidden: str) -> None:
    """Read what may be read, and be refused the rest."""
    async with mapd_client.connect(address) as client:
        me = await client.whoami()
        say(f"     whoami         {me.name!r}, by {me.attested_by} (uid {os.geteuid()})")
        say(f"     list_maps()    {', '.join([info.name async for info in client.list_maps()])}")
        await read_and_write(client, readable)
        try:
            await client.open_map(hidden)
        except MapNotFound as error:
            say(f"     open_map({hidden!r}), which is there:\n       {type(error).__name__}: {error}")
        else:
            raise SystemExit(f"{hidden} was opened, and nobody allows that")
        say(f"     explain        {(await client.explain('write', readable)).text}")


async def read_and_write(client: Client, name: str) -> None:
    """A lookup is answered, an update is not executed."""
    async with client.open_map(name, key=U32, value=U64) as opened:
        before = await opened[1]
        say(f"     lookup(1)      {before}")
        try:
            await opened.update(1, before + 1)
        except PermissionDenied as error:
            say(f"     update(1, {before + 1})   {type(error).__name__}: {error}")
        else:
            raise SystemExit("the update was executed, and nobody allows that")
        if await opened[1] != before:
            raise SystemExit("the update was refused, and executed nevertheless")


asyncio.run(main(*sys.argv[1:]))

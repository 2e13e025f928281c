"""Create the maps of an eBPF object file without privileges: ``from_object.py prog.o``.

Needs a running daemon, and pyelftools (pip install 'bpf-mapd[elf]'). Whoever loads the programs of the object finds
each map at its pin, and gives them these instead of new ones (libbpf: bpf_map__set_pin_path() before the load).
"""

from __future__ import annotations

import asyncio
import sys

import mapd_client


async def main(path: str) -> None:
    """Create what is not there, and say what there is."""
    async with (
        mapd_client.connect() as client,
        client.create_from_object(path, exist_ok=True) as maps,
    ):
        print(maps.rule)
        for one, opened in zip(maps.declared, maps, strict=True):
            what = "created" if one.created else "was there"
            print(
                f"map_fd[{one.index}] {one.declared}: {opened.info.type_name}, {what}: {opened.info.pin_path}"
            )
        for sentence in maps.left_out:
            print("left out:", sentence)


asyncio.run(main(sys.argv[1]))

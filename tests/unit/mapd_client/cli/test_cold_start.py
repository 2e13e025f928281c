"""What ``mapctl lookup`` imports: a process that looks up one key pays for nothing else.

How long it takes is in docs/decisions/0022-command-line.md, and never measured here.
"""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from mapd_api.uapi import MapType
from tests.unit.mapd_client.daemon import Daemon, map_info

_HEAVY = {
    "rich",
    "numpy",
    "pyarrow",
    "pandas",
    "polars",
    "textual",
    "elftools",
    "msgspec",
    "tomlkit",
    "tomllib",
}
_OTHER_VERBS = {"mapd_client.cli.listing", "mapd_client.cli.rights", "mapd_client.cli.contextfile"}
_PARTS = {"mapd_client.elf", "mapd_client.btf.build", "mapd_client.records.bpftool"}
_MAIN = """
import sys
class Told:
    def find_spec(name, path=None, target=None):
        if name.startswith("mapd_client."):  # others are looked for, whether they are there, and not imported
            print("modules:", name, file=sys.stderr)
sys.meta_path.insert(0, Told)
from mapd_client.cli import main
main()
"""


async def _imported(*arguments: str) -> set[str]:
    """The modules that a run imports, as Python itself says; and those that importlib looks for."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "importtime",
        "-c",
        _MAIN,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    lines = told.decode().splitlines()
    timed = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return timed.union(*(line.split()[1:] for line in lines if line.startswith("modules:")))


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH])
async def test_a_lookup_imports_no_other_verb_and_nothing_heavy(daemon: Daemon, kind: MapType) -> None:
    daemon.add(map_info("ns/flows", kind)).data = {bytes(4): bytes(24 if kind == MapType.PERCPU_HASH else 8)}
    found = await _imported("lookup", "flows", "0", "--address", daemon.target)
    assert "mapd_client.cli.reading_verbs" in found, "what is read here is what was imported"
    assert not found & (_HEAVY | _OTHER_VERBS | _PARTS)


async def test_the_help_imports_what_a_lookup_does_not(daemon: Daemon) -> None:
    del daemon
    found = await _imported("--help")
    assert {"rich", "mapd_client.cli.listing", "mapd_client.cli.rights"} <= found, "the names above are right"

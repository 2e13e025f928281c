"""examples/notebook.ipynb, run cell by cell on an LRU map that is being written: it changes nothing that is evicted."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

import mapd_client
from mapd_client import Client, Map
from mapd_client.btf.build import blob_of
from mapd_client.layouts import Integer, Member, Record
from mapd_client.typed import codec_of
from tests.support.bpffs import require_bpf
from tests.support.daemon import daemon_process, private_place

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTEBOOK: Final = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
ROOM: Final = 4_096
OLD: Final = 1_000
"""The first that were written, so the first to be evicted."""
NEW: Final = 1_500
TIMES: Final = 5
"""How often the notebook looks, and how many parts the new elements come in."""

U32L, U64L = (Integer(size=size, signed=False) for size in (4, 8))
KEY: Final = Record(
    size=8,
    type_name="flow",
    members=(Member(name="saddr", offset=0, layout=U32L), Member(name="port", offset=4, layout=U32L)),
)
VALUE: Final = Record(
    size=16,
    type_name="seen",
    members=(Member(name="packets", offset=0, layout=U64L), Member(name="bytes", offset=8, layout=U64L)),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncGenerator[Client]:
    require_bpf()
    with private_place() as place, daemon_process(place), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAPD_ADDRESS", str(place.socket))
        async with mapd_client.connect() as found:
            yield found


def cells() -> Sequence[str]:
    return [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]


async def run(cell: str, names: dict[str, Any]) -> None:
    """As notebooks and ``python -m asyncio`` do."""
    code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    ended = eval(code, names)  # noqa: S307 - our own notebook
    if inspect.iscoroutine(ended):
        await ended


def rows(first: int, count: int) -> tuple[Any, Any]:
    keys: Any = np.zeros(count, np.dtype(codec_of(KEY, path="key").dtype))
    values: Any = np.zeros(count, np.dtype(codec_of(VALUE).dtype))
    keys["saddr"] = np.arange(first, first + count)
    values["packets"], values["bytes"] = 1, keys["saddr"]
    return keys, values


async def full(client: Client, name: str) -> Map[Any, Any]:
    """An LRU map without room for more."""
    server = await client.server_info()
    made = await client.create_map(
        name,
        "lru_hash",
        key=codec_of(KEY, path="key"),
        value=codec_of(VALUE),
        max_entries=ROOM,
        btf=blob_of(KEY, VALUE, server.byteorder),
    )
    await made.update_many(rows(0, ROOM))
    return made


async def push(flows: Map[Any, Any], part: int) -> None:
    size = NEW // TIMES
    await flows.update_many(rows(10_000 + part * size, size))


async def survivors(flows: Map[Any, Any]) -> int:
    keys: NDArray[Any] = rows(0, OLD)[0]
    found = await flows.lookup_many(keys)
    return int(found.present.sum())


async def test_a_notebook_that_looks_again_and_again_does_not_keep_old_elements_alive(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_at, left_alone = await full(client, "flows"), await full(client, "alone")
    opened, look, closed = cells()
    names: dict[str, Any] = {}
    await run(opened, names)
    for part in range(TIMES):
        await asyncio.gather(run(look, names), push(looked_at, part))
        assert len(names["frame"]) == names["frame"].attrs["mapd"]["entries"] > OLD
        await push(left_alone, part)
    await run(look, names)
    await run(closed, names)
    assert names["frame"]["value.bytes"].max() == 10_000 + NEW - 1
    assert names["frame"]["key.saddr"].str.count(r"\.").eq(3).all()
    assert capsys.readouterr().out.count(" flows at 20") == TIMES + 1
    dumped, alone = await survivors(looked_at), await survivors(left_alone)
    assert max(dumped, alone) < OLD // 10, (dumped, alone)
    # The canary: what a look that counts as use would have kept.
    touched = await full(client, "touched")
    await touched.lookup_many(rows(0, OLD)[0], touch=True)
    for part in range(TIMES):
        await push(touched, part)
    assert await survivors(touched) > OLD - OLD // 10

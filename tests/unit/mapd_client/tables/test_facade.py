"""Tables of a map whose dump is not complete, packages that are not there, and what is imported when."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pytest

import mapd_client
from mapd_client import U32, U64, DumpIncomplete, Map, TypeMismatch, Unsupported
from mapd_client.codec import Buffer, Codec
from mapd_client.tables import about, trailer_of
from tests.support.daemon import environment
from tests.unit.mapd_client.daemon import Daemon, map_info

pa: Any = pyarrow  # its stubs know half of it

MAKERS = ("to_numpy", "to_arrow", "to_pandas", "to_polars")


@asynccontextmanager
async def opened(daemon: Daemon, value: Codec[Any] = U64) -> AsyncGenerator[Map[Any, Any]]:
    made = daemon.add(map_info("ns/flows"))
    made.data.update({n.to_bytes(4, "little"): (n * n).to_bytes(8, "little") for n in range(10)})
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=U32, value=value) as flows,
    ):
        yield flows


@pytest.mark.parametrize("maker", MAKERS)
async def test_an_incomplete_dump_is_no_table_unless_that_will_do(daemon: Daemon, maker: str) -> None:
    daemon.dump_complete = False
    async with opened(daemon) as flows:
        with pytest.raises(DumpIncomplete, match="it was cut"):
            await getattr(flows, maker)()
        made = await getattr(flows, maker)(partial_ok=True)
        if maker == "to_numpy":
            complete = made.trailer.complete
        else:
            complete = trailer_of(made).complete if maker == "to_arrow" else made.attrs["mapd"]["complete"]
        assert complete is False


@pytest.mark.parametrize("writer", ["write_parquet", "write_arrow"])
async def test_an_incomplete_dump_is_no_file_unless_that_will_do(
    daemon: Daemon, tmp_path: Path, writer: str
) -> None:
    daemon.dump_complete = False
    async with opened(daemon) as flows:
        with pytest.raises(DumpIncomplete, match="it was cut"):
            await getattr(flows, writer)(tmp_path / "file")
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - a test of its own
        trailer = await getattr(flows, writer)(tmp_path / "file", partial_ok=True)
        assert trailer.complete is False


async def test_an_empty_map_is_an_empty_table_with_the_same_columns(daemon: Daemon) -> None:
    async with opened(daemon) as flows:
        full = await flows.to_arrow()
        daemon.maps["ns/flows"].data.clear()
        empty: Any = await flows.to_arrow()
        assert empty.schema.equals(full.schema)
        assert (empty.num_rows, about(empty)["trailer"]["entries"]) == (0, 0)
        keys, values = await flows.to_numpy()
        assert (keys.shape, values.dtype.str) == ((0,), "<u8")
        assert await flows.load(empty) == 0
        with pytest.raises(TypeMismatch, match=r"'valeu'.*did you mean 'value'"):
            await flows.load(empty.rename_columns(["key", "valeu"]))


async def test_what_a_dump_raises_comes_through_a_reader(daemon: Daemon) -> None:
    daemon.dump_complete = False
    async with opened(daemon) as flows:
        batches = flows.to_batches()
        assert sum([batch.num_rows async for batch in flows.to_batches(partial_ok=True)]) == 10
        with pytest.raises(DumpIncomplete):
            async for _ in batches:
                pass


class Own(Codec[str]):
    """A codec that somebody else wrote, without a dtype."""

    size = 8

    def encode(self, value: str) -> bytes:
        return value.encode().ljust(8, b"\0")

    def decode_many(self, column: Buffer) -> list[str]:
        data = bytes(column)
        return [f"<{data[at]}>" for at in range(0, len(data), 8)]


async def test_a_codec_of_ones_own_is_a_column_of_text_and_no_array(daemon: Daemon) -> None:
    async with opened(daemon, value=Own()) as flows:
        rows = (await flows.to_arrow()).to_pylist()
        assert rows[3] == {"key": 3, "value": "<9>"}
        with pytest.raises(Unsupported, match="no dtype"):
            await flows.to_numpy()
        assert await flows.load(pa.table({"key": [1], "value": ["abc"]})) == 1
        assert daemon.maps["ns/flows"].data[b"\1\0\0\0"] == b"abc\0\0\0\0\0"


@pytest.mark.parametrize(
    ("package", "call", "line"),
    [
        ("numpy", "to_numpy", "pip install 'bpf-mapd[numpy]'"),
        ("pyarrow", "to_arrow", "pip install 'bpf-mapd[arrow]'"),
        ("pyarrow", "to_batches", "pip install 'bpf-mapd[arrow]'"),
        ("pyarrow", "write_parquet", "pip install 'bpf-mapd[arrow]'"),
        ("pandas", "to_pandas", "to_pandas needs pandas, which is not installed: pip install pandas"),
        ("polars", "to_polars", "pip install polars"),
        (
            "numpy pyarrow",
            "to_arrow",
            "needs numpy and pyarrow, which are not installed: pip install 'bpf-mapd[arrow]'",
        ),
        (
            "numpy pyarrow pandas",
            "to_pandas",
            "needs numpy, pyarrow and pandas, which are not installed: pip install 'bpf-mapd[arrow]' pandas",
        ),
    ],
)
async def test_packages_that_are_missing_are_named_with_the_line_that_installs_them(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, call: str, line: str
) -> None:
    for one in package.split():
        monkeypatch.setitem(sys.modules, one, None)
    async with opened(daemon) as flows:
        with pytest.raises(Unsupported, match=package.rsplit(maxsplit=1)[-1]) as caught:
            await getattr(flows, call)(*([tmp_path / "file"] if call == "write_parquet" else []))
        assert str(caught.value).endswith(line)


async def test_nothing_is_imported_by_who_only_opens_and_dumps(daemon: Daemon) -> None:
    async with opened(daemon):
        pass
    script = """
import asyncio, sys, mapd_client
from mapd_client import U32, U64
async def main():
    async with mapd_client.connect(sys.argv[1]) as c, c.open_map("flows", key=U32, value=U64) as m:
        chunks = [chunk async for chunk in m.chunks()]
        assert sum(chunk.count for chunk in chunks) == 10
        assert len([pair async for pair in m.items()]) == 10
        await m.load({1: 2})
asyncio.run(main())
heavy = {"numpy", "pyarrow", "pandas", "polars", "elftools", "ctypes"} & set(sys.modules)
readers = {"agreeing", "btf", "classes", "compare", "elf", "records", "tables.plan", "typed.instances", "typed.view"}
heavy |= {f"mapd_client.{one}" for one in readers} & set(sys.modules)
print(sorted(heavy))
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, daemon.target, env=environment(), stdout=subprocess.PIPE
    )
    said, _ = await child.communicate()
    assert said.decode() == "[]\n"

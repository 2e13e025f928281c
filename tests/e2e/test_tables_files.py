"""Maps written to Parquet and Arrow files: read back by others with the same sums; whole, or not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import pytest_asyncio

import mapd_client
from mapd_client import U32, U64, Client, Ipv4, Map, PerCpu
from mapd_client.codec import Codec
from mapd_client.layouts import Array, Enumeration, Integer, Member, Record, Text
from mapd_client.tables import about, trailer_of
from mapd_client.typed import codec_of
from tests.support.bpffs import require_bpf
from tests.support.daemon import daemon_process, private_place

pytestmark = pytest.mark.asyncio(loop_scope="module")

pa: Any = pyarrow  # its stubs know half of it
pq: Any = pyarrow.parquet
ipc: Any = pyarrow.ipc
pl: Any = polars
pd: Any = pandas

COUNT = 60_000
U8L, U32L, U64L = (Integer(size=size, signed=False) for size in (1, 4, 8))
KIND = Enumeration(size=4, signed=False, members=(("READ", 0), ("WRITE", 1), ("SYNC", 2)))
INNER = Record(
    size=8, members=(Member(name="kind", offset=0, layout=KIND), Member(name="addr", offset=4, layout=U32L))
)
VALUE = Record(
    size=56,
    members=(
        Member(name="in", offset=0, layout=INNER),
        Member(name="count", offset=8, layout=U64L),
        Member(name="pair", offset=16, layout=Array(element=INNER, count=2)),
        Member(name="name", offset=32, layout=Text(size=8)),
        Member(name="low", offset=40, layout=U32L, bits=5, bit_offset=320),
        Member(name="high", offset=40, layout=U32L, bits=27, bit_offset=325),
        Member(name="bytes", offset=44, layout=Array(element=U8L, count=3)),
        Member(name="half", offset=48, layout=U64L),
    ),
)
SUM = COUNT * (COUNT - 1) // 2


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncGenerator[Client]:
    require_bpf()
    with private_place() as place, daemon_process(place):
        async with mapd_client.connect(str(place.socket)) as found:
            yield found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def events(client: Client) -> AsyncGenerator[Map[Any, Any]]:
    """Its last elements have numbers that no enum names, so that a later batch knows more words than the first."""
    hints: dict[str, Codec[Any] | str] = {"value.in.addr": Ipv4}
    value = codec_of(VALUE, hints=hints)
    async with client.create_map("events", "hash", key=U32, value=value, max_entries=2 * COUNT) as made:
        n = np.arange(COUNT, dtype=np.uint32)
        rows: Any = np.zeros(COUNT, np.dtype(value.dtype))
        rows["in"]["kind"] = np.where(n % 1_000 == 0, 1_000 + n, n % 3)
        rows["in"]["addr"], rows["count"] = n.byteswap(), n
        rows["pair"]["addr"][:, 1] = n
        rows["name"] = np.char.mod("n%d", n % 50)
        rows["low:5+high:27"] = np.ascontiguousarray(n).view(np.uint8).reshape(COUNT, 4)
        rows["bytes"][:, 2] = n % 256
        await made.load((n, rows))
        yield made


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def check_polars(frame: Any) -> None:
    value = frame["value"].struct
    assert frame.height == COUNT
    assert int(frame["key"].sum()) == int(value.field("count").sum()) == SUM
    inner = value.field("in").struct
    words = inner.field("kind").cast(pl.String)
    assert int((words == "WRITE").sum()) == sum(n % 3 == 1 and n % 1_000 != 0 for n in range(COUNT))
    assert words.str.len_chars().max() == 5
    assert {"1000", "60000"} < set(words)
    assert "0.0.1.2" in set(inner.field("addr"))
    pairs = value.field("pair").arr.get(1).struct.field("addr")
    assert int(pairs.cast(pl.UInt64).sum()) == SUM
    low, high = value.field("low").cast(pl.UInt64), value.field("high").cast(pl.UInt64)
    assert int((low + high * 32).sum()) == SUM


async def test_a_parquet_file_is_read_by_polars_and_pandas_with_the_same_sums(
    events: Map[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "events.parquet"
    trailer = await events.write_parquet(path)
    assert (trailer.entries, trailer.complete) == (COUNT, True)
    check_polars(pl.read_parquet(path))
    frame = pd.read_parquet(path)
    assert int(frame["key"].sum()) == SUM
    assert sum(value["count"] for value in frame["value"]) == SUM
    read = pq.read_table(path)
    assert read.schema.equals((await events.to_arrow()).schema)
    assert trailer_of(pq.read_metadata(path).metadata) == trailer
    assert about(pq.read_schema(path))["map"]["name"] == events.info.name
    assert names(tmp_path) == ["events.parquet"]


@pytest.mark.parametrize("compression", ["zstd", None])
async def test_an_arrow_file_is_read_by_polars_and_pandas_with_the_same_sums(
    events: Map[Any, Any], tmp_path: Path, compression: Any
) -> None:
    path = tmp_path / "events.arrow"
    trailer = await events.write_arrow(path, compression=compression)
    check_polars(pl.read_ipc(path))
    frame = pd.read_feather(path)
    assert int(frame["key"].sum()) == SUM
    with ipc.open_file(path) as file:
        assert about(file.schema)["map"]["id"] == events.info.id
        last = file.get_batch_with_custom_metadata(file.num_record_batches - 1)
        assert last.batch.num_rows == 0
        assert trailer_of(last.custom_metadata) == trailer
        assert file.read_all().num_rows == COUNT


async def test_a_file_is_loaded_again_without_ever_being_in_memory(
    client: Client, events: Map[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "events.parquet"
    await events.write_parquet(path)
    value = codec_of(VALUE, hints={"value.in.addr": Ipv4})
    async with client.create_map("again", "hash", key=U32, value=value, max_entries=2 * COUNT) as again:
        file = pq.ParquetFile(path)
        reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(5_000))
        assert await again.load(reader) == COUNT
        keys, values = await again.to_numpy()
        others = await events.to_numpy()
        assert (values[np.argsort(keys)] == others.values[np.argsort(others.keys)]).all()


async def test_per_cpu_values_are_lists_in_files_too(client: Client, tmp_path: Path) -> None:
    cpus = (await client.server_info()).possible_cpus
    async with client.create_map("cpus", "percpu_hash", key=U32, value=PerCpu(U64), max_entries=100) as made:
        await made.update_many({n: [n * (cpu + 1) for cpu in range(cpus)] for n in range(100)})
        for path in (tmp_path / "cpus.parquet", tmp_path / "cpus.arrow"):
            write = made.write_parquet if path.suffix == ".parquet" else made.write_arrow
            await write(path)
            frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)
            assert frame["value"].dtype == pl.Array(pl.UInt64, cpus)
            assert int(frame["value"].arr.sum().sum()) == 4_950 * cpus * (cpus + 1) // 2


async def test_the_loop_runs_while_a_file_is_written(events: Map[Any, Any], tmp_path: Path) -> None:
    turns = 0
    writing = asyncio.ensure_future(events.write_parquet(tmp_path / "events.parquet"))
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    await writing
    assert turns > 100


async def test_a_cancelled_write_leaves_what_was_there(events: Map[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"old")
    writing = asyncio.ensure_future(events.write_parquet(path))
    while len(names(tmp_path)) < 2:  # noqa: ASYNC110 - a folder has no event to wait for
        await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert names(tmp_path) == ["events.parquet"]
    assert path.read_bytes() == b"old"


async def test_a_write_that_fails_leaves_what_was_there(events: Map[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await events.write_arrow(tmp_path / "missing" / "events.arrow")
    target = tmp_path / "events.arrow"
    target.mkdir()  # nothing can be renamed onto it
    with pytest.raises(OSError, match="events"):
        await events.write_arrow(target)
    assert names(tmp_path) == ["events.arrow"]

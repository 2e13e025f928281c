"""A map as numpy arrays, Arrow tables and frames, and back: through a real daemon on the real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from ipaddress import IPv4Address
from typing import Any, cast

import numpy as np
import polars
import pyarrow
import pytest
import pytest_asyncio

import mapd_client
from mapd_client import (
    U32,
    U64,
    Bytes,
    Client,
    Ipv4,
    Mac,
    Map,
    Misuse,
    PerCpu,
    SizeMismatch,
    Struct,
    TypeMismatch,
)
from mapd_client.btf.build import blob_of
from mapd_client.codec import Codec
from mapd_client.layouts import Array, Boolean, Enumeration, Integer, Layout, Member, Record, Text
from mapd_client.netcodec import Cidr4
from mapd_client.tables import about, trailer_of
from mapd_client.typed import codec_of
from tests.support.bpffs import require_bpf
from tests.support.daemon import daemon_process, private_place

pytestmark = pytest.mark.asyncio(loop_scope="module")

pa: Any = pyarrow  # its stubs know half of it
pl: Any = polars

COUNT = 40_000
"""More than one chunk."""

U8L, U16L, U32L, U64L = (Integer(size=size, signed=False) for size in (1, 2, 4, 8))
BE16, BE32 = (Integer(size=size, signed=False, order="big") for size in (2, 4))
PROTO = Enumeration(size=1, signed=False, members=(("ICMP", 1), ("TCP", 6), ("UDP", 17)))


def record(size: int, *members: tuple[str, int, Layout]) -> Record:
    return Record(size=size, members=tuple(Member(name=n, offset=at, layout=of) for n, at, of in members))


FLOW = record(
    16,
    ("saddr", 0, BE32),
    ("daddr", 4, BE32),
    ("sport", 8, BE16),
    ("dport", 10, BE16),
    ("proto", 12, PROTO),
)
SEEN = record(
    40,
    ("packets", 0, U64L),
    ("bytes", 8, U64L),
    ("comm", 16, Text(size=12)),
    ("mac", 28, Array(element=U8L, count=6)),
    ("flagged", 34, Boolean()),
)
HINTS: dict[str, Codec[Any] | str] = {"key.saddr": Ipv4, "key.daddr": Ipv4, "value.mac": Mac}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncGenerator[Client]:
    require_bpf()
    with private_place() as place, daemon_process(place):
        async with mapd_client.connect(str(place.socket)) as found:
            yield found


def flows() -> tuple[Any, Any]:
    """Keys and values as structured arrays, padding zero."""
    keys: Any = np.zeros(COUNT, np.dtype(codec_of(FLOW, path="key").dtype))
    values: Any = np.zeros(COUNT, np.dtype(codec_of(SEEN).dtype))
    n = np.arange(COUNT)
    keys["saddr"], keys["daddr"] = 0xC0000200 + n, 0x0A000000 + n * 7
    keys["sport"], keys["dport"], keys["proto"] = n % 60_000, 443, np.choose(n % 4, [1, 6, 17, 99])
    values["packets"], values["bytes"] = n, n * 1_500
    values["comm"] = np.char.mod("task-%d", n % 100)
    values["mac"] = (n[:, None] >> np.arange(0, 48, 8)) & 255
    values["flagged"] = n % 3 == 0
    return keys, values


def create(client: Client, name: str, key: Codec[Any], value: Codec[Any], kind: str = "hash") -> Any:
    return client.create_map(name, kind, key=key, value=value, max_entries=2 * COUNT)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def typed(client: Client) -> AsyncGenerator[Map[Any, Any]]:
    async with create(
        client, "typed", codec_of(FLOW, hints=HINTS, path="key"), codec_of(SEEN, hints=HINTS)
    ) as made:
        raw = await client.open_map("typed")
        keys, values = flows()
        await raw.load((keys.view("u1").reshape(COUNT, 16), values.view("u1").reshape(COUNT, 40)))
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def small(client: Client) -> AsyncGenerator[Map[Any, Any]]:
    async with create(
        client, "small", codec_of(FLOW, hints=HINTS, path="key"), codec_of(SEEN, hints=HINTS)
    ) as made:
        yield made


async def contents(client: Client, name: str) -> dict[bytes, bytes]:
    async with client.open_map(name) as raw:
        return {key: value async for key, value in raw.items()}


async def test_a_typed_map_is_two_structured_arrays_and_they_load_again(
    client: Client, typed: Map[Any, Any]
) -> None:
    got = await typed.to_numpy()
    keys: Any = got.keys
    values: Any = got.values
    assert (len(keys), len(values), got.trailer.entries, got.trailer.complete) == (COUNT, COUNT, COUNT, True)
    order = np.argsort(values["packets"])
    wanted = flows()
    assert keys.dtype == wanted[0].dtype
    assert (keys[order] == wanted[0]).all()
    assert (values[order] == wanted[1]).all()
    keys["sport"] = 1  # the caller's own
    async with create(client, "again", codec_of(FLOW, path="key"), codec_of(SEEN)) as again:
        assert await again.load(await typed.to_numpy()) == COUNT
        assert await contents(client, "again") == await contents(client, "typed")


async def test_a_chunk_of_a_typed_map_is_a_structured_array_over_its_bytes(typed: Map[Any, Any]) -> None:
    async with typed.chunks() as dump:
        chunk = await anext(dump)
        assert chunk.keys_array["proto"].base is not None
        assert np.shares_memory(chunk.keys_array["saddr"], np.frombuffer(chunk.keys, np.uint8))
        assert np.shares_memory(chunk.values_array["bytes"], np.frombuffer(chunk.values, np.uint8))


async def test_a_table_has_a_column_for_each_field_and_says_how_it_was_dumped(typed: Map[Any, Any]) -> None:
    table: Any = await typed.to_arrow()
    table.validate(full=True)
    assert table.num_rows == COUNT
    key, value = table.schema.field("key").type, table.schema.field("value").type
    assert [key.field(at).name for at in range(key.num_fields)] == [
        "saddr",
        "daddr",
        "sport",
        "dport",
        "proto",
    ]
    assert key.field("saddr").type == value.field("mac").type == pa.string()
    assert key.field("proto").type == pa.dictionary(pa.int32(), pa.string())
    assert value.field("flagged").type == pa.bool_()
    rows = sorted(table.to_pylist(), key=lambda row: row["value"]["packets"])
    assert rows[7] == {
        "key": {"saddr": "192.0.2.7", "daddr": "10.0.0.49", "sport": 7, "dport": 443, "proto": "99"},
        "value": {
            "packets": 7,
            "bytes": 10_500,
            "comm": "task-7",
            "mac": "07:00:00:00:00:00",
            "flagged": False,
        },
    }
    assert about(table)["map"]["name"] == typed.info.name
    assert (trailer_of(table).entries, trailer_of(table).map_id) == (COUNT, typed.info.id)


async def test_a_table_that_is_loaded_makes_the_same_bytes(client: Client, typed: Map[Any, Any]) -> None:
    table: Any = await typed.to_arrow()
    frames = {
        "nested": table,
        "pandas": await typed.to_pandas(),
        "polars": await typed.to_polars(),
        "reader": pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
    }
    for name, source in frames.items():
        key, value = codec_of(FLOW, hints=HINTS, path="key"), codec_of(SEEN, hints=HINTS)
        async with create(client, name, key, value) as copy:
            assert await copy.load(source) == COUNT
        assert await contents(client, name) == await contents(client, "typed")
        await client.unpin_map(name)


async def test_frames_have_a_column_for_each_field_by_its_path(typed: Map[Any, Any]) -> None:
    frame = await typed.to_pandas()
    polar = await typed.to_polars()
    wanted = [f"key.{name}" for name in ("saddr", "daddr", "sport", "dport", "proto")]
    wanted += [f"value.{name}" for name in ("packets", "bytes", "comm", "mac", "flagged")]
    assert list(frame.columns) == polar.columns == wanted
    total = sum(range(COUNT)) * 1_500
    assert int(frame["value.bytes"].sum()) == int(polar["value.bytes"].sum()) == total
    assert frame["key.proto"].value_counts()["TCP"] == COUNT // 4
    assert polar.filter(pl.col("key.proto") == "TCP").height == COUNT // 4
    for attrs in (frame.attrs, cast("Any", polar).attrs):
        assert (attrs["mapd"]["entries"], attrs["mapd"]["complete"]) == (COUNT, True)


async def test_per_cpu_values_are_fixed_size_lists_and_come_back(client: Client) -> None:
    value = PerCpu(codec_of(record(12, ("hits", 0, U64L), ("kind", 8, PROTO))))
    cpus = (await client.server_info()).possible_cpus
    async with create(client, "percpu", U32, value, "percpu_hash") as made:
        await made.update_many(
            {n: [{"hits": n * (cpu + 1), "kind": "UDP"} for cpu in range(cpus)] for n in range(1_000)}
        )
        table = await made.to_arrow()
        assert table.schema.field("value").type.list_size == cpus
        by_key = {row["key"]: row["value"] for row in table.to_pylist()}
        assert by_key[9] == [{"hits": 9 * (cpu + 1), "kind": "UDP"} for cpu in range(cpus)]
        keys, values = await made.to_numpy()
        assert values.shape == (1_000, cpus)
        assert (values["hits"].sum(axis=1) == keys * (cpus * (cpus + 1) // 2)).all()
        frame = await made.to_polars()
        assert frame["value"].dtype == pl.Array(pl.Struct({"hits": pl.UInt64, "kind": pl.Categorical}), cpus)
        async with create(client, "percpu2", U32, value, "percpu_hash") as copy:
            assert await copy.load(table) == 1_000
        assert await contents(client, "percpu2") == await contents(client, "percpu")
    async with client.open_map("percpu", key=U32, value=PerCpu(Struct("<QI"))) as plain:
        assert (await plain.to_arrow()).num_rows == 1_000


async def test_times_and_devices_of_the_daemons_host_are_moments_and_names(client: Client) -> None:
    value = record(16, ("at", 0, U64L), ("device", 8, U32L))
    btf = blob_of(U32L, value, (await client.server_info()).byteorder)
    async with client.create_map(
        "facts", "hash", key=U32, value=codec_of(value), max_entries=8, btf=btf
    ) as made:
        await made.update_many({1: {"at": 5_000_000_001, "device": 1}, 2: {"at": 2**64 - 1, "device": 2**31}})
        typed = await made.typed(hints={"value.at": "ktime", "value.device": "ifindex"})
        table: Any = await typed.to_arrow()
        assert table.schema.field("value").type.field("at").type == pa.timestamp("ns", "UTC")
        shown = {row["key"]: row["value"] for row in table.to_pylist()}
        assert (shown[1]["device"], shown[2]["device"]) == ("lo", str(2**31))
        # Each answer reads both clocks anew, one after the other.
        assert abs(shown[1]["at"].value - (await zero(client) + 5_000_000_001)) < 1_000_000_000
        before = await contents(client, "facts")
        assert await typed.load(table) == 2
        assert await contents(client, "facts") == before


async def zero(client: Client) -> int:
    """What the daemon host's clock showed when its monotonic clock was 0, as the client keeps it."""
    clocks = (await client.host_info()).clocks
    assert clocks is not None
    return clocks.realtime - clocks.monotonic


async def test_sums_over_cpus_are_numbers(client: Client) -> None:
    async with create(client, "sums", U32, PerCpu(U64), "percpu_hash") as made:
        cpus = (await client.server_info()).possible_cpus
        await made.update_many({n: [n + cpu for cpu in range(cpus)] for n in range(100)})
    for codec, work in ((PerCpu(U64).sum(), sum), (PerCpu(U64).min(), min), (PerCpu(U64).max(), max)):
        async with client.open_map("sums", key=U32, value=codec) as opened:
            rows = (await opened.to_arrow()).to_pylist()
            assert {row["key"]: row["value"] for row in rows} == {
                n: work(n + cpu for cpu in range(cpus)) for n in range(100)
            }
            with pytest.raises(TypeMismatch, match="only reads"):
                await opened.load(await opened.to_arrow())


@pytest.mark.parametrize(
    ("name", "key", "value", "given", "shown"),
    [
        ("bytes", Bytes(3), Bytes(2), (b"abc", b"\0\1"), (b"abc", b"\0\1")),
        ("ints", U32, U64, (7, 2**63), (7, 2**63)),
        (
            "addresses",
            Ipv4,
            Mac,
            (IPv4Address("192.0.2.9"), "02:00:5e:10:00:01"),
            ("192.0.2.9", "02:00:5e:10:00:01"),
        ),
        (
            "structs",
            Struct("<I4s"),
            Struct("<HxxI"),
            ((1, b"ab"), (2, 3)),
            ({"f0": 1, "f1": b"ab\0\0"}, {"f0": 2, "f1": 3}),
        ),
    ],
)
async def test_a_map_without_types_is_columns_of_what_its_codecs_say(
    client: Client,
    name: str,
    key: Codec[Any],
    value: Codec[Any],
    given: tuple[Any, Any],
    shown: tuple[Any, Any],
) -> None:
    async with create(client, name, key, value) as made, create(client, f"{name}2", key, value) as copy:
        await made.update(*given)
        table = await made.to_arrow()
        assert table.to_pylist() == [{"key": shown[0], "value": shown[1]}]
        assert await copy.load(table) == 1
        assert await contents(client, f"{name}2") == await contents(client, name)
        assert len((await made.to_numpy()).keys) == 1


async def test_networks_are_text(client: Client) -> None:
    async with client.create_map("lpm", "lpm_trie", key=Cidr4, value=U32, max_entries=8, flags=1) as made:
        rows = pa.table({"key": ["10.0.0.0/8", "192.0.2.0/24"], "value": [1, 2]})
        assert await made.load(rows) == 2
        table: Any = await made.to_arrow()
        assert table.sort_by("value").to_pylist() == rows.to_pylist()


async def test_a_stream_of_batches_is_resumed_and_read_by_another_thread(typed: Map[Any, Any]) -> None:
    async with typed.to_batches() as batches:
        first = await anext(batches)
        token = batches.token
    rest = typed.to_batches(resume=token)
    assert first.num_rows < COUNT
    table = await asyncio.to_thread(pl.from_arrow, rest.reader())
    assert isinstance(table, pl.DataFrame)
    assert first.num_rows + table.height == COUNT
    assert rest.trailer is not None
    with pytest.raises(Misuse, match="in another"):
        typed.to_batches().reader().read_all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"key.sadr": ["1.2.3.4"]},
            TypeMismatch,
            "column 'key.sadr': there is no such field: did you mean 'key.saddr'?",
        ),
        ({"key.saddr": None}, TypeMismatch, "no column for key.saddr: every field is needed"),
        ({"key.saddr": [None]}, TypeMismatch, "row 0: key.saddr is null"),
        ({"key.saddr": ["1.2.3"]}, TypeMismatch, "key.saddr: .*1.2.3.* is no Ipv4"),
        ({"key.sport": ["7"]}, TypeMismatch, "key.sport: a column of string; uint16 is due"),
        ({"key.sport": [65_536]}, SizeMismatch, "key.sport: .*65536"),
        ({"key.sport": [1.5]}, SizeMismatch, "key.sport: "),
        (
            {"key.proto": ["TPC"]},
            TypeMismatch,
            "key.proto: 'TPC' is no name of this enum: did you mean 'TCP'?",
        ),
        (
            {"value.comm": ["a task with a name"]},
            SizeMismatch,
            "row 0: value.comm: 18 bytes of text, at most 12 fit",
        ),
        ({"value.flagged": [1]}, TypeMismatch, "value.flagged: a column of int64; bool is due"),
    ],
)
async def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(
    small: Map[Any, Any], change: dict[str, list[Any] | None], error: type[Misuse], message: str
) -> None:
    row: dict[str, list[Any]] = {
        "key.saddr": ["1.2.3.4"], "key.daddr": ["1.2.3.4"], "key.sport": [1], "key.dport": [2.0],
        "key.proto": ["TCP"], "value.packets": [1], "value.bytes": [2], "value.comm": ["sshd"],
        "value.mac": ["02:00:5e:10:00:01"], "value.flagged": [True],
    }  # fmt: skip
    columns = {name: values for name, values in (row | change).items() if values is not None}
    with pytest.raises(error, match=message):
        await small.load(pa.table(columns))
    assert (await small.count()).entries == 0

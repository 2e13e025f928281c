"""Elements in every format, read back by who reads such files."""

from __future__ import annotations

import csv
import io
import json
import struct as packing
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast, get_args

import polars
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_api.uapi import MapType
from mapd_client import Misuse, Trailer
from mapd_client.cli.outputs import Document, Output, PerCpuForm
from mapd_client.cli.types import Shown
from mapd_client.layouts import Array, Boolean, Enumeration, Float, Integer, Text
from mapd_client.netcodec import Ipv4
from mapd_client.tables import about, trailer_of
from tests.unit.mapd_client.cli.shown import shown, struct

parquet: Any = import_module("pyarrow.parquet")  # its stubs are half there

U16, U32, U64 = (Integer(size=size, signed=False) for size in (2, 4, 8))
FLOW = struct(8, ("saddr", 0, U32), ("dport", 4, U16))
STATE = Enumeration(size=4, signed=False, members=(("OPEN", 0), ("CLOSED", 1)))
STATS = struct(16, ("packets", 0, U64), ("state", 8, STATE))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRAILER = Trailer(
    entries=2,
    complete=True,
    incomplete_reason="",
    method="lookup_batch",
    restarts=0,
    duplicates_suppressed=0,
    started_at=NOW,
    ended_at=NOW,
    map_id=41,
    epoch="x",
)
FLOWS = shown(FLOW, STATS, hints={"key.saddr": Ipv4})
TWO = [
    (bytes((10, 0, 0, n)) + packing.pack("<Hxx", 443), packing.pack("<QIxxxx", 2**64 - 1 - n, n))
    for n in range(2)
]
RECORDS = [
    {"key": {"saddr": "10.0.0.0", "dport": 443}, "value": {"packets": 2**64 - 1, "state": "OPEN"}},
    {"key": {"saddr": "10.0.0.1", "dport": 443}, "value": {"packets": 2**64 - 2, "state": "CLOSED"}},
]

Part = tuple[Shown, str | None, Iterable[tuple[bytes, bytes]]]


def written(output: Any, *parts: Part, trailer: Trailer | None = None, **named: Any) -> bytes:
    """A document; every element comes in a chunk of its own but the last two, which come together."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", errors="strict", newline="")
    document = Document(output, file, **named)
    for one, host, elements in parts:
        sink = document.sink(one, host)
        *alone, last = [list(elements)[:-1], list(elements)[-1:]]
        for key, value in [pair for some in alone for pair in some]:
            sink.write(key, b"" if named.get("keys_only") else value, 1)
        if last:
            sink.write(last[0][0] * 2, b"" if named.get("keys_only") else last[0][1] * 2, 2)
        sink.write(b"", b"", 0)
    document.close(trailer)
    file.flush()
    return raw.getvalue()


def of_flows(output: Any, **named: Any) -> bytes:
    return written(output, (FLOWS, None, TWO), trailer=TRAILER, **named)


THREE = [*RECORDS, RECORDS[1]]


def test_ndjson_is_a_line_for_each() -> None:
    assert [json.loads(line) for line in of_flows("ndjson").splitlines()] == THREE


def test_json_is_one_document_and_of_nothing_an_empty_list() -> None:
    assert json.loads(of_flows("json")) == THREE
    assert json.loads(written("json", (FLOWS, None, []))) == []


def test_json_of_a_single_element_is_the_object() -> None:
    file = io.StringIO()
    document = Document("json", file, one=True)
    document.sink(FLOWS).write(*TWO[0], 1)
    document.close()
    assert json.loads(file.getvalue()) == RECORDS[0]


def test_csv_has_a_column_for_each_field_and_quotes_strings_alone() -> None:
    text = of_flows("csv").decode()
    assert text.splitlines()[:2] == [
        '"key.saddr","key.dport","value.packets","value.state"',
        '"10.0.0.0",443,18446744073709551615,"OPEN"',
    ]
    assert text.count("\n") == 4


def test_hex_digits_stay_text_to_a_reader_that_guesses() -> None:
    opaque = shown(None, None, sizes=(4, 8))
    text = written("csv", (opaque, None, [(bytes((1, 0, 0, 0)), bytes(8))]))
    frame = polars.read_csv(text)
    assert frame.rows() == [("0x01000000", "0x" + "0" * 16)] * 2


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), min_size=1
    )
)
def test_whatever_strings_are_in_a_map_csv_readers_find_them(words: list[str]) -> None:
    one = shown(Text(size=24), U32)
    rows = [(word.encode().ljust(24, b"\0"), bytes(4)) for word in words]
    text = written("csv", (one, None, rows)).decode()

    expected = [*words, words[-1]]
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:] == expected
    read = polars.read_csv(text.encode(), schema={"key": polars.String, "value": polars.Int64})
    assert read["key"].to_list() == expected


def test_numbers_bools_and_lists_of_csv_are_what_their_readers_take() -> None:
    value = struct(
        16, ("on", 0, Boolean()), ("load", 4, Float(size=4)), ("seen", 8, Array(element=U16, count=2))
    )
    one = shown(U32, value)
    rows = [(bytes(4), packing.pack("<?xxxfHH4x", True, number, 1, 2)) for number in (0.5, float("nan"))]
    frame = polars.read_csv(written("csv", (one, None, rows)))
    assert frame.dtypes == [polars.Int64, polars.Boolean, polars.Float64, polars.String]
    assert frame["value.on"].to_list()[0] is True
    assert frame["value.load"].to_list()[0] == 0.5
    assert frame["value.load"].is_nan().to_list() == [False, True, True]
    assert json.loads(frame["value.seen"][0]) == [1, 2]


def test_arrow_is_an_ipc_stream_whose_last_batch_tells_of_the_dump() -> None:
    data = of_flows("arrow")
    with ipc.open_stream(data) as reader:
        assert reader.read_all().to_pylist() == THREE
    assert polars.read_ipc_stream(data).to_dicts() == THREE
    with ipc.open_stream(data) as reader:
        assert about(reader.schema)["map"]["name"] == "ns/made"
        batches = list(cast("Any", reader).iter_batches_with_custom_metadata())
    assert [one.batch.num_rows for one in batches] == [1, 2, 0]
    assert trailer_of(dict(batches[-1].custom_metadata.items())) == TRAILER


def test_parquet_is_read_by_pyarrow_and_polars_and_tells_of_the_dump() -> None:
    data = of_flows("parquet")
    assert parquet.read_table(io.BytesIO(data)).to_pylist() == THREE
    assert polars.read_parquet(io.BytesIO(data)).to_dicts() == THREE
    metadata = parquet.read_metadata(io.BytesIO(data)).metadata
    assert trailer_of(metadata) == TRAILER


def test_bytes_and_cpus_have_columns_too() -> None:
    one = shown(None, U64, sizes=(4, 8), type=MapType.PERCPU_HASH)
    data = written("arrow", (one, None, [(b"abcd", packing.pack("<3Q", 1, 2, 3))]))
    assert ipc.open_stream(data).read_all().to_pylist()[0] == {"key": b"abcd", "value": [1, 2, 3]}
    data = written("arrow", (one, None, [(b"abcd", packing.pack("<3Q", 1, 2, 3))]), per_cpu="sum")
    assert ipc.open_stream(data).read_all().to_pylist()[0] == {"key": b"abcd", "value": 6}


@pytest.mark.parametrize("output", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_of_keys_alone_there_is_no_value(output: Output) -> None:
    rows = as_rows(output, of_flows(output, keys_only=True))
    keys = [{"key": record["key"]} for record in THREE]
    assert rows == ([flattened(key) for key in keys] if output == "csv" else keys)


@pytest.mark.parametrize("output", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_of_several_hosts_each_record_begins_with_its_host(output: Output) -> None:
    data = written(output, (FLOWS, "a", TWO), (FLOWS, "b", TWO[:1]))
    rows = as_rows(output, data)
    assert [next(iter(row)) for row in rows] == ["host"] * 5
    assert [row["host"] for row in rows] == ["a"] * 3 + ["b"] * 2
    assert rows[3] == (
        flattened({"host": "b", **RECORDS[0]}) if output == "csv" else {"host": "b", **RECORDS[0]}
    )


def test_a_table_begins_its_lines_with_the_host() -> None:
    lines = written("table", (FLOWS, "a", TWO)).decode().splitlines()
    assert (
        lines[0]
        == 'a  {"saddr": "10.0.0.0", "dport": 443}  {"packets": 18446744073709551615, "state": "OPEN"}'
    )
    assert written("table", (FLOWS, None, TWO), keys_only=True).decode().splitlines()[0] == (
        '{"saddr": "10.0.0.0", "dport": 443}'
    )


@pytest.mark.parametrize("output", ["csv", "arrow", "parquet"])
def test_hosts_whose_maps_have_other_columns_do_not_share_a_table(output: Output) -> None:
    with pytest.raises(Misuse, match=r"of b has other .* than the host before"):
        written(output, (FLOWS, "a", TWO), (shown(U32, U64), "b", [(bytes(4), bytes(8))]))


def test_bpftool_has_no_hosts_no_sums_and_no_keys_alone() -> None:
    with pytest.raises(Misuse, match="bpftool knows no hosts"):
        written("bpftool", (FLOWS, "a", TWO))
    with pytest.raises(Misuse, match="without --keys-only and --per-cpu"):
        of_flows("bpftool", keys_only=True)
    with pytest.raises(Misuse, match="without --keys-only and --per-cpu"):
        of_flows("bpftool", per_cpu="sum")


@pytest.mark.parametrize("output", ["arrow", "parquet"])
def test_bytes_are_not_written_to_a_terminal(output: Output) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(Misuse, match=rf"stdout is a terminal: write it to a file, > x\.{output}"):
        Document(output, Terminal())


def test_a_document_that_is_not_closed_is_not_taken_for_a_whole_one() -> None:
    outputs: tuple[Output, ...] = ("json", "parquet")
    for output in outputs:
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw)
        Document(output, file).sink(FLOWS).write(*TWO[0], 1)
        file.flush()
        with pytest.raises((ValueError, pa.ArrowInvalid)):
            as_rows(output, raw.getvalue())


def schemas() -> dict[str, Any]:
    """The JSON Schema of each kind of element."""
    hits = shown(FLOW, STATS, type=MapType.PERCPU_HASH, hints={"key.saddr": Ipv4})
    forms: tuple[PerCpuForm, ...] = ("list", "sum", "columns")
    return {
        "typed": FLOWS.records.schema(),
        "unknown": shown(None, None, sizes=(4, 8)).records.schema(),
        **{f"per CPU, {form}": hits.formed(form).records.schema() for form in forms},
    }


def test_an_element_has_its_golden_schema() -> None:
    golden = Path(__file__).parent / "golden" / "elements.json"
    assert schemas() == json.loads(golden.read_text())


def as_rows(output: Output, data: bytes) -> list[dict[str, Any]]:
    """As a reader of that format finds them."""
    assert output in get_args(Output)
    match output:
        case "json":
            return cast("list[dict[str, Any]]", json.loads(data))
        case "ndjson":
            return [json.loads(line) for line in data.splitlines()]
        case "csv":
            return polars.read_csv(data).to_dicts()
        case "arrow":
            return ipc.open_stream(data).read_all().to_pylist()
        case _:
            return cast("list[dict[str, Any]]", parquet.read_table(io.BytesIO(data)).to_pylist())


def flattened(record: Any, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= flattened(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found

"""Files of elements, of every kind, and what is said of those that are wrong."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mapd_api.uapi import MapType
from mapd_client import Cidr4, Misuse, SizeMismatch, replies
from mapd_client.cli.differences import for_networks
from mapd_client.cli.feeds import Feed, Format, Reading, read_feed, read_file
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, hints_for, shown_of
from tests.unit.mapd_client.daemon import map_info

WISH = [("10.0.0.0/8", 7), ("192.0.2.1/32", 9)]


SCORED = {"key_column": "cidr", "value_column": "score"}


def trie() -> Shown:
    """IPv4 networks and a __u32, of which nothing is known."""
    info = replies.map_info(map_info("ns/block", MapType.LPM_TRIE, 8, 4))
    source = for_networks(Source(), info)
    return shown_of(info, None, "", "little", source, hints_for(source, info))


def fed(path: Path, **reading: Any) -> Feed:
    return read_feed(read_file(str(path)), Reading(**reading), trie())


def elements(wish: list[tuple[str, int]]) -> list[tuple[bytes, bytes]]:
    return [(Cidr4.encode(IPv4Network(key)), value.to_bytes(4, "little")) for key, value in wish]


@pytest.mark.parametrize(
    ("name", "text", "reading"),
    [
        ("f.csv", "key,value\n10.0.0.0/8,7\n192.0.2.1,9\n", {}),
        ("f", '"key","value"\n10.0.0.0/8,7\n192.0.2.1,9\n', {}),
        (
            "f.csv",
            'cidr,score,why\n10.0.0.0/8,7,"a, b"\n192.0.2.1,9,\n',
            SCORED,
        ),
        ("f.csv", "key,value\r\n10.0.0.0/8,7\r\n192.0.2.1,\r\n", {"value": "u32=9"}),
        ("f", '{"key": "10.0.0.0/8", "value": 7}\n\n{"key": "192.0.2.1", "value": "09000000"}\n', {}),
        ("f.json", '[{"key": "10.0.0.0/8", "value": 7}, {"key": "20000000c0000201", "value": 9}]', {}),
        ("f", '{"elements": [{"key": "10.0.0.0/8", "value": 7}, {"key": "192.0.2.1", "value": 9}]}', {}),
        ("f", "\ufeffkey,value\n10.0.0.0/8,u32:7\n192.0.2.1,0x09000000\n", {}),
    ],
)
def test_a_table_says_a_value_for_each(tmp_path: Path, name: str, text: str, reading: dict[str, Any]) -> None:
    (tmp_path / name).write_text(text, newline="")

    assert [*fed(tmp_path / name, **reading).elements] == elements(WISH)


@pytest.mark.parametrize("name", ["f.parquet", "f.arrow", "f"])
def test_columns_of_texts_and_numbers_are_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    table = pa.table(
        {"key": [key for key, _ in WISH], "value": pa.array([value for _, value in WISH], pa.uint64())}
    )
    if name == "f.parquet":
        written: Any = parquet
        written.write_table(table, path)
    else:
        made = pa.ipc.new_file if name == "f.arrow" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as file, made(file, table.schema) as writer:
            writer.write_table(table)

    found = fed(path)

    assert [*found.elements] == elements(WISH)
    assert found.where(1) == "row 2"


def test_lists_have_comments_and_blank_lines_and_say_where_an_element_was(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# one\n\n  10.0.0.0/8   # two\n;three\n192.0.2.1;four\n192.0.2.1 ; five\n")

    with pytest.raises(Misuse, match=r"line 5: '192\.0\.2\.1;four' does not appear"):
        fed(path, value="7")
    path.write_text(path.read_text().replace("192.0.2.1;four\n", ""))

    found = fed(path, value="7")
    assert [*found.elements] == elements([("10.0.0.0/8", 7), ("192.0.2.1/32", 7)])
    assert [found.where(at) for at in range(2)] == ["line 3", "line 5"]


def test_lines_of_the_other_family_are_counted_where_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("::1\n10.0.0.0/8\nfe80::/10\n")

    found = fed(path, value="7", family="ipv4")

    assert (len(found.elements), found.passed_over, found.where(0)) == (1, 2, "line 2")
    with pytest.raises(Misuse, match="the keys of ns/block are not networks of ipv6"):
        fed(path, value="7", family="ipv6")


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("list", "10.0.0.0/33\n", "line 1: '10.0.0.0/33' does not appear to be"),
        ("list", "10.0.0.0/8\n\xe9\n", "line 2 is no UTF-8"),
        ("list", "hex:0\n", "line 1: 'hex:0': two hex digits for each byte"),
        (
            "list",
            "2001:db8::/32",
            "line 1: '2001:db8::/32' is of ipv6, the map's keys are of ipv4; --family ipv4",
        ),
        ("ndjson", '{"key": "10.0.0.0/8"}\n{]\n', "line 2: no JSON"),
        ("ndjson", "7", "line 1: write"),
        ("ndjson", '{"value": 7}', "no field 'key' among value"),
        (
            "csv",
            "key,value\n10.0.0.0/8,12345678\n",
            "line 2: '12345678' may be a number or hex digits: write u32:",
        ),
        ("csv", "key,value\n10.0.0.0/8\n", "line 2: not as many cells as the header has"),
        ("csv", "key,value\n10.0.0.0/8,1,2\n", "line 2: not as many cells as the header has"),
        ("csv", "cidr\n10.0.0.0/8\n", "no column 'key' among cidr; say which it is with --key-column"),
        ("csv", "key,score\n10.0.0.0/8,1\n", "column 'score' is neither of the key nor of the value"),
        ("json", '{"key": "10.0.0.0/8"}', "a list of elements is due"),
        ("json", "[7]", "row 1: write"),
        ("json", '[{"key": null, "value": 7}]', "row 1: no key"),
        ("parquet", "x", "f: "),
        ("arrow", "x", "f: "),
    ],
)
def test_what_is_no_element_is_named_with_its_place(
    tmp_path: Path, kind: Format, text: str, told: str
) -> None:
    path = tmp_path / "f"
    path.write_text(text, "latin-1")

    with pytest.raises(Misuse) as caught:
        fed(path, format=kind, value="1")

    assert told in str(caught.value)


def test_a_key_needs_a_value_from_somewhere(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("10.0.0.0/8\n")

    with pytest.raises(
        Misuse, match="line 1: a key without a value: say which they all have, as in --value u32=1"
    ):
        fed(path)


def test_a_value_of_another_size_is_told_with_its_option(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("10.0.0.0/8\n")

    with pytest.raises(SizeMismatch, match="--value u64=1: 'u64:1' is 8 bytes, 4 are needed"):
        fed(path, value="u64=1")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(Misuse, match="/nowhere/list: No such file"):
        read_file("/nowhere/list")

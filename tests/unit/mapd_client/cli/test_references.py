"""bpftool's words for maps, keys and values are taken where they cannot mean anything else."""

from __future__ import annotations

import pytest

from mapd_client import Misuse
from mapd_client.cli.references import one_token_each


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("show id 42", "show id:42"),
        ("show pinned /sys/fs/bpf/x", "show pin:/sys/fs/bpf/x"),
        ("show name flows", "show flows"),
        ("dump id 42 -o json", "dump id:42 -o json"),
        ("lookup id 42 key hex 0a 00", "lookup id:42 hex:0a00"),
        ("lookup id 42 key 10 0 0x1 255", "lookup id:42 hex:0a0001ff"),
        ("lookup flows key hex a 0x0", "lookup flows hex:0a00"),
        (
            "update pinned /x key 1 2 value hex 01 00 exist",
            "update pin:/x hex:0102 hex:0100 exist",
        ),
        ("update flows key 1 value id 5 any", "update flows hex:01 id:5 any"),
        ("update flows key 1 value pinned /inner", "update flows hex:01 pin:/inner"),
        ("diff id 1 pinned /x", "diff id:1 pin:/x"),
        ("diff flows.csv id 1 -o json", "diff flows.csv id:1 -o json"),
        ("can read id 1", "can read id:1"),
        ("lookup id 42 key 1 0 -o json", "lookup id:42 hex:0100 -o json"),
        ("lookup -o json id 42 key 1 0", "lookup -o json id:42 hex:0100"),
        ("dump --keys-only --output=json id 42", "dump --keys-only --output=json id:42"),
        ("lookup --bpftool-json flows key hex 07", "lookup --bpftool-json flows hex:07"),
        ("lookup -o json flows key hex 07", "lookup -o json flows hex:07"),
    ],
)
def test_what_bpftool_takes_is_taken(typed: str, meant: str) -> None:
    assert one_token_each(typed.split()) == meant.split()


@pytest.mark.parametrize(
    "typed",
    [
        "show id",  # a map of that name
        "show id 12345678901",  # no id has as many digits
        "lookup id seven",  # a key of it
        "lookup name --help",
        "lookup flows key",  # a key that is called so
        "lookup key 7",  # a map that is called so
        "update flows 7 8 exist",
        "dump pinned -o json",
        "lookup -o json ns/key 7 -q",  # that map behind options
        "dump --partial-ok -- id 42",
        "--help",
        "",
    ],
)
def test_what_can_be_meant_otherwise_is_left_alone(typed: str) -> None:
    assert one_token_each(typed.split()) == typed.split()


@pytest.mark.parametrize("data", ["hex 0g", "hex 123", "300", "seven", "hex -1"])
def test_bytes_that_are_none_are_refused_with_both_ways_to_write_them(data: str) -> None:
    with pytest.raises(Misuse, match="bytes as bpftool takes them"):
        one_token_each(["lookup", "m", "key", *data.split()])

"""Files of hints: which maps a table means, and what is told of a file that is wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_api.v1 import types_pb2
from mapd_client import IfIndex, Ipv4, Ktime, MapInfo, Misuse, replies
from mapd_client.typed.hints import known
from mapd_client.typed.hintsfile import BYTES, FAULTS, LINE, load_hints, parse_hints

GOOD = b"""
# what our programs write
["web/flows"]
key.saddr = "ipv4"      # dotted
"key.ifindex" = 'ifindex'
value.stats.last_seen = "ktime"

["*/flows"]
value.stats.last_seen = "ktime_boot"

["/sys/fs/bpf/tc/globals/*".key]
saddr = "ipv4"

[routes]
key = "cidr4"
"""

INFO = replies.map_info(types_pb2.MapInfo(type=types_pb2.MAP_TYPE_HASH, key_size=8, value_size=8))


def named(name: str = "", pin: str = "", kernel_name: str = "x", *pins: str) -> MapInfo:
    return dataclasses.replace(INFO, name=name, pin_path=pin, kernel_name=kernel_name, pins=pins)


def faults(data: bytes) -> list[str]:
    with pytest.raises(Misuse) as caught:
        parse_hints(data, "h.toml")
    return str(caught.value).split("\n")


def test_a_map_gets_the_hints_of_every_table_that_means_it_and_the_last_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "hints.toml"
    file.write_bytes(GOOD)
    hints = load_hints(file)
    found = hints.for_map(named("web/flows"))
    assert found.keys() == {"key.saddr", "key.ifindex", "value.stats.last_seen"}
    assert (found["key.saddr"], found["key.ifindex"]) == (Ipv4, IfIndex)
    assert repr(found["value.stats.last_seen"]) == "KtimeBoot"
    assert hints.for_map(named("db/flows")).keys() == {"value.stats.last_seen"}
    assert not hints.for_map(named("web/other"))


def test_maps_are_meant_by_names_pins_and_where_they_have_neither_the_kernel_s_name() -> None:
    hints = parse_hints(GOOD)
    assert hints.for_map(named(pin="/sys/fs/bpf/tc/globals/ct")) == {"key.saddr": Ipv4}
    assert hints.for_map(named("a/b", "/x", "y", "/sys/fs/bpf/tc/globals/ct")) == {"key.saddr": Ipv4}
    assert not hints.for_map(named(pin="/sys/fs/bpf/tc/globals/deeper/ct"))
    assert hints.for_map(named("web/routes")).keys() == {"key"}
    assert hints.for_map(named(kernel_name="routes")).keys() == {"key"}
    assert not hints.for_map(named("web/other", kernel_name="routes"))


def test_both_ways_to_write_a_path_mean_the_same() -> None:
    dotted, quoted = (
        parse_hints(b'["a/b"]\n' + line) for line in (b'value.t = "ktime"', b'"value.t" = "ktime"')
    )
    assert dotted.tables == quoted.tables
    assert dotted.tables[0].hints == {"value.t": Ktime}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'["a/b"]\n\nkey.x = "ipv5"', "h.toml: line 3: [\"a/b\"] key.x: hint 'ipv5' is not known: "),
        (
            b'["a/b"]\nsaddr = "ipv4"',
            'line 2: ["a/b"] saddr: paths begin with key or value: key.saddr, or value.saddr?',
        ),
        (
            b'["a/b"]\nkey.x = 4',
            'line 2: ["a/b"] key.x: a hint is the name of a codec in quotes, as "ipv4", not int 4',
        ),
        (b'["a/b"]\nkey.x = ["ipv4"]', 'line 2: ["a/b"] key.x: a hint is the name of a codec'),
        (
            b'["a/b"]\nkey = {}',
            'line 2: ["a/b"] key: a hint is the name of a codec in quotes, as "ipv4", not dict {}',
        ),
        (b'key = "ipv4"', 'line 1: key: hints stand below a map, as in ["web/flows"]'),
        (b'[""]\nkey = "ipv4"', 'line 1: [""]: no map has this name'),
        (b'["a/b".key]\n"" = "ipv4"', 'line 2: ["a/b"] key.: this is no path of a field'),
        (b'["a/b"]\nkey.x = ipv4', "h.toml: Invalid value (at line 2, column 9)"),
        (b'["a/b"]\nkey = "ipv4"\nkey.x = "ipv4"', "h.toml: "),
        (b'["a/b"]\nkey.x = "ipv4"\nkey.x = "ipv4"\n', "h.toml: Cannot overwrite a value (at line 3"),
        (b'["a/b"]\nkey.x = "ipv4"\n"key.x" = "ipv6"', 'line 3: ["a/b"] key.x: said twice'),
        (b"\xff", "h.toml: 'utf-8' codec can't decode"),
    ],
)
def test_what_is_no_hint_is_told_with_its_line_and_field(text: bytes, said: str) -> None:
    assert said in faults(text)[0]


def test_all_faults_are_told_at_once_up_to_a_bound() -> None:
    lines = b"".join(b"key.f%d = 1\n" % number for number in range(FAULTS + 3))
    told = faults(b'["a/b"]\n' + lines)
    assert len(told) == FAULTS + 1
    assert told[-1] == "hints: h.toml: and 3 more"


def test_a_file_that_is_not_there_or_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"none\.toml: No such file"):
        load_hints(tmp_path / "none.toml")
    assert "more than 262144 bytes" in faults(b"#\n" * (129 << 10))[0]
    assert "line 2: it has more than 1024 characters" in faults(b"#\n" + b"#" * 1_025)[0]


@given(st.binary(max_size=200) | st.text(alphabet='[]{}".=# \nkeyvalu12/*', max_size=80).map(str.encode))
def test_whatever_a_file_holds_it_is_hints_or_misuse(data: bytes) -> None:
    try:
        hints = parse_hints(data)
    except Misuse:
        return
    for table in hints.tables:
        assert all(path.split(".")[0] in ("key", "value") for path in table.hints)


@pytest.mark.parametrize(
    "deep", [b"[a]\nkey = " + b"{a=" * 340, b"[a]\nkey." + b"a." * 500 + b'b = "ipv4"', b"[" * 1_024]
)
def test_a_file_that_is_nested_without_end_is_refused(deep: bytes) -> None:
    assert faults(deep)


def test_the_page_has_every_name_with_its_size_and_an_example_that_is_a_file() -> None:
    page = (Path(__file__).parents[4] / "docs/reference/hints.md").read_text()
    told: dict[str, int] = {}
    for names, sizes in re.findall(r"^\| (`[^|]*`) \| ([\d, ]+) \|", page, re.MULTILINE):
        told.update(zip(re.findall(r"`(\w+)`", names), map(int, sizes.split(", ")), strict=True))
    assert told == {name: codec.size for name, codec in known().items()}
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    hints = parse_hints(example.encode())
    assert hints.for_map(named("web/flows")).keys() == {"key.saddr", "key.ifindex", "value.last_seen"}
    assert hints.for_map(named("db/routes")).keys() == {"key"}
    assert hints.for_map(named(pin="/sys/fs/bpf/tc/globals/x")).keys() == {"value.cgroup"}
    assert f"{BYTES >> 10} KiB, a line {LINE:,} characters" in page

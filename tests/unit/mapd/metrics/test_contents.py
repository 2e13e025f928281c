"""Contents of maps: rows are added up as a dictionary would, and labels say what lies in their bytes."""

from __future__ import annotations

import random
import struct
import sys
from collections import Counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mapd.bpf.kernel import RawMapInfo
from mapd.maps.opened import MapFacts
from mapd.maps.scan import Page
from mapd.maps.types import TYPES
from mapd.metrics.contents import Sums, Unfit, check, decode
from mapd.metrics.settings import Content, Label, Value
from mapd_api.uapi import MapType
from tests.unit.mapd.dictkernel import raw_info

CPUS = 4


def facts(info: RawMapInfo) -> MapFacts:
    per_cpu = info.map_type == MapType.PERCPU_HASH
    slot = -(-info.value_size // 8) * 8
    return MapFacts(
        info=info,
        value_stride=slot * CPUS if per_cpu else info.value_size,
        traits=TYPES[MapType(info.map_type)],
    )


def page(rows: list[tuple[bytes, bytes]]) -> Page:
    return Page(len(rows), b"".join(key for key, _ in rows), b"".join(value for _, value in rows), b"")


def content(**settings: Any) -> Content:
    given: dict[str, Any] = {"map": "web/flows", "name": "flows", "help": "h", "type": "gauge", **settings}
    return Content(**given)


def told(family: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


FLOW = struct.Struct("=4s4sHHBxxx")
STATS = struct.Struct("=QQ")
FLOWS = facts(raw_info(key_size=FLOW.size, value_size=STATS.size))


def flows(seed: int, count: int) -> list[tuple[bytes, bytes]]:
    some = random.Random(seed)  # noqa: S311 - the same each time

    def key() -> bytes:
        source, target = bytes([10, 0, 0, some.randrange(5)]), some.randbytes(4)
        return FLOW.pack(source, target, some.randrange(9), 443, some.choice((6, 17)))

    return [(key(), STATS.pack(some.randrange(1 << 40), some.randrange(1 << 40))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_rows_with_the_same_labels_are_added_up_over_all_pages(seed: int) -> None:
    wanted = content(
        value=Value(offset=8),
        labels=(
            Label(name="saddr", size=4, decoder="ip"),
            Label(name="proto", offset=12, size=1, static_map={"6": "tcp", "17": "udp"}),
        ),
    )
    check(wanted, FLOWS)
    sums, model = Sums(wanted, FLOWS), Counter[tuple[str, str]]()
    for number in range(4):
        rows = flows(seed * 10 + number, 300)
        sums.add(page(rows))
        for key, value in rows:
            model[".".join(map(str, key[:4])), {6: "tcp", 17: "udp"}[key[12]]] += STATS.unpack(value)[1]
    assert told(sums.family()) == model


def test_without_labels_everything_is_one_number_and_nothing_is_none() -> None:
    sums = Sums(content(value=Value(size=8)), FLOWS)
    sums.add(page([]))
    assert told(sums.family()) == {}
    rows = flows(1, 50)
    sums.add(page(rows))
    assert told(sums.family()) == {(): sum(STATS.unpack(value)[0] for _, value in rows)}


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_integers_of_every_size_and_sign_are_read_as_this_host_writes_them(size: int, signed: bool) -> None:
    low = -(1 << (8 * size - 1)) if signed else (1 << (8 * size)) - 1
    kept = low.to_bytes(size, sys.byteorder, signed=signed)
    of = facts(raw_info(key_size=4, value_size=3 + size))
    sums = Sums(content(value=Value(offset=3, size=size, signed=signed, scale=0.5)), of)
    sums.add(page([(b"\0\0\0\0", b"\xff\xff\xff" + kept)]))
    assert told(sums.family()) == {(): float(low) * 0.5}


def test_values_of_all_cpus_are_added_up_or_told_one_by_one() -> None:
    of = facts(raw_info(MapType.PERCPU_HASH, key_size=4, value_size=4))
    rows = [
        (bytes([0, 0, 0, key]), b"".join(struct.pack("=Ixxxx", 100 * key + cpu) for cpu in range(CPUS)))
        for key in (1, 2)
    ]
    label = Label(name="key", size=4, decoder="hex")
    summed = Sums(content(value=Value(size=4), labels=(label,)), of)
    summed.add(page(rows))
    assert told(summed.family()) == {("00000001",): 406.0, ("00000002",): 806.0}
    each = content(value=Value(size=4), labels=(label,), cpu="cpu")
    check(each, of)
    apart = Sums(each, of)
    apart.add(page(rows))
    assert told(apart.family()) == {
        (f"0000000{key}", str(cpu)): 100.0 * key + cpu for key in (1, 2) for cpu in range(CPUS)
    }


def test_rows_whose_labels_are_spelt_alike_are_one_series() -> None:
    """A string's bytes behind its end are anybody's; twice the same series is no metric."""
    of = facts(raw_info(key_size=8, value_size=8))
    sums = Sums(content(labels=(Label(name="comm", size=8, decoder="string"),)), of)
    one = (1).to_bytes(8, sys.byteorder)
    sums.add(page([(b"sh\0\0\0\0\0\0", one), (b"sh\0rest!", one), (b"bash\0\0\0\0", one)]))
    assert told(sums.family()) == {("sh",): 2.0, ("bash",): 1.0}


def test_more_series_than_there_may_be_are_none() -> None:
    wanted = content(labels=(Label(name="dst", offset=4, size=4, decoder="ip"),), max_series=20)
    sums = Sums(wanted, FLOWS)
    sums.add(page(flows(1, 20)))
    with pytest.raises(Unfit, match="more than max_series = 20 series"):
        sums.add(page(flows(2, 20)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"value": Value(offset=9)}, "the value ends at byte 17, and a value of map 41 (flows) has 16"),
        (
            {"labels": (Label(name="x", offset=13, size=4),)},
            "label 'x' ends at byte 17, and a key of map 41 (flows) has 16",
        ),
        ({"cpu": "cpu"}, "label 'cpu' is the CPU's, and map 41 (flows) has one value for all"),
    ],
)
def test_fields_that_a_map_has_not_are_refused_with_both_sizes(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Unfit) as caught:
        check(content(**settings), FLOWS)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("decoder", "order", "raw", "said"),
    [
        ("uint", "little", b"\x01\x02", "513"),
        ("uint", "big", b"\x01\x02", "258"),
        ("int", "big", b"\xff\xfe", "-2"),
        ("uint", "host", (7).to_bytes(4, sys.byteorder), "7"),
        ("ip", "host", bytes([192, 0, 2, 1]), "192.0.2.1"),
        ("ip", "host", bytes(15) + b"\x01", "::1"),
        ("mac", "host", bytes(range(6)), "00:01:02:03:04:05"),
        ("string", "host", b"eth0\0\0", "eth0"),
        ("string", "host", b"\xff\0", "\N{REPLACEMENT CHARACTER}"),
        ("hex", "host", b"\xde\xad", "dead"),
    ],
)
def test_a_decoder_says_what_the_bytes_mean(decoder: Any, order: Any, raw: bytes, said: str) -> None:
    assert decode(Label(name="x", size=len(raw), decoder=decoder, order=order), raw) == said


def test_what_a_static_map_has_not_is_said_as_unknown() -> None:
    label = Label(name="proto", size=1, static_map={"6": "tcp"})
    assert [decode(label, bytes([number])) for number in (6, 7)] == ["tcp", "unknown:7"]


def test_whatever_a_string_holds_is_a_label_that_prometheus_reads() -> None:
    nasty = b'a"b\\c\nd{}\x1b'
    of = facts(raw_info(key_size=len(nasty), value_size=8))
    sums = Sums(content(labels=(Label(name="x", size=len(nasty), decoder="string"),)), of)
    sums.add(page([(nasty, bytes(8))]))

    class One(Collector):
        def collect(self) -> list[Metric]:
            return [sums.family()]

    registry = CollectorRegistry()
    registry.register(One())
    assert rb'flows{x="a\"b\\c\nd{}' in generate_latest(registry)

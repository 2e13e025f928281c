"""Per-CPU values as a list, a sum, a field for each CPU."""

from __future__ import annotations

import json
import struct as packing
from typing import Any

import pytest

from mapd_api.layout import round_up8
from mapd_api.uapi import MapType
from mapd_client import Misuse
from mapd_client.cli.outputs import PerCpuForm
from mapd_client.cli.types import Shown
from mapd_client.info import ByteOrder
from mapd_client.layouts import Array, Enumeration, Integer, Layout, Member, Record, Special, Text
from mapd_client.netcodec import Ipv4
from tests.unit.mapd_client.cli.shown import shown, struct

U32, U64 = (Integer(size=size, signed=False) for size in (4, 8))
I16, I64 = (Integer(size=size, signed=True) for size in (2, 8))
BE16 = Integer(size=2, signed=False, order="big")


def slots(*cpus: bytes) -> bytes:
    return b"".join(one.ljust(round_up8(len(one)), b"\xee") for one in cpus)


def per_cpu(value: Layout | None, size: int | None = None, **named: Any) -> Shown:
    sizes = (4, size or (value.size if value else 8))
    return shown(U32, value, sizes=sizes, type=MapType.PERCPU_HASH, **named)


def formed(one: Shown, form: PerCpuForm, *values: bytes) -> list[Any]:
    """The values as JSON."""
    found = one.formed(form)
    column = found.converted(b"".join(values))
    lines = found.records.lines(bytes(4 * len(values)), column, len(values))
    return [json.loads(line)["value"] for line in lines.splitlines()]


def test_a_list_has_an_element_for_each_cpu() -> None:
    assert formed(per_cpu(U64), "list", slots(*(packing.pack("<Q", n) for n in (1, 2, 3)))) == [[1, 2, 3]]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_columns_are_fields_of_the_cpus_without_their_padding(byteorder: ByteOrder) -> None:
    values = slots(*(n.to_bytes(4, byteorder) for n in (1, 2, 3)))
    assert formed(per_cpu(U32, byteorder=byteorder), "columns", values) == [{"cpu0": 1, "cpu1": 2, "cpu2": 3}]
    assert formed(per_cpu(None, 3), "columns", slots(b"abc", b"def", b"ghi")) == [
        {"cpu0": "616263", "cpu1": "646566", "cpu2": "676869"}
    ]


def test_hints_of_a_value_are_of_every_cpus_column() -> None:
    value = struct(4, ("peer", 0, U32))
    one = per_cpu(value, hints={"value.peer": Ipv4})
    values = slots(*(bytes((10, 0, 0, n)) for n in range(3)))
    assert formed(one, "columns", values) == [{f"cpu{n}": {"peer": f"10.0.0.{n}"} for n in range(3)}]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_sums_of_narrow_integers_are_exact(byteorder: ByteOrder) -> None:
    most = (2**32 - 1).to_bytes(4, byteorder)
    assert formed(per_cpu(U32, byteorder=byteorder), "sum", slots(most, most, most)) == [3 * (2**32 - 1)]
    least = (-(2**15)).to_bytes(2, byteorder, signed=True)
    assert formed(per_cpu(I16, byteorder=byteorder), "sum", slots(least, least, least)) == [-3 * 2**15]


def test_sums_of_eight_bytes_wrap_as_the_kernels_counters_do() -> None:
    most = packing.pack("<Q", 2**64 - 1)
    assert formed(per_cpu(U64), "sum", slots(most, most, packing.pack("<Q", 5))) == [3]
    deep = packing.pack("<q", -(2**63))
    assert formed(per_cpu(I64), "sum", slots(deep, packing.pack("<q", -1), bytes(8))) == [2**63 - 1]


def test_each_element_has_its_own_sum() -> None:
    values = [slots(*(packing.pack("<Q", 10 * n + cpu) for cpu in range(3))) for n in range(4)]
    assert formed(per_cpu(U64), "sum", *values) == [30 * n + 3 for n in range(4)]


def test_a_sum_of_bytes_of_an_integers_size_is_of_that_integer() -> None:
    assert formed(per_cpu(None, 4), "sum", slots(*(packing.pack("<I", n) for n in (1, 2, 2**32 - 1)))) == [
        2**32 + 2
    ]


def test_in_a_struct_integers_are_summed_and_all_else_is_named_and_left_out() -> None:
    flag = Member(name="flag", offset=30, bit_offset=240, layout=U32, bits=3)
    inner = struct(4, ("port", 0, BE16), ("delta", 2, I16))
    value = struct(
        40,
        ("packets", 0, U64),
        ("name", 8, Text(size=4)),
        ("state", 12, Enumeration(size=4, signed=False, members=(("OPEN", 0),))),
        ("inner", 16, Array(element=inner, count=2)),
        ("lock", 24, Special(size=4, type_name="bpf_spin_lock")),
        ("peer", 32, U32),
    )
    value = Record(size=40, members=(*value.members, flag), type_name="made")
    one = per_cpu(value, hints={"value.peer": Ipv4})
    slot = packing.pack("<Q8x", 7) + (packing.pack(">H", 80) + packing.pack("<h", -1)) * 2 + bytes(16)

    assert formed(one, "sum", slots(slot, slot, slot)) == [
        {"packets": 21, "inner": [{"port": 240, "delta": -3}] * 2}
    ]
    found = one.formed("sum")
    assert found.left_out == ["value.name", "value.state", "value.peer", "value.flag"]
    assert "value.name, value.state, value.peer, value.flag" in found.note


def test_members_of_a_union_are_each_summed() -> None:
    both = Record(
        size=8,
        members=(
            Member(name="one", offset=0, layout=U64),
            Member(name="low", offset=0, layout=U32),
        ),
        union=True,
        type_name="either",
    )
    assert formed(per_cpu(both), "sum", slots(*[packing.pack("<Q", 2**32 + 1)] * 3)) == [
        {"one": 3 * (2**32 + 1), "low": 3}
    ]


def test_without_integers_there_is_no_sum() -> None:
    with pytest.raises(Misuse, match="no integers"):
        per_cpu(Text(size=8)).formed("sum")
    with pytest.raises(Misuse, match="nothing is known of the 5 bytes"):
        per_cpu(None, 5).formed("sum")


def test_values_that_are_not_per_cpu_stay_as_they_are() -> None:
    one = shown(U32, U64)
    assert one.formed("sum") is one
    assert one.converted(b"12345678") == b"12345678"

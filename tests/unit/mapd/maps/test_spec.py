"""What may be created is checked before any syscall, and each refusal names field, value and bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mapd.bpf import RawMapInfo
from mapd.maps.errors import MapError
from mapd.maps.spec import BtfSpec, MapSpec, check, differences
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.unit.mapd.dictkernel import raw_info

HASH = MapSpec(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=1_024)
ARRAY = replace(HASH, map_type=MapType.ARRAY)
PERCPU = replace(HASH, map_type=MapType.PERCPU_HASH)
LPM = replace(HASH, map_type=MapType.LPM_TRIE, key_size=8, flags=int(MapFlag.NO_PREALLOC))


def refused(spec: MapSpec, possible_cpus: int = 2) -> MapError:
    with pytest.raises(MapError) as caught:
        check(spec, possible_cpus)
    return caught.value


@pytest.mark.parametrize(
    "spec",
    [
        HASH,
        replace(HASH, key_size=1, value_size=1, max_entries=1),
        replace(HASH, max_entries=(1 << 32) - 1),
        replace(HASH, flags=int(MapFlag.NO_PREALLOC | MapFlag.RDONLY_PROG)),
        replace(HASH, flags=int(MapFlag.NUMA_NODE), numa_node=0),
        replace(HASH, kernel_name="A.b_c0123456789"),
        replace(HASH, map_type=MapType.LRU_HASH, flags=int(MapFlag.NO_COMMON_LRU)),
        PERCPU,
        replace(PERCPU, value_size=32_768),
        ARRAY,
        replace(ARRAY, flags=int(MapFlag.MMAPABLE)),
        replace(ARRAY, map_type=MapType.PERCPU_ARRAY),
        LPM,
        replace(LPM, key_size=5),
        replace(LPM, key_size=260),
    ],
    ids=str,
)
def test_a_shape_that_the_type_has_is_accepted(spec: MapSpec) -> None:
    assert check(spec, 2).type == spec.map_type


@pytest.mark.parametrize(
    ("spec", "field", "given", "accepted"),
    [
        (replace(HASH, key_size=0), "key_size", "is 0;", "1 to 4194303 bytes"),
        (replace(ARRAY, key_size=8), "key_size", "is 8;", " 4 bytes"),
        (replace(LPM, key_size=4), "key_size", "is 4;", "5 to 260 bytes"),
        (replace(LPM, key_size=261), "key_size", "is 261;", "5 to 260 bytes"),
        (replace(HASH, value_size=0), "value_size", "is 0;", "1 to 2147483647 bytes"),
        (replace(PERCPU, value_size=32_769), "value_size", "is 32769;", "1 to 32768 bytes"),
        (
            replace(HASH, value_size=limits.COLUMN_BYTES),
            "key_size + value_size",
            f"is {limits.COLUMN_BYTES + 4} bytes on the wire;",
            f"at most {limits.COLUMN_BYTES} bytes",
        ),
        (replace(HASH, max_entries=0), "max_entries", "is 0;", "1 to 4294967295"),
        (replace(HASH, max_entries=1 << 32), "max_entries", "is 4294967296;", "1 to 4294967295"),
        (replace(HASH, numa_node=1), "numa_node", "is 1;", "BPF_F_NUMA_NODE, or neither"),
        (replace(HASH, flags=int(MapFlag.NUMA_NODE)), "numa_node", "is None;", "or neither"),
        (replace(HASH, kernel_name="a" * 16), "kernel_name", "aaaaaaaaaaaaaaaa", "at most 15 of"),
        (replace(HASH, kernel_name="flow map"), "kernel_name", "'flow map'", "A-Z, a-z, 0-9, '_', '.'"),
        (replace(HASH, map_extra=3), "map_extra", "is 3;", "hash maps take 0"),
        (
            replace(HASH, flags=int(MapFlag.RDONLY | MapFlag.WRONLY)),
            "flags",
            "BPF_F_RDONLY | BPF_F_WRONLY",
            "one of them at most",
        ),
    ],
)
def test_a_shape_that_it_has_not_is_refused_with_field_value_and_bounds(
    spec: MapSpec, field: str, given: str, accepted: str
) -> None:
    error = refused(spec)
    assert error.reason is Reason.BAD_SPEC
    assert error.refusal.metadata["field"] == field
    assert error.refusal.metadata["operation"] == "create"
    assert f"{field} is" in str(error)
    assert given in str(error)
    assert accepted in str(error)
    assert f"create {spec}:" in str(error)


def test_a_per_cpu_value_is_measured_with_the_slots_of_all_cpus() -> None:
    spec = replace(PERCPU, value_size=32_768)
    check(spec, 64)
    error = refused(spec, possible_cpus=128)
    assert f"{4 + 128 * 32_768} bytes on the wire" in str(error)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            replace(HASH, flags=int(MapFlag.MMAPABLE)),
            "flags 0x400 (MMAPABLE) are none of this type's; accepted: BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE, ",
        ),
        (replace(HASH, flags=1 << 20), "flags 0x100000"),
        (replace(HASH, flags=(1 << 20) | int(MapFlag.NO_PREALLOC)), "flags 0x100000"),
        (replace(ARRAY, flags=int(MapFlag.NO_PREALLOC)), "flags 0x1 (NO_PREALLOC)"),
        (replace(HASH, map_type=MapType.LRU_HASH, flags=1), "flags 0x1 (NO_PREALLOC)"),
        (replace(LPM, flags=0), "this type needs BPF_F_NO_PREALLOC"),
    ],
)
def test_flags_of_another_type_are_refused_with_those_accepted(spec: MapSpec, message: str) -> None:
    error = refused(spec)
    assert error.reason is Reason.BAD_FLAGS
    assert message in str(error)
    assert error.refusal.metadata["flags"] == hex(spec.flags)


@pytest.mark.parametrize(("number", "name"), [(34, "type 34"), (77, "type 77"), (0, "unspec")])
def test_a_type_that_nobody_knows_is_unsupported_and_the_known_ones_are_told(number: int, name: str) -> None:
    error = refused(replace(HASH, map_type=number))
    assert error.reason is Reason.OPERATION_UNSUPPORTED
    assert f"does not know map type {number}; it knows 1 to 33" in str(error)
    assert error.refusal.metadata["map_type"] == name


NAME = "flows"
THERE: dict[str, Any] = {"key_size": 4, "value_size": 8, "max_entries": 1_024}


def differing(spec: MapSpec, there: RawMapInfo, possible_cpus: int = 2) -> list[str]:
    return differences(spec, there, NAME, possible_cpus)


def test_the_same_shape_has_no_differences() -> None:
    assert differing(HASH, raw_info(**THERE)) == []


@pytest.mark.parametrize(
    ("there", "line"),
    [
        ({"map_type": MapType.LRU_HASH}, "type: wanted hash, is lru_hash"),
        ({"key_size": 8}, "key_size: wanted 4, is 8"),
        ({"value_size": 16}, "value_size: wanted 8, is 16"),
        ({"max_entries": 512}, "max_entries: wanted 1024, is 512"),
        ({"map_flags": int(MapFlag.NO_PREALLOC)}, "flags: wanted 0x0, is 0x1"),
        ({"name": "other"}, "kernel_name: wanted flows, is other"),
    ],
)
def test_each_differing_field_is_told_with_both_values(there: dict[str, Any], line: str) -> None:
    assert differing(HASH, raw_info(**{**THERE, **there})) == [line]


def test_a_kernel_name_that_was_given_is_compared_and_not_the_derived_one() -> None:
    spec = replace(HASH, kernel_name="mine")
    assert differing(spec, raw_info(**THERE, name="mine")) == []
    assert differing(spec, raw_info(**THERE)) == ["kernel_name: wanted mine, is flows"]


@pytest.mark.parametrize(
    ("wanted", "cpus", "made"), [(1_001, 2, 1_002), (1_000, 2, 1_000), ((1 << 32) - 1, 2, (1 << 32) - 2)]
)
def test_an_lru_map_without_a_common_list_has_as_many_entries_for_each_cpu(
    wanted: int, cpus: int, made: int
) -> None:
    flags = int(MapFlag.NO_COMMON_LRU)
    spec = replace(HASH, map_type=MapType.LRU_HASH, flags=flags, max_entries=wanted)
    there: dict[str, Any] = {**THERE, "map_type": MapType.LRU_HASH, "map_flags": flags}
    exact: dict[str, Any] = {**there, "max_entries": made}
    fewer: dict[str, Any] = {**there, "max_entries": made - cpus}
    assert differing(spec, raw_info(**exact), cpus) == []
    assert differing(spec, raw_info(**fewer), cpus) != []


def test_types_are_compared_where_they_are_given() -> None:
    typed = replace(HASH, btf=BtfSpec(blob=b"btf", key_type_id=1, value_type_id=2))
    there = raw_info(**THERE)
    same = replace(there, btf_id=5, btf_key_type_id=1, btf_value_type_id=2)
    assert differing(typed, same) == []
    assert differing(HASH, same) == []
    assert differing(typed, there) == ["btf: wanted types 1 and 2, is none"]
    assert differing(typed, replace(same, btf_value_type_id=3)) == [
        "btf: wanted types 1 and 2, is types 1 and 3"
    ]
    # The kernel takes no BTF along where neither key nor value has a type in it.
    none = replace(HASH, btf=BtfSpec(blob=b"btf", key_type_id=0, value_type_id=0))
    assert differing(none, there) == []


def test_types_that_the_map_type_refuses_are_no_difference() -> None:
    devmap = replace(HASH, map_type=MapType.DEVMAP, btf=BtfSpec(blob=b"btf", key_type_id=1, value_type_id=2))
    there = raw_info(MapType.DEVMAP, **THERE, map_flags=int(MapFlag.RDONLY_PROG))
    assert differing(devmap, there) == []
    newer = replace(there, btf_id=5, btf_key_type_id=1, btf_value_type_id=3)
    assert differing(devmap, newer) == ["btf: wanted types 1 and 2, is types 1 and 3"]


def test_access_flags_of_the_creators_descriptor_are_no_difference() -> None:
    assert differing(replace(HASH, flags=int(MapFlag.RDONLY)), raw_info(**THERE)) == []

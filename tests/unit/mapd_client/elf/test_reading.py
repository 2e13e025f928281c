"""What each convention's objects declare, in both byte orders: the committed fixtures, field by field."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from mapd_client.elf import Declared, ObjectFile, Slot, read_object, read_pinnings
from mapd_client.elf.datamaps import kernel_name, object_name
from mapd_client.errors import Misuse
from mapd_client.info import ByteOrder
from mapd_client.layouts import Record
from tests.support.elfwriter import structs
from tests.unit.mapd_client.elf.fixtures.make import FOLDER, made

orders = pytest.mark.parametrize("order", ["little", "big"])


def fixture(name: str, order: ByteOrder, convention: str = "auto") -> ObjectFile:
    return read_object(FOLDER / f"{name}.{order}.o", convention)


def fields(one: Declared, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in names)


def shapes(found: ObjectFile) -> list[tuple[Any, ...]]:
    return [
        fields(one, "name", "index", "type", "key_size", "value_size", "max_entries", "flags")
        for one in found.maps
    ]


def test_the_fixtures_are_what_their_script_writes() -> None:
    written = made()
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.o")} == written
    assert max(map(len, written.values())) < 4096


@orders
def test_maps_are_in_the_order_that_they_lie_in_and_not_by_name(order: ByteOrder) -> None:
    found = fixture("samples16", order)
    assert (found.convention, found.byteorder, found.license) == ("samples", order, "GPL")
    assert shapes(found) == [("zz", 0, 1, 4, 8, 16, 0), ("aa", 1, 2, 4, 4, 2, 0)]


@orders
def test_the_struct_of_20_bytes_has_flags(order: ByteOrder) -> None:
    found = fixture("samples20", order)
    assert found.convention == "samples"
    assert shapes(found) == [("my_map", 0, 2, 4, 8, 42, 0), ("lru", 1, 9, 8, 4, 100, 2)]
    assert found.programs == ("socket1",)


@orders
def test_the_struct_of_28_bytes_has_a_template_and_a_node_where_its_flag_is_set(order: ByteOrder) -> None:
    found = fixture("samples28", order)
    assert found.convention == "samples"
    assert [fields(one, "name", "inner", "numa_node", "flags") for one in found.maps] == [
        ("inner", None, None, 1),
        ("outer", 0, None, 0),
        ("near", None, 3, 4),
    ]


@pytest.mark.parametrize("size", [16, 20, 28])
def test_symbols_need_not_say_their_size(size: int) -> None:
    words = (1, 4, 8, 16, 0, 0, 0)[: size // 4]
    found = read_object(structs({"one": words, "two": words, "three": words}, sized=False).build())
    assert [one.name for one in found.maps] == ["one", "two", "three"]


def test_more_maps_than_the_loader_of_samples_had_room_for_are_read() -> None:
    found = read_object(structs({f"m{at}": (1, 4, 8, at + 1, 0) for at in range(100)}).build())
    assert [fields(one, "name", "index", "max_entries") for one in found.maps] == [
        (f"m{at}", at, at + 1) for at in range(100)
    ]


def test_a_longer_struct_is_read_if_the_rest_is_zero() -> None:
    data = structs({"one": (1, 4, 8, 16, 1, 0, 0, 0, 0, 0)}).build()
    assert shapes(read_object(data, "samples")) == [("one", 0, 1, 4, 8, 16, 1)]


@orders
def test_tc_of_2015_has_an_id_and_then_a_pinning(order: ByteOrder) -> None:
    found = fixture("tc20", order)
    assert (found.convention, shapes(found)) == ("tc", [("one", 0, 1, 4, 8, 16, 0)])
    found = fixture("tc24", order)
    assert [fields(one, "name", "pinning", "pin", "flags") for one in found.maps] == [
        ("one", "global", "tc/globals/one", 0),
        ("two", "none", "", 0),
    ]


@orders
def test_a_pinning_of_one_byte_is_read_whatever_its_padding_holds(order: ByteOrder) -> None:
    found = fixture("tc24u8", order)
    assert fields(found.maps[0], "pinning", "pin") == ("global", "tc/globals/one")


@orders
def test_a_map_pinned_by_object_lies_below_the_objects_sha1(order: ByteOrder) -> None:
    found = fixture("tc28", order)
    sha = sha1((FOLDER / f"tc28.{order}.o").read_bytes(), usedforsecurity=False).hexdigest()
    assert fields(found.maps[0], "pinning", "pin", "flags") == ("object", f"tc/{sha}/one", 1)


def test_a_custom_pinning_is_its_folder_and_none_where_it_is_not_listed() -> None:
    path = FOLDER / "tc28.little.o"
    found = read_object(path)
    assert fields(found.maps[1], "pinning", "pin") == ("custom", "")
    assert "two: pinning 5 is not in the list" in found.left_out[0]
    found = read_object(path, pinnings=read_pinnings("# tc's own\n5  ../shared/ \n"))
    assert fields(found.maps[1], "pinning", "pin") == ("custom", "../shared/two")
    assert found.left_out == ()


@pytest.mark.parametrize("line", ["5", "2 folder", "five folder", "5 a b"])
def test_a_line_of_the_list_of_pinnings_that_is_wrong_is_told_with_its_number(line: str) -> None:
    with pytest.raises(Misuse, match="line 2"):
        read_pinnings(f"3 folder\n{line}\n")


@orders
def test_inner_maps_and_tail_calls_of_tc_are_slots(order: ByteOrder) -> None:
    found = fixture("tc36", order)
    jumps, inner, other, outer = found.maps
    assert outer.inner == inner.index == 1
    assert outer.slots == (Slot(key=(2).to_bytes(4, order), map=1),)
    assert jumps.slots == (Slot(key=(1).to_bytes(4, order), program="9/1"),)
    assert outer.inserts
    assert jumps.inserts
    assert not inner.inserts
    assert not other.slots, "inner_idx -1 is not inserted"
    assert fields(outer, "pinning", "pin") == ("global", "tc/globals/outer")


@orders
def test_an_annotation_gives_a_map_its_types(order: ByteOrder) -> None:
    found = fixture("annotated", order)
    assert found.btf is not None
    one, two = found.maps
    assert [found.btf.name(at) for at in (one.key_type_id, one.value_type_id)] == [
        "unsigned int",
        "unsigned long long",
    ]
    assert (two.key_type_id, two.value_type_id) == (0, 0)


@orders
def test_maps_that_btf_defines(order: ByteOrder) -> None:
    found = fixture("libbpf", order)
    assert (found.convention, found.license, found.programs) == ("libbpf", "Dual BSD/GPL", ("socket",))
    assert shapes(found) == [
        ("flows", 0, 1, 4, 16, 64, 1),
        ("first", 1, 1, 4, 16, 5, 0),
        ("second", 2, 1, 4, 16, 5, 0),
        ("outer", 3, 12, 4, 4, 4, 0),
        ("jumps", 4, 3, 4, 4, 2, 0),
        ("bloom", 5, 30, 0, 16, 9, 0),
        ("perf", 6, 4, 4, 4, 0, 0),
        ("near", 7, 1, 4, 4, 1, 4),
    ]
    flows, *_, bloom, perf, near = found.maps
    assert fields(flows, "pinning", "pin") == ("by name", "flows")
    assert bloom.map_extra == 0x1_0000_0003
    assert (perf.numa_node, near.numa_node) == (None, 1), "a node counts with its flag"
    assert found.btf is not None
    assert [found.btf.name(at) for at in (flows.key_type_id, flows.value_type_id)] == ["__u32", "count_t"]


@orders
def test_slots_of_btf_defined_maps_are_relocations(order: ByteOrder) -> None:
    outer, jumps = fixture("libbpf", order).maps[3:5]
    assert outer.slots == (
        Slot(key=(0).to_bytes(4, order), map=1),
        Slot(key=(2).to_bytes(4, order), map=2),
    )
    assert jumps.slots == (Slot(key=(1).to_bytes(4, order), program="tail"),)
    assert isinstance(outer.inner, Declared)
    assert fields(outer.inner, "name", "type", "key_size", "value_size", "max_entries") == (
        "outer.inner", 1, 4, 16, 5,
    )  # fmt: skip


@orders
def test_sections_of_variables_are_arrays_of_one_element(order: ByteOrder) -> None:
    found = fixture("data", order)
    mmapable, read_only = 1 << 10, 1 << 7
    assert [
        fields(one, "name", "kernel_name", "value_size", "flags", "frozen", "contents") for one in found.maps
    ] == [
        (".data", "data.data", 8, mmapable, False, b"".join(n.to_bytes(4, order) for n in (7, 8))),
        (".rodata", "data.rodata", 8, read_only, True, b"mapd\0\0\0\0"),
        (".bss", "data.bss", 4, mmapable, False, b""),
        (".data.apart", ".data.apart", 8, 0, False, b""),
        (".rodata.str1.1", ".rodata.str1.1", 5, read_only, True, b"text\0"),
    ]  # fmt: skip
    assert {(one.type, one.key_size, one.max_entries) for one in found.maps} == {(2, 4, 1)}
    assert found.btf is not None
    layout = found.btf.layout(found.maps[0].value_type_id)
    assert isinstance(layout, Record)
    assert [(one.name, one.offset) for one in layout.members] == [("started", 0), ("later", 4)]


def test_variables_of_the_kernels_configuration_are_left_to_a_loader() -> None:
    found = fixture("data", "little")
    assert ".kconfig" not in [one.name for one in found.maps]
    assert "data.kconfig, for CONFIG_HZ, on: a loader fills it in" in found.left_out[0]


@pytest.mark.parametrize(
    ("path", "section", "name"),
    [
        ("dir/my_object_file.bpf.o", ".rodata", "my_objec.rodata"),
        ("my_object.o", ".kconfig", "my_obje.kconfig"),
        ("a-b.o", ".bss", "a_b.bss"),
        ("x.o", ".data.a_very_long_name", ".data.a_very_lo"),
    ],
)
def test_data_maps_are_called_as_libbpf_calls_them(path: str, section: str, name: str) -> None:
    assert kernel_name(object_name(path), section) == name


def test_bytes_and_a_path_are_read_alike(tmp_path: Path) -> None:
    data = made()["libbpf.little.o"]
    path = tmp_path / "x.o"
    path.write_bytes(data)
    assert read_object(data).maps == read_object(path).maps

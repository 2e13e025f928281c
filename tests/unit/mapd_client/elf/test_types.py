"""Types of one map, out of an object: which of its maps is meant."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mapd_client import Incompatible, NoTypeInfo
from mapd_client.elf.types import types_from_object
from mapd_client.layouts import Integer
from tests.support.compiled import clang

SOURCE = """
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define MAP(name, value_type) \\
    struct { __uint(type, 2); __uint(max_entries, 1); __type(key, unsigned); __type(value, value_type); } \\
    name __attribute__((section(".maps"), used))
MAP(connections_by_, unsigned short);
MAP(connections_by_source, unsigned);
MAP(connections_by_target, unsigned long long);
MAP(packets_of_class_a, unsigned);
MAP(packets_of_class_b, unsigned);
unsigned limit = 5;
"""


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object whose maps the kernel gives the same names: it keeps 15 characters."""
    return _built(tmp_path_factory.mktemp("alike") / "alike.o", "bpf")


def _built(made: Path, target: str) -> Path:
    command = [clang(), "-target", target, "-g", "-O2", "-c", "-x", "c", "-", "-o", str(made)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return made


def _value_size(path: Path, name: str, *, pinned_as: str | None = None) -> int:
    value = types_from_object(path, name, pinned_as=pinned_as).value
    assert value is not None
    return value.size


def test_the_declared_name_is_enough(alike: Path) -> None:
    assert _value_size(alike, "connections_by_") == 2
    assert _value_size(alike, "connections_by_target") == 8


def test_the_name_of_the_pin_tells_apart_what_the_kernel_calls_alike(alike: Path) -> None:
    assert _value_size(alike, "connections_by_", pinned_as="connections_by_source") == 4
    assert _value_size(alike, "connections_by_", pinned_as="connections_by_") == 2


@pytest.mark.parametrize("pinned_as", ["", "other"])
def test_the_kernels_name_of_several_maps_says_nothing(alike: Path, pinned_as: str) -> None:
    names = "connections_by_, connections_by_source, connections_by_target"
    with pytest.raises(
        NoTypeInfo, match=rf"3 maps .* 'connections_by_': {names}; .* key= and value= classes"
    ):
        types_from_object(alike, "connections_by_", pinned_as=pinned_as)


def test_maps_of_one_name_and_the_same_types_need_not_be_told_apart(alike: Path) -> None:
    assert _value_size(alike, "packets_of_clas", pinned_as="") == 4


def test_an_object_for_hosts_of_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    other = _built(tmp_path / "other.o", "bpfeb")

    assert types_from_object(other, "packets_of_class_a", byteorder="big").value is not None
    with pytest.raises(
        Incompatible, match=r"other\.o is compiled for big endian hosts, .* little endian: .* bpfel"
    ):
        types_from_object(other, "packets_of_class_a", byteorder="little")


def test_the_key_of_a_section_is_its_index(alike: Path) -> None:
    assert types_from_object(alike, "alike.data").key == Integer(size=4, signed=False, type_name="__u32")

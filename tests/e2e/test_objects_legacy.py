"""Objects with section maps as clang compiles them: samples/bpf's structs and tc's, by the conventions of their time.

No loader of today is left to compare with: libbpf refuses the section since 1.0, and tc loads by libbpf
(``test_tc_of_today_loads_no_struct_bpf_elf_map``). So what is expected is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

import mapd_client
from mapd_api.uapi import MapType
from mapd_client import Bytes, Client, Incompatible, Misuse
from mapd_client.elf.types import types_from_object
from mapd_client.layouts import Integer
from tests.support.bpffs import require_bpf
from tests.support.compiled import bpftool, clang, compiled
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place

pytestmark = pytest.mark.clang


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled objects."""
    clang()
    folder = tmp_path_factory.mktemp("objects")
    compiled(folder, "samples")
    compiled(folder, "tc_maps")
    return folder


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    require_bpf()
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
def place(served: DaemonProcess) -> Generator[Place]:
    """The daemon's, with nothing in it afterwards."""
    yield served.place
    for pin in served.place.bpffs.rglob("*"):
        if pin.is_file() and pin.suffix != ".debug":
            pin.unlink()


@pytest.fixture
async def client(place: Place) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(place.socket)) as found:
        yield found


def shape(pin: str) -> tuple[Any, ...]:
    said = bpftool("map", "show", "pinned", pin)
    return tuple(said[key] for key in ("name", "type", "bytes_key", "bytes_value", "max_entries", "flags"))


def sha_of(obj: Path) -> str:
    """What tc calls an object by."""
    return hashlib.sha1(obj.read_bytes(), usedforsecurity=False).hexdigest()


def folders(place: Place, obj: Path) -> Path:
    """Those that tc makes: mapd makes none outside of its names."""
    root = place.bpffs / "tc"
    for folder in (root, root / "globals", root / sha_of(obj)):
        folder.mkdir(exist_ok=True)
    return root


async def test_samples_maps_are_in_the_order_of_map_fd(client: Client, objects: Path) -> None:
    async with client.create_from_object(objects / "samples.o") as maps:
        assert maps.convention == "samples"
        assert "28 bytes" in maps.rule
        assert [shape(one.info.pin_path) for one in maps] == [
            ("counters", "array", 4, 8, 4, 0),
            ("ports", "hash", 2, 8, 16, 1),
            ("outer", "hash_of_maps", 4, 4, 3, 0),
        ]
        assert maps[0].info.btf_id, "annotated by BPF_ANNOTATE_KV_PAIR"
        assert not maps[1].info.btf_id
        await maps["outer"].update_reference(bytes(4), inner=maps["ports"])
        with pytest.raises(Incompatible):
            await maps["outer"].update_reference(bytes(4), inner=maps["counters"])
    counters = types_from_object(objects / "samples.o", "counters")
    assert isinstance(counters.value, Integer)
    assert (counters.value.size, counters.value.type_name) == (8, "__u64")


async def test_tc_maps_are_pinned_inserted_and_told_of_tail_calls(
    client: Client, objects: Path, place: Place
) -> None:
    obj = objects / "tc_maps.o"
    root = folders(place, obj)
    async with client.create_from_object(obj, pin_root=str(place.bpffs)) as maps:
        assert maps.convention == "tc"
        assert "36 bytes" in maps.rule
        assert {one.declared: shape(maps[one.declared].info.pin_path) for one in maps.declared} == {
            "counters": ("counters", "array", 4, 8, 4, 0),
            "flows": ("flows", "hash", 8, 16, 32, 1),
            "own": ("own", "lru_hash", 4, 4, 64, 0),
            "outer": ("outer", "array_of_maps", 4, 4, 3, 0),
            "inner": ("inner", "hash", 4, 8, 5, 0),
            "jumps": ("jumps", "prog_array", 4, 4, 2, 0),
        }
        sha = sha_of(obj)
        assert {one.declared: one.pin for one in maps.declared if one.pin} == {
            "counters": f"{root}/globals/counters",
            "flows": f"{root}/{sha}/flows",
        }
        for declared in ("counters", "flows"):
            pinned = bpftool("map", "show", "pinned", maps.declared[maps.place(declared)].pin)
            assert pinned["id"] == maps[declared].info.id
        async with client.open_map("outer", key=Bytes(4)) as outer:
            assert await outer.lookup((2).to_bytes(4, "little")) == maps["inner"].info.id
        assert len(maps.left_out) == 1
        assert maps.left_out[0].startswith("jumps[1]: program 9/1: mapd loads no programs")


async def test_what_tc_pinned_for_all_is_shared_and_compared(
    client: Client, objects: Path, place: Place
) -> None:
    obj = objects / "tc_maps.o"
    root = folders(place, obj)
    async with client.create_map(
        "theirs", "array", key=Bytes(4), value=Bytes(8), max_entries=4, kernel_name="counters"
    ) as theirs:
        await theirs.pin(f"{root}/globals/counters")
        async with client.create_from_object(obj, pin_root=str(place.bpffs)) as maps:
            assert maps["counters"].info.id == theirs.info.id
            assert not maps.declared[maps.place("counters")].created
    for pin in (f"{root}/globals/counters", *(str(one) for one in (place.names / "admin").iterdir())):
        await client.unpin_map(f"pin:{pin}")
    async with client.create_map("theirs", "array", key=Bytes(4), value=Bytes(8), max_entries=5) as theirs:
        await theirs.pin(f"{root}/globals/counters")
        with pytest.raises(Incompatible, match="max_entries: wanted 4, is 5"):
            await client.create_from_object(obj, pin_root=str(place.bpffs), prefix="again-")


async def test_the_same_object_is_read_by_another_convention_when_asked_to(
    client: Client, objects: Path
) -> None:
    async with client.create_from_object(objects / "samples.o", convention="samples") as maps:
        assert [one.info.type for one in maps] == [MapType.ARRAY, MapType.HASH, MapType.HASH_OF_MAPS]
    with pytest.raises(Misuse, match="outer"):
        await client.create_from_object(objects / "samples.o", convention="tc", prefix="tc-")

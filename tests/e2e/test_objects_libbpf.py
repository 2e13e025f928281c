"""Objects with section .maps as clang compiles them: the same maps as libbpf makes, through bpftool and through tc."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

import mapd_client
from mapd_client import Client, Misuse, NoTypeInfo, ObjectMaps
from mapd_client.elf.types import types_from_object
from mapd_client.layouts import Integer, Record
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.compiled import bpftool, clang, compiled, loaded_alone, loaded_by_libbpf, shape
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place

pytestmark = pytest.mark.clang


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled objects."""
    clang()
    folder = tmp_path_factory.mktemp("objects")
    for source in ("modern", "pinned", "tc_maps", "samples"):
        compiled(folder, source)
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


def said_of(maps: ObjectMaps) -> dict[str, dict[str, Any]]:
    """What bpftool says of each map, by its kernel name."""
    return {
        one.kernel_name: bpftool("map", "show", "pinned", maps[one.declared].info.pin_path)
        for one in maps.declared
    }


def elements(pin: str | Path) -> list[dict[str, Any]]:
    return bpftool("map", "dump", "pinned", pin)  # type: ignore[no-any-return]


def slots(pin: str | Path) -> dict[str, dict[str, Any]]:
    """What is in each slot of an outer map, by its key."""
    return {
        "".join(one["key"]): bpftool("map", "show", "id", str(word(one["value"]))) for one in elements(pin)
    }


def word(octets: list[str]) -> int:
    return int.from_bytes(bytes(int(one, 16) for one in octets), "little")


async def test_every_map_is_as_libbpf_makes_it(client: Client, objects: Path) -> None:
    with mounted_bpffs() as bpffs:
        pins = loaded_by_libbpf(objects / "modern.o", bpffs)
        said = {name: bpftool("map", "show", "pinned", pin) for name, pin in pins.items()}
        theirs = {one["name"]: shape(one) for one in said.values()}
        async with client.create_from_object(objects / "modern.o") as maps:
            assert maps.convention == "libbpf"
            ours = {name: shape(one) for name, one in said_of(maps).items()}
            assert ours == theirs
            assert len(ours) == 21
            assert [maps[at].info.kernel_name for at in range(2)] == ["first", "second"]
            assert [one.declared for one in maps.declared if one.btf_refused] == ["by_number"]
            assert maps["with_lock"].info.has_lock
            assert [one.partition(";")[0] for one in maps.left_out] == [
                "jumps[1]: program tail: mapd loads no programs"
            ]


async def test_slots_and_data_are_as_libbpf_fills_them(client: Client, objects: Path) -> None:
    with mounted_bpffs() as bpffs:
        theirs = loaded_by_libbpf(objects / "modern.o", bpffs)
        async with client.create_from_object(objects / "modern.o") as maps:
            found = slots(maps["outer"].info.pin_path)
            expected = slots(theirs["outer"])
            assert {key: shape(one) for key, one in found.items()} == {
                key: shape(one) for key, one in expected.items()
            }
            assert [one["id"] for one in found.values()] == [maps["first"].info.id, maps["second"].info.id]
            assert elements(maps["empty_outer"].info.pin_path) == []
            for section in (".rodata", ".data", ".bss", ".data.apart"):
                pin = next(pin for name, pin in theirs.items() if name.endswith(section.replace(".", "_")))
                # Bytes, and names and types of the variables.
                assert elements(maps[section].info.pin_path) == elements(pin), section


async def test_an_inner_map_is_taken_by_an_outer_one_whose_template_is_gone(
    client: Client, objects: Path, place: Place
) -> None:
    async with client.create_from_object(objects / "modern.o") as maps:
        await maps["empty_outer"].update_reference(bytes(4), inner=maps["second"])
        with pytest.raises(mapd_client.Incompatible):
            await maps["empty_outer"].update_reference(bytes(4), inner=maps["Flows"])
    assert not [one.name for one in (place.names / "admin").iterdir() if "--" in one.name]


def map_ids_of_a_program_loaded_over(bpffs: Path, obj: Path) -> list[int]:
    """Which maps libbpf gives to a program where ``bpffs`` is what it finds at its default root."""
    script = (
        f"mount --bind {bpffs} /sys/fs/bpf && bpftool prog load {obj} /sys/fs/bpf/program type classifier && "
        "bpftool -j prog show pinned /sys/fs/bpf/program"
    )
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)["map_ids"]
    return found


async def test_a_map_is_pinned_by_its_name_and_libbpf_and_mapd_share_it(
    client: Client, objects: Path, place: Place
) -> None:
    obj = objects / "pinned.o"
    alone = loaded_alone(["bpftool", "prog", "load", obj, "/sys/fs/bpf/program", "type", "classifier"])
    assert (alone.status, list(alone.pins)) == (0, ["/sys/fs/bpf/shared"]), alone.said
    async with client.create_from_object(obj, pin_root=str(place.bpffs)) as maps:
        assert maps.declared[0].created
        assert shape(bpftool("map", "show", "pinned", place.bpffs / "shared")) == shape(
            alone.pins["/sys/fs/bpf/shared"]
        )
        first = maps["shared"].info.id
    with pytest.raises(
        Misuse, match=rf"open '/sys/fs/bpf/shared': not a path below {place.bpffs}.*pin_root="
    ):
        await client.create_from_object(obj, prefix="other-")
    # libbpf reuses ours, where it looks for it.
    assert first in map_ids_of_a_program_loaded_over(place.bpffs, obj)


async def test_tc_loads_such_an_object_and_pins_it_below_tc_globals(
    client: Client, objects: Path, place: Place
) -> None:
    obj = objects / "pinned.o"
    alone = loaded_alone(
        ["tc", "filter", "add", "dev", "lo", "ingress", "bpf", "da", "obj", obj, "sec", "classifier"]
    )
    assert (alone.status, list(alone.pins)) == (0, ["/sys/fs/bpf/tc/globals/shared"]), alone.said
    root = place.bpffs / "tc" / "globals"
    root.mkdir(parents=True)
    async with client.create_from_object(obj, pin_root=str(root)):
        assert shape(bpftool("map", "show", "pinned", root / "shared")) == shape(
            alone.pins["/sys/fs/bpf/tc/globals/shared"]
        )


def test_tc_of_today_loads_no_struct_bpf_elf_map(objects: Path) -> None:
    """So there is nothing to compare section maps with: iproute2 is built with libbpf, which refuses it since 1.0."""
    said = subprocess.run(["tc", "-V"], capture_output=True, text=True, check=True).stdout
    assert "libbpf" in said, f"{said}: built without libbpf, it would load them: compare with it"
    obj = objects / "tc_maps.o"
    alone = loaded_alone(
        ["tc", "filter", "add", "dev", "lo", "ingress", "bpf", "da", "obj", obj, "sec", "classifier"]
    )
    assert alone.status != 0
    assert "legacy map definitions in 'maps' section are not supported by libbpf v1.0+" in alone.said
    assert not alone.pins


async def test_types_of_a_map_come_from_the_object(objects: Path) -> None:
    layout = types_from_object(objects / "modern.o", "Flows")
    assert isinstance(layout.key, Record)
    assert [one.name for one in layout.key.members] == ["saddr", "daddr", "sport", "dport", "protocol"]
    assert layout.source == "modern.o"
    data = types_from_object(objects / "modern.o", "modern.rodata")
    assert data.key == Integer(size=4, signed=False, type_name="__u32")
    assert isinstance(data.value, Record)
    assert [(one.name, one.offset) for one in data.value.members] == [("limit", 0), ("word", 4)]
    with pytest.raises(NoTypeInfo, match=r"modern.o has no map 'flows'; it declares first, second, outer"):
        types_from_object(objects / "modern.o", "flows")
    with pytest.raises(NoTypeInfo, match=r"declares 'untyped' by key_size 8 and value_size 16 alone"):
        types_from_object(objects / "modern.o", "untyped")


async def test_the_same_call_with_exist_ok_takes_every_map_again(client: Client, objects: Path) -> None:
    obj = objects / "modern.o"
    async with (
        client.create_from_object(obj) as first,
        client.create_from_object(obj, exist_ok=True) as again,
    ):
        assert [one.info.id for one in again] == [one.info.id for one in first]
        assert not any(one.created for one in again.declared)


async def test_fields_of_such_a_map_have_their_names(client: Client, objects: Path) -> None:
    key = {"saddr": 1, "daddr": 2, "sport": 3, "dport": 4, "protocol": 6}
    async with client.create_from_object(objects / "modern.o") as maps:
        flows = await maps["Flows"].typed()
        await flows.update(key, {"packets": 7, "bytes": 8})
        again = await maps["Flows"].typed(elf=str(objects / "modern.o"))
        found = await again[key]
        assert (found["packets"], found["bytes"]) == (7, 8)
        data = await maps[".rodata"].typed()
        value = await data[0]
        assert (value["limit"], value["word"]) == (0x01020304, "mapd")

"""The committed objects of every variant, made by our own writer: their maps through a daemon, without clang."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

import mapd_client
from mapd_api.uapi import MapType
from mapd_client import Client, Misuse
from mapd_client.elf import Declared, read_object
from mapd_client.elf.planning import ring_bytes
from tests.support.bpffs import require_bpf
from tests.support.compiled import bpftool
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place

FIXTURES = Path(__file__).parents[1] / "unit" / "mapd_client" / "elf" / "fixtures"
OTHER = {"little": "big", "big": "little"}[sys.byteorder]
OWN = sorted(FIXTURES.glob(f"*.{sys.byteorder}.o"))
FOREIGN = sorted(FIXTURES.glob(f"*.{OTHER}.o"))


REFUSED = {
    "libbpf": "map 'bloom': .*map_extra is 4294967299",
    "samples28": "map 'near': .*refuses this combination",
}
"""Numbers that only reading is tried with: an extra of 64 bits, a NUMA node that hosts of tests have not."""


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    require_bpf()
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
def place(served: DaemonProcess) -> Generator[Place]:
    """The daemon's, with nothing in it afterwards."""
    yield served.place
    for pin in pins(served.place):
        pin.unlink()


@pytest.fixture
async def client(place: Place) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(place.socket)) as found:
        yield found


def pins(place: Place) -> list[Path]:
    return [one for one in place.bpffs.rglob("*") if one.is_file() and one.suffix != ".debug"]


def test_there_is_a_fixture_of_each_variant_in_both_orders() -> None:
    assert len(OWN) == len(FOREIGN) >= 11
    assert {read_object(one).convention for one in OWN} == {"samples", "tc", "libbpf"}


def expected(one: Declared, cpus: int) -> tuple[object, ...]:
    """What bpftool says of a map as its object declares it."""
    entries = one.max_entries
    if one.type == MapType.PERF_EVENT_ARRAY:
        entries = entries or cpus
    elif one.type in (MapType.RINGBUF, MapType.USER_RINGBUF):
        entries = ring_bytes(entries)
    return one.kernel_name, one.key_size, one.value_size, entries, one.flags, int(one.frozen)


def variant(obj: Path) -> str:
    return obj.name.partition(".")[0]


@pytest.mark.parametrize("obj", [one for one in OWN if variant(one) not in REFUSED], ids=variant)
async def test_its_maps_are_created_as_they_are_declared(client: Client, place: Place, obj: Path) -> None:
    declared = read_object(obj).maps
    for one in declared:
        if one.pin:
            (place.bpffs / one.pin).parent.mkdir(parents=True, exist_ok=True)
    cpus = (await client.server_info()).possible_cpus
    async with client.create_from_object(obj, pin_root=str(place.bpffs)) as maps:
        assert len(maps) == len(declared)
        for one, told, opened in zip(declared, maps.declared, maps, strict=True):
            said = bpftool("map", "show", "pinned", opened.info.pin_path)
            found = (
                said[key] for key in ("name", "bytes_key", "bytes_value", "max_entries", "flags", "frozen")
            )
            assert tuple(found) == expected(one, cpus)
            assert opened.info.type == one.type
            assert told.created
            assert told.pin == (str(place.bpffs / one.pin) if one.pin else "")
            if told.pin:
                assert bpftool("map", "show", "pinned", told.pin)["id"] == opened.info.id
            if one.contents:
                assert await opened.lookup(bytes(4)) == one.contents
            inner = {slot.key: maps[slot.map].info.id for slot in one.slots if slot.map is not None}
            if inner:
                assert {
                    key: int.from_bytes(value, sys.byteorder) async for key, value in opened.items()
                } == inner
        programs = [slot for one in declared for slot in one.slots if slot.map is None]
        assert len([told for told in maps.left_out if "mapd loads no programs" in told]) == len(programs)


@pytest.mark.parametrize("obj", [one for one in OWN if variant(one) in REFUSED], ids=variant)
async def test_what_no_kernel_takes_ends_it_and_nothing_stays(
    client: Client, place: Place, obj: Path
) -> None:
    with pytest.raises(Misuse, match=f"{REFUSED[variant(obj)]}.*; removed again: "):
        await client.create_from_object(obj, pin_root=str(place.bpffs))
    assert pins(place) == []


@pytest.mark.parametrize("obj", FOREIGN, ids=variant)
async def test_one_of_the_other_byte_order_is_refused_and_nothing_is_made(
    client: Client, place: Place, obj: Path
) -> None:
    with pytest.raises(Misuse, match=f"compiled for {OTHER} endian hosts.*is {sys.byteorder} endian"):
        await client.create_from_object(obj, pin_root=str(place.bpffs))
    assert pins(place) == []

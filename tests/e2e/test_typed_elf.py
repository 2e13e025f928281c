"""Typed maps by the object file that declares them, where nothing else says what they are made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import mapd_client
from mapd_client import U64, Bytes, Client, Incompatible, Map, Misuse, NoTypeInfo, Struct
from mapd_client.btf.build import blob_of
from mapd_client.classes import layout_of
from tests.support.compiled import clang, compiled
from tests.support.daemon import DaemonProcess, daemon_process, private_place

pytestmark = pytest.mark.clang

KEY = {"saddr": 1, "daddr": 2, "sport": 3, "dport": 4, "protocol": 6}
COUNT = {"packets": 5, "bytes": 6}


@dataclass
class Count:
    """As modern.c has it."""

    packets: Annotated[int, U64]
    bytes: Annotated[int, U64]


@dataclass
class Bytewise:
    """As modern.c has not."""

    bytes: Annotated[int, U64]
    packets: Annotated[int, U64]


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object of modern.c."""
    clang()
    return compiled(tmp_path_factory.mktemp("objects"), "modern")


@pytest.fixture
async def client(served: DaemonProcess) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(served.place.socket)) as found:
        yield found


async def _flows(client: Client, **more: Any) -> Map[Any, Any]:
    opened = await client.create_map(
        "flows", "hash", key=Bytes(16), value=Bytes(16), max_entries=8, kernel_name="Flows", **more
    )
    await client.unpin_map("flows")
    return opened


async def test_an_object_says_what_the_map_does_not(client: Client, modern: Path) -> None:
    opened = await _flows(client)
    with pytest.raises(NoTypeInfo, match=r"typed\(elf="):
        await opened.typed()

    flows = await opened.typed(elf=modern)
    await flows.update(KEY, COUNT)

    assert [pair async for pair in flows.items()] == [(KEY, COUNT)]
    assert await flows[KEY] == COUNT
    assert await flows.fetch_add(KEY, 1, field="packets") == 5
    assert flows.layout is not None
    assert flows.layout.source == "modern.o"
    await opened.aclose()


async def test_classes_are_checked_against_the_object(client: Client, modern: Path) -> None:
    opened = await _flows(client)
    counted = await opened.typed(elf=str(modern), value=Count)
    await counted.update(KEY, Count(1, 2))

    assert await counted[KEY] == Count(1, 2)
    with pytest.raises(Incompatible, match=r"class Bytewise is not what modern\.o says"):
        await opened.typed(elf=modern, value=Bytewise)
    await opened.aclose()


async def test_an_object_of_other_types_than_the_maps_is_refused(client: Client, modern: Path) -> None:
    there = blob_of(layout_of("=IIIHH"), layout_of("=QQ"), "little")
    opened = await _flows(client, btf=there)

    with pytest.raises(Incompatible, match=r"modern\.o is not what the map's BTF says:\n  key\.saddr: "):
        await opened.typed(elf=modern)
    await opened.aclose()


async def test_an_object_without_the_map_names_those_it_has(
    client: Client, modern: Path, tmp_path: Path
) -> None:
    opened = await client.create_map("other", "hash", key=U64, value=Struct("=QQ"), max_entries=8)
    await client.unpin_map("other")
    empty = tmp_path / "empty.o"
    empty.write_bytes(b"no object")

    with pytest.raises(NoTypeInfo, match=r"typed .*modern\.o has no map 'other'; it declares first, second"):
        await opened.typed(elf=modern)
    with pytest.raises(Misuse, match=r"empty\.o"):
        await opened.typed(elf=empty)
    await opened.aclose()

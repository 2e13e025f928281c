"""Records as bpftool prints them: the same bytes as the program itself, over generated types."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mapd_client import Bytes, Client, Map, PerCpu, connect
from mapd_client.btf.build import blob_of
from mapd_client.info import Btf
from mapd_client.layouts import Array, Enumeration, Integer, Layout, Member, Record, Text
from mapd_client.records.bpftool import Bpftool
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.support.structs import Wanted, images, records

U32 = Integer(size=4, signed=False, type_name="__u32")

PLAIN = bytes.maketrans(b"'\\\"", b"!!!")
"""Without what bpftool 7.1 writes wrongly: an apostrophe as \\', which is no JSON, and a backslash as \\n."""


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@asynccontextmanager
async def one_map(
    served: DaemonProcess, kind: str, key_size: int, value_size: int, btf: Btf | None
) -> AsyncGenerator[tuple[Client, Map[Any, Any]]]:
    value = Bytes(value_size)
    codec: Any = PerCpu(value) if kind.startswith("percpu") else value
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("it", kind, key=Bytes(key_size), value=codec, max_entries=4, btf=btf) as made,
    ):
        try:
            yield client, made
        finally:
            await client.unpin_map("it")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)


async def both(made: Map[Any, Any], btf: Btf | None) -> tuple[str, str]:
    """A dump as it is printed here, and as bpftool prints it."""
    printer = Bpftool(made.info, btf, "little")
    ours = [
        one async for chunk in made.chunks() for one in printer.objects(chunk.keys, chunk.values, chunk.count)
    ]
    tool = shutil.which("bpftool", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if tool is None:
        pytest.skip("no bpftool: apt install bpftool")
    command = [tool, "-j", "map", "dump", "pinned", made.info.pin_path]
    theirs = (await asyncio.to_thread(_run, command)).stdout
    return f"[{','.join(ours)}]", theirs.strip()


def struct(size: int, *members: tuple[str, int, Layout]) -> Record:
    made = tuple(
        Member(name=one, offset=offset, layout=layout, bit_offset=8 * offset)
        for one, offset, layout in members
    )
    return Record(size=size, members=made, type_name="v")


@pytest.mark.parametrize("kind", ["hash", "percpu_hash", "array", "percpu_array", "lru_hash"])
@pytest.mark.parametrize("typed", [True, False], ids=["types", "bytes"])
async def test_each_kind_of_map_is_printed_as_bpftool_prints_it(
    served: DaemonProcess, kind: str, typed: bool
) -> None:
    layout = struct(
        16,
        ("comm", 0, Text(size=8)),
        ("n", 8, U32),
        ("state", 12, Enumeration(size=4, signed=False, members=(("UP", 1),), type_name="state")),
    )
    btf = blob_of(U32, layout, "little") if typed else None
    async with one_map(served, kind, 4, 16, btf) as (_, made):
        value = b"eth0\0\0\0\0" + (7).to_bytes(4, "little") + b"\1\0\0\0"
        await made.update(bytes(4), [value] * made.info.slots() if made.info.per_cpu else value)

        ours, theirs = await both(made, btf)

    assert ours == theirs


@settings(max_examples=15, deadline=None, phases=[Phase.generate])
@given(st.data(), records(Wanted(floats=False)))
async def test_generated_types_are_printed_as_bpftool_prints_them(
    served: DaemonProcess, data: st.DataObject, layout: Record
) -> None:
    btf = blob_of(U32, layout, "little")
    async with one_map(served, "hash", 4, layout.size, btf) as (_, made):
        for at in range(2):
            await made.update(bytes((at, 0, 0, 0)), data.draw(images(layout)).translate(PLAIN))

        ours, theirs = await both(made, btf)

    assert ours == theirs


async def test_a_map_of_maps_has_the_inner_maps_id_as_bytes(served: DaemonProcess) -> None:
    four = Bytes(4)
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("inner", "array", key=four, value=four, max_entries=1) as inner,
        client.create_map(
            "outer", "array_of_maps", key=four, value=four, max_entries=1, inner="inner"
        ) as outer,
    ):
        await outer.update_reference(bytes(4), inner=inner)

        ours, theirs = await both(outer, None)

    assert ours == theirs


async def test_arrays_of_char_are_strings_where_bpftool_says_so(served: DaemonProcess) -> None:
    layout = Array(element=Text(size=4), count=4)
    btf = blob_of(U32, layout, "little")
    async with one_map(served, "hash", 4, 16, btf) as (_, made):
        await made.update(bytes(4), b'abc\0abcda\x80\0\0"! \0')

        ours, theirs = await both(made, btf)

    assert ours == theirs

"""Typed maps as instances of the user's own classes, checked against the map's BTF."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, assert_type

import pytest

import mapd_client
from mapd_client import (
    U8,
    U16,
    U32,
    U64,
    Client,
    DaemonCapability,
    Incompatible,
    Ipv4,
    Mac,
    Map,
    Misuse,
    NoTypeInfo,
    PerCpu,
    SizeMismatch,
    TypeMismatch,
)
from mapd_client.btf.build import blob_of
from mapd_client.layouts import Layout
from mapd_client.typed import codec_of
from mapd_client.typed.hints import Port
from tests.e2e.test_bad_input_daemon import WITHOUT_BPF
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place
from tests.unit.mapd_client.typed.shapes import BE16, BE32, COMM, I32, MAC, STATE, STATS, member, struct
from tests.unit.mapd_client.typed.shapes import U8 as U8_LAYOUT
from tests.unit.mapd_client.typed.shapes import U32 as U32_LAYOUT
from tests.unit.mapd_client.typed.shapes import U64 as U64_LAYOUT

KEY_LAYOUT = struct(
    "flow_key",
    member("saddr", 0, BE32),
    member("dport", 4, BE16),
    member("proto", 6, U8_LAYOUT),
    member("ifindex", 8, U32_LAYOUT),
)
VALUE_LAYOUT = struct(
    "flow",
    member("stats", 0, STATS),
    member("mac", 16, MAC),
    member("state", 24, STATE),
    member("debt", 28, I32),
    member("comm", 32, COMM),
)


class State(IntEnum):
    """A state; two names for one value."""

    NEW = 0
    OPEN = 1
    ESTABLISHED = 1
    CLOSED = 7


@dataclass(frozen=True)
class Key:
    """As KEY_LAYOUT."""

    saddr: IPv4Address
    dport: Annotated[int, Port]
    proto: Annotated[int, U8]
    ifindex: Annotated[int, U32]


@dataclass
class Stats:
    """As STATS."""

    packets: Annotated[int, U64]
    bytes: Annotated[int, U64]


@dataclass
class Flow:
    """As VALUE_LAYOUT."""

    stats: Stats
    mac: Annotated[str, Mac]
    state: State
    debt: Annotated[int, mapd_client.I32]
    comm: Annotated[str, 16]


class NativeStats(ctypes.Structure):
    """As STATS."""

    _fields_ = [("packets", ctypes.c_uint64), ("bytes", ctypes.c_uint64)]


@dataclass
class Count:
    """One number."""

    packets: Annotated[int, U64]


@dataclass
class Narrow:
    """What no map here has."""

    packets: Annotated[int, U32]
    octets: Annotated[int, U64]
    more: Annotated[int, U16]


HERE = Key(IPv4Address("10.0.0.1"), 443, 6, 2)
FLOW = Flow(Stats(1, 1500), "02:00:00:00:00:01", State.CLOSED, -5, "nginx")


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
async def client(served: DaemonProcess) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(served.place.socket)) as found:
        yield found


async def _made(
    client: Client, key: Layout, value: Layout, type: str = "hash", *, btf: bool = True
) -> Map[Any, Any]:
    codec = codec_of(value)
    opened = await client.create_map(
        "classes",
        type,
        key=codec_of(key, path="key"),
        value=PerCpu(codec) if type.startswith("percpu") else codec,
        max_entries=8,
        btf=blob_of(key, value, "little") if btf else False,
    )
    await client.unpin_map("classes")
    return opened


async def test_keys_and_values_are_instances_of_dataclasses(client: Client) -> None:
    opened = await _made(client, KEY_LAYOUT, VALUE_LAYOUT)
    flows = assert_type(await opened.typed(key=Key, value=Flow), Map[Key, Flow])
    await flows.update(HERE, FLOW)

    assert {key: value async for key, value in flows.items()} == {HERE: FLOW}
    found = await flows[HERE]
    assert isinstance(found.stats, Stats)
    assert found.state is State.CLOSED
    assert await flows.fetch_add(HERE, 5, field="stats.packets") == 1
    assert await (await opened.typed())[{"saddr": 0x0A000001, "dport": 443, "proto": 6, "ifindex": 2}] == {
        "stats": {"packets": 6, "bytes": 1500},
        "mac": (2, 0, 0, 0, 0, 1),
        "state": "CLOSED",
        "debt": -5,
        "comm": "nginx",
    }
    await opened.aclose()


async def test_values_are_instances_of_a_ctypes_structure(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS)
    stats = await opened.typed(key=U32, value=NativeStats)
    await stats.update(1, NativeStats(7, 8))

    found = await stats[1]

    assert isinstance(found, NativeStats)
    assert (found.packets, found.bytes) == (7, 8)
    assert [(value.packets, value.bytes) async for _, value in stats.items()] == [(7, 8)]
    with pytest.raises(TypeMismatch, match=r"update .*: value: .*NativeStats is taken, not tuple"):
        await stats.update(1, (7, 8))  # type: ignore[arg-type]  # that it is none is the point
    await opened.aclose()


async def test_per_cpu_values_are_lists_of_instances(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS, "percpu_array")
    cpus = (await client.server_info()).possible_cpus
    for kind in (Stats, NativeStats):
        counted: Map[Any, Any] = await opened.typed(value=kind)
        await counted.update(3, [kind(n, 2 * n) for n in range(cpus)])
        assert [(one.packets, one.bytes) for one in await counted[3]] == [(n, 2 * n) for n in range(cpus)]
    await opened.aclose()


async def test_a_class_that_is_not_what_the_map_has_is_refused_field_by_field(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS)

    with pytest.raises(Incompatible) as info:
        await opened.typed(key=Key, value=Narrow)

    message = str(info.value)
    assert "class Key and Narrow is not what the map's BTF says" in message
    for line in (
        "key: wanted struct Key, is u32",
        "value.packets: wanted u32 at 0, is u64 at 0",
        "value.octets: wanted u64 at 8, is bytes, u64 at 8",
        "value.more: wanted u16 at 16, is not there",
    ):
        assert line in message
    assert info.value.metadata["value.more"] == "value.more: wanted u16 at 16, is not there"
    await opened.aclose()


async def test_a_codec_that_says_what_bytes_mean_fits_any_type_of_that_size(client: Client) -> None:
    # Programs keep addresses in a plain __u32 as often as in a __be32.
    opened = await _made(client, U32_LAYOUT, STATS)
    by_address = await opened.typed(key=IPv4Address, value=Stats)
    await by_address.update(IPv4Address("10.0.0.1"), Stats(1, 2))

    assert await (await opened.typed()).lookup(0x0100000A) == {"packets": 1, "bytes": 2}
    assert await (await opened.typed(hints={"key": Ipv4})).lookup("10.0.0.1") == {"packets": 1, "bytes": 2}
    await opened.aclose()


async def test_classes_do_without_btf(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS, btf=False)
    stats = await opened.typed(value=Stats)
    await stats.update(1, Stats(3, 4))

    assert await stats[1] == Stats(3, 4)
    assert await stats.fetch_add(1, 1, field="packets") == 3
    with pytest.raises(SizeMismatch, match="Narrow has 24 bytes, the map's value_size is 16"):
        await opened.typed(value=Narrow)
    await opened.aclose()


async def test_a_class_says_itself_what_its_fields_are(client: Client) -> None:
    opened = await _made(client, KEY_LAYOUT, STATS)

    with pytest.raises(Misuse, match=r"hint 'key.saddr': key=Key says itself what it is made of"):
        await opened.typed(key=Key, hints={"key.saddr": Ipv4})
    with pytest.raises(TypeMismatch, match=r"typed .*: .*str"):
        await opened.typed(value=str)
    await opened.aclose()


async def test_a_map_whose_btf_the_daemon_may_not_ask_for_is_typed_by_classes(place: Place) -> None:
    with daemon_process(place):
        async with mapd_client.connect(str(place.socket)) as client:
            await client.create_map(
                "theirs",
                "hash",
                key=U32,
                value=U64,
                max_entries=4,
                btf=blob_of(U32_LAYOUT, U64_LAYOUT, "little"),
            )
    shutil.rmtree(place.root / "state")  # where a daemon keeps the BTF of what it made
    with daemon_process(place, prefix=WITHOUT_BPF):
        async with mapd_client.connect(str(place.socket)) as client:
            theirs = await client.open_map("theirs")
            with pytest.raises(DaemonCapability, match="CAP_SYS_ADMIN"):
                await theirs.btf()
            with pytest.raises(
                NoTypeInfo, match=r"CAP_SYS_ADMIN.*typed\(elf=.*typed\(key=Key, value=Value\)"
            ) as info:
                await theirs.typed()
            assert isinstance(info.value.__cause__, DaemonCapability)
            counted = await theirs.typed(key=IPv4Address, value=Count)
            await counted.update(IPv4Address("10.0.0.1"), Count(5))
            assert [pair async for pair in counted.items()] == [(IPv4Address("10.0.0.1"), Count(5))]


async def test_after_a_restart_a_map_and_its_view_are_opened_again_together(place: Place) -> None:
    async with aclosing(Client(str(place.socket))) as client:
        with daemon_process(place):
            opened = await client.create_map("flows", "hash", key=U32, value=codec_of(STATS), max_entries=4)
            view = await opened.typed(key=IPv4Address, value=Stats)
            await view.update(IPv4Address("1.0.0.0"), Stats(5, 6))
        with daemon_process(place):
            assert await view.lookup(IPv4Address("1.0.0.0")) == Stats(5, 6)
            assert await opened.lookup(1) == {"packets": 5, "bytes": 6}
            assert await view.fetch_add(IPv4Address("1.0.0.0"), 1, field="packets") == 5
            await opened.aclose()
            with pytest.raises(Misuse, match="this map is closed"):
                await view.lookup(IPv4Address("1.0.0.0"))

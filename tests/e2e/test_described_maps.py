"""A map that a Python program creates says what it is made of: bpftool shows its fields, and so do we."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, assert_type

import pytest

import mapd_client
from mapd_client import (
    U8,
    U16,
    U32,
    U64,
    Bytes,
    Cidr4,
    Client,
    Codec,
    Incompatible,
    Map,
    PerCpu,
    SizeMismatch,
    Struct,
    TypeMismatch,
    describe,
    instances,
)
from mapd_client.btf import Types
from mapd_client.classes import layout_of
from mapd_client.layouts import Special
from mapd_client.typed import codec_of
from mapd_client.typed.hints import Port
from tests.support.bpftool import dump
from tests.support.daemon import DaemonProcess, daemon_process, private_place


class Proto(enum.IntEnum):
    """Of a flow."""

    TCP = 6
    UDP = 17


@dataclass(frozen=True)
class Flow:
    """The key of a flow."""

    saddr: IPv4Address
    dport: Annotated[int, Port]
    proto: Annotated[Proto, U8]


@dataclass
class Stats:
    """Its counters."""

    packets: Annotated[int, U64]
    bytes: Annotated[int, U64]
    name: Annotated[str, 8]
    last: Annotated[list[int], U16, 2]


class FlowC(ctypes.Structure):
    """The same key, as ctypes has it."""

    _fields_ = (("saddr", ctypes.c_uint32), ("dport", ctypes.c_uint16), ("proto", ctypes.c_uint8))


class StatsC(ctypes.Structure):
    """Counters with bit-fields."""

    _fields_ = (("packets", ctypes.c_uint64), ("up", ctypes.c_uint32, 1), ("speed", ctypes.c_uint32, 31))


FLOW = Flow(IPv4Address("10.0.0.1"), 443, Proto.TCP)
STATS = Stats(7, 4200, "eth0", [1, 2])
SHOWN_FLOW = [("saddr", 0x0100000A), ("dport", 0xBB01), ("proto", "TCP")]
"""bpftool knows no network byte order."""
SHOWN_STATS = [("packets", 7), ("bytes", 4200), ("name", "eth0"), ("last", [1, 2])]


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
async def client(served: DaemonProcess) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(served.place.socket)) as found:
        yield found
        async for info in found.list_maps():
            await found.unpin_map(info.name)


def shown(made: Map[Any, Any]) -> tuple[Any, Any]:
    """Key and value of the one element that bpftool shows; of a per-CPU map the first CPU's value."""
    (one,) = dump(made.info.id)
    return one.formatted_key, one.formatted_values[0]


async def test_bpftool_shows_the_fields_of_dataclasses(client: Client) -> None:
    made = await client.create_map("flows", "hash", key=Flow, value=Stats, max_entries=8)
    assert_type(made, Map[Flow, Stats])
    await made.update(FLOW, STATS)
    assert shown(made) == (SHOWN_FLOW, SHOWN_STATS)
    assert await made[FLOW] == STATS
    assert [pair async for pair in made.items()] == [(FLOW, STATS)]
    assert made.created


async def test_bpftool_shows_the_fields_of_ctypes_structures(client: Client) -> None:
    made = await client.create_map("flows", "lru_hash", key=FlowC, value=StatsC, max_entries=8)
    await made.update(FlowC(1, 2, 3), StatsC(9, 1, 100))
    assert shown(made) == (
        [("saddr", 1), ("dport", 2), ("proto", 3)],
        [("packets", 9), ("up", "0x1"), ("speed", "0x64")],
    )
    assert (await made[FlowC(1, 2, 3)]).speed == 100


async def test_bpftool_shows_the_fields_of_struct_formats(client: Client) -> None:
    key, value = Struct("<IH2x"), Struct("=QI4s")
    made = await client.create_map("flows", "hash", key=key, value=value, max_entries=8, btf=True)
    await made.update((1, 2), (3, 4, b"lo"))
    assert shown(made) == ([("f0", 1), ("f1", 2)], [("f0", 3), ("f1", 4), ("f2", "lo")])
    assert await made.lookup((1, 2)) == (3, 4, b"lo\0\0")


async def test_bpftool_shows_the_fields_of_codecs_by_name(client: Client) -> None:
    types = describe(Flow, Stats)
    read = Types(types.blob)
    key = codec_of(read.layout(types.key_type_id), path="key")
    value = codec_of(read.layout(types.value_type_id))
    made = await client.create_map("flows", "hash", key=key, value=value, max_entries=8)
    await made.update(
        {"saddr": 5, "dport": 443, "proto": "UDP"}, {"packets": 1, "bytes": 2, "name": "lo", "last": [3, 4]}
    )
    assert shown(made)[0] == [("saddr", 0x05000000), ("dport", 0xBB01), ("proto", "UDP")]
    assert shown(made)[1] == [("packets", 1), ("bytes", 2), ("name", "lo"), ("last", [3, 4])]


async def test_bpftool_shows_each_cpus_fields(client: Client) -> None:
    cpus = (await client.server_info()).possible_cpus
    made = await client.create_map(
        "flows", "percpu_hash", key=Flow, value=PerCpu(instances(Stats)), max_entries=8
    )
    values = [replace(STATS, packets=cpu) for cpu in range(cpus)]
    await made.update(FLOW, values)
    (one,) = dump(made.info.id)
    assert [value[0] for value in one.formatted_values] == [("packets", cpu) for cpu in range(cpus)]
    assert await made[FLOW] == values


async def test_a_class_is_a_list_of_instances_in_a_per_cpu_map(client: Client) -> None:
    cpus = (await client.server_info()).possible_cpus
    made: Map[Any, Any] = await client.create_map("c", "percpu_array", key=U32, value=Stats, max_entries=1)
    await made.update(0, [STATS] * cpus)
    assert shown(made) == (0, SHOWN_STATS)
    assert await made[0] == [STATS] * cpus


async def test_a_trie_has_the_key_that_the_kernel_wants(client: Client) -> None:
    network = IPv4Network("10.0.0.0/8")
    keys: dict[str, tuple[Any, Any]] = {
        "by-codec": (Cidr4, network),
        "by-class": (IPv4Network, network),
        "by-bytes": (Bytes(8), bytes((8, 0, 0, 0, 10, 0, 0, 0))),
    }
    for name, (key, one) in keys.items():
        made: Map[Any, Any] = await client.create_map(
            name, "lpm_trie", key=key, value=Stats, max_entries=8, flags=mapd_client.MapFlag.NO_PREALLOC
        )
        await made.update(one, STATS)
        assert shown(made) == ([("prefixlen", 8), ("data", [10, 0, 0, 0])], SHOWN_STATS), name


async def test_an_array_has_the_index_that_the_kernel_wants(client: Client) -> None:
    keys: list[Codec[Any]] = [U32, Bytes(4), Struct("<HH"), mapd_client.Ipv4]
    for at, key in enumerate(keys):
        made: Map[Any, Any] = await client.create_map(f"a{at}", "array", key=key, value=Stats, max_entries=1)
        assert shown(made)[0] == 0


async def test_plain_codecs_make_maps_without_types_unless_they_are_asked_for(client: Client) -> None:
    plain = await client.create_map("plain", "hash", key=U32, value=Struct("<QQ"), max_entries=8)
    assert plain.info.btf_id == 0
    asked = await client.create_map("asked", "hash", key=U32, value=U64, max_entries=8, btf=True)
    await asked.update(1, 2)
    assert shown(asked) == (1, 2)
    none = await client.create_map("none", "hash", key=Flow, value=Stats, max_entries=8, btf=False)
    assert none.info.btf_id == 0
    await none.update(FLOW, STATS)
    assert await none[FLOW] == STATS


async def test_a_type_that_takes_no_types_is_created_without(client: Client) -> None:
    queue = await client.create_map("queue", "queue", key=Bytes(0), value=instances(Stats), max_entries=8)
    assert queue.info.btf_id == 0
    inner = await client.create_map("inner", "array", key=U32, value=U64, max_entries=1)
    maps = await client.create_map(
        "outer", "hash_of_maps", key=Flow, value=U32, max_entries=8, inner=inner.info.name
    )
    assert maps.info.btf_id == 0


async def test_types_that_were_given_are_taken_as_they_are(client: Client) -> None:
    types = describe(Flow, Stats)
    made = await client.create_map("flows", "hash", key=Bytes(8), value=Bytes(32), max_entries=8, btf=types)
    assert (await made.btf()).blob == types.blob
    typed = await made.typed(key=Flow, value=Stats)
    await typed.update(FLOW, STATS)
    assert shown(made) == (SHOWN_FLOW, SHOWN_STATS)


@dataclass
class Other:
    """Of the size of Stats, and something else."""

    packets: Annotated[int, U64]
    octets: Annotated[int, U64]
    name: Annotated[str, 8]
    last: Annotated[list[int], U32, 2]


@dataclass
class Same:
    """Stats by another name."""

    packets: Annotated[int, U64]
    bytes: Annotated[int, U64]
    name: Annotated[str, 8]
    last: Annotated[list[int], U16, 2]


async def test_a_map_that_is_there_is_opened_if_its_fields_are_the_same(client: Client) -> None:
    await client.create_map("flows", "hash", key=Flow, value=Stats, max_entries=8)
    again = await client.create_map("flows", "hash", key=Flow, value=Same, max_entries=8, exist_ok=True)
    assert not again.created
    with pytest.raises(Incompatible, match=r"value\.bytes.*octets|value\.octets.*bytes"):
        await client.create_map("flows", "hash", key=Flow, value=Other, max_entries=8, exist_ok=True)


@dataclass
class Unaligned:
    """What BTF has no place for."""

    rate: Annotated[float, ">d"]


@dataclass
class Vague:
    """What lies nowhere."""

    count: int


@dataclass
class Locked:
    """A value with a lock."""

    lock: Annotated[None, Special(size=4, type_name="bpf_spin_lock")]
    count: Annotated[int, U32]


async def test_what_cannot_be_said_is_refused_with_its_field(client: Client) -> None:
    no_class: Any = 3
    with pytest.raises(
        TypeMismatch, match=r"create r: .*value\.rate: BTF has no big-endian float.*btf=False creates"
    ):
        await client.create_map("r", "hash", key=U32, value=Unaligned, max_entries=8)
    with pytest.raises(TypeMismatch, match=r"create v: Vague\.count: int does not say its size"):
        _ = client.create_map("v", "hash", key=U32, value=Vague, max_entries=8)
    with pytest.raises(TypeMismatch, match=r"create v: .*key=3"):
        _ = client.create_map("v", "hash", key=no_class, value=U32, max_entries=8)
    with pytest.raises(SizeMismatch, match="per-CPU"):
        await client.create_map("p", "percpu_hash", key=U32, value=U64, max_entries=8, btf=True)
    assert [info.name async for info in client.list_maps()] == []


async def test_a_value_with_a_lock_is_described_so_that_the_kernel_finds_it(client: Client) -> None:
    layout = layout_of(Locked)
    made = await client.create_map("locked", "hash", key=U32, value=codec_of(layout), max_entries=8)
    assert made.info.has_lock
    await made.update(1, {"count": 5})
    assert shown(made) == (1, [("lock", [("val", 0)]), ("count", 5)])

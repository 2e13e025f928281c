"""Maps by field name, through a real daemon on the real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

import mapd_client
from mapd_client import (
    U32,
    U64,
    Client,
    IfIndex,
    Ipv4,
    KeyExists,
    KeyMissing,
    Map,
    Misuse,
    NoTypeInfo,
    PerCpu,
    SizeMismatch,
    Struct,
    TypeMismatch,
    Unsupported,
)
from mapd_client.btf import Types
from mapd_client.btf.build import blob_of
from mapd_client.layouts import Array, Layout, Special
from mapd_client.typed import Fields, codec_of
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.typed.shapes import (
    BE16,
    BE32,
    COMM,
    FLOW_KEY,
    I32,
    MAC,
    STATE,
    STATS,
    U8,
    bit,
    member,
    struct,
    union,
)
from tests.unit.mapd_client.typed.shapes import U32 as U32_LAYOUT
from tests.unit.mapd_client.typed.shapes import U64 as U64_LAYOUT

KEY = {"saddr": 0x0A000001, "dport": 443, "proto": 6, "ifindex": 2}

FLOW = struct(
    "flow",
    member("stats", 0, STATS),
    member("mac", 16, MAC),
    member("dport", 22, BE16),
    member("state", 24, STATE),
    member("debt", 28, I32),
    member("comm", 32, COMM),
    member("hist", 48, Array(element=U64_LAYOUT, count=4)),
    bit("low", 80 * 8, 3, U32_LAYOUT),
    bit("high", 80 * 8 + 3, 29, U32_LAYOUT),
    member("addr", 84, union("addr", ("v4", BE32), ("octets", Array(element=U8, count=4)))),
    size=88,
)

VALUE = {
    "stats": {"packets": 1, "bytes": 1500},
    "mac": [2, 0, 0, 0, 0, 1],
    "dport": 443,
    "state": "CLOSED",
    "debt": -5,
    "comm": "nginx",
    "hist": [1, 2, 3, 4],
    "low": 5,
    "high": 0x1234567,
    "addr": {"v4": 0x7F000001},
}


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
    client: Client, key: Layout, value: Layout, type: str = "hash", *, btf: bool = True, **more: Any
) -> Map[Any, Any]:
    """A map whose BTF says what it is made of; its name is free again, and it goes with its handle."""
    codec = codec_of(value)
    opened = await client.create_map(
        "typed",
        type,
        key=codec_of(key, path="key"),
        value=PerCpu(codec) if type.startswith("percpu") else codec,
        max_entries=8,
        btf=blob_of(key, value, "little") if btf else False,
        **more,
    )
    await client.unpin_map("typed")
    return opened


@pytest.fixture
async def flows(client: Client) -> AsyncGenerator[Map[Any, Any]]:
    opened = await _made(client, FLOW_KEY, FLOW)
    typed = await opened.typed()
    yield typed
    await typed.aclose()


async def test_a_map_says_itself_what_its_fields_are(flows: Map[Any, Any]) -> None:
    await flows.update(KEY, VALUE)

    found = await flows[KEY]

    assert isinstance(found, Fields)
    assert found["stats"]["bytes"] == 1500
    assert found["state"] == "CLOSED"
    assert found["addr"]["octets"] == (127, 0, 0, 1)
    assert {**found, "addr": {"v4": found["addr"]["v4"]}} == {
        **VALUE,
        "mac": (2, 0, 0, 0, 0, 1),
        "hist": (1, 2, 3, 4),
    }
    assert [key async for key in flows.keys(limit=8)] == [KEY]
    assert [pair async for pair in flows.items()] == [(KEY, found)]
    assert await flows.lookup_many([KEY, {**KEY, "proto": 17}]) == [found, None]
    assert await flows.delete(KEY)


async def test_the_btf_is_what_the_map_was_created_with(flows: Map[Any, Any]) -> None:
    btf = await flows.btf()
    types = Types(btf.blob)

    assert types.layout(btf.key_type_id) == FLOW_KEY
    assert flows.layout is not None
    assert flows.layout.source == "the map's BTF"
    assert flows.layout.key == FLOW_KEY


async def test_a_key_that_was_read_is_written_back_with_its_padding(client: Client) -> None:
    opened = await _made(client, FLOW_KEY, U64_LAYOUT)
    raw = await opened.typed(key=mapd_client.Bytes(12), value=U64)
    dirty = bytes(range(12))
    await raw.update(dirty, 1)
    typed = await opened.typed()

    (key,) = [key async for key in typed.keys(limit=8)]
    await typed.update(key, 2)

    assert await raw.lookup(dirty) == 2
    assert await typed.lookup(dict(key)) is None, "the same fields with clean padding are another key"
    assert await typed.delete(key)
    await opened.aclose()


async def test_atomics_reach_a_field_by_its_path(flows: Map[Any, Any]) -> None:
    await flows.update(KEY, VALUE)

    assert await flows.fetch_add(KEY, 5, field="stats.packets") == 1
    assert await flows.fetch_add(KEY, -1, field="hist[3]") == 4
    assert await flows.fetch_add(KEY, 2, field="debt") == -5
    assert await flows.fetch_or(KEY, 0xFF, field="addr.v4") == 0x7F000001
    assert await flows.exchange(KEY, 1, field="state") == 7
    swapped = await flows.compare_exchange(KEY, 1500, 9, field="stats.bytes")
    assert swapped is not None
    assert swapped.exchanged
    assert await flows.fetch_add_many([KEY, {**KEY, "proto": 1}], [1, 1], field="hist[0]") == [1, None]
    found = await flows[KEY]
    assert (found["stats"], found["hist"]) == ({"packets": 6, "bytes": 9}, (2, 2, 3, 3))
    assert (found["debt"], found["state"], found["addr"]["v4"]) == (-3, "OPEN", 0x7F0000FF)
    assert (found["low"], found["high"], found["comm"]) == (5, 0x1234567, "nginx"), (
        "beside it nothing changed"
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "stats.packet",
            r"fetch_add .*: field='stats.packet': stats has no field 'packet': did you mean 'packets'",
        ),
        ("addr.v4", "whose bytes are big-endian"),
        ("dport", "of 2 bytes; a CPU changes 4 or 8 at once"),
        ("low", "bit-field of 3 bits"),
    ],
)
async def test_an_atomic_that_no_cpu_does_is_refused_with_the_reason(
    flows: Map[Any, Any], field: str, message: str
) -> None:
    with pytest.raises(Misuse, match=message):
        await flows.fetch_add(KEY, 1, field=field)


async def test_atomics_of_a_per_cpu_map_are_refused_as_ever(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS, "percpu_hash")
    typed = await opened.typed()

    with pytest.raises(Unsupported, match="percpu_hash maps have no atomics"):
        await typed.fetch_add(1, 1, field="packets")
    await opened.aclose()


async def test_hints_say_what_a_field_means(client: Client) -> None:
    opened = await _made(client, FLOW_KEY, FLOW)
    typed = await opened.typed(
        hints={"key.saddr": Ipv4, "key.ifindex": IfIndex, "value.mac": "mac", "value.addr.v4": "ipv4"}
    )
    await typed.update(
        {**KEY, "saddr": "10.0.0.1", "ifindex": "lo"},
        {**VALUE, "mac": "02:00:00:00:00:01", "addr": {"v4": IPv4Address("127.0.0.1")}},
    )

    ((key, value),) = [pair async for pair in typed.items()]

    assert key == {"saddr": IPv4Address("10.0.0.1"), "dport": 443, "proto": 6, "ifindex": "lo"}
    assert (value["mac"], value["addr"]["v4"]) == ("02:00:00:00:00:01", IPv4Address("127.0.0.1"))
    await opened.aclose()


async def test_the_key_of_a_trie_is_a_network(client: Client) -> None:
    key = struct(
        "bpf_lpm_trie_key_u8",
        member("prefixlen", 0, U32_LAYOUT),
        member("data", 4, Array(element=U8, count=4)),
    )
    opened = await _made(client, key, U64_LAYOUT, "lpm_trie", flags=int(mapd_client.MapFlag.NO_PREALLOC))
    typed = await opened.typed(hints={"key": "cidr4"})
    await typed.update("10.0.0.0/8", 1)
    await typed.update(IPv4Network("10.1.0.0/16"), 2)

    assert {key: value async for key, value in typed.items()} == {
        IPv4Network("10.0.0.0/8"): 1,
        IPv4Network("10.1.0.0/16"): 2,
    }
    assert (await (await opened.typed()).lookup({"prefixlen": 32, "data": [10, 1, 2, 3]})) == 2
    await opened.aclose()


@pytest.mark.parametrize(
    ("hints", "kind", "message"),
    [
        ({"key.sadr": Ipv4}, Misuse, r"typed .*: hint 'key\.sadr': .* did you mean 'key\.saddr'"),
        ({"saddr": Ipv4}, Misuse, r"paths begin with 'key' or 'value': did you mean 'key\.saddr'"),
        ({"key.saddr": "ip"}, Misuse, r"hint 'ip' is not known"),
        (
            {"key.dport": Ipv4},
            SizeMismatch,
            r"hint 'key\.dport': Ipv4 is of 4 bytes, the field has 2 \(__be16\)",
        ),
        ({"value.low": U32}, Misuse, "it is a bit-field of 3 bits"),
    ],
)
async def test_a_hint_that_fits_no_field_is_named(
    flows: Map[Any, Any], hints: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        await flows.typed(hints=hints)


async def test_an_error_names_the_path_and_what_is_taken(flows: Map[Any, Any]) -> None:
    with pytest.raises(TypeMismatch, match=r"update .*: key\.sadr: struct flow_key has no such field"):
        await flows.update({"sadr": 1}, VALUE)
    with pytest.raises(
        TypeMismatch, match=r"update .*: value\.stats\.packets: 'x': U64 takes an int, not str"
    ):
        await flows.update(KEY, {**VALUE, "stats": {"packets": "x", "bytes": 1}})
    with pytest.raises(SizeMismatch, match=r"key of element 1: key\.proto: 300 is outside U8"):
        await flows.lookup_many([KEY, {**KEY, "proto": 300}])


async def test_an_error_of_the_whole_value_names_it_once(client: Client) -> None:
    either = union("", ("v4", BE32), ("word", U32_LAYOUT))
    opened = await (await _made(client, FLOW_KEY, struct("either", member("", 0, either)))).typed()

    with pytest.raises(
        TypeMismatch, match=r"update typed: value: v4, word given: union takes one of v4, word"
    ):
        await opened.update(KEY, {"v4": 1, "word": 2})
    await opened.aclose()


async def test_errors_of_the_kernel_show_keys_by_name(flows: Map[Any, Any]) -> None:
    await flows.update(KEY, VALUE)

    with pytest.raises(KeyExists, match=r"key: flow_key\(saddr=167772161, dport=443"):
        await flows.update(KEY, VALUE, flags="noexist")
    with pytest.raises(KeyMissing, match=r"flow_key\(saddr=167772161, dport=443, proto=17"):
        await flows[{**KEY, "proto": 17}]


async def test_values_of_a_per_cpu_map_are_lists_of_records(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS, "percpu_hash")
    typed = await opened.typed()
    cpus = (await client.server_info()).possible_cpus
    await typed.update(7, [{"packets": n, "bytes": 2 * n} for n in range(cpus)])

    assert await typed[7] == [{"packets": n, "bytes": 2 * n} for n in range(cpus)]
    await typed.update(7, {"packets": 70, "bytes": 80}, cpu=1)
    assert await typed.lookup(7, cpu=1) == {"packets": 70, "bytes": 80}
    await opened.aclose()


async def test_a_sum_over_cpus_stays_one(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, U64_LAYOUT, "percpu_hash")
    cpus = (await client.server_info()).possible_cpus
    await opened.update(7, [1] * cpus)
    summed = await opened.typed(key=U32, value=PerCpu(U64).sum())

    assert await (await opened.typed()).lookup(7) == [1] * cpus
    assert await (await summed.typed()).lookup(7) == cpus
    await opened.aclose()


async def test_what_is_the_kernels_is_left_alone(client: Client) -> None:
    lock = Special(size=4, type_name="bpf_spin_lock")
    value = struct("counted", member("lock", 0, lock), member("count", 4, U32_LAYOUT))
    opened = await _made(client, U32_LAYOUT, value)
    typed = await opened.typed()
    await typed.update(1, {"count": 5})

    assert await typed[1] == {"count": 5}
    swapped = await typed.compare_exchange(1, {"count": 5}, {"count": 6})
    assert swapped == mapd_client.Exchanged(True, {"count": 5})
    await opened.aclose()


async def test_a_map_without_types_names_three_ways_out(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, U64_LAYOUT, btf=False)

    with pytest.raises(
        NoTypeInfo, match=r"typed\(elf='prog\.o'\).*typed\(key=Key, value=Value\).*open_map\("
    ) as info:
        await opened.typed()
    assert "it was created without BTF" in str(info.value)
    with pytest.raises(Unsupported, match="created without BTF"):
        await opened.btf()
    await opened.aclose()


async def test_a_view_and_its_map_are_one_handle(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, STATS)
    view = await opened.typed()
    await view.update(1, {"packets": 1, "bytes": 2})
    assert await opened.lookup(1) == {"packets": 1, "bytes": 2}

    await view.aclose()

    for closed in (opened, view):
        with pytest.raises(Misuse, match="this map is closed"):
            await closed.lookup(1)
        await closed.aclose()


async def test_calls_through_views_keep_their_order(client: Client) -> None:
    opened = await _made(client, U32_LAYOUT, U64_LAYOUT)
    one, other = await opened.typed(), await opened.typed(key=U32, value=Struct("=Q"))
    await one.update(1, 0)
    await other.lookup(1)

    for number in range(1, 50):
        await asyncio.gather(
            one.update(1, number), other.update(1, (number + 1000,)), one.update(1, number + 1)
        )
        assert await other[1] == (number + 1,)
    await opened.aclose()

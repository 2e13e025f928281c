"""What each type of data does, through a real daemon on the real kernel."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import AsyncGenerator, Callable
from ipaddress import IPv4Network
from typing import Any, TypeVar

import pytest

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel, LoadTemplate, possible_cpus
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd_client import (
    U32,
    U64,
    BatchFailed,
    Btf,
    Bytes,
    Cidr4,
    Client,
    Dump,
    IndexOutOfRange,
    KeyExists,
    KeyMissing,
    MapFrozen,
    MapFull,
    MapType,
    Misuse,
    PerCpu,
    PermissionDenied,
    Reason,
    SizeMismatch,
    Struct,
    Unavailable,
    Unsupported,
)
from tests.support import spinlock
from tests.support.daemon import Place

PER_CPU = ("percpu_hash", "percpu_array", "lru_percpu_hash")
CPUS = possible_cpus()

T = TypeVar("T")


@pytest.fixture
async def client(local: Ready) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(local.socket)) as found:
        yield found


async def taken(dump: Dump[T]) -> list[T]:
    """All of it."""
    return [item async for item in dump]


# ---- queues and stacks --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "order"), [("queue", [1, 2, 3]), ("stack", [3, 2, 1])])
async def test_values_come_out_in_their_order(client: Client, kind: str, order: list[int]) -> None:
    async with (
        client.create_map("q", kind, key=Bytes(0), value=U64, max_entries=3),
        client.open_queue("q", value=U64) as queue,
    ):
        assert (await queue.pop(), await queue.peek()) == (None, None)
        for value in (1, 2, 3):
            await queue.push(value)
        assert [await queue.peek(), await queue.peek()] == [order[0], order[0]]
        assert [await queue.pop() for _ in range(4)] == [*order, None]


@pytest.mark.parametrize(("kind", "left"), [("queue", [2, 3]), ("stack", [3, 1])])
async def test_a_full_one_refuses_or_drops_the_oldest(client: Client, kind: str, left: list[int]) -> None:
    async with (
        client.create_map("q", kind, key=Bytes(0), value=U64, max_entries=2),
        client.open_queue("q", value=U64) as queue,
    ):
        await queue.push(1)
        await queue.push(2)
        with pytest.raises(MapFull, match="push q: full, 2 of max_entries=2") as caught:
            await queue.push(3)
        assert caught.value.errno == errno.E2BIG
        await queue.push(3, exist=True)
        found = [await queue.pop(), await queue.pop()]
        assert found[0] == left[0]
        assert await queue.pop() is None
        with pytest.raises(BatchFailed) as failed:
            await queue.push_many(range(5))
        assert (failed.value.applied, failed.value.failed) == (2, 3)
        assert await queue.push_many(range(5), exist=True) == 5


async def test_a_queue_has_no_other_operations(client: Client) -> None:
    async with client.create_map("q", "queue", key=Bytes(0), value=U64, max_entries=2) as raw:
        assert raw.info.supported_operations == {"push", "push_exist", "pop", "peek", "freeze"}
        for call in (raw.lookup(b""), raw.update(b"", 1), raw.delete(b""), raw.count()):
            with pytest.raises(Unsupported, match="queue maps"):
                await call
        with pytest.raises(Unsupported, match="queue maps cannot be iterated"):
            await anext(raw.items())
        async with client.open_queue("q", value=U64) as queue:
            await queue.push(1)
            await queue.freeze()
            for call in (queue.push(2), queue.pop()):
                with pytest.raises(MapFrozen):
                    await call
            assert await queue.peek() == 1


async def test_maps_are_opened_as_what_they_are(client: Client) -> None:
    async with (
        client.create_map("q", "queue", key=Bytes(0), value=U64, max_entries=2),
        client.create_map("h", "hash", key=U32, value=U64, max_entries=2),
    ):
        with pytest.raises(Unsupported, match="type hash, not queue or stack: use open_map"):
            await client.open_queue("h", value=U64)
        with pytest.raises(Unsupported, match="type queue, not bloom_filter: use open_queue"):
            await client.open_bloom("q", value=U64)
        with pytest.raises(SizeMismatch, match="U32 has 4 bytes, the map's value_size is 8"):
            await client.open_queue("q", value=U32)


# ---- Bloom filters ------------------------------------------------------------------------------


async def test_a_filter_forgets_nothing_and_seldom_errs(client: Client) -> None:
    async with (
        client.create_map("b", "bloom_filter", key=Bytes(0), value=U64, max_entries=1_000),
        client.open_bloom("b", value=U64) as bloom,
    ):
        await bloom.add(7)
        assert await bloom.contains(7)
        assert await bloom.add_many(range(1_000)) == 1_000
        assert all(await bloom.contains_many(range(1_000)))
        wrong = sum(await bloom.contains_many(range(10_000, 20_000)))
        assert wrong < 1_000
        await bloom.freeze()
        with pytest.raises(MapFrozen):
            await bloom.add(1)
        assert await bloom.contains(7)


# ---- LPM tries ----------------------------------------------------------------------------------


def network(text: str) -> IPv4Network:
    return IPv4Network(text)


async def test_prefixes_are_told_apart(client: Client) -> None:
    async with client.create_map("t", "lpm_trie", key=Cidr4, value=U64, max_entries=64, flags=1) as trie:
        assert await trie.lpm.lookup_exact(network("0.0.0.0/0")) is None
        for number, text in enumerate(
            ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8")
        ):
            await trie.update(network(text), number)
        assert await trie.lookup(network("10.1.2.3/32")) == 3
        assert await trie.lpm.lookup_exact(network("10.1.2.3/32")) is None
        assert await trie.lpm.lookup_exact(network("10.1.0.0/16")) == 2
        assert await trie.lpm.lookup_exact(network("10.2.0.0/16")) is None
        assert await trie.lpm.covering(network("10.1.2.3/32")) == [
            (network("10.1.2.0/24"), 3),
            (network("10.1.0.0/16"), 2),
            (network("10.0.0.0/8"), 1),
            (network("0.0.0.0/0"), 0),
        ]
        covered = {key: value async for key, value in trie.lpm.covered(network("10.1.0.0/16"))}
        assert covered == {network("10.1.0.0/16"): 2, network("10.1.2.0/24"): 3}
        assert [key async for key, _ in trie.lpm.covered(network("10.0.0.0/7"), limit=2)]
        assert len([key async for key, _ in trie.lpm.covered(network("0.0.0.0/0"))]) == 5
        counted = await trie.count()
        assert (counted.entries, counted.exact, counted.method) == (5, False, "scan")


async def test_a_trie_agrees_with_a_model(client: Client) -> None:
    choose = random.Random(7)  # noqa: S311 - the same trie in every run

    def prefix(length: int | None = None) -> IPv4Network:
        bits = choose.randint(0, 32) if length is None else length
        address = choose.choice((0x0A000000, 0x0A010000, 0xC0A80000)) | choose.getrandbits(20)
        return IPv4Network((address, bits), strict=False)

    model: dict[IPv4Network, int] = {}
    async with client.create_map("t", "lpm_trie", key=Cidr4, value=U64, max_entries=512, flags=1) as trie:
        for number in range(300):
            one = prefix()
            model[one] = number
            await trie.update(one, number)
        for _ in range(100):
            gone = choose.choice(list(model))
            assert await trie.delete(gone)
            del model[gone]
        for asked in [*model, *(prefix() for _ in range(300))]:
            assert await trie.lpm.lookup_exact(asked) == model.get(asked)
        for asked in (prefix(32) for _ in range(100)):
            covering = [(one, value) for one, value in model.items() if asked.subnet_of(one)]
            assert await trie.lpm.covering(asked) == sorted(covering, key=lambda pair: -pair[0].prefixlen)
        for asked in (prefix(choose.randint(0, 16)) for _ in range(20)):
            found = {key: value async for key, value in trie.lpm.covered(asked)}
            assert found == {one: value for one, value in model.items() if one.subnet_of(asked)}


async def test_the_daemon_keeps_host_bits_out_of_a_trie(client: Client) -> None:
    def key(length: int, *octets: int) -> bytes:
        return struct.pack("=I4B", length, *octets)

    async with client.create_map("t", "lpm_trie", key=Bytes(8), value=U64, max_entries=64, flags=1) as trie:
        await trie.update(key(24, 10, 0, 0, 77), 1)
        await trie.update_many({key(9, 10, 255, 1, 1): 2, key(0, 1, 2, 3, 4): 3, key(32, 9, 9, 9, 9): 4})
        await trie.load({key(31, 8, 8, 8, 9): 5})
        assert set(await taken(trie.keys())) == {
            key(24, 10, 0, 0, 0),
            key(9, 10, 128, 0, 0),
            key(0, 0, 0, 0, 0),
            key(32, 9, 9, 9, 9),
            key(31, 8, 8, 8, 8),
        }
        assert await trie.lpm.lookup_exact(key(24, 10, 0, 0, 99)) == 1
        with pytest.raises(KeyExists):
            await trie.update(key(24, 10, 0, 0, 1), 9, flags="noexist")
        with pytest.raises(KeyMissing):
            await trie.update(key(23, 10, 0, 0, 1), 9, flags="exist")


async def test_only_tries_tell_prefixes_apart(client: Client) -> None:
    async with client.create_map("h", "hash", key=U32, value=U64, max_entries=2) as plain:
        with pytest.raises(Unsupported, match="type hash, not lpm_trie"):
            _ = plain.lpm


async def test_a_trie_that_changes_all_the_while_is_said_to_be_busy(place: Place) -> None:
    kernel = FaultyKernel(LinuxKernel())
    async with (
        running(place.config(), kernel) as ready,
        mapd_client.connect(str(ready.socket)) as client,
        client.create_map("t", "lpm_trie", key=Cidr4, value=U64, max_entries=8, flags=1) as trie,
    ):
        await trie.update(network("10.0.0.0/8"), 1)
        kernel.add(Fault(target=Command.MAP_LOOKUP_ELEM, map_id=trie.info.id, errno=errno.EBUSY))
        with pytest.raises(Unavailable) as caught:
            await trie.lpm.lookup_exact(network("10.0.0.0/8"))
        assert caught.value.reason is Reason.BUSY


# ---- indexes that hold nothing ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [("prog_array", U32), ("devmap", U32), ("sockmap", U64), ("reuseport_sockarray", U64), ("cpumap", U32)],
)
async def test_an_empty_slot_is_absent_and_none_is_beyond_the_last(
    client: Client, kind: str, value: Any
) -> None:
    entries = CPUS if kind == "cpumap" else 4
    async with client.create_map("i", kind, key=U32, value=value, max_entries=entries) as made:
        assert await made.lookup(0) is None
        assert await made.lookup_many(range(entries)) == [None] * entries
        for call in (made.lookup(entries), made.delete(entries)):
            with pytest.raises(IndexOutOfRange, match=f"indexes go from 0 to {entries - 1}"):
                await call
        # DEVMAP and CPUMAP call it done, the others absent: either way it is not there.
        assert await made.delete(1) == (kind in ("devmap", "cpumap"))
        dump = made.items()
        assert [item async for item in dump] == []
        assert dump.trailer is not None
        assert (dump.trailer.complete, dump.trailer.method) == (True, "indexes")
        counted = await made.count()
        assert (counted.entries, counted.exact) == (0, False)


async def test_an_index_walk_finds_what_is_there(client: Client) -> None:
    async with client.create_map("d", "devmap", key=U32, value=U32, max_entries=40_000) as made:
        for index in (0, 3, 16_384, 39_999):
            await made.update_reference(index, device="lo")
        assert await taken(made.keys()) == [0, 3, 16_384, 39_999]
        dump = made.chunks()
        first = await anext(dump)
        rest = await taken(made.keys(resume=first.token))
        assert [*struct.unpack(f"={first.count}I", first.keys), *rest] == [0, 3, 16_384, 39_999]
        await dump.aclose()
        assert (await made.count()).entries == 4


# ---- locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hash", "array"])
async def test_a_lock_is_found_out_and_held(client: Client, kind: str) -> None:
    types = Btf(spinlock.btf(), spinlock.KEY_TYPE, spinlock.VALUE_TYPE)
    value = Struct("=IIQ")
    async with client.create_map("l", kind, key=U32, value=value, max_entries=8, btf=types) as locked:
        assert locked.info.has_lock
        await locked.update(1, (99, 0, 7))
        await locked.update(1, (0, 0, 8), lock=True)
        await locked.update(2, (0, 0, 9), lock=False)
        # The lock's own word reads as zero, whatever was written over it.
        assert await locked.lookup_many([1, 2]) == [(0, 0, 8), (0, 0, 9)]
        assert await locked.update_many((key, (0, 0, key)) for key in range(8)) == 8
        assert await locked.load((key, (0, 0, key)) for key in range(8)) == 8
        assert {key: found[2] async for key, found in locked.items()} == {key: key for key in range(8)}
        if kind == "hash":
            assert await locked.delete(1)
            assert await locked.delete_many(range(8)) == 7
    async with client.open_map("l") as reopened:
        assert reopened.info.has_lock
    assert [info.has_lock async for info in client.list_maps("*/l")] == [True]


async def test_a_map_without_a_lock_refuses_it(client: Client) -> None:
    async with client.create_map("h", "hash", key=U32, value=U64, max_entries=8) as plain:
        assert not plain.info.has_lock
        with pytest.raises(Unsupported, match="lock=True, and the map has no lock"):
            await plain.update(1, 1, lock=True)


# ---- one CPU's slot -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PER_CPU)
async def test_one_cpus_slot_is_read_and_written_alone(client: Client, kind: str) -> None:
    async with client.create_map("p", kind, key=U32, value=PerCpu(U32), max_entries=8) as slots:
        await slots.update(1, [10 + cpu for cpu in range(CPUS)])
        for cpu in range(CPUS):
            assert await slots.lookup(1, cpu=cpu) == 10 + cpu
        await slots.update(1, 99, cpu=CPUS - 1)
        await slots.update(1, 98, cpu=0, flags="exist")
        assert await slots.lookup(1) == [98, *(10 + cpu for cpu in range(1, CPUS - 1)), 99]
        if kind == "percpu_array":
            with pytest.raises(IndexOutOfRange):
                await slots.update(8, 1, cpu=0)
            with pytest.raises(IndexOutOfRange):
                await slots.lookup(8, cpu=0)
            with pytest.raises(KeyExists):
                await slots.update(7, 1, cpu=0, flags="noexist")
            return
        assert await slots.lookup(2, cpu=0) is None
        with pytest.raises(KeyMissing):
            await slots.update(2, 5, cpu=0, flags="exist")
        await slots.update(2, 5, cpu=CPUS - 1)
        assert await slots.lookup(2) == [*[0] * (CPUS - 1), 5]
        with pytest.raises(KeyExists):
            await slots.update(2, 5, cpu=0, flags="noexist")
        await slots.update(3, 6, cpu=0, flags="noexist")
        assert await slots.lookup(3) == [6, *[0] * (CPUS - 1)]


async def test_a_cpu_that_the_host_cannot_have_is_refused_with_both_numbers(client: Client) -> None:
    async with client.create_map("p", "percpu_hash", key=U32, value=PerCpu(U64), max_entries=8) as slots:
        for call in (slots.lookup(1, cpu=CPUS), slots.update(1, 1, cpu=CPUS)):
            with pytest.raises(Misuse, match=f"cpu={CPUS}; this host has {CPUS} possible CPUs") as caught:
                await call
            assert caught.value.reason is Reason.BAD_SPEC
    async with client.create_map("h", "hash", key=U32, value=U64, max_entries=8) as plain:
        with pytest.raises(Unsupported, match="one value per key"):
            await plain.lookup(1, cpu=0)  # type: ignore[call-arg]  # types say no, code too


async def test_frozen_and_read_only_maps_refuse_the_program_too(client: Client) -> None:
    async with client.create_map("p", "percpu_array", key=U32, value=PerCpu(U64), max_entries=8) as slots:
        await slots.update(1, [7] * CPUS)
        async with client.open_map("p", key=U32, value=PerCpu(U64), read_only=True) as reader:
            with pytest.raises(PermissionDenied) as caught:
                await reader.update(1, 1, cpu=0)
            assert caught.value.reason is Reason.READ_ONLY
            assert await reader.lookup(1, cpu=0) == 7
        await slots.update(1, 8, cpu=0)
        await slots.freeze()
        with pytest.raises(MapFrozen):
            await slots.update(1, 9, cpu=0)
        assert await slots.lookup(1) == [8, *[7] * (CPUS - 1)]


async def test_where_no_program_may_be_loaded_one_slot_is_not_written_at_all(place: Place) -> None:
    kernel = FaultyKernel(LinuxKernel(), Fault(target=LoadTemplate, errno=errno.EPERM))
    async with (
        running(place.config(), kernel) as ready,
        mapd_client.connect(str(ready.socket)) as client,
        client.create_map("p", "percpu_hash", key=U32, value=PerCpu(U64), max_entries=8) as slots,
    ):
        await slots.update(1, [7] * CPUS)
        with pytest.raises(Unsupported, match=r"the kernel refuses to load it .* \[EPERM\]"):
            await slots.update(1, 9, cpu=0)
        assert await slots.lookup(1) == [7] * CPUS
        assert await slots.lookup(1, cpu=0) == 7
        counted = await slots.count()
        assert (counted.entries, counted.exact, counted.method) == (1, False, "scan")


async def test_elements_too_large_for_a_program_say_so(client: Client) -> None:
    large = Bytes(32_768)
    async with client.create_map("p", "percpu_array", key=U32, value=PerCpu(large), max_entries=2) as slots:
        assert await slots.lookup(1, cpu=0) == bytes(32_768)
        with pytest.raises(Unsupported, match=r"value_size=32768"):
            await slots.update(1, bytes(32_768), cpu=0)


# ---- counting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("hash", 0),
        ("hash", 1),
        ("lru_hash", 0),
        ("percpu_hash", 0),
        ("percpu_hash", 1),
        ("lru_percpu_hash", 0),
    ],
)
async def test_the_kernels_count_is_what_a_dump_finds(client: Client, kind: str, flags: int) -> None:
    value: Any = PerCpu(U64) if "percpu" in kind else U64
    one: Callable[[int], Any] = (lambda n: [n] * CPUS) if "percpu" in kind else (lambda n: n)
    async with client.create_map("c", kind, key=U32, value=value, max_entries=4_096, flags=flags) as made:
        for _ in range(3):
            await made.update_many((n, one(n)) for n in range(700))
            await made.delete_many(range(100, 300))
        counted = await made.count()
        assert (counted.exact, counted.method) == (True, "sum_elem_count")
        assert counted.entries == len(await taken(made.keys())) == 500


async def test_an_arrays_count_is_its_size(client: Client) -> None:
    async with client.create_map("a", "array", key=U32, value=U64, max_entries=77) as made:
        counted = await made.count()
        assert (counted.entries, counted.exact, counted.method) == (77, True, "max_entries")


# ---- every type of data -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "percpu_hash", "lru_percpu_hash", "lpm_trie"])
async def test_conditional_batches_answer_for_each_element(client: Client, kind: str) -> None:
    key: Any = Cidr4 if kind == "lpm_trie" else U32
    value: Any = PerCpu(U64) if "percpu" in kind else U64
    flags = 1 if kind == "lpm_trie" else 0

    def at(n: int) -> Any:
        return network(f"10.0.{n}.0/24") if kind == "lpm_trie" else n

    def of(n: int) -> Any:
        return [n] * CPUS if "percpu" in kind else n

    async with client.create_map("c", kind, key=key, value=value, max_entries=256, flags=flags) as made:
        assert await made.update_many(((at(n), of(n)) for n in range(0, 20, 2)), flags="noexist") == 10
        with pytest.raises(BatchFailed) as caught:
            await made.update_many(((at(n), of(100 + n)) for n in range(20)), flags="noexist")
        assert caught.value.applied == 10
        assert {type(error) for error in caught.value.errors.values()} == {KeyExists}
        assert sorted(caught.value.errors) == list(range(0, 20, 2))
        with pytest.raises(BatchFailed) as caught:
            await made.update_many(((at(n), of(200 + n)) for n in range(15, 25)), flags="exist")
        assert (caught.value.applied, sorted(caught.value.errors)) == (5, [5, 6, 7, 8, 9])
        assert {type(error) for error in caught.value.errors.values()} == {KeyMissing}
        assert MapType[kind.upper()] == made.info.type


SCARCE = {errno.EAGAIN: Reason.BUSY, errno.ENOMEM: Reason.KERNEL_MEMORY, errno.EMFILE: Reason.QUOTA}


@pytest.mark.parametrize("number", SCARCE, ids=lambda number: errno.errorcode[number])
async def test_a_program_that_cannot_be_loaded_for_the_moment_is_no_operation_that_there_is_not(
    place: Place, number: int
) -> None:
    """The verifier ends with EAGAIN where a signal waits (kernel/bpf/verifier.c, do_check)."""
    kernel = FaultyKernel(LinuxKernel())
    async with (
        running(place.config(), kernel),
        mapd_client.connect(str(place.socket)) as client,
        client.create_map("m", "hash", key=U32, value=U64, max_entries=4) as opened,
    ):
        kernel.add(Fault(target=LoadTemplate, nth=1, errno=number))
        with pytest.raises(mapd_client.MapdError) as caught:
            await opened.fetch_add(1, 1, create=True)
        assert caught.value.reason is SCARCE[number]
        assert await opened.fetch_add(1, 1, create=True) == 0

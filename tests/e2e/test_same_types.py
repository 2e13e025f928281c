"""exist_ok with types, through a real daemon: equal fields in other bytes are taken, a refusal names the fields."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import pytest

from mapd_client import U32, Bytes, Client, Incompatible, Map, connect
from mapd_client.btf.build import blob_of
from mapd_client.info import Btf
from mapd_client.layouts import Integer, Layout, Member, Record
from mapd_client.opening import Opening
from tests.support.daemon import DaemonProcess, daemon_process, private_place

KEY = Integer(size=4, signed=False, type_name="__u32")
MAP = "anon_inode:bpf-map"
U64 = Integer(size=8, signed=False, type_name="__u64")


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
async def client(served: DaemonProcess) -> AsyncGenerator[Client]:
    """Afterwards the name is free again."""
    async with connect(str(served.place.socket)) as found:
        yield found
        await found.unpin_map("flows")


def stats(packets: Layout, *, name: str = "stats", second: str = "bytes") -> Record:
    members = (
        Member(name="packets", offset=0, layout=packets),
        Member(name=second, offset=8, layout=U64, bit_offset=64),
    )
    return Record(size=16, members=members, type_name=name)


def typed(value: Layout) -> Btf:
    return blob_of(KEY, value, "little")


def create(client: Client, btf: Btf, *, size: int = 16, max_entries: int = 4) -> Opening[Map[int, bytes]]:
    return client.create_map(
        "flows", "hash", key=U32, value=Bytes(size), max_entries=max_entries, btf=btf, exist_ok=True
    )


async def test_equal_fields_in_other_bytes_are_the_same_map(client: Client) -> None:
    first, other = typed(stats(U64)), typed(stats(U64, name="flow_stats_v2"))
    assert first.blob != other.blob

    async with create(client, first) as made, create(client, other) as again:
        await made.update(1, bytes(range(16)))

        assert (made.created, again.created) == (True, False)
        assert again.info.id == made.info.id
        assert await again[1] == bytes(range(16))
        assert (await again.btf()).blob == first.blob


async def test_other_fields_are_named(client: Client) -> None:
    async with create(client, typed(stats(U64))):
        with pytest.raises(Incompatible) as refused:
            await create(client, typed(stats(KEY, second="octets")))

    assert str(refused.value) == (
        "create admin/flows: it exists with other types:\n"
        "  value.packets: wanted u32 at 0, is u64 at 0\n"
        "  value.octets: wanted u64 at 8, is bytes, u64 at 8\n"
        "mapd never recreates a map: use another name, or unpin the old one"
    )
    assert refused.value.metadata["fields"] == "btf"


async def test_another_shape_is_refused_whatever_the_types(client: Client) -> None:
    async with create(client, typed(stats(U64))):
        with pytest.raises(Incompatible, match="max_entries: wanted 8, is 4"):
            await create(client, typed(stats(U64, name="other")), max_entries=8)


async def test_fields_are_named_beside_another_shape(client: Client) -> None:
    inner = Record(size=8, members=(Member(name="bytes", offset=0, layout=U64),), type_name="inner")
    nested = stats(inner)  # its id in the blob is another, which the daemon compares beside the shape
    async with create(client, typed(stats(U64))):
        with pytest.raises(Incompatible, match="max_entries: wanted 8, is 4") as refused:
            await create(client, typed(nested), max_entries=8)

    assert refused.value.metadata["fields"] == "max_entries, btf"
    assert str(refused.value).endswith("\n  value.packets: wanted struct inner at 0, is u64 at 0")


async def test_a_blob_that_cannot_be_compared_is_refused_as_the_daemon_says_it(client: Client) -> None:
    async with create(client, typed(stats(U64))):
        with pytest.raises(Incompatible, match="btf: wanted"):
            await create(client, Btf(b"no BTF at all", 1, 2))


async def test_a_refusal_leaves_no_handle_open(client: Client, served: DaemonProcess) -> None:
    async with create(client, typed(stats(U64))):
        held = served.fds().count(MAP)
        for _ in range(3):
            with pytest.raises(Incompatible):
                await create(client, typed(stats(KEY)))

        assert held > 0
        assert served.fds().count(MAP) == held

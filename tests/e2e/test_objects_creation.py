"""Creating the maps of an object step by step: order, names, pins, and what is left when a step fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

import pytest

import mapd_client
from mapd_api.uapi import MapFlag, MapType
from mapd_client import (
    Bytes,
    Client,
    Incompatible,
    MapExists,
    MapNotFound,
    Misuse,
    Name,
    PermissionDenied,
    Pin,
    QuotaExceeded,
)
from mapd_client.elf.create import create
from mapd_client.elf.naming import is_unfinished
from mapd_client.elf.plan import Plan, Planned
from mapd_client.elf.reuse import Shape
from mapd_client.elf.undoing import Undoing
from mapd_client.objectmaps import ObjectMaps
from tests.e2e.settling import until
from tests.support.bpffs import require_bpf
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place

POLICY = """
[principals.admin]

[principals.few]
[principals.few.quotas]
maps = 3

[principals.narrow]

[[rules]]
who = ["few"]
role = "owner"
owners = ["self"]

[[rules]]
who = ["narrow"]
role = "owner"
names = ["narrow/a*"]
"""


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    require_bpf()
    with private_place() as place, daemon_process(place, policy=POLICY) as found:
        yield found


@pytest.fixture
def place(served: DaemonProcess) -> Generator[Place]:
    """The daemon's, with nothing in it, also afterwards."""
    yield served.place
    for pin in pins(served.place):
        (served.place.bpffs / pin).unlink()


def connected(place: Place, principal: str = "admin") -> mapd_client.Opening[Client]:
    return mapd_client.connect(str(place.runtime_dir / principal / "mapd.sock"))


@pytest.fixture
async def client(place: Place) -> AsyncGenerator[Client]:
    async with connected(place) as found:
        yield found


def hash_map(name: str, *, max_entries: int = 4, **other: Any) -> Planned:
    shape = Shape(type=MapType.HASH, key_size=4, value_size=8, max_entries=max_entries, flags=0, map_extra=0)
    return Planned(
        declared=name,
        kernel_name=name[:15],
        name=name.lower(),
        pin=str(other.pop("pin", "")),
        shape=shape,
        **other,
    )


def section(name: str, contents: bytes, *, frozen: bool = False) -> Planned:
    flags = MapFlag.MMAPABLE | (MapFlag.RDONLY_PROG if frozen else 0)
    shape = Shape(
        type=MapType.ARRAY, key_size=4, value_size=len(contents), max_entries=1, flags=flags, map_extra=0
    )
    return Planned(
        declared=f".{name}", kernel_name=f"p.{name}", name=f"p_{name}", pin="", shape=shape,
        contents=contents, frozen=frozen,
    )  # fmt: skip


def outer(name: str, slots: Sequence[tuple[bytes, int]], **other: Any) -> Planned:
    shape = Shape(type=MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=4, flags=0, map_extra=0)
    template = other.pop("template", hash_map(f"{name}.inner"))
    return Planned(
        declared=name, kernel_name=name, name=name, pin=str(other.pop("pin", "")), shape=shape,
        template=template, slots=slots, **other,
    )  # fmt: skip


async def made(client: Client, *maps: Planned, exist_ok: bool = False) -> ObjectMaps:
    """Through the facade's own way, but for the file."""
    normal = [at for at, one in enumerate(maps) if one.template is None]
    order = normal + [at for at in range(len(maps)) if at not in normal]
    plan = Plan(label="prog.o", convention="libbpf", rule="a test's", maps=maps, order=order, left_out=())
    link = await client._links.current()  # pyright: ignore[reportPrivateUsage]
    return await create(client, link, plan, exist_ok=exist_ok)


def pins(place: Place) -> list[str]:
    """Every pin of a map, as a path below the bpffs, sorted; without the files that some kernels put there."""
    found = (one for one in place.bpffs.rglob("*") if one.is_file() and one.suffix != ".debug")
    return sorted(str(one.relative_to(place.bpffs)) for one in found)


def slot(number: int) -> bytes:
    return number.to_bytes(4, "little")


async def test_maps_are_found_by_name_by_index_and_in_order(client: Client, place: Place) -> None:
    async with await made(client, hash_map("Flows"), section("data", b"12345678"), hash_map("last")) as maps:
        assert [one.declared for one in maps.declared] == ["Flows", ".data", "last"]
        assert maps["Flows"] is maps[0]
        assert maps[".data"] is maps["p.data"] is maps[1]
        assert [one.info.kernel_name for one in maps] == ["Flows", "p.data", "last"]
        assert all(one.created for one in maps.declared)
        await maps["Flows"].update(slot(1), bytes(8))
        for which in ("flows", 3, -1):
            with pytest.raises(MapNotFound, match=r"the object declares 'Flows', '.data', 'last'"):
                maps[which]
    assert pins(place) == ["mapd/admin/flows", "mapd/admin/last", "mapd/admin/p_data"]


async def test_a_section_has_its_contents_and_is_frozen_where_it_only_reads(client: Client) -> None:
    async with await made(
        client, section("data", b"12345678"), section("rodata", b"abcd", frozen=True)
    ) as maps:
        assert await maps[".data"].lookup(slot(0)) == b"12345678"
        assert await maps[".rodata"].lookup(slot(0)) == b"abcd"
        assert [one.info.frozen for one in maps] == [False, True]


async def test_slots_hold_the_maps_that_are_declared_and_the_template_is_gone(
    client: Client, place: Place
) -> None:
    maps = await made(client, outer("outer", [(slot(0), 1), (slot(3), 2)]), hash_map("a"), hash_map("b"))
    async with maps, client.open_map("outer", key=Bytes(4)) as there:
        found = {key: value async for key, value in there.items()}
        assert found == {slot(0): maps["a"].info.id, slot(3): maps["b"].info.id}
    assert pins(place) == ["mapd/admin/a", "mapd/admin/b", "mapd/admin/outer"]


async def test_the_template_may_be_a_map_of_the_object(client: Client, place: Place) -> None:
    async with await made(client, hash_map("like"), outer("outer", [], template=0)) as maps:
        await maps["outer"].update_reference(slot(1), inner="like")
    assert pins(place) == ["mapd/admin/like", "mapd/admin/outer"]


async def test_a_map_is_pinned_where_the_object_says_and_found_there_the_next_time(
    client: Client, place: Place
) -> None:
    shared = hash_map("shared", pin=place.bpffs / "shared")
    async with await made(client, shared) as first:
        await first["shared"].update(slot(1), b"12345678")
        assert first.declared[0].created
        assert (first.declared[0].name, first.declared[0].pin) == (
            "admin/shared",
            str(place.bpffs / "shared"),
        )
        async with await made(client, shared, hash_map("own")) as second:
            assert second["shared"].info.id == first["shared"].info.id
            assert [one.created for one in second.declared] == [False, True]
            assert await second["shared"].lookup(slot(1)) == b"12345678"
    assert pins(place) == ["mapd/admin/own", "mapd/admin/shared", "shared"]


async def test_a_pin_of_another_shape_is_refused_with_each_field_before_anything_is_made(
    client: Client, place: Place
) -> None:
    await client.create_map("there", "lru_hash", key=Bytes(4), value=Bytes(4), max_entries=5)
    async with client.open_map("there") as there:
        await there.pin(str(place.bpffs / "shared"))
    before = pins(place)
    with pytest.raises(Incompatible) as caught:
        await made(client, hash_map("first"), hash_map("shared", pin=place.bpffs / "shared"), exist_ok=True)
    assert str(caught.value) == (
        f"create_from_object prog.o: map 'shared': pin:{place.bpffs}/shared is there with another shape: "
        "type: wanted hash, is lru_hash; value_size: wanted 8, is 4; max_entries: wanted 4, is 5; "
        "unpin it, or declare it so; nothing had been created"
    )
    assert pins(place) == before


async def test_a_pin_outside_of_the_roots_is_refused_before_anything_is_made(
    client: Client, place: Place
) -> None:
    with pytest.raises(Misuse, match=rf"/sys/fs/bpf/x'?: not a path below {place.bpffs}.*pin_root="):
        await made(client, hash_map("first"), hash_map("x", pin="/sys/fs/bpf/x"))
    assert pins(place) == []


async def test_a_folder_that_is_missing_is_told_and_nothing_stays(client: Client, place: Place) -> None:
    with pytest.raises(
        Misuse, match=r"map 'x': .*a folder of the path does not exist; .*; removed again: x, first$"
    ):
        await made(client, hash_map("first"), hash_map("x", pin=place.bpffs / "tc" / "x"))
    assert pins(place) == []


async def test_who_is_second_at_a_pin_takes_the_map_of_the_first(client: Client, place: Place) -> None:
    """Twenty at once, each under a name of its own: one map in the end, whoever was first."""
    one = [
        Planned(
            declared="shared", kernel_name="shared", name=f"mine{number}", pin=str(place.bpffs / "shared"),
            shape=hash_map("x").shape,
        )
        for number in range(20)
    ]  # fmt: skip
    results = await asyncio.gather(*(made(client, planned) for planned in one))
    assert len({maps[0].info.id for maps in results}) == 1
    (winner,) = [maps for maps in results if maps.declared[0].created]
    name = winner.declared[0].name
    assert pins(place) == [f"mapd/{name}", "shared"]
    for maps in results:
        await maps.aclose()


async def test_a_name_that_is_taken_ends_it_and_only_what_it_made_is_removed(
    client: Client, place: Place
) -> None:
    await client.create_map("b", "hash", key=Bytes(4), value=Bytes(8), max_entries=4)
    for taken in (hash_map("b"), Planned(
        declared="b", kernel_name="b", name="b", pin="", contents=b"x", shape=section("x", b"x").shape
    )):  # fmt: skip
        with pytest.raises(MapExists, match=r"map 'b': .*; removed again: (admin/b--\w+, )?a$"):
            await made(client, hash_map("a"), taken, hash_map("c"))
        assert pins(place) == ["mapd/admin/b"]


async def test_exist_ok_takes_what_is_there_and_compares_every_field(client: Client, place: Place) -> None:
    maps = [hash_map("a"), section("rodata", b"abcd", frozen=True), outer("outer", [(slot(0), 0)])]
    async with await made(client, *maps) as first, await made(client, *maps, exist_ok=True) as second:
        assert [one.info.id for one in first] == [one.info.id for one in second]
        assert not any(one.created for one in second.declared)
    before = pins(place)
    for changed, field in (
        ([hash_map("new"), hash_map("a", max_entries=5)], "max_entries: wanted 5, is 4"),
        ([hash_map("new"), section("rodata", b"abcde", frozen=True)], "value_size: wanted 5, is 4"),
        ([hash_map("new"), section("rodata", b"abcd")], "flags: wanted 0x400, is 0x480"),
    ):
        with pytest.raises(Incompatible, match=rf"{field}.*removed again: new$"):
            await made(client, *changed, exist_ok=True)
        assert pins(place) == before


async def test_a_quota_in_the_middle_leaves_nothing(place: Place) -> None:
    async with connected(place, "few") as client:
        with pytest.raises(
            QuotaExceeded, match=r"map '3': .*few has 3 maps.*; removed again: 2, 1, 0$"
        ) as caught:
            await made(client, *(hash_map(str(number)) for number in range(5)))
        assert caught.value.retry_after is not None
        assert pins(place) == []


async def test_a_rule_of_the_policy_in_the_middle_leaves_nothing(place: Place) -> None:
    async with connected(place, "narrow") as client:
        with pytest.raises((PermissionDenied, MapNotFound), match=r"map 'b': .*; removed again: a$"):
            await made(client, hash_map("a"), hash_map("b"), hash_map("a2"))
        assert pins(place) == []


def many(count: int) -> list[Planned]:
    """Maps, every other with contents, the last an outer map of the first ones."""
    found = [
        hash_map(f"m{number}") if number % 2 else section(f"s{number}", b"contents", frozen=True)
        for number in range(count)
    ]
    inner = [at for at, one in enumerate(found) if one.shape.type == MapType.HASH]
    return [*found, outer("outer", [(slot(at), place) for at, place in enumerate(inner[:4])])]


@pytest.mark.parametrize("after", [0, 7, 20])
async def test_cancelled_it_has_undone_everything_when_it_ends(
    client: Client, place: Place, after: int
) -> None:
    await client.create_map("other", "hash", key=Bytes(4), value=Bytes(8), max_entries=4)
    task = asyncio.create_task(made(client, *many(30)))
    assert await until(lambda: len(pins(place)) > after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pins(place) == ["mapd/admin/other"]


async def test_cancelled_twice_it_ends_at_once_and_is_undone_behind_it(client: Client, place: Place) -> None:
    task = asyncio.create_task(made(client, *many(20)))
    assert await until(lambda: len(pins(place)) > 5)
    (work,) = running("_Making.run")
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not work.done()
    assert await until(work.done)
    assert pins(place) == []


def running(qualname: str) -> list[asyncio.Task[Any]]:
    """Tasks by the coroutine that they run."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == qualname]


async def test_cancelled_at_its_very_end_it_is_undone_or_handed_out(client: Client, place: Place) -> None:
    """At each turn of the loop after the last step: all is there and handed out, or nothing is there."""
    outcomes: list[bool] = []
    for turns in range(6):
        task = asyncio.create_task(made(client, hash_map("a")))
        assert await until(lambda: bool(running("_Making.run")))
        (work,) = running("_Making.run")
        assert await until(work.done)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            maps = await task
        except asyncio.CancelledError:
            assert pins(place) == []
            outcomes.append(False)
        else:
            await maps.aclose()
            assert pins(place) == ["mapd/admin/a"]
            await client.unpin_map("a")
            outcomes.append(True)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


async def test_what_a_map_that_was_there_holds_is_left_unless_it_is_inserted_at_every_load(
    client: Client, place: Place
) -> None:
    shared = place.bpffs / "outer"
    maps = await made(client, hash_map("a"), outer("outer", [(slot(0), 0)], pin=shared))
    first = maps["a"].info.id
    await maps.aclose()
    for inserts in (False, True):
        name = f"b{inserts}"
        again = await made(
            client, hash_map(name), outer("outer", [(slot(0), 0)], pin=shared, inserts=inserts)
        )
        async with again, client.open_map(f"pin:{shared}", key=Bytes(4)) as there:
            assert not again.declared[1].created
            expected = again[name].info.id if inserts else first
            assert await there.lookup(slot(0)) == expected


def test_names_of_unfinished_maps_are_not_taken_for_names_of_maps() -> None:
    assert is_unfinished("admin/p_rodata--0123abcd")
    assert not is_unfinished("admin/p_rodata--0123abc")


async def test_what_somebody_else_has_put_in_its_place_meanwhile_stays(client: Client, place: Place) -> None:
    undoing = Undoing(client)
    for name in ("kept", "gone", "replaced"):
        held = await client.create_map(name, "hash", key=Bytes(4), value=Bytes(8), max_entries=4)
        if name != "kept":
            undoing.made(Name(name), held)
    await client.unpin_map("replaced")
    await client.create_map("replaced", "hash", key=Bytes(4), value=Bytes(8), max_entries=4)
    await undoing.all()
    assert pins(place) == ["mapd/admin/kept", "mapd/admin/replaced"]


async def test_what_cannot_be_removed_is_told(place: Place) -> None:
    """Here a pin at a path that the daemon does not serve; the rest is removed all the same."""
    async with connected(place) as admin, connected(place, "narrow") as narrow:
        held = await admin.create_map("few/a", "hash", key=Bytes(4), value=Bytes(8), max_entries=4)
        own = await narrow.create_map("a", "hash", key=Bytes(4), value=Bytes(8), max_entries=4)
        undoing = Undoing(admin)
        undoing.made(Pin(str(place.bpffs.parent / "a")), held)
        undoing.made(Name("narrow/a"), own)
        told = await undoing.all()
        assert told.startswith(f"removed again: narrow/a; still there: pin:{place.bpffs.parent}/a (open ")
        assert pins(place) == ["mapd/few/a"]

"""Listings: names, other programs' pins, ids, holders; one entry a map; and what was not looked at is said."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest

from mapd.bpf import CreateMap, LinuxKernel, ProgramType, Rename, counter_program, load_program
from mapd.bpf.faulty import Fault
from mapd.bpf.kernel import NextMapId, OpenId, OpenPin, OpenProgramId
from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2 as pb
from mapd_client import (
    U32,
    U64,
    DaemonCapability,
    MapExists,
    MapInfo,
    MapNotFound,
    Misuse,
    ProcessHolder,
    ProgramHolder,
    connect,
)
from tests.e2e.bad_input import Ground, check, on_ground, pin_foreign, pins_below, refused
from tests.e2e.test_bad_input_daemon import other_users_place
from tests.kernel.programs import pin_program, program_id, returning
from tests.support.counts import map_fds
from tests.support.daemon import Place, daemon_process
from tests.support.pinned import KERNEL, unchanged

SHAPE = CreateMap(map_type=1, key_size=4, value_size=8, max_entries=4, kernel_name="foreign")


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


async def names(ground: Ground, glob: str = "*", **what: bool) -> list[str]:
    """What is listed, as messages call it."""
    return [info.label async for info in ground.client.list_maps(glob, **what)]


async def create(ground: Ground, name: str) -> MapInfo:
    async with ground.client.create_map(name, "hash", key=U32, value=U64, max_entries=4) as made:
        return made.info


# ---- sources merged ------------------------------------------------------------------------------


async def test_names_then_pins_then_ids_and_each_map_once(ground: Ground) -> None:
    named = await create(ground, "flows")
    with ExitStack() as stack:
        foreign = ground.place.bpffs / "foreign"
        stack.enter_context(pin_foreign(foreign, SHAPE))
        bare = KERNEL.control(SHAPE)
        stack.callback(bare.close)
        with bare.lease() as map_fd:
            bare_id = KERNEL.info(map_fd).id
        assert await names(ground) == ["admin/flows"]
        assert await names(ground, pins=True) == ["admin/flows", f"pin:{foreign}"]
        listed = await names(ground, pins=True, ids=True)
        assert listed[:2] == ["admin/flows", f"pin:{foreign}"]
        assert f"id:{bare_id}" in listed[2:]
        assert len(listed) == len(set(listed))
        ids = [info.id async for info in ground.client.list_maps(pins=True, ids=True)]
        assert len(ids) == len(set(ids))
        assert named.id in ids
    foreign.unlink()


async def test_a_map_of_many_pins_is_one_entry_with_all_of_them(ground: Ground) -> None:
    made = await create(ground, "flows")
    extra = ground.place.bpffs / "extra"
    async with ground.client.open_map("flows") as opened:
        await opened.pin(str(extra))
        await opened.pin(str(ground.place.names / "admin" / "again"))
    (found,) = [info async for info in ground.client.list_maps(pins=True)]
    assert (found.id, found.name) == (made.id, "admin/again")
    assert found.pins == tuple(
        sorted([str(extra), made.pin_path, str(ground.place.names / "admin" / "again")])
    )
    (found,) = [info async for info in ground.client.list_maps("admin/f*")]
    assert (found.name, found.pin_path) == ("admin/flows", made.pin_path)
    assert await names(ground, "nothing*", pins=True) == []


async def test_a_pattern_matches_pins_and_kernel_names_of_maps_without_a_name(ground: Ground) -> None:
    kernel_name = f"f{secrets.token_hex(6)}"
    with pin_foreign(ground.place.bpffs / "other", SHAPE), ExitStack() as stack:
        request = CreateMap(map_type=1, key_size=4, value_size=8, max_entries=4, kernel_name=kernel_name)
        bare = KERNEL.control(request)
        stack.callback(bare.close)
        with bare.lease() as map_fd:
            map_id = KERNEL.info(map_fd).id
        assert await names(ground, "*/other", pins=True) == [f"pin:{ground.place.bpffs}/other"]
        assert await names(ground, kernel_name, ids=True) == [f"id:{map_id}"]


async def test_pages_go_on_behind_the_last_entry_of_every_source(ground: Ground) -> None:
    for name in ("a", "b"):
        await create(ground, name)
    with (
        pin_foreign(ground.place.bpffs / "x", SHAPE),
        pin_foreign(ground.place.bpffs / "y", SHAPE),
        KERNEL.control(SHAPE),
    ):
        whole = [info.id async for info in ground.client.list_maps(pins=True, ids=True)]
        request = pb.ListMapsRequest(pins=True, ids=True, page_size=1)
        paged: list[int] = []
        for _ in range(6):  # two names, two pins, and on into the ids
            page = await ground.raw.call("ListMaps", request, pb.ListMapsResponse)
            paged += [info.id for info in page.maps]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert len(paged) >= 5
        assert paged == whole[: len(paged)]


@pytest.mark.parametrize("token", ["flows", "0:", "2:x", "2:-1", "3:1", ":"])
async def test_a_page_token_that_is_none_is_refused(ground: Ground, token: str) -> None:
    with ground.no_call():
        refusal = await ground.raw.refusal("ListMaps", pb.ListMapsRequest(page_token=token))
    check(refusal, Reason.BAD_SPEC, "no page token")


# ---- what was not looked at ------------------------------------------------------------------------


async def test_what_was_not_asked_for_is_said(ground: Ground) -> None:
    listing = ground.client.list_maps()
    _ = [info async for info in listing]
    assert listing.sources == (f"names below {ground.place.names}",)
    said = "\n".join(listing.not_looked_at)
    assert "ask for pins" in said
    assert "ask for ids" in said
    listing = ground.client.list_maps(pins=True, ids=True, holders=True)
    _ = [info async for info in listing]
    assert "kernel ids" in listing.sources
    assert "ask for" not in "\n".join(listing.not_looked_at)


async def test_a_daemon_without_rights_says_which_it_lacks(ground: Ground) -> None:
    await create(ground, "flows")
    for target in (NextMapId, OpenId, OpenProgramId):
        ground.kernel.add(Fault(target=target, errno=1))
    listing = ground.client.list_maps(ids=True, holders=True)
    assert [info.label async for info in listing] == ["admin/flows"]
    assert next(line for line in listing.not_looked_at if "CAP_SYS_ADMIN" in line).startswith("maps by id: ")


async def test_a_pin_that_cannot_be_opened_is_named_and_the_others_are_listed(ground: Ground) -> None:
    await create(ground, "flows")
    with pin_foreign(ground.place.bpffs / "closed", SHAPE):
        # Names are walked first: the second opening is the foreign pin's.
        ground.kernel.add(Fault(target=OpenPin, nth=2, errno=13))
        listing = ground.client.list_maps(pins=True)
        assert [info.label async for info in listing] == ["admin/flows"]
        (line,) = [line for line in listing.not_looked_at if "closed" in line]
        assert "its mode does not admit the daemon" in line


async def test_programs_are_no_maps_and_strange_names_are_named(ground: Ground) -> None:
    with load_program(returning(0), ProgramType.SOCKET_FILTER) as owned, owned.lease() as prog_fd:
        pin_program(ground.place.bpffs / "program", prog_fd)
    with pin_foreign(ground.place.names / "Strange", SHAPE):
        listing = ground.client.list_maps(pins=True)
        assert [info async for info in listing] == []
        said = "\n".join(listing.not_looked_at)
        assert "Strange: no name" in said
        assert "program" not in said


# ---- holders ---------------------------------------------------------------------------------------


async def test_a_pin_whose_name_is_no_text_does_not_cost_the_others_their_listing(ground: Ground) -> None:
    """Bpffs takes any bytes for a name, and a message only UTF-8."""
    made = await create(ground, "flows")
    strange = os.fsencode(ground.place.bpffs) + b"/x\xff"
    os.link(os.fsencode(made.pin_path), strange)
    listing = ground.client.list_maps(pins=True)
    assert [info.name async for info in listing] == ["admin/flows"]
    assert any("x\\xff: its name is no UTF-8" in line for line in listing.not_looked_at)


async def test_processes_and_programs_that_hold_a_map_are_told(ground: Ground) -> None:
    made = await create(ground, "flows")
    with (
        LinuxKernel().control(OpenId(map_id=made.id)) as owned,
        owned.lease() as map_fd,
        load_program(counter_program(map_fd, 4, 8), ProgramType.SYSCALL, "counter") as program,
        program.lease() as prog_fd,
    ):
        (found,) = [info async for info in ground.client.list_maps("admin/flows", holders=True)]
        assert os.getpid() in [one.pid for one in found.holders if isinstance(one, ProcessHolder)]
        assert ProgramHolder(id=program_id(prog_fd), name="counter") in found.holders
        (plain,) = [info async for info in ground.client.list_maps("admin/flows")]
        assert plain.holders == ()


async def test_a_listing_holds_no_descriptor_of_a_map(ground: Ground) -> None:
    """A host has more maps than a daemon may have descriptors: one is open at a time."""
    for number in range(20):
        await create(ground, f"flows{number}")
    seen: list[int] = []
    ground.kernel.add(Fault(target=OpenPin, after=True, failpoint=lambda: seen.append(map_fds())))
    before = map_fds()
    assert len(await names(ground, ids=True, pins=True, holders=True)) >= 20
    assert max(seen) <= before + 1
    assert map_fds() == before


async def test_a_daemon_with_cap_bpf_alone_lists_what_modes_admit_and_says_the_rest(place: Place) -> None:
    """Everything that it could not look at is said, and nothing is refused."""
    with pin_foreign(place.bpffs / "foreign", SHAPE), other_users_place(place) as prefix:
        (place.bpffs / "closed").mkdir(mode=0o700)
        with daemon_process(place, prefix=prefix):
            async with connect(str(place.socket)) as client:
                listing = client.list_maps(pins=True, ids=True, holders=True)
                assert [info async for info in listing] == []
                said = "\n".join(listing.not_looked_at)
                assert f"{place.bpffs}/foreign: its mode does not admit the daemon" in said
                assert f"{place.bpffs}/closed: the folder's modes do not admit the daemon" in said
                assert "maps by id: the daemon lacks CAP_SYS_ADMIN" in said
                assert "landlock forbids it; bpftool map show, as root, tells who holds" in said
                types = (await client.server_info()).types
                assert (types["hash"], types["sockmap"]) == ("ok", "unknown")


# ---- rename ----------------------------------------------------------------------------------------


async def test_a_renamed_map_is_the_same_map_and_handles_go_on(ground: Ground) -> None:
    async with ground.client.create_map("old", "hash", key=U32, value=U64, max_entries=4) as flows:
        await flows.update(1, 10)
        path = await ground.client.rename_map("old", "new")
        assert path == str(ground.pin("new"))
        assert await flows.lookup(1) == 10
        async with ground.client.open_map("new", key=U32, value=U64) as again:
            assert (again.info.id, await again.lookup(1)) == (flows.info.id, 10)
        with refused(MapNotFound, Reason.MAP_NOT_FOUND, "old"):
            await ground.client.open_map("old")
    assert await ground.client.rename_map("new", "other-ns/new") == str(
        ground.place.names / "other-ns" / "new"
    )
    assert await names(ground) == ["other-ns/new"]


async def test_a_map_that_cannot_be_renamed_stays_and_overwrites_nothing(ground: Ground) -> None:
    for name in ("old", "taken"):
        await create(ground, name)
    before = pins_below(ground.place.names)
    with unchanged(ground.pin("old"), ground.pin("taken")):
        for name, new, error, reason, says in (
            ("old", "taken", MapExists, Reason.MAP_EXISTS, "admin/taken is taken"),
            ("old", "old", MapExists, Reason.MAP_EXISTS, "admin/old is taken"),
            ("missing", "free", MapNotFound, Reason.MAP_NOT_FOUND, "admin/missing"),
            ("old", "No Name", Misuse, None, "No Name"),
            ("a/b/c", "free", Misuse, None, "a/b/c"),
        ):
            with refused(error, reason, says):
                await ground.client.rename_map(name, new)
    assert pins_below(ground.place.names) == before


async def test_a_daemon_that_may_not_write_its_folder_cannot_rename(ground: Ground) -> None:
    await create(ground, "old")
    ground.kernel.add(Fault(target=Rename, errno=13))
    with unchanged(ground.pin("old")), refused(DaemonCapability, Reason.DAEMON_CAPABILITY, "modes of"):
        await ground.client.rename_map("old", "new")

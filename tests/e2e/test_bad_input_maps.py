"""Maps that cannot be made, opened, pinned or unpinned: a clear error, no map and no pin made or lost."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from mapd.bpf import (
    Buffer,
    CreateMap,
    Fault,
    FreezeMap,
    ListPins,
    LoadBtf,
    OpenId,
    OpenPin,
    Pin,
    ProgramType,
    Unpin,
    counter_program,
    load_program,
)
from mapd.bpf.abi import Command, ObjectAttr
from mapd.bpf.syscall import bpf
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from mapd_api.v1 import maps_pb2 as pb
from mapd_api.v1 import types_pb2
from mapd_client import (
    U32,
    U64,
    Bytes,
    Codec,
    DaemonCapability,
    Id,
    Incompatible,
    Map,
    MapExists,
    MapNotFound,
    Misuse,
    PerCpu,
    PermissionDenied,
    Refused,
    SizeMismatch,
)
from tests.e2e.bad_input import (
    Ground,
    by_name,
    check,
    nothing_created,
    on_ground,
    pin_foreign,
    pins_below,
    refused,
    unique_name,
)
from tests.support.daemon import Place
from tests.support.pinned import KERNEL, unchanged

CREATING = (CreateMap, Pin)
"""What must not be asked for a map that cannot be."""


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


@pytest.fixture
async def flows(ground: Ground) -> Map[int, int]:
    found = await ground.client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
    await found.update_many({1: 10, 2: 20, 3: 30})
    return found


def shape(name: str, **other: Any) -> pb.CreateMapRequest:
    """A request for a hash map of 4 x (4, 8) bytes, but for ``other``."""
    fields: dict[str, Any] = {
        "type": types_pb2.MAP_TYPE_HASH,
        "key_size": 4,
        "value_size": 8,
        "max_entries": 4,
        "named": pb.Named(name=name),
        **other,
    }
    return pb.CreateMapRequest(**fields)


def lease(lease_id: str = "l", name: str = "x", days: int = 0) -> pb.Lease:
    """A lease of a minute, or of days."""
    return pb.Lease(id=lease_id, name=name, ttl=Duration(seconds=days * 86_400 or 60))


# ---- a map that cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "reason", "says"),
    [
        ({"type": 77}, Reason.BAD_SPEC, ("type 77 is no map type",)),
        ({"type": 0}, Reason.BAD_SPEC, ("is no map type",)),
        ({"key_size": 0}, Reason.BAD_SPEC, ("key_size is 0", "hash maps take 1 to")),
        ({"value_size": 0}, Reason.BAD_SPEC, ("value_size is 0", "1 to 2147483647 bytes")),
        ({"max_entries": 0}, Reason.BAD_SPEC, ("max_entries is 0", "1 to 4294967295")),
        ({"value_size": 5 << 20}, Reason.BAD_SPEC, (4 + (5 << 20), limits.COLUMN_BYTES)),
        ({"kernel_name": "a-b"}, Reason.BAD_SPEC, ("kernel_name is 'a-b'", "at most 15 of A-Z")),
        ({"kernel_name": "sixteen_letters_"}, Reason.BAD_SPEC, ("kernel_name is", "at most 15")),
        ({"map_extra": 7}, Reason.BAD_SPEC, ("map_extra is 7", "hash maps take 0")),
        ({"map_flags": 1 << 20}, Reason.BAD_FLAGS, ("flags 0x100000 are none", "BPF_F_NO_PREALLOC")),
        ({"map_flags": 1 << 10}, Reason.BAD_FLAGS, ("flags 0x400 (MMAPABLE)", "BPF_F_NO_PREALLOC")),
        ({"map_flags": 1 << 2}, Reason.BAD_SPEC, ("numa_node is None", "BPF_F_NUMA_NODE")),
        ({"numa_node": 0}, Reason.BAD_SPEC, ("numa_node is 0", "BPF_F_NUMA_NODE")),
        ({"map_flags": 3 << 3}, Reason.BAD_SPEC, ("BPF_F_RDONLY | BPF_F_WRONLY", "one of them")),
        ({"type": 2, "key_size": 8}, Reason.BAD_SPEC, ("key_size is 8", "array maps take 4 bytes")),
        ({"type": 5, "value_size": 32_769}, Reason.BAD_SPEC, ("value_size is 32769", "1 to 32768 bytes")),
        ({"type": 11, "key_size": 8}, Reason.BAD_FLAGS, ("lpm_trie", "needs BPF_F_NO_PREALLOC")),
        ({"type": 11, "map_flags": 1}, Reason.BAD_SPEC, ("key_size is 4", "lpm_trie maps take 5 to 260")),
        ({"type": 9, "map_flags": 1}, Reason.BAD_FLAGS, ("0x1 (NO_PREALLOC)", "BPF_F_NO_COMMON_LRU")),
        ({"type": 22}, Reason.BAD_SPEC, ("key_size is 4", "queue maps take 0 bytes")),
        (
            {"type": 14, "value_size": 6},
            Reason.BAD_SPEC,
            ("value_size is 6", "devmap maps take 4 to 8 bytes in steps of 4"),
        ),
        (
            {"type": 7, "value_size": 8, "map_flags": 1 << 5},
            Reason.BAD_SPEC,
            ("value_size is 8", "of 32 bytes"),
        ),
        ({"type": 24, "map_flags": 1}, Reason.BAD_SPEC, ("max_entries is 4", "an element per owner")),
        ({"type": 24, "map_flags": 1, "max_entries": 0}, Reason.BAD_SPEC, ("btf is missing", "BTF with")),
        ({"type": 16, "max_entries": 8_193}, Reason.BAD_SPEC, ("max_entries is 8193", "1 to 8192 CPUs")),
        ({"type": 26, "max_entries": 2}, Reason.BAD_SPEC, ("max_entries is 2", "struct_ops maps take 1")),
        ({"type": 13, "value_size": 4}, Reason.BAD_SPEC, ("inner is missing", "a template")),
        ({"inner": by_name("x")}, Reason.BAD_SPEC, ("inner is given", "hash maps take none")),
        (
            {"exclusive_program_hash": b"x"},
            Reason.BAD_SPEC,
            ("exclusive_program_hash is 1 bytes long", "32 bytes (SHA-256)"),
        ),
        (
            {"btf_vmlinux_value_type_id": 5},
            Reason.BAD_SPEC,
            ("btf_vmlinux_value_type_id is 5", "hash maps take 0"),
        ),
        ({"btf": types_pb2.Btf(blob=b"xx")}, Reason.BAD_SPEC, ("btf is without type ids", "or no BTF")),
        (
            {"type": 27, "key_size": 0, "value_size": 0, "max_entries": 4097},
            Reason.BAD_SPEC,
            ("max_entries is 4097", "a power of two"),
        ),
        ({"named": None}, Reason.BAD_SPEC, ("how long the map lives",)),
        ({"named": None, "lease": pb.Lease(id="l", name="x")}, Reason.BAD_SPEC, ("0 s", "from 1 to 86400 s")),
        ({"named": None, "lease": lease("L")}, Reason.BAD_SPEC, ("'L' is no lease", "1 to 63 of a-z")),
        ({"named": None, "lease": lease("../l")}, Reason.BAD_SPEC, ("'..'", "1 to 63 of a-z")),
        ({"named": None, "lease": lease(name="")}, Reason.BAD_SPEC, ("name of a map in a lease",)),
        ({"named": None, "lease": lease(name="a.b")}, Reason.BAD_SPEC, ("'a.b'", "1 to 63 of a-z")),
        ({"named": None, "lease": lease(days=2)}, Reason.BAD_SPEC, ("172800 s", "from 1 to 86400 s")),
        ({"named": pb.Named(name="")}, Reason.BAD_SPEC, ("no map name", "1 to 63 of a-z")),
        ({"named": pb.Named(name="Flows")}, Reason.BAD_SPEC, ("'Flows'", "1 to 63 of a-z")),
        ({"named": pb.Named(name="../up")}, Reason.BAD_SPEC, ("'..'", "1 to 63 of a-z")),
        ({"named": pb.Named(name="a/b/c")}, Reason.BAD_SPEC, ("'a/b'", "1 to 63 of a-z")),
        ({"named": pb.Named(name="n" * 64)}, Reason.BAD_SPEC, ("n" * 64, "1 to 63 of a-z")),
        ({"named": pb.Named(name="nul\0")}, Reason.BAD_SPEC, ("1 to 63 of a-z",)),
        ({"session": "none"}, Reason.STALE_HANDLE, ("session none is not open", "a new one")),
    ],
)
async def test_the_daemon_makes_no_map_that_cannot_be(
    ground: Ground, changed: dict[str, Any], reason: Reason, says: tuple[object, ...]
) -> None:
    """Checked before any syscall: the message has the field, the value given and what is accepted."""
    name = unique_name()
    with nothing_created(ground.place, name), ground.no_call():
        check(await ground.raw.refusal("CreateMap", shape(name, **changed)), reason, *says)


@pytest.mark.parametrize(
    ("type", "key", "value", "says"),
    [
        ("hash", Bytes(0), U64, ("key_size is 0",)),
        ("hash", U32, Bytes(0), ("value_size is 0",)),
        ("array", U64, U64, ("key_size is 8", "take 4 bytes")),
        ("percpu_hash", U32, PerCpu(Bytes(40_000)), ("value_size is 40000", "1 to 32768 bytes")),
    ],
)
async def test_the_client_passes_on_what_a_map_cannot_be(
    ground: Ground, type: str, key: Codec[Any], value: Codec[Any], says: tuple[str, ...]
) -> None:
    name = unique_name()
    with (
        nothing_created(ground.place, name),
        ground.no_call(),
        refused(Misuse, Reason.BAD_SPEC, f"create {type} map of 4 x", *says),
    ):
        await ground.client.create_map(name, type, key=key, value=value, max_entries=4)


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"max_entries": -1}, Misuse, ("max_entries=-1", "0 to 4294967295")),
        ({"max_entries": 1 << 32}, Misuse, ("max_entries=4294967296",)),
        ({"flags": 1 << 32}, Misuse, ("flags=4294967296",)),
        ({"type": "hush"}, Misuse, ("'hush' is no map type", "lpm_trie")),
        ({"name": "Flows!"}, Misuse, ("'Flows!'", "1 to 63 of a-z")),
        ({"name": None}, Misuse, ("name", "lease=")),
        ({"lease": 5.0}, Misuse, ("name", "lease=")),
        ({"name": None, "lease": 0.0}, Misuse, ("lease=0", "positive")),
        ({"type": "percpu_hash"}, SizeMismatch, ("per-CPU", "PerCpu(U64)")),
        ({"value": PerCpu(U64)}, SizeMismatch, ("PerCpu(U64)", "one value per key")),
    ],
)
async def test_a_map_that_cannot_be_described_is_refused_unsent(
    ground: Ground, changed: dict[str, Any], kind: type[Misuse], says: tuple[str, ...]
) -> None:
    name = unique_name()
    described: dict[str, Any] = {
        "name": name,
        "type": "hash",
        "key": U32,
        "value": U64,
        "max_entries": 4,
        **changed,
    }
    with nothing_created(ground.place, name), ground.no_call(), refused(kind, None, *says):
        await ground.client.create_map(**described)


async def test_a_broken_btf_makes_no_map(ground: Ground) -> None:
    name = unique_name()
    with nothing_created(ground.place, name), ground.no_call(LoadBtf):
        refusal = await ground.raw.refusal(
            "CreateMap", shape(name, btf=types_pb2.Btf(blob=b"xx", key_type_id=1))
        )
        check(refusal, Reason.BAD_SPEC, "BTF of 2 bytes", operation="create", errno="EINVAL")


# ---- what only the kernel knows --------------------------------------------------------------------


async def test_a_map_for_which_there_is_no_memory_is_told_from_one_that_may_not_be(ground: Ground) -> None:
    """ENOMEM and EPERM are both old ways to say no; the one is about size, the other about rights."""
    name = unique_name()
    huge, entries = Bytes(1 << 20), 1_000_000
    with nothing_created(ground.place, name):
        with refused(
            Refused,
            Reason.KERNEL_MEMORY,
            f"create admin/{name}",
            "array",
            f"{entries} x (4, {1 << 20})",
            "ENOMEM",
        ) as caught:
            await ground.client.create_map(name, "array", key=U32, value=huge, max_entries=entries)
        assert "fewer entries" in str(caught.value)
        assert caught.value.errno == 12
        refusal = await ground.raw.refusal(
            "CreateMap", shape(name, type=2, value_size=1 << 20, max_entries=entries)
        )
        check(refusal, Reason.KERNEL_MEMORY, "no memory", "cgroup", errno="ENOMEM", operation="create")
    # Root cannot be refused here; a daemon without the right is in test_bad_input_daemon.py.
    ground.kernel.add(Fault(target=CreateMap, errno=1, name="EPERM"))
    with nothing_created(ground.place, name):
        with refused(
            DaemonCapability, Reason.DAEMON_CAPABILITY, f"create admin/{name}", "CAP_BPF"
        ) as refused_:
            await ground.client.create_map(name, "hash", key=U32, value=U64, max_entries=4)
        assert refused_.value.capability == "CAP_BPF"
        assert "CAP_BPF" in refused_.value.fix


async def test_a_map_larger_than_its_type_can_be_is_a_bad_shape(ground: Ground) -> None:
    name = unique_name()
    with nothing_created(ground.place, name):
        with refused(Misuse, Reason.BAD_SPEC, "4000000000 x (4, 8)", "fewer", "E2BIG"):
            await ground.client.create_map(name, "hash", key=U32, value=U64, max_entries=4_000_000_000)
        refusal = await ground.raw.refusal("CreateMap", shape(name, map_flags=4, numa_node=1_000))
        check(refusal, Reason.BAD_SPEC, "BPF_MAP_CREATE: EINVAL", errno="EINVAL")


async def test_a_daemon_out_of_descriptors_says_so(ground: Ground) -> None:
    name = unique_name()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ground.kernel.add(
        Fault(target=CreateMap, failpoint=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard)))
    )
    with nothing_created(ground.place, name):
        try:
            refusal = await ground.raw.refusal("CreateMap", shape(name))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        check(refusal, Reason.QUOTA, "file descriptors", "LimitNOFILE", errno="EMFILE")


# ---- one that is there already ---------------------------------------------------------------------


async def test_a_name_that_is_taken_is_refused_with_its_pin(ground: Ground, flows: Map[int, int]) -> None:
    del flows
    pin = ground.pin("flows")
    with unchanged(pin):
        before = pins_below(ground.place.bpffs)
        with refused(MapExists, Reason.MAP_EXISTS, "create admin/flows", pin, "exist_ok", "unpin"):
            await ground.client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
        check(
            await ground.raw.refusal("CreateMap", shape("flows")), Reason.MAP_EXISTS, pin, map="admin/flows"
        )
        assert pins_below(ground.place.bpffs) == before


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"type": 9}, ["type: wanted lru_hash, is hash"]),
        ({"key_size": 8}, ["key_size: wanted 8, is 4"]),
        ({"value_size": 4, "max_entries": 5}, ["value_size: wanted 4, is 8", "max_entries: wanted 5, is 4"]),
        ({"map_flags": 1}, ["flags: wanted 0x1, is 0x0"]),
    ],
)
async def test_a_map_of_another_shape_is_reported_field_by_field_and_left_alone(
    ground: Ground, flows: Map[int, int], changed: dict[str, Any], fields: list[str]
) -> None:
    del flows
    with unchanged(ground.pin("flows")):
        ground.kernel.forget()
        refusal = await ground.raw.refusal("CreateMap", shape("flows", exist_ok=True, **changed))
        check(refusal, Reason.INCOMPATIBLE, *fields, "never recreates", map="admin/flows")
        assert not {seen.target for seen in ground.kernel.seen} & {*CREATING, Unpin}


async def test_the_client_says_incompatible_with_the_fields(ground: Ground, flows: Map[int, int]) -> None:
    del flows
    with (
        unchanged(ground.pin("flows")),
        refused(
            Incompatible, Reason.INCOMPATIBLE, "value_size: wanted 4, is 8", "max_entries: wanted 9, is 4"
        ),
    ):
        await ground.client.create_map("flows", "hash", key=U32, value=U32, max_entries=9, exist_ok=True)


async def test_a_principal_with_all_its_handles_makes_no_map(ground: Ground, flows: Map[int, int]) -> None:
    """Refused before the map is made, not after: nobody would hold it."""
    del flows
    name = unique_name()
    room = limits.HANDLES - len(ground.ready.host.handles)
    for _ in range(room):
        await ground.raw.open(by_name("flows"))
    with nothing_created(ground.place, name), ground.no_call():
        refusal = await ground.raw.refusal("CreateMap", shape(name))
        check(refusal, Reason.QUOTA, f"{limits.HANDLES} handles", f"limit is {limits.HANDLES}", "close some")


# ---- opening ---------------------------------------------------------------------------------------


async def test_a_map_that_is_not_there_is_not_found_with_where_was_looked(ground: Ground) -> None:
    bpffs = ground.place.bpffs
    for ref, says in (
        ("nosuch", ("open admin/nosuch", ground.pin("nosuch"))),
        ("other/nosuch", ("open other/nosuch", ground.place.names / "other" / "nosuch")),
        (f"pin:{bpffs}/nosuch", ("open pin:", f"{bpffs}/nosuch", "nothing is pinned")),
        (f"pin:{bpffs}/no/such", ("open pin:", "nothing is pinned")),
        (Id(4_000_000_000), ("open id:4000000000", "no map has this id")),
    ):
        with refused(MapNotFound, Reason.MAP_NOT_FOUND, *says) as caught:
            await ground.client.open_map(ref)
        assert isinstance(caught.value, LookupError)
        assert caught.value.operation == "open"


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("No Such", ("'No Such'", "1 to 63 of a-z")),
        ("", ("''", "1 to 63 of a-z")),
        ("a/b/c", ("'a/b'", "1 to 63 of a-z")),
        ("pin:relative", ("'relative'", "absolute path")),
        ("pin:/nul\0", ("absolute path",)),
        ("id:x", ("'id:x'", "digits")),
        ("id:0", ("0 is no map id", "1 to 4294967295")),
        ("id:4294967296", ("4294967296 is no map id",)),
    ],
)
async def test_a_reference_that_is_none_is_refused_unsent(
    ground: Ground, ref: str, says: tuple[str, ...]
) -> None:
    with ground.no_call():
        with refused(Misuse, None, *says):
            await ground.client.open_map(ref)
        with refused(Misuse, None, *says):
            await ground.client.unpin_map(ref)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "relative", "", "{bpffs}", "{bpffs}x/y", "{bpffs}/../x", "{bpffs}/x\0y"],
)
async def test_a_path_outside_the_pin_roots_is_refused_before_any_syscall(
    ground: Ground, flows: Map[int, int], path: str
) -> None:
    """A NUL would make the kernel open, pin or remove another path than was named."""
    del flows
    path = path.format(bpffs=ground.place.bpffs)
    ref = types_pb2.MapRef(pin=path)
    before = pins_below(ground.place.bpffs)
    with unchanged(ground.pin("flows")):
        with ground.no_call():
            for method, request in (
                ("OpenMap", pb.OpenMapRequest(map=ref)),
                ("UnpinMap", pb.UnpinMapRequest(map=ref)),
            ):
                refusal = await ground.raw.refusal(method, request)
                check(refusal, Reason.BAD_SPEC, repr(path), ground.place.bpffs, "pin_roots")
        refusal = await ground.raw.refusal("PinMap", pb.PinMapRequest(map=by_name("flows"), path=path))
        check(refusal, Reason.BAD_SPEC, repr(path), ground.place.bpffs, "pin_roots")
    assert pins_below(ground.place.bpffs) == before
    assert Pin not in {seen.target for seen in ground.kernel.seen if seen.map_id is not None}


async def test_a_folder_a_program_and_a_link_are_no_maps(ground: Ground, flows: Map[int, int]) -> None:
    """None of them is a missing capability, though the kernel says EACCES of a folder."""
    del flows
    bpffs = ground.place.bpffs
    (bpffs / "link").symlink_to(ground.pin("flows"))
    pinned_program(ground, bpffs / "program")
    before = pins_below(bpffs)
    for path, says in (
        (ground.place.names / "admin", "folder"),
        (bpffs / "program", "not a map"),
        (bpffs / "link", "symbolic link"),
    ):
        with refused(Misuse, Reason.BAD_SPEC, "open pin:", path, says):
            await ground.client.open_map(f"pin:{path}")
        with refused(Misuse, Reason.BAD_SPEC, "unpin pin:", path, says):
            await ground.client.unpin_map(f"pin:{path}")
    assert pins_below(bpffs) == before


def pinned_program(ground: Ground, path: Path) -> None:
    """A program on the bpffs, where a map is looked for."""
    request = OpenPin(root=str(ground.place.bpffs), path=str(ground.pin("flows")))
    with (
        KERNEL.control(request) as owned,
        owned.lease() as map_fd,
        load_program(counter_program(map_fd, 4, 8), ProgramType.SYSCALL) as program,
        program.lease() as prog_fd,
    ):
        pathname = Buffer.of(os.fsencode(path) + b"\0")
        bpf(Command.OBJ_PIN, ObjectAttr(pathname=pathname.address, bpf_fd=prog_fd))


async def test_a_handle_is_no_way_to_open(ground: Ground, flows: Map[int, int]) -> None:
    del flows
    handle = await ground.raw.open(by_name("flows"))
    with ground.no_call():
        refusal = await ground.raw.refusal("OpenMap", pb.OpenMapRequest(map=handle))
        check(refusal, Reason.BAD_SPEC, "open already", "a name, a pin or an id")
        for request in (handle, types_pb2.MapRef(id=1)):
            refusal = await ground.raw.refusal("UnpinMap", pb.UnpinMapRequest(map=request))
            check(refusal, Reason.BAD_SPEC, "names no pin", operation="unpin")


async def test_a_session_that_is_none_opens_nothing(ground: Ground, flows: Map[int, int]) -> None:
    del flows
    held = len(ground.ready.host.handles)
    with ground.no_call():
        request = pb.OpenMapRequest(map=by_name("flows"), session="none")
        check(await ground.raw.refusal("OpenMap", request), Reason.STALE_HANDLE, "session none", "a new one")
    assert len(ground.ready.host.handles) == held


async def test_one_codec_without_the_other_is_refused_unsent(ground: Ground) -> None:
    arguments: dict[str, Any] = {"value": U32}
    with ground.no_call(), refused(Misuse, None, "key= with value="):
        await ground.client.open_map("flows", **arguments)


# ---- pins ------------------------------------------------------------------------------------------


async def test_a_pin_that_cannot_be_made_is_refused_with_the_path(
    ground: Ground, flows: Map[int, int]
) -> None:
    bpffs = ground.place.bpffs
    before = pins_below(bpffs)
    with unchanged(ground.pin("flows")):
        for path, kind, reason, says in (
            (f"{bpffs}/a.b", Misuse, Reason.BAD_SPEC, ("'.'", "EPERM")),
            (f"{bpffs}/no/such/folder", Misuse, Reason.BAD_SPEC, ("folder", "does not exist")),
            (f"{bpffs}/{'n' * 256}", Misuse, Reason.BAD_SPEC, ("ENAMETOOLONG",)),
            (str(ground.pin("flows")), MapExists, Reason.MAP_EXISTS, ("never overwrites",)),
            (str(ground.place.names / "admin"), Misuse, Reason.BAD_SPEC, ("namespace/name",)),
            (str(ground.place.names / "team"), Misuse, Reason.BAD_SPEC, ("namespace/name",)),
            (f"{ground.pin('flows')}/x", Misuse, Reason.BAD_SPEC, ("namespace/name",)),
        ):
            with refused(kind, reason, "pin map ", "(flows)", path, *says):
                await flows.pin(path)
        for path in (f"{bpffs}/again/", f"{bpffs}//again", f"{bpffs}/./mapd/team"):
            with refused(Misuse, Reason.BAD_SPEC, "pin", path, "empty or '.'"):
                await flows.pin(path)
    assert pins_below(bpffs) == before


async def test_a_read_only_handle_makes_no_pin_that_could_be_written_through(
    ground: Ground, flows: Map[int, int]
) -> None:
    del flows
    before = pins_below(ground.place.bpffs)
    async with ground.client.open_map("flows", key=U32, value=U64, read_only=True) as reading:
        with refused(PermissionDenied, Reason.READ_ONLY, "pin map ", "(flows)", "for writing"):
            await reading.pin(f"{ground.place.bpffs}/again")
    assert pins_below(ground.place.bpffs) == before


async def test_a_pin_that_is_not_there_is_not_removed(ground: Ground, flows: Map[int, int]) -> None:
    with unchanged(ground.pin("flows")):
        with refused(MapNotFound, Reason.MAP_NOT_FOUND, "unpin admin/nosuch", ground.pin("nosuch")):
            await ground.client.unpin_map("nosuch")
        with refused(MapNotFound, Reason.MAP_NOT_FOUND, "unpin pin:", "nothing is pinned"):
            await flows.unpin(f"{ground.place.bpffs}/nosuch")
        with refused(Misuse, Reason.BAD_SPEC, "unpin", f"id:{flows.info.id}", "names no pin"):
            await ground.client.unpin_map(Id(flows.info.id))


async def test_types_that_a_map_does_not_have_are_not_given(ground: Ground, flows: Map[int, int]) -> None:
    del flows
    refusal = await ground.raw.refusal("GetBtf", pb.GetBtfRequest(map=by_name("flows")))
    check(refusal, Reason.OPERATION_UNSUPPORTED, "btf map ", "without BTF", map_type="hash")


async def test_a_foreign_map_that_cannot_be_frozen_stays_as_it_is(ground: Ground) -> None:
    """EBUSY: somebody has mapped it into memory to write."""
    pin = ground.place.bpffs / "foreign"
    request = CreateMap(
        map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=4, flags=MapFlag.MMAPABLE
    )
    ground.kernel.add(Fault(target=FreezeMap, errno=16, name="EBUSY"))
    with pin_foreign(pin, request), unchanged(pin):
        refusal = await ground.raw.refusal(
            "FreezeMap", pb.FreezeMapRequest(map=types_pb2.MapRef(pin=str(pin)))
        )
        check(refusal, Reason.BUSY, "freeze map ", "mmap", "EBUSY")


async def test_a_listing_that_matches_nothing_is_empty_and_says_where_was_looked(
    ground: Ground, flows: Map[int, int]
) -> None:
    del flows
    pinned_program(ground, ground.place.names / "admin" / "program")
    with ground.no_call(ListPins):
        listing = ground.client.list_maps("no*such")
        assert [info async for info in listing] == []
        assert str(ground.place.names) in " ".join(listing.sources)
        assert "open them by path" in " ".join(listing.not_looked_at)
    everything = ground.client.list_maps()
    assert [info.name async for info in everything] == ["admin/flows"]
    assert "admin/program" in " ".join(everything.not_looked_at)
    assert OpenId not in {seen.target for seen in ground.kernel.seen}

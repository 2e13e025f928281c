"""What an opener refuses a front that was taken over, though the kernel would do it for the opener itself.

Each refusal has its canary: the same request, put to the kernel directly, does what must not be done.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from mapd.bpf import (
    Buffer,
    Columns,
    CreateMap,
    FreezeMap,
    GetBtf,
    LimitRefused,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    RemoveFolder,
    Rename,
    SyscallError,
    Template,
    Unpin,
    possible_cpus,
)
from mapd.bpf.atomic import atomic_layout
from mapd.bpf.kernel import ControlRequest, ListFolder, StampFolders
from mapd.bpf.memory import MapShape, map_bytes
from mapd.bpf.templates import IN_SCRATCH, MUTATING, READING
from mapd.maps.program_trials import LOCK_BTF
from mapd.maps.trials import U32_BTF
from mapd.opener import Limits, OpenerKernel
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.support.openers import opener

SLOT: Final = 4096
WRITES: Final = sorted(MUTATING)


@pytest.fixture
def names(bpffs: Path) -> Path:
    (bpffs / "names").mkdir()
    return bpffs / "names"


@pytest.fixture
def limits(names: Path) -> Limits:
    return Limits(names_root=str(names), map_bytes=1 << 20, btf_bytes=1_000)


@pytest.fixture
def kernel(limits: Limits) -> Generator[OpenerKernel]:
    with opener(limits) as found:
        yield found


@dataclass(frozen=True)
class Over:
    """A map that a template is for, by a descriptor for both, by one that only reads, and frozen."""

    request: LoadTemplate
    both: int
    reads: int
    scratch: int | None
    read_scratch: int | None

    def fds(self, map_fd: int, scratch_fd: int | None = None) -> list[int]:
        if self.scratch is None:
            return [map_fd]
        return [map_fd, self.scratch if scratch_fd is None else scratch_fd]


def again(maps: Maps, map_fd: int, *, read_only: bool = True) -> int:
    return maps.adopt(KERNEL.control(OpenId(map_id=KERNEL.info(map_fd).id, read_only=read_only))).fd


def scratch(maps: Maps, *, flags: int = MapFlag.MMAPABLE) -> TestMap:
    return maps.create(MapType.ARRAY, value_size=SLOT, max_entries=1, flags=flags)


def over(maps: Maps, template: Template) -> Over:
    """A map that this template loads over."""
    kind = MapType.PERCPU_ARRAY if template is Template.WRITE_ONE_CPU else MapType.HASH
    if template is Template.COMPARE_UPDATE:
        create = CreateMap(
            map_type=kind,
            key_size=4,
            value_size=8,
            max_entries=1,
            with_btf=True,
            btf_key_type_id=1,
            btf_value_type_id=3,
        )
        with KERNEL.control(LoadBtf(blob=LOCK_BTF)) as btf, btf.lease() as btf_fd:
            made = maps.adopt(KERNEL.control(create, [btf_fd]))
    else:
        made = maps.create(kind, key_size=4, max_entries=1)
    work = scratch(maps) if template in IN_SCRATCH else None
    request = LoadTemplate(
        template=template,
        key_size=4,
        value_size=8,
        map_type=kind if template.startswith("vector") else 0,
        slots=1 if template.startswith("vector") else 0,
        slot_bytes=SLOT if work else 0,
        field_size=8 if template.startswith("atomic") else 0,
    )
    return Over(
        request,
        made.fd,
        again(maps, made.fd),
        work.fd if work else None,
        again(maps, work.fd) if work else None,
    )


def refusal(kernel: OpenerKernel, request: ControlRequest[Any], fds: list[int] | None = None) -> SyscallError:
    with pytest.raises(SyscallError) as caught:
        kernel.control(request, fds or [])
    return caught.value


# ---- programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("template", list(Template))
def test_each_program_is_loaded_over_a_descriptor_for_both(
    kernel: OpenerKernel, maps: Maps, template: Template
) -> None:
    found = over(maps, template)
    kernel.control(found.request, found.fds(found.both)).close()


@pytest.mark.parametrize("template", WRITES)
def test_no_program_that_writes_is_loaded_over_a_descriptor_that_only_reads(
    kernel: OpenerKernel, maps: Maps, template: Template
) -> None:
    found = over(maps, template)
    KERNEL.control(found.request, found.fds(found.reads)).close()  # the canary: the kernel does
    refused = refusal(kernel, found.request, found.fds(found.reads))
    assert (refused.errno, refused.command) == (errno.EPERM, "BPF_PROG_LOAD")


@pytest.mark.parametrize("template", sorted(READING))
def test_programs_that_read_are_loaded_over_a_descriptor_that_only_reads(
    kernel: OpenerKernel, maps: Maps, template: Template
) -> None:
    found = over(maps, template)
    kernel.control(found.request, found.fds(found.reads)).close()


@pytest.mark.parametrize("template", sorted(set(WRITES) - {Template.COMPARE_UPDATE}))
def test_no_program_that_writes_is_loaded_over_a_frozen_map(
    kernel: OpenerKernel, maps: Maps, template: Template
) -> None:
    """A map with a lock cannot be frozen, so there is none to compare and update in."""
    found = over(maps, template)
    KERNEL.control(FreezeMap(), [found.both])
    KERNEL.control(found.request, found.fds(found.both)).close()  # the canary
    assert refusal(kernel, found.request, found.fds(found.both)).errno == errno.EPERM


def test_no_program_that_reads_is_loaded_over_a_descriptor_that_only_writes(
    kernel: OpenerKernel, maps: Maps
) -> None:
    made = maps.adopt(
        KERNEL.control(
            CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=1, flags=MapFlag.WRONLY)
        )
    )
    work = scratch(maps)
    for template in (Template.VECTOR_READ, Template.VECTOR_WRITE):
        request = replace(over(maps, template).request)
        KERNEL.control(request, [made.fd, work.fd]).close()  # the canary
        assert refusal(kernel, request, [made.fd, work.fd]).errno == errno.EPERM


@pytest.mark.parametrize("template", sorted(IN_SCRATCH))
def test_nothing_is_taken_for_a_scratch_that_may_not_be_written(
    kernel: OpenerKernel, maps: Maps, template: Template
) -> None:
    """Programs write their scratch, those that only read a map too."""
    found = over(maps, template)
    assert found.read_scratch is not None
    KERNEL.control(found.request, found.fds(found.both, found.read_scratch)).close()  # the canary
    assert refusal(kernel, found.request, found.fds(found.both, found.read_scratch)).errno == errno.EINVAL
    frozen = maps.create(MapType.ARRAY, value_size=SLOT, max_entries=1)
    KERNEL.control(FreezeMap(), [frozen.fd])
    for other in (frozen.fd, scratch(maps, flags=0).fd, found.both):
        assert refusal(kernel, found.request, found.fds(found.both, other)).errno == errno.EINVAL


def test_a_program_writes_into_an_array_that_was_given_as_its_scratch(maps: Maps) -> None:
    """The canary of the one above, to the end: what a descriptor only reads is written through a program."""
    found = over(maps, Template.ATOMIC)
    assert found.read_scratch is not None
    layout = atomic_layout(4, 8, 8, SLOT)
    assert layout is not None
    before = content(found.read_scratch, SLOT)
    context = Buffer.allocate(8)
    with (
        KERNEL.control(found.request, found.fds(found.both, found.read_scratch)) as program,
        program.lease() as prog_fd,
    ):
        assert found.scratch is not None
        given = bytearray(SLOT)
        given[0] = 1
        given[layout.ops] = Op.FETCH_ADD
        columns = Columns(1, Buffer.of(bytes(4)), 4, Buffer.of(bytes(given)), SLOT)
        assert KERNEL.each(found.scratch, Op.UPDATE, columns) == [0]
        KERNEL.run(prog_fd, context)
    after = content(found.read_scratch, SLOT)
    assert after[layout.errnos] == errno.ENOENT
    assert before != after


def content(map_fd: int, size: int) -> bytes:
    room = Buffer.allocate(size)
    assert KERNEL.each(map_fd, Op.LOOKUP, Columns(1, Buffer.of(bytes(4)), 4, room, size)) == [0]
    return room.take(size)


@pytest.mark.parametrize("field", ["key_size", "value_size", "map_type", "slots", "slot_bytes"])
def test_sizes_are_those_of_the_maps_and_not_what_the_front_says(
    kernel: OpenerKernel, maps: Maps, field: str
) -> None:
    found = over(maps, Template.VECTOR_READ)
    other: dict[str, Any] = {field: getattr(found.request, field) * 2}
    refused = refusal(kernel, replace(found.request, **other), found.fds(found.both))
    assert refused.errno == errno.EINVAL


# ---- descriptors -------------------------------------------------------------------------------


def strangers(stack: ExitStack) -> dict[str, int]:
    """Descriptors of what is no map."""
    reading, writing = os.pipe()
    found = {
        "pipe": reading,
        "other end": writing,
        "file": os.open("/dev/null", os.O_RDWR),
        "folder": os.open("/", os.O_RDONLY),
        "memory": os.memfd_create("x"),
        "event": os.eventfd(0),
    }
    for fd in found.values():
        stack.callback(os.close, fd)
    return found


def test_descriptors_of_anything_else_are_refused(kernel: OpenerKernel, maps: Maps, names: Path) -> None:
    found = over(maps, Template.VECTOR_READ)
    hash_of_maps = CreateMap(
        map_type=MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=1, with_inner=True
    )
    with_btf = CreateMap(
        map_type=MapType.HASH, key_size=4, value_size=4, max_entries=1, with_btf=True, btf_value_type_id=1
    )
    with ExitStack() as stack:
        for fd in strangers(stack).values():
            for request, fds in (
                (hash_of_maps, [fd]),
                (with_btf, [fd]),
                (Pin(root=str(names), path=f"{names}/x"), [fd]),
                (FreezeMap(), [fd]),
                (found.request, [fd, found.scratch or 0]),
                (found.request, [found.both, fd]),
            ):
                assert refusal(kernel, request, fds).errno == errno.EINVAL
    assert list(names.iterdir()) == []


def test_a_descriptor_where_none_belongs_is_refused(kernel: OpenerKernel, maps: Maps, names: Path) -> None:
    made, root = maps.create(), str(names)
    requests: list[ControlRequest[Any]] = [
        OpenPin(root=root, path=f"{root}/a"),
        OpenId(map_id=1),
        Unpin(root=root, path=f"{root}/a"),
        Rename(root=root, path=f"{root}/a", new_path=f"{root}/b"),
        MakeFolder(root=root, path=f"{root}/a"),
        RemoveFolder(root=root, path=f"{root}/a"),
        ListPins(root=root),
        ListFolder(root=root, path=root),
        StampFolders(root=root, paths=(root,)),
        NextMapId(map_id=0),
        LoadBtf(blob=U32_BTF),
        GetBtf(btf_id=1),
    ]
    for request in requests:
        with pytest.raises(ValueError, match="1 file descriptors where the request takes 0"):
            kernel.control(request, [made.fd])


# ---- memory, types, rates ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.HASH, MapType.PERCPU_HASH])
def test_a_map_takes_no_more_than_its_bytes_with_every_cpus_slots(
    kernel: OpenerKernel, limits: Limits, kind: MapType
) -> None:
    def size(entries: int) -> int:
        shape = MapShape(map_type=kind, key_size=4, value_size=64, max_entries=entries)
        return map_bytes(shape, possible_cpus())

    most = max(entries for entries in range(1, 1 << 14) if size(entries) <= limits.map_bytes)
    largest = CreateMap(map_type=kind, key_size=4, value_size=64, max_entries=most)
    with kernel.control(largest) as made, made.lease() as map_fd:
        assert kernel.info(map_fd).memlock <= limits.map_bytes
    larger = replace(largest, max_entries=most + 1)
    refused = refusal(kernel, larger)
    assert isinstance(refused, LimitRefused)
    assert refused.errno == errno.E2BIG
    assert refused.limit == f"a map of {size(most + 1)} bytes; map_bytes is {limits.map_bytes} for each"
    KERNEL.control(larger).close()  # the canary


def test_types_that_are_not_made_here_are_refused_by_name(limits: Limits) -> None:
    with opener(replace(limits, map_types=frozenset({int(MapType.ARRAY)}))) as kernel:
        array = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1)
        kernel.control(array).close()
        refused = refusal(kernel, replace(array, map_type=MapType.HASH))
    assert isinstance(refused, LimitRefused)
    assert (refused.errno, refused.limit) == (errno.EPERM, "maps of type hash are not made here")


def test_a_blob_of_types_larger_than_the_limit_is_refused(kernel: OpenerKernel) -> None:
    refused = refusal(kernel, LoadBtf(blob=U32_BTF.ljust(1_001, b"\0")))
    assert isinstance(refused, LimitRefused)
    assert refused.limit == "a blob of 1001 bytes; btf_bytes is 1000"


def test_what_is_made_is_counted_over_time(limits: Limits, maps: Maps, names: Path) -> None:
    """Maps, pins, programs and types: one count, for all of them take kernel memory."""
    found, root = over(maps, Template.COUNT_ENTRIES), str(names)
    with opener(replace(limits, makes=4, makes_per_s=1)) as kernel:
        kernel.control(CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=1)).close()
        kernel.control(Pin(root=root, path=f"{root}/a"), [found.both])
        kernel.control(LoadBtf(blob=U32_BTF)).close()
        kernel.control(found.request, [found.both]).close()
        refused = refusal(kernel, Pin(root=root, path=f"{root}/b"), [found.both])
        kernel.control(OpenPin(root=root, path=f"{root}/a")).close()  # opening makes nothing
        kernel.control(Unpin(root=root, path=f"{root}/a"))
    assert isinstance(refused, LimitRefused)
    assert refused.errno == errno.EAGAIN
    assert refused.limit.startswith("makes_per_s is 1: room in ")


def test_memory_that_is_asked_for_is_counted_over_time(limits: Limits) -> None:
    """Five maps of the largest size at once where a second gives one; those that are closed count too."""
    written = io.StringIO()
    array = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1 << 16)
    size = map_bytes(MapShape(map_type=2, key_size=4, value_size=8, max_entries=1 << 16), possible_cpus())
    with opener(replace(limits, map_bytes=size, bytes_per_s=1), written) as kernel:
        kernel.control(array).close()
        refusals = [refusal(kernel, array) for _ in range(20)]
    assert {refused.errno for refused in refusals} == {errno.EAGAIN}
    (line,) = [json.loads(line) for line in written.getvalue().splitlines()]
    assert line["event"] == "refused: CreateMap beyond a limit"
    assert line["limit"].startswith("bytes_per_s is 1: room for ")


# ---- paths -------------------------------------------------------------------------------------


def test_no_path_but_below_its_own_roots_is_touched(
    kernel: OpenerKernel, maps: Maps, bpffs: Path, names: Path
) -> None:
    """The request's root is the front's word: one that the opener has not been given is none."""
    made, outside = maps.create(), f"{bpffs}/outside"
    Path(outside).mkdir()
    KERNEL.control(Pin(root=outside, path=f"{outside}/flows"), [made.fd])
    requests: list[tuple[ControlRequest[Any], list[int]]] = []
    for root in (outside, str(bpffs), "/", "", f"{names}/", f"{names}/../outside", str(names)[:-1]):
        path = f"{outside}/flows"
        requests += [
            (OpenPin(root=root, path=path), []),
            (OpenProgramPin(root=root, path=path), []),
            (Unpin(root=root, path=path), []),
            (Rename(root=root, path=path, new_path=f"{outside}/b"), []),
            (Pin(root=root, path=f"{outside}/b"), [made.fd]),
            (MakeFolder(root=root, path=f"{outside}/b"), []),
            (RemoveFolder(root=root, path=outside), []),
            (ListPins(root=root), []),
            (ListFolder(root=root, path=outside), []),
            (StampFolders(root=root, paths=(outside,)), []),
        ]
    for request, fds in requests:
        refused = refusal(kernel, request, fds)
        assert isinstance(refused, LimitRefused)
        assert refused.limit.endswith("is none of the roots")
    root = str(names)
    for path in (
        f"{outside}/flows",
        f"{root}/../outside/flows",
        "../outside/flows",
        "flows",
        "/etc/passwd",
        "",
    ):
        assert refusal(kernel, OpenPin(root=root, path=path)).errno == errno.EXDEV
        assert refusal(kernel, Unpin(root=root, path=path)).errno in (errno.EXDEV, errno.EINVAL)
        assert refusal(kernel, Pin(root=root, path=path), [made.fd]).errno in (errno.EXDEV, errno.EINVAL)
        assert kernel_stamps(kernel, root, path) in (errno.EXDEV, 0)
    assert [entry.name for entry in Path(outside).iterdir()] == ["flows"]
    assert list(names.iterdir()) == []


def kernel_stamps(kernel: OpenerKernel, root: str, path: str) -> int:
    try:
        (stamp,) = kernel.control(StampFolders(root=root, paths=(path,)))
    except SyscallError as error:
        return error.errno or 0
    return stamp


def test_no_link_is_followed(kernel: OpenerKernel, maps: Maps, bpffs: Path, names: Path) -> None:
    made, outside, root = maps.create(), f"{bpffs}/outside", str(names)
    Path(outside).mkdir()
    KERNEL.control(Pin(root=outside, path=f"{outside}/flows"), [made.fd])
    (names / "link").symlink_to(outside)
    (names / "flows").symlink_to(f"{outside}/flows")
    for path in (f"{root}/link/flows", f"{root}/flows"):
        assert refusal(kernel, OpenPin(root=root, path=path)).errno == errno.ELOOP
        assert refusal(kernel, Unpin(root=root, path=path)).errno == errno.ELOOP
        assert refusal(kernel, Rename(root=root, path=path, new_path=f"{root}/b")).errno == errno.ELOOP
    pin = Pin(root=root, path=f"{root}/link/b", mkdir=True)
    assert refusal(kernel, pin, [made.fd]).errno == errno.ELOOP
    assert kernel.control(ListPins(root=root)).paths == []
    assert [entry.name for entry in Path(outside).iterdir()] == ["flows"]


def test_folders_are_made_for_names_alone(names: Path, bpffs: Path, maps: Maps) -> None:
    made, others = maps.create(), bpffs / "others"
    others.mkdir()
    with opener(Limits(names_root=str(names), pin_roots=(str(others),))) as kernel:
        pin = Pin(root=str(others), path=f"{others}/a/b", mkdir=True)
        refused = refusal(kernel, pin, [made.fd])
        assert isinstance(refused, LimitRefused)
        assert refused.limit == f"folders are made below {names} only"
        assert refusal(kernel, replace(pin, mkdir=False), [made.fd]).errno == errno.ENOENT
        kernel.control(Pin(root=str(others), path=f"{others}/a"), [made.fd])
        kernel.control(Pin(root=str(names), path=f"{names}/a/b", mkdir=True), [made.fd])


# ---- profiles ----------------------------------------------------------------------------------


def test_below_inspector_ids_are_refused_as_the_kernel_refuses_them(limits: Limits, maps: Maps) -> None:
    map_id = KERNEL.info(maps.create().fd).id
    with opener(replace(limits, ids=False)) as kernel:
        commands = {
            request: refusal(kernel, request)
            for request in (
                OpenId(map_id=map_id),
                OpenId(map_id=map_id, read_only=True),
                NextMapId(map_id=0),
                OpenProgramId(prog_id=1),
                NextProgramId(prog_id=0),
                GetBtf(btf_id=1),
            )
        }
    assert {refused.errno for refused in commands.values()} == {errno.EPERM}
    assert {refused.command for refused in commands.values()} == {
        "BPF_MAP_GET_FD_BY_ID",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_PROG_GET_FD_BY_ID",
        "BPF_PROG_GET_NEXT_ID",
        "BPF_BTF_GET_FD_BY_ID",
    }
    assert isinstance(KERNEL.control(NextMapId(map_id=0)), int)  # the canary

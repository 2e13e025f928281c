"""Programs in memory: loaded where the kernel loads them, refused where it does (tests/kernel has its answers)."""

from __future__ import annotations

import errno

import pytest

from mapd.bpf import (
    Buffer,
    Columns,
    CreateMap,
    FreezeMap,
    LoadTemplate,
    OwnedFd,
    ProgramInfo,
    SyscallError,
    Template,
)
from mapd.bpf.atomic import HEAD, atomic_layout
from mapd.bpf.kernel import LoadBtf
from mapd.bpf.scratch import Scratch
from mapd.memory import MemoryKernel
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.support import spinlock

SLOT = 64 << 10
SHARED = CreateMap(
    map_type=MapType.ARRAY, key_size=4, value_size=5, max_entries=3, flags=int(MapFlag.MMAPABLE)
)


@pytest.fixture
def kernel() -> MemoryKernel:
    return MemoryKernel(2)


def made(
    kernel: MemoryKernel, map_type: MapType = MapType.HASH, *, lock: int | None = None, flags: int = 0
) -> OwnedFd:
    keyless = map_type is MapType.QUEUE
    request = CreateMap(
        map_type=map_type,
        key_size=0 if keyless else 8 if map_type is MapType.LPM_TRIE else 4,
        value_size=16,
        max_entries=8,
        flags=flags | (MapFlag.NO_PREALLOC if map_type is MapType.LPM_TRIE else 0),
        with_btf=lock is not None,
        btf_key_type_id=spinlock.KEY_TYPE if lock is not None else 0,
        btf_value_type_id=spinlock.PLACED_VALUE_TYPE if lock is not None else 0,
    )
    if lock is None:
        return kernel.control(request)
    with kernel.control(LoadBtf(blob=spinlock.placed_btf(16, lock))) as btf, btf.lease() as btf_fd:
        return kernel.control(request, [btf_fd])


def request(template: Template, *, size: int = 8, offset: int = 0) -> LoadTemplate:
    return LoadTemplate(
        template=template, key_size=4, value_size=16, slot_bytes=SLOT, field_size=size, field_offset=offset
    )


def answer(kernel: MemoryKernel, over: OwnedFd, wanted: LoadTemplate) -> int:
    """0, or the errno of BPF_PROG_LOAD."""
    scratch = Scratch(kernel, 1, SLOT)
    try:
        with over, over.lease() as map_fd, scratch.fd.lease() as scratch_fd:
            kernel.control(wanted, [map_fd, scratch_fd]).close()
    except SyscallError as error:
        return error.errno or 0
    finally:
        scratch.close()
    return 0


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY])
def test_atomics_load_over_hashes_and_arrays(kernel: MemoryKernel, map_type: MapType) -> None:
    assert answer(kernel, made(kernel, map_type), request(Template.ATOMIC)) == 0


@pytest.mark.parametrize("map_type", [MapType.LPM_TRIE, MapType.QUEUE, MapType.BLOOM_FILTER])
def test_other_types_are_refused(kernel: MemoryKernel, map_type: MapType) -> None:
    if map_type is MapType.BLOOM_FILTER:
        over = kernel.control(CreateMap(map_type=map_type, key_size=0, value_size=16, max_entries=8))
    else:
        over = made(kernel, map_type)
    assert answer(kernel, over, request(Template.ATOMIC)) == errno.EINVAL


@pytest.mark.parametrize("flag", [MapFlag.RDONLY_PROG, MapFlag.WRONLY_PROG])
def test_a_map_that_programs_may_not_change_is_refused(kernel: MemoryKernel, flag: MapFlag) -> None:
    assert answer(kernel, made(kernel, flags=int(flag)), request(Template.ATOMIC)) == errno.EACCES


def test_beside_a_lock_only_a_fixed_offset_is_let_in(kernel: MemoryKernel) -> None:
    assert answer(kernel, made(kernel, lock=4), request(Template.ATOMIC)) == errno.EACCES
    answers = {
        (size, offset): answer(
            kernel, made(kernel, lock=4), request(Template.ATOMIC_AT, size=size, offset=offset)
        )
        for size, offset in ((8, 0), (4, 4), (4, 0), (4, 8), (8, 8), (8, 16), (4, 2))
    }
    denied = {(8, 0), (4, 4), (8, 16), (4, 2)}
    assert answers == {place: errno.EACCES if place in denied else 0 for place in answers}


def test_whole_values_are_compared_where_they_have_a_lock(kernel: MemoryKernel) -> None:
    assert answer(kernel, made(kernel, lock=4), request(Template.COMPARE_UPDATE)) == 0
    assert answer(kernel, made(kernel), request(Template.COMPARE_UPDATE)) == errno.EINVAL


def test_programs_that_memory_does_not_know_are_refused(kernel: MemoryKernel) -> None:
    assert answer(kernel, made(kernel), request(Template.VECTOR_READ)) == errno.EINVAL


@pytest.mark.parametrize(("op", "offset"), [(Op.LOOKUP, 0), (Op.FETCH_ADD, 12), (Op.FETCH_ADD, 1 << 31)])
def test_what_no_program_would_do_changes_nothing(kernel: MemoryKernel, op: Op, offset: int) -> None:
    layout = atomic_layout(4, 16, 8, SLOT)
    assert layout is not None
    over, scratch, key = made(kernel), Scratch(kernel, 1, SLOT), Buffer.of(bytes(4))
    with over, over.lease() as map_fd, scratch.fd.lease() as scratch_fd:
        column = Columns(1, key, 4, Buffer.of(bytes(16)), 16)
        assert kernel.each(map_fd, Op.UPDATE, column) == [0]
        with (
            kernel.control(request(Template.ATOMIC), [map_fd, scratch_fd]) as program,
            program.lease() as prog_fd,
            scratch.slot() as slot,
        ):
            info = kernel.control(ProgramInfo(), [prog_fd])
            assert sorted(info.map_ids) == sorted(kernel.info(fd).id for fd in (map_fd, scratch_fd))
            HEAD.pack_into(slot.memory.view, 0, 1, offset, 0)
            slot.memory.view[layout.ops] = op
            slot.memory.view[layout.operands] = 7
            assert slot.run(prog_fd) == 0
            assert slot.memory.view[layout.errnos] == errno.EINVAL
        found = Columns(1, key, 4, Buffer.allocate(16), 16)
        assert kernel.each(map_fd, Op.LOOKUP, found) == [0]
        assert found.values is not None
        assert found.values.take(16) == bytes(16)
    scratch.close()


# ---- shared memory ---------------------------------------------------------------------------------


def test_an_array_and_its_mapping_are_one_memory(kernel: MemoryKernel) -> None:
    with kernel.control(SHARED) as array, array.lease() as map_fd:
        one = Columns(1, Buffer.of((1).to_bytes(4, "little")), 4, Buffer.of(b"first"), 5)
        assert kernel.each(map_fd, Op.UPDATE, one) == [0]
        memory = kernel.map_memory(map_fd, 24)
        assert bytes(memory.view) == bytes(8) + b"first" + bytes(11)
        memory.view[8:13] = b"other"
        found = Columns(1, one.keys, 4, Buffer.allocate(5), 5)
        assert kernel.each(map_fd, Op.LOOKUP, found) == [0]
        assert found.values is not None
        assert found.values.take(5) == b"other"
        assert kernel.each(map_fd, Op.UPDATE, one) == [0]
        assert bytes(memory.view[8:13]) == b"first"
        with pytest.raises(SyscallError, match="EBUSY"):
            kernel.control(FreezeMap(), [map_fd])


def test_what_cannot_be_mapped_is_refused(kernel: MemoryKernel) -> None:
    with (
        kernel.control(SHARED) as array,
        array.lease() as map_fd,
        pytest.raises(SyscallError, match="EINVAL"),
    ):
        kernel.map_memory(map_fd, 32)
    with kernel.control(SHARED) as array, array.lease() as map_fd:
        kernel.control(FreezeMap(), [map_fd])
        with pytest.raises(SyscallError, match="EPERM"):
            kernel.map_memory(map_fd, 24)
    with (
        made(kernel, MapType.ARRAY) as array,
        array.lease() as map_fd,
        pytest.raises(SyscallError, match="EINVAL"),
    ):
        kernel.map_memory(map_fd, 16)

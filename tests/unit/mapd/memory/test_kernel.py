"""MemoryKernel: what lives how long, and many threads at once. Its answers are compared with Linux in tests/suite."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mapd.bpf import (
    BatchCommand,
    Buffer,
    Columns,
    CreateMap,
    FreezeMap,
    GetBtf,
    ListHolders,
    LoadBtf,
    LoadTemplate,
    NextMapId,
    OpenId,
    OpenPin,
    OwnedFd,
    Pin,
    SyscallError,
    Unpin,
)
from mapd.bpf.templates import COUNTED
from mapd.maps.trials import U32_BTF, Answer, try_types
from mapd.memory import MemoryKernel
from mapd.memory.creation import TYPES
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType

ROOT = "/bpf"
HASH = CreateMap(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=20_000)


@pytest.fixture
def kernel() -> MemoryKernel:
    return MemoryKernel(2, [ROOT])


def number(of: int) -> bytes:
    return of.to_bytes(4, "little")


def columns(numbers: range) -> Columns:
    """Keys, and values alike."""
    data = Buffer.of(b"".join(map(number, numbers)))
    return Columns(len(numbers), data, 4, data, 4)


def map_ids(kernel: MemoryKernel) -> list[int]:
    found: list[int] = []
    following = kernel.control(NextMapId(map_id=0))
    while following is not None:
        found.append(following)
        following = kernel.control(NextMapId(map_id=following))
    return found


def id_of(kernel: MemoryKernel, fd: OwnedFd) -> int:
    with fd.lease() as map_fd:
        return kernel.info(map_fd).id


def test_a_map_ends_with_its_last_descriptor_and_pin(kernel: MemoryKernel) -> None:
    made = kernel.control(HASH)
    with made.lease() as map_fd:
        kernel.control(Pin(root=ROOT, path=f"{ROOT}/one"), [map_fd])
    again = kernel.control(OpenId(map_id=id_of(kernel, made)))
    for end in (made.close, lambda: kernel.control(Unpin(root=ROOT, path=f"{ROOT}/one"))):
        assert len(map_ids(kernel)) == 1
        end()
    assert len(map_ids(kernel)) == 1
    again.close()
    assert map_ids(kernel) == []


def test_a_pin_alone_keeps_a_map_with_its_elements(kernel: MemoryKernel) -> None:
    with kernel.control(HASH) as made, made.lease() as map_fd:
        kernel.control(Pin(root=ROOT, path=f"{ROOT}/one"), [map_fd])
        assert kernel.each(map_fd, Op.UPDATE, columns(range(3))) == [0, 0, 0]
    with kernel.control(OpenPin(root=ROOT, path=f"{ROOT}/one")) as again, again.lease() as map_fd:
        assert kernel.next_key(map_fd, None, 4) is not None


def test_ids_are_not_given_again(kernel: MemoryKernel) -> None:
    ids: list[int] = []
    for _ in range(3):
        with kernel.control(HASH) as made:
            ids.append(id_of(kernel, made))
    assert len(set(ids)) == 3
    with pytest.raises(SyscallError) as caught:
        kernel.control(OpenId(map_id=ids[0]))
    assert caught.value.errno == errno.ENOENT


def test_btf_lives_as_long_as_a_map_that_has_it(kernel: MemoryKernel) -> None:
    with kernel.control(LoadBtf(blob=U32_BTF)) as btf, btf.lease() as btf_fd:
        made = kernel.control(
            CreateMap(
                map_type=MapType.ARRAY,
                key_size=4,
                value_size=4,
                max_entries=1,
                with_btf=True,
                btf_key_type_id=1,
                btf_value_type_id=1,
            ),
            [btf_fd],
        )
    with made.lease() as map_fd:
        btf_id = kernel.info(map_fd).btf_id
    assert kernel.control(GetBtf(btf_id=btf_id)) == U32_BTF
    made.close()
    with pytest.raises(SyscallError):
        kernel.control(GetBtf(btf_id=btf_id))


def test_a_program_keeps_its_map(kernel: MemoryKernel) -> None:
    with kernel.control(HASH) as made, made.lease() as map_fd:
        assert kernel.each(map_fd, Op.UPDATE, columns(range(3))) == [0, 0, 0]
        program = kernel.control(LoadTemplate(template="count_entries", key_size=4, value_size=4), [map_fd])
    assert len(map_ids(kernel)) == 1
    context = Buffer.allocate(COUNTED.size)
    with program, program.lease() as prog_fd:
        assert kernel.run(prog_fd, context) == 0
    assert COUNTED.unpack(context.view) == (3,)
    assert map_ids(kernel) == []


def test_a_closed_descriptor_is_ebadf_and_its_number_leads_nowhere(kernel: MemoryKernel) -> None:
    made = kernel.control(HASH)
    with made.lease() as map_fd:
        pass
    made.close()
    other = os.open("/dev/null", os.O_RDONLY)  # most likely of the same number
    try:
        for call in (
            lambda: kernel.info(map_fd),
            lambda: kernel.control(FreezeMap(), [map_fd]),
            lambda: kernel.next_key(map_fd, None, 4),
        ):
            with pytest.raises(SyscallError) as caught:
                call()
            assert caught.value.errno == errno.EBADF
        assert kernel.each(map_fd, Op.UPDATE, columns(range(2))) == [errno.EBADF] * 2
        assert kernel.batch(map_fd, BatchCommand.UPDATE, columns(range(2))).errno == errno.EBADF
    finally:
        os.close(other)


def test_its_descriptors_are_files_that_are_seen_and_go(kernel: MemoryKernel) -> None:
    with kernel.control(HASH) as made, made.lease() as map_fd:
        assert "mapd-memory" in str(Path(f"/proc/self/fd/{map_fd}").readlink())
        (holder,) = kernel.control(ListHolders()).holders
        assert (holder.pid, holder.map_ids) == (os.getpid(), frozenset({kernel.info(map_fd).id}))
    assert not kernel.control(ListHolders()).holders


def test_many_threads_write_one_map_and_open_and_close_it(kernel: MemoryKernel) -> None:
    """Every element arrives once, and the map ends when all are done."""
    with kernel.control(HASH) as made:
        map_id = id_of(kernel, made)

        def work(part: int) -> None:
            for begin in range(part * 1_000, (part + 1) * 1_000, 50):
                with kernel.control(OpenId(map_id=map_id)) as mine, mine.lease() as map_fd:
                    some = columns(range(begin, begin + 50))
                    assert kernel.batch(map_fd, BatchCommand.UPDATE, some).count == 50
                    assert not any(kernel.each(map_fd, Op.DELETE, columns(range(begin, begin + 25))))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(16)))
        with made.lease() as map_fd:
            assert kernel.info(map_fd).memlock == 16 * 500 * (4 + 4 + 64)
    assert map_ids(kernel) == []


def test_trials_find_the_types_of_data_and_leave_nothing(kernel: MemoryKernel) -> None:
    found = try_types(kernel, 2)
    assert {kind for kind in TYPES if found[kind].answer is not Answer.OK or found[kind].lacks} == set()
    assert found[MapType.RINGBUF].answer is Answer.REFUSED
    assert map_ids(kernel) == []


def test_a_creators_direction_binds_its_descriptor_alone(kernel: MemoryKernel) -> None:
    request = CreateMap(
        map_type=MapType.HASH, key_size=4, value_size=4, max_entries=4, flags=int(MapFlag.RDONLY)
    )
    with kernel.control(request) as made, made.lease() as map_fd:
        assert kernel.each(map_fd, Op.UPDATE, columns(range(2))) == [errno.EPERM]
        with kernel.control(OpenId(map_id=kernel.info(map_fd).id)) as again, again.lease() as other_fd:
            assert kernel.each(other_fd, Op.UPDATE, columns(range(2))) == [0, 0]

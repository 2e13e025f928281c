"""The programs of atomics and of compare-and-update, run as they are: what the kernel makes of a slot."""

from __future__ import annotations

import errno
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import pytest

from mapd.bpf import LoadTemplate, ProgramRefused, SyscallError, Template
from mapd.bpf.atomic import HEAD, AtomicLayout, atomic_layout
from mapd.bpf.compare import HEAD as COMPARE_HEAD
from mapd.bpf.compare import MAX_VALUE_BYTES, compare_layout, places, words
from mapd.bpf.kernel import CreateMap, LoadBtf
from mapd.bpf.scratch import Scratch
from mapd.bpf.vector_columns import MAX_ELEMENTS
from mapd_api.ops import Op
from mapd_api.uapi import ElementFlag, MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.support import spinlock

SLOT = 64 << 10
NONE = b"\0\0\0\0"


@pytest.fixture
def scratch() -> Generator[Scratch]:
    made = Scratch(KERNEL, 1, SLOT)
    yield made
    made.close()


def with_lock(maps: Maps, size: int, lock: int, map_type: MapType = MapType.HASH) -> TestMap:
    """A map of values with a bpf_spin_lock there."""
    request = CreateMap(
        map_type=map_type,
        key_size=4,
        value_size=size,
        max_entries=8,
        with_btf=True,
        btf_key_type_id=spinlock.KEY_TYPE,
        btf_value_type_id=spinlock.PLACED_VALUE_TYPE,
    )
    with KERNEL.control(LoadBtf(blob=spinlock.placed_btf(size, lock))) as btf, btf.lease() as btf_fd:
        return maps.adopt(KERNEL.control(request, [btf_fd]))


@dataclass(frozen=True)
class Atomics:
    """An atomic program over a map, and its slot."""

    scratch: Scratch
    over: TestMap
    size: int = 8
    offset: int = 0
    template: Template = Template.ATOMIC

    @property
    def layout(self) -> AtomicLayout:
        found = atomic_layout(self.over.key_size, self.over.value_size, self.size, SLOT)
        assert found is not None
        return found

    def request(self) -> LoadTemplate:
        return LoadTemplate(
            template=self.template,
            key_size=self.over.key_size,
            value_size=self.over.value_size,
            slot_bytes=SLOT,
            field_size=self.size,
            field_offset=self.offset,
        )

    def run(
        self,
        ops: Sequence[int],
        keys: Sequence[bytes],
        operands: Sequence[int],
        expected: Sequence[int] = (),
        *,
        create: bool = False,
    ) -> tuple[list[int], list[int]]:
        """Errnos and old values; the count stands in the head, whatever its rows hold."""
        layout, size = self.layout, self.size
        with (
            self.scratch.fd.lease() as scratch_fd,
            KERNEL.control(self.request(), [self.over.fd, scratch_fd]) as program,
            program.lease() as prog_fd,
            self.scratch.slot() as slot,
        ):
            memory = slot.memory.view
            memory[:] = bytes(SLOT)
            HEAD.pack_into(memory, 0, len(ops), self.offset, create)
            for at, column in (
                (layout.ops, bytes(ops)),
                (layout.keys, b"".join(keys)),
                (layout.operands, b"".join(one.to_bytes(size, "little") for one in operands)),
                (layout.expected, b"".join(one.to_bytes(size, "little") for one in expected)),
            ):
                memory[at : at + len(column)] = column
            assert slot.run(prog_fd) == 0
            errnos = list(memory[layout.errnos : layout.errnos + len(ops)])
            old = [
                int.from_bytes(memory[at : at + size], "little")
                for at in range(layout.old, layout.old + size * len(ops), size)
            ]
        return errnos, old


@pytest.mark.parametrize("offset", [4, 8, 12, 16, 1 << 31, 0xFFFF_FFFF])
def test_an_offset_that_leaves_the_value_changes_nothing(maps: Maps, scratch: Scratch, offset: int) -> None:
    made = maps.create(MapType.ARRAY, value_size=8, max_entries=2)
    atomics = Atomics(scratch, made, 8, offset)
    assert atomics.run([Op.FETCH_ADD], [made.key(0)], [7]) == ([errno.EINVAL], [0])
    assert made.lookup([made.key(0), made.key(1)]) == [bytes(8), bytes(8)]


def test_an_offset_between_fields_is_the_field_before_it(maps: Maps, scratch: Scratch) -> None:
    """The program cuts it off, for the verifier; mapd refuses it before (plan)."""
    made = maps.create(MapType.ARRAY, value_size=24)
    assert Atomics(scratch, made, 8, 13).run([Op.FETCH_ADD], [made.key(0)], [7]) == ([0], [0])
    assert made.lookup([made.key(0)]) == [bytes(8) + (7).to_bytes(8, "little") + bytes(8)]


@pytest.mark.parametrize("op", [0, Op.LOOKUP, Op.UPDATE, Op.COMPARE_UPDATE, 255])
def test_a_byte_that_is_no_atomic_changes_nothing(maps: Maps, scratch: Scratch, op: int) -> None:
    made = maps.create()
    made.fill(1)
    assert Atomics(scratch, made).run([op], [made.key(0)], [7], [0]) == ([errno.EINVAL], [0])
    assert made.lookup([made.key(0)]) == [bytes(8)]


@pytest.mark.parametrize("count", [MAX_ELEMENTS + 1, 1 << 20])
def test_a_count_beyond_the_rows_stops_at_the_last(maps: Maps, scratch: Scratch, count: int) -> None:
    made = maps.create(MapType.ARRAY)
    atomics = Atomics(scratch, made)
    rows = atomics.layout.rows
    with (
        scratch.fd.lease() as scratch_fd,
        KERNEL.control(atomics.request(), [made.fd, scratch_fd]) as program,
        program.lease() as prog_fd,
        scratch.slot() as slot,
    ):
        slot.memory.view[:] = bytes(SLOT)
        HEAD.pack_into(slot.memory.view, 0, count, 0, 0)
        slot.memory.view[atomics.layout.ops : atomics.layout.ops + rows] = bytes([Op.FETCH_OR]) * rows
        assert slot.run(prog_fd) == 0
        end = atomics.layout.keys + rows * made.key_size
        assert not any(slot.memory.view[end:])


@pytest.mark.parametrize("key_size", [1, 3, 8, 600, 5_000])
@pytest.mark.parametrize("value_size", [8, 9, 300, 40_000])
def test_keys_and_values_of_any_size_are_counted_in(
    maps: Maps, scratch: Scratch, key_size: int, value_size: int
) -> None:
    made = maps.create(key_size=key_size, value_size=value_size)
    atomics = Atomics(scratch, made, 8, value_size // 8 * 8 - 8)
    keys = [made.key(1), made.key(2), made.key(1)]
    creates = atomics.layout.blank is not None
    assert creates == (key_size < 5_000 or value_size < 40_000)
    if not creates:
        assert not any(made.each(Op.UPDATE, keys, [bytes(value_size)] * 3))
    assert atomics.run([Op.FETCH_ADD] * 3, keys, [5, 6, 7], create=creates) == ([0] * 3, [0, 0, 5])
    start = atomics.offset
    for key, number in zip(keys, (12, 6), strict=False):
        (value,) = made.lookup([key])
        assert isinstance(value, bytes)
        assert value == bytes(start) + number.to_bytes(8, "little") + bytes(value_size - start - 8)


@pytest.mark.parametrize("sizes", [(8, 8, 2), (8, 4, 8), (70_000, 8, 8), (8, 7, 8)])
def test_there_is_no_layout_for_what_does_not_fit(sizes: tuple[int, int, int]) -> None:
    assert atomic_layout(*sizes, SLOT) is None


@pytest.mark.parametrize("map_type", [MapType.LPM_TRIE, MapType.QUEUE])
def test_a_type_that_sleeping_programs_may_not_use_is_refused(
    maps: Maps, scratch: Scratch, map_type: MapType
) -> None:
    made = maps.create(map_type, key_size=0 if map_type is MapType.QUEUE else 8)
    with pytest.raises(SyscallError), scratch.fd.lease() as scratch_fd:
        KERNEL.control(Atomics(scratch, made).request(), [made.fd, scratch_fd])


@pytest.mark.parametrize("flag", [MapFlag.RDONLY_PROG, MapFlag.WRONLY_PROG])
def test_a_map_that_programs_may_not_change_is_refused(maps: Maps, scratch: Scratch, flag: MapFlag) -> None:
    made = maps.create(flags=flag)
    with pytest.raises(ProgramRefused) as caught, scratch.fd.lease() as scratch_fd:
        KERNEL.control(Atomics(scratch, made).request(), [made.fd, scratch_fd])
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.ARRAY])
def test_beside_a_lock_only_a_fixed_offset_is_let_in(maps: Maps, scratch: Scratch, map_type: MapType) -> None:
    made = with_lock(maps, 32, 8, map_type)
    key = made.key(1)
    assert made.each(Op.UPDATE, [key], [bytes(32)]) == [0]
    with pytest.raises(ProgramRefused, match="bpf_spin_lock cannot be accessed directly"):
        Atomics(scratch, made).run([Op.FETCH_ADD], [key], [1])
    for size, offset in ((8, 8), (4, 8)):
        with pytest.raises(ProgramRefused, match="bpf_spin_lock cannot be accessed directly"):
            Atomics(scratch, made, size, offset, Template.ATOMIC_AT).run([Op.FETCH_ADD], [key], [1])
    for size, offset in ((8, 0), (4, 12), (8, 24)):
        beside = Atomics(scratch, made, size, offset, Template.ATOMIC_AT)
        assert beside.run([Op.FETCH_ADD] * 2, [key, key], [2, 3]) == ([0, 0], [0, 2])


# ---- compare and update ----------------------------------------------------------------------------


def compare_run(
    scratch: Scratch, made: TestMap, key: bytes, expected: bytes, new: bytes
) -> tuple[int, bytes]:
    """Errno and old value of one row."""
    layout = compare_layout(made.key_size, made.value_size, SLOT)
    assert layout is not None
    request = LoadTemplate(
        template=Template.COMPARE_UPDATE,
        key_size=made.key_size,
        value_size=made.value_size,
        slot_bytes=SLOT,
    )
    with (
        scratch.fd.lease() as scratch_fd,
        KERNEL.control(request, [made.fd, scratch_fd]) as program,
        program.lease() as prog_fd,
        scratch.slot() as slot,
    ):
        memory = slot.memory.view
        memory[:] = bytes(SLOT)
        COMPARE_HEAD.pack_into(memory, 0, 1)
        for at, part in (
            (layout.pairs, expected),
            (layout.pairs + layout.value_room, new),
            (layout.keys, key),
        ):
            memory[at : at + len(part)] = part
        assert slot.run(prog_fd) == 0
        return memory[layout.errnos], bytes(memory[layout.old : layout.old + made.value_size])


def read(made: TestMap, key: bytes) -> bytes:
    columns = made.columns([key])
    assert KERNEL.each(made.fd, Op.LOOKUP, columns, ElementFlag.LOCK) == [0]
    assert columns.values is not None
    return columns.values.take(made.value_size)


PLACES = [
    (8, 0),
    (8, 4),
    (16, 0),
    (16, 12),
    (64, 20),
    (101, 4),
    (67, 60),
    (MAX_VALUE_BYTES, 4092),
    (4095, 2048),
]


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.ARRAY])
@pytest.mark.parametrize(("size", "lock"), PLACES)
def test_every_byte_but_the_locks_is_compared_and_written(
    maps: Maps, scratch: Scratch, map_type: MapType, size: int, lock: int
) -> None:
    made = with_lock(maps, size, lock, map_type)
    key, full = made.key(1), bytes(1 + at % 250 for at in range(size))
    first = full[:lock] + NONE + full[lock + 4 :]
    assert made.each(Op.UPDATE, [key], [first]) == [0]
    beside = [at for at in range(size) if not lock <= at < lock + 4]
    for at in {beside[0], beside[-1], *beside[:: size // 16 or 1]}:
        other = bytes(byte ^ (index == at) for index, byte in enumerate(first))
        assert compare_run(scratch, made, key, other, bytes(size)) == (0, first)
        assert read(made, key) == first
    second = bytes(255 - byte for byte in full)
    number, old = compare_run(scratch, made, key, full, second)
    assert (number, old) == (0, full), "the lock's bytes are as they were expected"
    assert read(made, key) == second[:lock] + NONE + second[lock + 4 :]


def test_an_absent_key_is_not_created(maps: Maps, scratch: Scratch) -> None:
    made = with_lock(maps, 16, 0)
    assert compare_run(scratch, made, made.key(1), bytes(16), bytes(16))[0] == errno.ENOENT
    assert made.walk() == []


def test_values_without_a_lock_or_too_large_have_no_program(maps: Maps, scratch: Scratch) -> None:
    plain, large = maps.create(value_size=16), with_lock(maps, MAX_VALUE_BYTES + 8, 0)
    with pytest.raises(ProgramRefused):
        compare_run(scratch, plain, plain.key(0), bytes(16), bytes(16))
    assert compare_layout(4, large.value_size, SLOT) is None
    request = LoadTemplate(
        template="compare_update", key_size=4, value_size=large.value_size, slot_bytes=SLOT
    )
    with pytest.raises(SyscallError, match="EINVAL"), scratch.fd.lease() as scratch_fd:
        KERNEL.control(request, [large.fd, scratch_fd])


def test_a_verifier_that_does_not_say_where_the_lock_is_is_asked_at_every_place() -> None:
    said = "off 0 doesn't point to 'struct bpf_spin_lock' that is at 20"
    assert list(places(f"R1 =map_value()\n{said}\nprocessed 9 insns", 64)) == [20]
    assert list(places("off 0 doesn't point to 'struct bpf_spin_lock'", 16)) == [4, 8, 12]


@pytest.mark.parametrize(("size", "lock"), PLACES)
def test_the_pieces_of_a_value_are_aligned_and_leave_out_the_lock(size: int, lock: int) -> None:
    covered: list[int] = []
    for at, piece in words(size, lock):
        width = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}[piece]
        assert at % width == 0
        covered += range(at, at + width)
    assert covered == [at for at in range(size) if not lock <= at < lock + 4]

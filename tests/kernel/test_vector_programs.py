"""Vector programs by themselves: whatever stands in a slot, a run stays in it and touches no other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.bpf import LoadTemplate, ProgramRefused, SyscallError, Template, possible_cpus
from mapd.bpf.cpus import check_cpus
from mapd.bpf.scratch import Scratch, Slot
from mapd.bpf.vector_columns import HEAD, HEAD_BYTES, MAX_ELEMENTS, TYPES, Layout, layout, write_ops
from mapd_api.layout import value_stride
from mapd_api.ops import Op
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap

SLOT_BYTES = 64 << 10
ALL_ONES = (1 << 64) - 1
PATTERN = 0xA5


@dataclass(frozen=True)
class Loaded:
    """A vector program over a map, in the middle one of three slots."""

    prog_fd: int
    where: Layout
    slots: tuple[Slot, Slot, Slot]
    packet: bool

    @property
    def memory(self) -> memoryview:
        return self.slots[1].memory.view

    def run(self) -> int:
        slot = self.slots[1]
        return (slot.run_packet if self.packet else slot.run)(self.prog_fd)

    def head(self) -> tuple[int, int, int, int, int]:
        return HEAD.unpack_from(self.memory)


def request(
    made: TestMap, template: Template = Template.VECTOR_WRITE, slot_bytes: int = SLOT_BYTES
) -> LoadTemplate:
    return LoadTemplate(
        template=template,
        key_size=made.key_size,
        value_size=made.value_size,
        map_type=made.map_type,
        cpus=possible_cpus() if made.map_type in PER_CPU_TYPES else 0,
        slots=3,
        slot_bytes=slot_bytes,
    )


@contextmanager
def loaded(made: TestMap, template: Template = Template.VECTOR_WRITE) -> Generator[Loaded]:
    scratch = Scratch(KERNEL, 3, SLOT_BYTES)
    stride = value_stride(made.map_type, made.value_size, possible_cpus())
    where = layout(made.key_size, stride, SLOT_BYTES)
    assert where is not None
    try:
        with (
            scratch.fd.lease() as scratch_fd,
            KERNEL.control(request(made, template), [made.fd, scratch_fd]) as program,
            program.lease() as prog_fd,
            scratch.slot() as one,
            scratch.slot() as two,
            scratch.slot() as three,
        ):
            yield Loaded(prog_fd, where, (one, two, three), made.map_type == MapType.LPM_TRIE)
    finally:
        scratch.close()


NUMBER = st.one_of(
    st.integers(0, (1 << 32) - 1), st.sampled_from([0, 1, 7, 4_095, 4_096, 1 << 31, (1 << 32) - 1])
)


@pytest.mark.parametrize("template", [Template.VECTOR_READ, Template.VECTOR_WRITE])
@pytest.mark.parametrize("map_type", sorted(TYPES))
@settings(max_examples=40, deadline=None)
@given(
    head=st.tuples(NUMBER, NUMBER, NUMBER, NUMBER, st.integers(0, ALL_ONES)),
    ops=st.binary(min_size=1, max_size=64),
    keys=st.binary(max_size=512),
)
def test_no_head_leads_a_run_out_of_its_slot(
    map_type: MapType, template: Template, head: tuple[int, int, int, int, int], ops: bytes, keys: bytes
) -> None:
    with Maps() as maps:
        made = maps.create(map_type, value_size=24, max_entries=16)
        with loaded(made, template) as program:
            for slot in program.slots:
                slot.memory.view[:] = bytes([PATTERN]) * SLOT_BYTES
            HEAD.pack_into(program.memory, 0, *head)
            column = (ops * (program.where.capacity // len(ops) + 1))[: program.where.capacity]
            program.memory[program.where.ops : program.where.keys] = column
            program.memory[program.where.keys : program.where.keys + len(keys)] = keys
            program.run()
            for slot in (program.slots[0], program.slots[2]):
                assert bytes(slot.memory.view) == bytes([PATTERN]) * SLOT_BYTES
            used = program.where.values + program.where.capacity * program.where.stride
            assert bytes(program.memory[used:]) == bytes([PATTERN]) * (SLOT_BYTES - used)
            assert program.head()[0] <= max(head[0], program.where.capacity)


@pytest.mark.parametrize("map_type", sorted(TYPES))
@pytest.mark.parametrize("op", sorted(set(range(24)) | {0x7F, 0xFF}))
def test_an_operation_that_the_program_has_not_ends_the_run_at_it(
    maps: Maps, map_type: MapType, op: int
) -> None:
    made = maps.create(map_type, max_entries=4)
    with loaded(made) as program:
        where = program.where
        program.memory[where.ops : where.ops + 3] = bytes([Op.LOOKUP, op, Op.LOOKUP])
        HEAD.pack_into(program.memory, 0, 0, 3, 0, 0, ALL_ONES)
        assert program.run() == 0
        assert program.head()[0] == (3 if op in write_ops(map_type) else 1)


def test_a_read_program_writes_nothing_whatever_it_is_told(maps: Maps) -> None:
    made = maps.create(MapType.HASH)
    made.fill(4)
    with loaded(made, Template.VECTOR_READ) as program:
        where = program.where
        program.memory[where.ops : where.ops + 4] = bytes([Op.DELETE, Op.UPDATE, Op.UPDATE_EXIST, Op.DELETE])
        keys = b"".join(made.key(number) for number in range(4))
        program.memory[where.keys : where.keys + len(keys)] = keys
        HEAD.pack_into(program.memory, 0, 0, 4, 0, 0, ALL_ONES)
        program.run()
        assert program.head()[0] == 4
        assert bytes(program.memory[where.values : where.values + 32]) == b"".join(map(made.value, range(4)))
    assert made.lookup([made.key(number) for number in range(4)]) == [made.value(n) for n in range(4)]


@pytest.mark.parametrize("value_size", [1, 2, 3, 5, 8, 31, 256, 4_096, 8_192])
@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.ARRAY, MapType.LPM_TRIE])
def test_values_of_many_sizes_are_copied_whole(maps: Maps, map_type: MapType, value_size: int) -> None:
    if map_type is MapType.LPM_TRIE and value_size > 4_096:
        value_size = 4_000
    made = maps.create(map_type, value_size=value_size, max_entries=8)
    values = [bytes((at * 7 + number) & 0xFF for at in range(value_size)) for number in range(4)]
    keys = b"".join(made.key(number) for number in range(4))
    scratch_bytes = 256 << 10
    scratch = Scratch(KERNEL, 1, scratch_bytes)
    where = layout(made.key_size, value_size, scratch_bytes)
    assert where is not None
    with scratch.fd.lease() as scratch_fd:
        program = KERNEL.control(request(made, slot_bytes=scratch_bytes), [made.fd, scratch_fd])
    with program, program.lease() as prog_fd, scratch.slot() as slot:
        view = slot.memory.view
        view[where.keys : where.keys + 2 * len(keys)] = keys * 2
        view[where.ops : where.ops + 8] = bytes([Op.UPDATE] * 4 + [Op.LOOKUP] * 4)
        view[where.values : where.values + 4 * value_size] = b"".join(values)
        HEAD.pack_into(view, 0, 0, 8, 0, 4, ALL_ONES)
        (slot.run_packet if map_type is MapType.LPM_TRIE else slot.run)(prog_fd)
        assert HEAD.unpack_from(view)[:4] == (8, 8, 4, 8)
        assert bytes(view[where.values + 4 * value_size :][: 4 * value_size]) == b"".join(values)
    scratch.close()


@pytest.mark.parametrize(
    "changed",
    [
        {"map_type": MapType.QUEUE},
        {"map_type": 0},
        {"map_type": MapType.HASH_OF_MAPS},
        {"key_size": 0},
        {"value_size": 0},
        {"value_size": 8_193},
        {"key_size": 1 << 20},
        {"slot_bytes": 64},
        {"map_type": MapType.PERCPU_HASH, "cpus": possible_cpus() + 1},
        {"map_type": MapType.PERCPU_HASH, "cpus": 0},
    ],
    ids=str,
)
def test_parameters_of_no_vector_program_are_refused_before_the_kernel_is_asked(
    maps: Maps, changed: dict[str, Any]
) -> None:
    made = maps.create(MapType.HASH)
    scratch = maps.create(MapType.ARRAY, value_size=SLOT_BYTES, flags=MapFlag.MMAPABLE, max_entries=1)
    with pytest.raises(SyscallError, match="EINVAL") as refused:
        KERNEL.control(replace(request(made), **changed), [made.fd, scratch.fd])
    assert not isinstance(refused.value, ProgramRefused)
    with pytest.raises(SyscallError, match="EINVAL"):
        KERNEL.control(request(made), [made.fd])


def test_a_slot_said_to_be_larger_than_it_is_is_refused_by_the_verifier(maps: Maps) -> None:
    made = maps.create(MapType.HASH)
    scratch = maps.create(MapType.ARRAY, value_size=4_096, flags=MapFlag.MMAPABLE, max_entries=1)
    with pytest.raises(ProgramRefused):
        KERNEL.control(request(made), [made.fd, scratch.fd])


@given(key_size=st.integers(1, 600), stride=st.integers(1, 9_000), pages=st.integers(1, 80))
def test_columns_lie_beside_each_other_and_in_their_slot(key_size: int, stride: int, pages: int) -> None:
    slot_bytes = pages * 4_096
    where = layout(key_size, stride, slot_bytes)
    if where is None:
        assert stride > 8_192 or (slot_bytes - HEAD_BYTES) // (key_size + stride + 3) < 8
        return
    assert 8 <= where.capacity <= MAX_ELEMENTS
    assert HEAD.size <= HEAD_BYTES <= where.statuses
    ends = [
        where.statuses + where.capacity,
        where.ops + where.capacity,
        where.keys + where.capacity * key_size,
        where.values + where.capacity * stride,
    ]
    assert ends[:3] == [where.ops, where.keys, where.values]
    assert ends[3] <= slot_bytes


@pytest.mark.parametrize(
    ("text", "count", "fits"),
    [("0-1", 2, True), ("0", 1, True), ("0-1,4", 3, False), ("1-2", 2, False), ("0-3", 2, False)],
)
def test_cpus_are_counted_from_0_without_a_gap(tmp_path: Path, text: str, count: int, fits: bool) -> None:
    path = tmp_path / "possible"
    path.write_text(text + "\n")
    if fits:
        check_cpus(count, path)
    else:
        with pytest.raises(ValueError, match="are possible"):
            check_cpus(count, path)

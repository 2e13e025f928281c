"""Groups of atomics are checked whole before anything is asked of the kernel, with the numbers that disagree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.maps.errors import MapError
from mapd.maps.groups import FieldSpec, Group, answer_bytes, plan
from mapd.maps.opened import OpenMap
from mapd.maps.widths import Kind, Widths, offsets, runs, segments
from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, ATOMICS, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag, MapType
from tests.unit.mapd.dictkernel import DictKernel, DictMap, raw_info

VALUE = 24
COUNTER = FieldSpec(8, 8)
ONE_OPERAND = sorted(ATOMICS - {Op.COMPARE_EXCHANGE})


def opening(map_type: int = MapType.HASH, *, has_lock: bool = False, read_only: bool = False) -> OpenMap:
    made = DictKernel().open(DictMap(raw_info(map_type, value_size=VALUE)), read_only=read_only)
    return replace(made, facts=replace(made.facts, has_lock=has_lock))


@pytest.fixture
def opened() -> Iterator[OpenMap]:
    made = opening()
    yield made
    made.fd.close()


def atomics(
    op: Op, count: int = 2, *, field: FieldSpec | None = COUNTER, operands: int | None = None
) -> Group:
    size = (field.size if field else 8) * (2 if op is Op.COMPARE_EXCHANGE else 1)
    given = count * size if operands is None else operands
    return Group(count=count, ops=bytes([op]), keys=bytes(4 * count), values=bytes(given), field=field)


def refusal(group: Group, opened: OpenMap) -> MapError:
    with pytest.raises(MapError) as caught:
        plan(group, opened)
    assert str(caught.value).startswith(f"{group.operation} map 41 (flows): ")
    return caught.value


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("op", sorted(ATOMICS))
def test_an_atomic_takes_and_answers_its_field(opened: OpenMap, op: Op, size: int) -> None:
    checked = plan(atomics(op, 3, field=FieldSpec(16, size)), opened)
    assert checked.answer_bytes == 3 * size
    assert [segment.kind for segment in checked.segments()] == [Kind.ATOMIC]
    assert answer_bytes(checked.group, opened.facts) == 3 * size


@pytest.mark.parametrize("op", sorted(ATOMICS))
@pytest.mark.parametrize(
    ("field", "message"),
    [
        (None, "no field: say which 4 or 8 of the value's 24 bytes"),
        (FieldSpec(0, 0), "field offset=0 size=0; an atomic takes 4 or 8 bytes"),
        (FieldSpec(0, 2), "field offset=0 size=2; an atomic takes 4 or 8 bytes"),
        (FieldSpec(0, 16), "field offset=0 size=16; an atomic takes 4 or 8 bytes"),
        (FieldSpec(4, 8), "field offset=4 size=8; the offset of an atomic is a multiple of its size"),
        (FieldSpec(6, 4), "field offset=6 size=4; the offset of an atomic is a multiple of its size"),
        (FieldSpec(24, 8), "field offset=24 size=8 ends at byte 32; this map's values have 24 bytes"),
        (FieldSpec(24, 4), "field offset=24 size=4 ends at byte 28; this map's values have 24 bytes"),
        (FieldSpec(0xFFFF_FFF8, 8), "ends at byte 4294967296; this map's values have 24 bytes"),
    ],
)
def test_a_field_that_no_cpu_changes_at_once_is_refused(
    opened: OpenMap, op: Op, field: FieldSpec | None, message: str
) -> None:
    error = refusal(atomics(op, field=field), opened)
    assert error.reason is Reason.BAD_SPEC
    assert message in str(error)


@pytest.mark.parametrize("op", ONE_OPERAND)
def test_operands_of_another_size_are_refused_with_what_is_due(opened: OpenMap, op: Op) -> None:
    error = refusal(atomics(op, operands=24), opened)
    assert error.reason is Reason.BAD_COLUMNS
    name = op.name.lower()
    assert f"the value column has 24 bytes; 16 are due: 2 {name} of 8 bytes each" in str(error)
    assert (error.refusal.metadata["given"], error.refusal.metadata["expected"]) == ("24", "16")


def test_mixed_columns_of_another_size_are_refused_with_every_width(opened: OpenMap) -> None:
    ops = bytes([Op.LOOKUP, Op.FETCH_ADD, Op.UPDATE, Op.COMPARE_EXCHANGE])
    group = Group(count=4, ops=ops, keys=bytes(16), values=bytes(9), field=FieldSpec(0, 4))
    message = "9 bytes; 36 are due: 1 update of 24 bytes and 1 fetch_add of 4 bytes and 1 compare_exchange of 8 bytes"
    assert message in str(refusal(group, opened))
    checked = plan(replace(group, values=bytes(36)), opened)
    assert checked.answer_bytes == VALUE + 4 + 4


@pytest.mark.parametrize("op", sorted(ATOMICS))
def test_an_atomic_holds_no_lock(op: Op) -> None:
    opened = opening(has_lock=True)
    error = refusal(replace(atomics(op), flags=int(ElementFlag.LOCK)), opened)
    assert error.reason is Reason.BAD_FLAGS
    assert "flags 0x4; " in str(error)
    assert "an atomic holds no lock" in str(error)
    opened.fd.close()


@pytest.mark.parametrize("map_type", [MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH])
def test_per_cpu_maps_have_no_atomics(map_type: MapType) -> None:
    opened = opening(map_type)
    error = refusal(atomics(Op.FETCH_ADD), opened)
    assert error.reason is Reason.OPERATION_UNSUPPORTED
    assert "no two CPUs share a number" in str(error)
    opened.fd.close()


def test_an_atomic_on_one_cpus_slot_is_refused(opened: OpenMap) -> None:
    assert refusal(replace(atomics(Op.FETCH_ADD), cpu=0), opened).reason is Reason.OPERATION_UNSUPPORTED


@pytest.mark.parametrize("op", [Op.COMPARE_EXCHANGE, Op.COMPARE_UPDATE])
def test_what_compares_never_creates(op: Op) -> None:
    opened = opening(has_lock=True)
    operands = 2 * 2 * (8 if op is Op.COMPARE_EXCHANGE else VALUE)
    error = refusal(replace(atomics(op, operands=operands), create=True), opened)
    assert error.reason is Reason.BAD_SPEC
    assert "say it with fetch_add, fetch_and, fetch_or, fetch_xor, exchange only" in str(error)
    opened.fd.close()


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY])
def test_a_whole_value_is_compared_under_its_lock_alone(map_type: MapType) -> None:
    opened, locked = opening(map_type), opening(MapType.HASH, has_lock=True)
    group = atomics(Op.COMPARE_UPDATE, operands=2 * 2 * VALUE)
    error = refusal(group, opened)
    assert error.reason is Reason.OPERATION_UNSUPPORTED
    assert "values over 8 bytes can be compared and updated only under a bpf_spin_lock" in str(error)
    checked = plan(group, locked)
    assert checked.answer_bytes == 2 * VALUE
    assert [segment.kind for segment in checked.segments()] == [Kind.COMPARE]
    assert plan(replace(group, flags=int(ElementFlag.LOCK)), locked).answer_bytes == 2 * VALUE
    error = refusal(replace(group, values=bytes(2 * VALUE)), locked)
    assert "the value column has 48 bytes; 96 are due: 2 compare_update of 48 bytes each" in str(error)
    for one in (opened, locked):
        one.fd.close()


def test_answers_of_different_widths_are_counted_together(opened: OpenMap) -> None:
    count = limits.BATCH_ELEMENTS
    large = replace(opened.facts, info=replace(opened.facts.info, value_size=1 << 10), value_stride=1 << 10)
    ops = bytes([Op.LOOKUP] * 4_000 + [Op.FETCH_ADD] * (count - 4_000))
    operands = bytes(8 * (count - 4_000))
    group = Group(count=count, ops=ops, keys=bytes(4 * count), values=operands, field=FieldSpec(0, 8))
    error = refusal(group, replace(opened, facts=large))
    assert error.refusal.metadata["given"] == str(4_000 * 1_024 + 8 * (count - 4_000))


# ---- columns ---------------------------------------------------------------------------------------


def kind(op: Op) -> Kind:
    if op is Op.COMPARE_UPDATE:
        return Kind.COMPARE
    return Kind.ATOMIC if op in ATOMICS else Kind.PLAIN


columns = st.lists(st.sampled_from(sorted(Op)), min_size=1, max_size=60)
widths = st.builds(Widths, st.integers(1, 40), st.sampled_from([4, 8]))


@given(columns, widths)
def test_runs_and_segments_lie_where_one_element_after_another_does(ops: list[Op], of: Widths) -> None:
    column = bytes(ops)
    value_in = [0, *accumulate(of.taken(op) for op in ops)]
    value_out = [0, *accumulate(of.answered(op) for op in ops)]
    assert offsets(column, of.taken).tolist() == value_in
    place = 0
    for run in runs(column, len(ops), of):
        assert (run.start, run.value_in, run.value_out) == (place, value_in[place], value_out[place])
        assert set(ops[place : place + run.count]) == {run.op}
        place += run.count
    assert place == len(ops)
    place = 0
    for segment in segments(column, len(ops), of):
        assert (segment.start, segment.value_in, segment.value_out) == (
            place,
            value_in[place],
            value_out[place],
        )
        assert {kind(op) for op in ops[place : place + segment.count]} == {segment.kind}
        inside = list(runs(column, len(ops), of, segment))
        assert sum(run.count for run in inside) == segment.count
        assert [(run.value_in, run.value_out) for run in inside] == [
            (value_in[run.start], value_out[run.start]) for run in inside
        ]
        place += segment.count
    assert place == len(ops)


@given(st.sampled_from(sorted(Op)), st.integers(1, 50), widths)
def test_one_op_byte_is_one_run_and_one_segment(op: Op, count: int, of: Widths) -> None:
    (run,), (segment,) = runs(bytes([op]), count, of), segments(bytes([op]), count, of)
    assert (run.count, segment.count, segment.value_in, segment.value_out) == (count, count, 0, 0)
    assert (of.taken(op) > 0) == (op in TAKES_VALUE)
    assert (of.answered(op) > 0) == (op in ANSWERS_VALUE)

"""Atomics on parts of values, and compare-and-update of whole ones: the same on every backend."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.suite.backend import AnyMap, Backend, Field, Refused, Shape, Types
from tests.suite.conftest import Make
from tests.support import spinlock

SIZED: Final = {"value_size": 24}
SHAPES: Final = (
    Shape(MapType.HASH, 8, **SIZED),
    Shape(MapType.HASH, 5, **SIZED),
    Shape(MapType.LRU_HASH, 8, max_entries=1_024, **SIZED),
    Shape(MapType.ARRAY, 4, **SIZED),
)
FLAGS: Final = {
    "plain": 0,
    "no_prealloc": int(MapFlag.NO_PREALLOC),
    "mmapable": int(MapFlag.MMAPABLE),
}
KINDS: Final = [(shape, "plain") for shape in SHAPES] + [(SHAPES[0], "no_prealloc"), (SHAPES[3], "mmapable")]
FIELDS: Final = [(0, 4), (4, 4), (20, 4), (0, 8), (16, 8)]
MODEL: Final[dict[Op, Callable[[int, int], int]]] = {
    Op.FETCH_ADD: int.__add__,
    Op.FETCH_AND: int.__and__,
    Op.FETCH_OR: int.__or__,
    Op.FETCH_XOR: int.__xor__,
    Op.EXCHANGE: lambda _, operand: operand,
}
START: Final = bytes(range(1, 25))

kinds = pytest.mark.parametrize(("shape", "kind"), KINDS, ids=[f"{shape}-{kind}" for shape, kind in KINDS])


def part_of(value: bytes, field: Field) -> int:
    offset, size = field
    return int.from_bytes(value[offset : offset + size], "little")


def with_part(value: bytes, field: Field, number: int) -> bytes:
    offset, size = field
    return value[:offset] + (number % (1 << 8 * size)).to_bytes(size, "little") + value[offset + size :]


async def refused(call: object) -> Reason | None:
    with pytest.raises(Refused) as caught:
        await call  # type: ignore[misc]  # any of the calls
    return caught.value.reason


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field[0]}+{field[1]}")
@kinds
async def test_each_operation_answers_what_was_there_and_changes_its_part_alone(
    make: Make, shape: Shape, kind: str, field: Field
) -> None:
    flows: AnyMap = await make(shape, flags=FLAGS[kind])
    key, value, chance = shape.key(1), START, random.Random(str(field))  # noqa: S311 - repeatable
    await flows.update(key, value)
    _, size = field
    low, high = -(1 << 8 * size - 1), (1 << 8 * size) - 1
    for op, model in MODEL.items():
        for operand in (0, 1, -1, high, low, chance.randint(low, high)):
            old = part_of(value, field)
            assert await flows.atomic(op, key, operand, field) == old
            value = with_part(value, field, model(old, operand % (1 << 8 * size)))
            assert await flows.lookup(key) == value
    for expected in (part_of(value, field) ^ 1, part_of(value, field)):
        new, old = chance.randint(0, high), part_of(value, field)
        assert await flows.atomic(Op.COMPARE_EXCHANGE, key, new, field, expected=expected) == old
        value = with_part(value, field, new) if old == expected else value
        assert await flows.lookup(key) == value
    await flows.close()


@kinds
async def test_an_absent_key_is_an_answer_unless_it_is_to_be_created(
    make: Make, shape: Shape, kind: str
) -> None:
    flows = await make(shape, flags=FLAGS[kind])
    if shape.indexed:
        outside = (shape.max_entries).to_bytes(4, "little")
        for create in (False, True):
            call = flows.atomic(Op.FETCH_ADD, outside, 1, (0, 8), create=create)
            assert await refused(call) is Reason.INDEX_OUT_OF_RANGE
        assert await flows.atomic(Op.FETCH_ADD, shape.key(0), 5, (8, 8), create=True) == 0
        await flows.close()
        return
    for op in (*MODEL, Op.COMPARE_EXCHANGE):
        assert await flows.atomic(op, shape.key(1), 7, (8, 8)) is None
    assert await flows.items() == []
    for number, op in enumerate(MODEL):
        key = shape.key(number)
        for operand in (7, 7):
            had = await flows.lookup(key) or bytes(24)
            assert await flows.atomic(op, key, operand, (8, 8), create=True) == part_of(had, (8, 8))
            expected = with_part(had, (8, 8), MODEL[op](part_of(had, (8, 8)), operand))
            assert await flows.lookup(key) == expected
    await flows.close()


async def test_a_full_map_creates_no_more_and_still_counts_what_it_has(make: Make) -> None:
    shape = replace(SHAPES[0], max_entries=2)
    flows = await make(shape)
    assert await flows.fetch_add_many([shape.key(1), shape.key(2)], [1, 1], (0, 8), create=True) == [0, 0]
    call = flows.atomic(Op.FETCH_ADD, shape.key(3), 1, (0, 8), create=True)
    assert await refused(call) is Reason.MAP_FULL
    assert await flows.atomic(Op.FETCH_ADD, shape.key(2), 1, (0, 8), create=True) == 1
    await flows.close()


@kinds
@pytest.mark.parametrize("count", [1, 100, 5_000])
async def test_many_are_added_in_their_order(make: Make, shape: Shape, kind: str, count: int) -> None:
    """More than one run of the program; keys come again, and some are absent."""
    flows = await make(shape, flags=FLAGS[kind])
    chance = random.Random(count)  # noqa: S311 - repeatable
    present = range(20) if not shape.indexed else range(shape.max_entries)
    await flows.update_many([(shape.key(number), bytes(24)) for number in present])
    sums = dict.fromkeys(present, 0)
    numbers = [chance.randrange(24 if not shape.indexed else len(present)) for _ in range(count)]
    operands = [chance.randint(-(1 << 31), (1 << 32) - 1) for _ in range(count)]
    expected: list[int | None] = []
    for number, operand in zip(numbers, operands, strict=True):
        expected.append(sums.get(number))
        if number in sums:
            sums[number] = (sums[number] + operand) % (1 << 32)
    assert await flows.fetch_add_many(list(map(shape.key, numbers)), operands, (12, 4)) == expected
    for number, total in sums.items():
        assert await flows.lookup(shape.key(number)) == with_part(bytes(24), (12, 4), total)
    await flows.close()


async def test_more_than_a_message_takes_are_added(make: Make) -> None:
    shape = replace(SHAPES[0], max_entries=40_000)
    flows = await make(shape)
    keys = [shape.key(number) for number in range(limits.BATCH_ELEMENTS // 2)]
    for had in (0, 3):
        assert await flows.fetch_add_many(keys, [3] * len(keys), (0, 8), create=True) == [had] * len(keys)
    await flows.close()


@pytest.mark.parametrize("type", [MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LPM_TRIE])
async def test_types_without_atomics_refuse_them(make: Make, type: MapType) -> None:
    shape = Shape(type, 4 if type is MapType.PERCPU_ARRAY else 8)
    flows = await make(shape)
    assert not flows.facts.operations & {"fetch_add", "compare_exchange", "compare_update"}
    for op in (*MODEL, Op.COMPARE_EXCHANGE):
        call = flows.atomic(op, shape.key(0), 1, (0, 8))
        assert await refused(call) is Reason.OPERATION_UNSUPPORTED
    await flows.close()


@pytest.mark.parametrize("flag", [MapFlag.RDONLY_PROG, MapFlag.WRONLY_PROG])
async def test_a_map_that_is_closed_to_programs_refuses_them_unchanged(make: Make, flag: MapFlag) -> None:
    shape = SHAPES[0]
    flows = await make(shape, flags=int(flag))
    await flows.update(shape.key(1), START)
    call = flows.atomic(Op.FETCH_ADD, shape.key(1), 1, (0, 8))
    assert await refused(call) is Reason.OPERATION_UNSUPPORTED
    assert await flows.lookup(shape.key(1)) == START
    await flows.close()


@kinds
async def test_a_frozen_map_refuses_every_atomic(make: Make, shape: Shape, kind: str) -> None:
    """The program that does them was loaded before: it would not ask."""
    flows = await make(shape, flags=FLAGS[kind])
    key = shape.key(1)
    await flows.update(key, START)
    assert await flows.atomic(Op.FETCH_ADD, key, 0, (0, 8)) == part_of(START, (0, 8))
    await flows.freeze()
    for op in (*MODEL, Op.COMPARE_EXCHANGE):
        call = flows.atomic(op, key, 1, (0, 8), expected=part_of(START, (0, 8)))
        assert await refused(call) is Reason.MAP_FROZEN
    assert await refused(flows.fetch_add_many([key] * 10, [1] * 10, (0, 8))) is Reason.MAP_FROZEN
    assert await flows.lookup(key) == START
    await flows.close()


async def test_a_read_only_opening_refuses_every_atomic(backend: Backend, make: Make) -> None:
    shape = SHAPES[0]
    flows = await make(shape)
    await flows.update(shape.key(1), START)
    reader = await backend.open("flows", read_only=True)
    assert await flows.atomic(Op.FETCH_ADD, shape.key(1), 0, (0, 8)) is not None
    for op in (*MODEL, Op.COMPARE_EXCHANGE):
        assert await refused(reader.atomic(op, shape.key(1), 1, (0, 8))) is Reason.READ_ONLY
    assert await flows.lookup(shape.key(1)) == START
    await reader.close()
    await flows.close()


# ---- under a lock ----------------------------------------------------------------------------------

LOCKED: Final = [(16, 0), (24, 8), (64, 20), (100, 96), (4_096, 4)]
locked = pytest.mark.parametrize(("size", "lock"), LOCKED, ids=[f"{size}-at-{lock}" for size, lock in LOCKED])


async def with_lock(make: Make, size: int, lock: int, type: MapType) -> AnyMap:
    types = Types(spinlock.placed_btf(size, lock), spinlock.KEY_TYPE, spinlock.PLACED_VALUE_TYPE)
    return await make(Shape(type, 4, size), btf=types)


def numbered(size: int, lock: int, number: int) -> bytes:
    """A value without what its lock would have."""
    value = bytes((number + at) % 251 for at in range(size))
    return value[:lock] + bytes(4) + value[lock + 4 :]


@pytest.mark.parametrize("type", [MapType.HASH, MapType.ARRAY])
@locked
async def test_a_whole_value_is_written_if_it_is_the_expected_one(
    make: Make, type: MapType, size: int, lock: int
) -> None:
    flows = await with_lock(make, size, lock, type)
    assert "compare_update" in flows.facts.operations
    key = (1).to_bytes(4, "little")
    first, second, third = (numbered(size, lock, number) for number in (1, 2, 3))
    if type is MapType.HASH:
        assert await flows.compare_update(key, first, second) is None
        assert await flows.items() == []
    await flows.update(key, first)
    assert await flows.compare_update(key, second, third) == first
    assert await flows.lookup(key) == first
    assert await flows.compare_update(key, first, second) == first
    assert await flows.lookup(key) == second
    nearly = second[:-1] + bytes([second[-1] ^ 1]) if lock + 4 < size else bytes([second[0] ^ 1]) + second[1:]
    assert await flows.compare_update(key, nearly, third) == second
    garbage = second[:lock] + b"lock" + second[lock + 4 :]
    assert await flows.compare_update(key, garbage, third) == garbage, "the lock is no part of the value"
    assert await flows.lookup(key) == third
    await flows.close()


async def test_a_value_without_a_lock_is_never_pretended_to_be_compared(make: Make) -> None:
    shape = SHAPES[0]
    flows = await make(shape)
    await flows.update(shape.key(1), START)
    call = flows.compare_update(shape.key(1), START, bytes(24))
    assert await refused(call) is Reason.OPERATION_UNSUPPORTED
    assert await flows.lookup(shape.key(1)) == START
    await flows.close()


async def test_a_value_too_large_to_be_compared_under_its_lock_is_refused(make: Make) -> None:
    flows = await with_lock(make, 4_104, 0, MapType.HASH)
    key, value = (1).to_bytes(4, "little"), numbered(4_104, 0, 1)
    await flows.update(key, value)
    call = flows.compare_update(key, value, bytes(4_104))
    assert await refused(call) is Reason.OPERATION_UNSUPPORTED
    assert await flows.lookup(key) == value
    await flows.close()


@locked
async def test_atomics_work_beside_a_lock_and_never_on_it(make: Make, size: int, lock: int) -> None:
    flows = await with_lock(make, size, lock, MapType.HASH)
    key, value = (1).to_bytes(4, "little"), numbered(size, lock, 1)
    await flows.update(key, value)
    call = flows.atomic(Op.FETCH_ADD, key, 1, (lock, 4))
    assert await refused(call) is Reason.OPERATION_UNSUPPORTED
    beside = ((lock + 4) % size or 0, 4)
    assert await flows.atomic(Op.FETCH_ADD, key, 5, beside) == part_of(value, beside)
    value = with_part(value, beside, part_of(value, beside) + 5)
    assert await flows.lookup(key) == value
    await flows.close()

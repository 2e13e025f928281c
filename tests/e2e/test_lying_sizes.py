"""Requests whose counts and columns lie about each other: refused whole, before the kernel is asked.

Generated over every type of data; what is due is counted here from the contract's words alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mapd.bpf import OpenPin, possible_cpus
from mapd.bpf.abi import Command
from mapd_api import limits
from mapd_api.layout import value_stride
from mapd_api.ops import ATOMICS, TAKES_VALUE, Op
from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import PER_CPU_TYPES, MapType
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import types_pb2
from mapd_client import Bytes, PerCpu
from tests.e2e.bad_input import Ground, by_name, on_ground
from tests.support.daemon import Place
from tests.support.pinned import unchanged

VALUE_SIZE: Final = 7
"""No multiple of 8: what a value takes per CPU, padded and not, are three sizes that can be confused."""
CAPACITY: Final = 4
HUGE: Final = (limits.BATCH_ELEMENTS, limits.BATCH_ELEMENTS + 1, 2**31, 2**32 - 1)
LOOK: Final = Command.OBJ_GET_INFO_BY_FD
KEYED: Final = (
    MapType.HASH,
    MapType.LRU_HASH,
    MapType.PERCPU_HASH,
    MapType.ARRAY,
    MapType.PERCPU_ARRAY,
    MapType.LPM_TRIE,
)
KEYED_OPS: Final = (Op.LOOKUP, Op.UPDATE, Op.UPDATE_EXIST, Op.DELETE)
ONE_CPU_OPS: Final = (Op.LOOKUP, Op.UPDATE, Op.UPDATE_EXIST)
LIES: Final = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)

Ask: TypeAlias = Callable[[Coroutine[Any, Any, Refusal]], Refusal]


async def told(lie: Callable[[st.DataObject, Ask], None]) -> None:
    """Generate lies in a thread, which asks the daemon in this loop."""
    loop = asyncio.get_running_loop()

    def ask(call: Coroutine[Any, Any, Refusal]) -> Refusal:
        return asyncio.run_coroutine_threadsafe(call, loop).result(60)

    @LIES
    @given(st.data())
    def each(data: st.DataObject) -> None:
        lie(data, ask)

    await asyncio.to_thread(each)


@dataclass(frozen=True)
class Victim:
    """A map of four places, and two elements in it where it has keys."""

    kind: MapType

    @property
    def name(self) -> str:
        return self.kind.name.lower()

    @property
    def key_size(self) -> int:
        return 0 if self.kind not in KEYED else 8 if self.kind is MapType.LPM_TRIE else 4

    @property
    def stride(self) -> int:
        return value_stride(self.kind, VALUE_SIZE, possible_cpus())

    @property
    def per_cpu(self) -> bool:
        return self.kind in PER_CPU_TYPES

    @property
    def ops(self) -> tuple[Op, ...]:
        match self.kind:
            case MapType.QUEUE:
                return (Op.PUSH, Op.PUSH_EXIST, Op.POP, Op.PEEK)
            case MapType.BLOOM_FILTER:
                return (Op.ADD, Op.CONTAINS)
            case MapType.ARRAY | MapType.PERCPU_ARRAY:
                return (Op.LOOKUP, Op.UPDATE, Op.UPDATE_EXIST)
            case _:
                return KEYED_OPS

    def key(self, number: int) -> bytes:
        if self.kind is MapType.LPM_TRIE:
            return (32).to_bytes(4, "little") + number.to_bytes(4, "big")
        return number.to_bytes(4, "little")

    async def make(self, ground: Ground) -> None:
        value: Any = PerCpu(Bytes(VALUE_SIZE)) if self.per_cpu else Bytes(VALUE_SIZE)
        flags = 1 if self.kind is MapType.LPM_TRIE else 0
        made = await ground.client.create_map(
            self.name, self.kind, key=Bytes(self.key_size), value=value, max_entries=CAPACITY, flags=flags
        )
        for number in range(2 if self.key_size else 0):
            one = bytes([number + 1]) * VALUE_SIZE
            await made.update(self.key(number), [one] * possible_cpus() if self.per_cpu else one)


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


def lengths(count: int, size: int, *others: int) -> st.SearchStrategy[int]:
    """Bytes of a column: nothing, right, by one byte or one element or one byte each off, of other strides."""
    count = min(count, 8)
    near = {0, 1, size, count * size, *(count * other for other in others)}
    for off in (-1, 1):
        near |= {count * size + off, count * (size + off), (count + off) * size}
    return st.sampled_from(sorted(max(0, length) for length in near))


def due(what: int, elements: int, stride: int, mismatch: Reason) -> Reason | None:
    """How a column of ``what`` bytes is to be refused."""
    if what == elements * stride:
        return None
    return Reason.BAD_COLUMNS if elements == 0 or what % elements else mismatch


def value_lengths(victim: Victim, count: int, stride: int) -> st.SearchStrategy[int]:
    return lengths(count, stride, VALUE_SIZE, 8, victim.stride)


@pytest.mark.parametrize("kind", [*KEYED, MapType.QUEUE, MapType.BLOOM_FILTER])
async def test_a_group_that_lies_is_refused_and_changes_nothing(ground: Ground, kind: MapType) -> None:
    victim = Victim(kind)
    await victim.make(ground)

    def lie(data: st.DataObject, ask: Ask) -> None:
        count = data.draw(st.integers(0, 4) | st.sampled_from(HUGE))
        one_cpu = victim.per_cpu and data.draw(st.booleans())
        op = data.draw(st.sampled_from(ONE_CPU_OPS if one_cpu else victim.ops))
        stride = VALUE_SIZE if one_cpu else victim.stride
        keys = data.draw(lengths(count, victim.key_size))
        values = data.draw(value_lengths(victim, count, stride))
        reason = Reason.BAD_COLUMNS
        if 1 <= count <= limits.BATCH_ELEMENTS:
            taken = count if op in TAKES_VALUE else 0
            found = due(keys, count, victim.key_size, Reason.KEY_SIZE_MISMATCH) or due(
                values, taken, stride, Reason.VALUE_SIZE_MISMATCH
            )
            assume(found is not None)
            assert found is not None
            reason = found
        group = pb.OpGroup(
            map=by_name(victim.name), count=count, ops=bytes([op]), keys=bytes(keys), values=b"\xee" * values
        )
        if one_cpu:
            group.cpu = 0
        with ground.no_call(OpenPin, LOOK):
            refusal = ask(ground.raw.group_refusal(group))
        assert refusal.reason is reason, (refusal.message, group)

    with unchanged(ground.pin(victim.name)):
        await told(lie)
    if kind is MapType.QUEUE:
        group = pb.OpGroup(map=by_name(victim.name), count=1, ops=bytes([Op.POP]))
        answer = await ground.raw.call("Apply", pb.ApplyRequest(groups=[group]), pb.ApplyResponse)
        assert answer.results[0].statuses == bytes([Reason.KEY_ABSENT]), "something was pushed"


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY])
async def test_atomics_that_lie_are_refused_and_change_nothing(ground: Ground, kind: MapType) -> None:
    """Of the field, of the columns, or of both."""
    victim = Victim(kind)
    await victim.make(ground)

    def lie(data: st.DataObject, ask: Ask) -> None:
        op = data.draw(st.sampled_from(sorted(ATOMICS)))
        count = data.draw(st.integers(1, 4))
        offset = data.draw(st.integers(0, VALUE_SIZE + 8) | st.sampled_from((*HUGE, 0xFFFF_FFFC)))
        size = data.draw(st.sampled_from((4, 8)) | st.integers(0, 17) | st.sampled_from(HUGE))
        operand = size * (2 if op is Op.COMPARE_EXCHANGE else 1)
        keys = data.draw(lengths(count, victim.key_size))
        values = data.draw(lengths(count, min(operand, 64), 4, 8, 16))
        field_fits = size in (4, 8) and offset % size == 0 and offset + size <= VALUE_SIZE
        assume(not field_fits or (keys, values) != (count * victim.key_size, count * operand))
        group = pb.OpGroup(
            map=by_name(victim.name), count=count, ops=bytes([op]), keys=bytes(keys), values=b"\xee" * values
        )
        group.field.offset, group.field.size = offset & 0xFFFF_FFFF, size & 0xFFFF_FFFF
        with ground.no_call(OpenPin, LOOK):
            refusal = ask(ground.raw.group_refusal(group))
        columns = (Reason.BAD_COLUMNS, Reason.KEY_SIZE_MISMATCH)
        assert refusal.reason in (columns if field_fits else (Reason.BAD_SPEC,)), (refusal.message, group)

    with unchanged(ground.pin(victim.name)):
        await told(lie)


@pytest.mark.parametrize("kind", KEYED)
async def test_a_load_that_lies_is_refused_and_writes_nothing(ground: Ground, kind: MapType) -> None:
    victim = Victim(kind)
    await victim.make(ground)

    def lie(data: st.DataObject, ask: Ask) -> None:
        count = data.draw(st.integers(0, 4) | st.sampled_from(HUGE))
        keys = data.draw(lengths(count, victim.key_size))
        values = data.draw(value_lengths(victim, count, victim.stride))
        assume((keys, values) != (count * victim.key_size, count * victim.stride))
        columns = types_pb2.Columns(count=count, keys=bytes(keys), values=b"\xee" * values)
        with ground.no_call(OpenPin, LOOK):
            request = pb.LoadRequest(map=by_name(victim.name), columns=columns)
            refusal = ask(ground.raw.refusal("Load", request))
        assert refusal.reason is Reason.BAD_COLUMNS, (refusal.message, columns)

    with unchanged(ground.pin(victim.name)):
        await told(lie)


@pytest.mark.parametrize("kind", KEYED)
async def test_one_element_that_lies_is_refused_and_changes_nothing(ground: Ground, kind: MapType) -> None:
    victim = Victim(kind)
    await victim.make(ground)
    deletes = Op.DELETE in victim.ops

    def lie(data: st.DataObject, ask: Ask) -> None:
        ref = by_name(victim.name)
        method = data.draw(st.sampled_from(["Lookup", "Update", "GetNextKey", *["Delete"] * deletes]))
        size = data.draw(lengths(1, victim.key_size) | st.integers(0, 70_000))
        key, reason = bytes(size), Reason.KEY_SIZE_MISMATCH
        request: Any
        match method:
            case "Update":
                value = data.draw(value_lengths(victim, 1, victim.stride) | st.integers(0, 70_000))
                assume((size, value) != (victim.key_size, victim.stride))
                if size == victim.key_size:
                    reason = Reason.VALUE_SIZE_MISMATCH
                request = pb.UpdateRequest(map=ref, key=key, value=b"\xee" * value)
            case "Lookup":
                request = pb.LookupRequest(map=ref, key=key)
            case "Delete":
                request = pb.DeleteRequest(map=ref, key=key)
            case _:
                request = pb.GetNextKeyRequest(map=ref, key=key)
        assume(method == "Update" or size != victim.key_size)
        with ground.no_call(OpenPin, LOOK):
            refusal = ask(ground.raw.refusal(method, request))
        assert refusal.reason is reason, (method, size, refusal.message)

    with unchanged(ground.pin(victim.name)):
        await told(lie)

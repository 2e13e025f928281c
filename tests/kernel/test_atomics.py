"""Groups with atomics on the real kernel: in order with everything else, beside other writers, never unasked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapd.bpf import (
    BatchCommand,
    Buffer,
    Columns,
    CreateMap,
    FreezeMap,
    ProgramType,
    counter_program,
    load_program,
    run_program,
)
from mapd.bpf.kernel import LoadBtf
from mapd.maps.errors import MapError
from mapd.maps.groups import FieldSpec, Group
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag, MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.vectors import Served, served, vectors
from tests.support import spinlock

KINDS = {
    "hash": (MapType.HASH, 0),
    "no_prealloc": (MapType.HASH, int(MapFlag.NO_PREALLOC)),
    "lru_hash": (MapType.LRU_HASH, 0),
    "array": (MapType.ARRAY, 0),
    "mmapable": (MapType.ARRAY, int(MapFlag.MMAPABLE)),
}
VALUE = 24
FIRST = FieldSpec(0, 8)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def cpus() -> tuple[int, int]:
    """Two, so that writers are at work at the same moment."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one CPU: nothing is written during a write")
    return usable[0], usable[1]


@contextmanager
def opened(made: TestMap) -> Generator[Served]:
    with vectors() as programs, served(made.fd, programs) as found:
        yield found


def adding(
    keys: Sequence[bytes], operand: int = 1, field: FieldSpec = FIRST, *, create: bool = False
) -> Group:
    values = operand.to_bytes(field.size, "little") * len(keys)
    ops = bytes([Op.FETCH_ADD])
    return Group(count=len(keys), ops=ops, keys=b"".join(keys), values=values, field=field, create=create)


def together(cpus: Sequence[int], *work: Callable[[], None]) -> None:
    """Each on a CPU of its own, begun at one moment; what any of them raises is raised."""
    barrier, failed = threading.Barrier(len(work)), list[BaseException]()

    def pinned(cpu: int, one: Callable[[], None]) -> None:
        os.sched_setaffinity(0, {cpu})
        barrier.wait()
        try:
            one()
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=pinned, args=(cpus[at % len(cpus)], one)) for at, one in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in failed:
        raise error


# ---- order -----------------------------------------------------------------------------------------

MIXED = sorted(
    {Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.DELETE, Op.LOOKUP_AND_DELETE}
    | {Op.FETCH_ADD, Op.FETCH_AND, Op.FETCH_OR, Op.FETCH_XOR, Op.EXCHANGE, Op.COMPARE_EXCHANGE}
)
elements = st.lists(
    st.tuples(st.sampled_from(MIXED), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40
)


class Model:
    """A dict of values, changed one element after the other."""

    def __init__(self, field: FieldSpec, *, create: bool) -> None:
        self.values: dict[int, bytes] = {}
        self.field, self.create = field, create
        self.taken = self.answered = b""
        self.statuses: list[int] = []

    def value(self, number: int) -> bytes:
        return bytes((number + at) % 7 for at in range(VALUE))

    def run(self, op: Op, key: int, number: int) -> None:
        there = self.values.get(key)
        if op in (Op.LOOKUP, Op.LOOKUP_AND_DELETE):
            self.answered += there or bytes(VALUE)
            self.statuses.append(Reason.DONE if there is not None else Reason.KEY_ABSENT)
            if op is Op.LOOKUP_AND_DELETE:
                self.values.pop(key, None)
        elif op is Op.DELETE:
            self.statuses.append(Reason.DONE if self.values.pop(key, None) else Reason.KEY_ABSENT)
        elif op in (Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST):
            self._update(op, key, self.value(number), there)
        else:
            self._atomic(op, key, number, there)

    def _update(self, op: Op, key: int, value: bytes, there: bytes | None) -> None:
        self.taken += value
        if op is Op.UPDATE_NOEXIST and there is not None:
            self.statuses.append(Reason.KEY_EXISTS)
        elif op is Op.UPDATE_EXIST and there is None:
            self.statuses.append(Reason.KEY_MISSING)
        else:
            self.values[key] = value
            self.statuses.append(Reason.DONE)

    def _atomic(self, op: Op, key: int, number: int, there: bytes | None) -> None:
        size, at = self.field.size, self.field.offset
        operand = (number * 0x0101_0101) % (1 << 8 * size)
        value = there
        if value is None and self.create:
            value = bytes(VALUE)
        old = int.from_bytes((value or bytes(VALUE))[at : at + size], "little")
        expected = old if number % 2 else old ^ 1
        if op is Op.COMPARE_EXCHANGE:
            self.taken += expected.to_bytes(size, "little")
        self.taken += operand.to_bytes(size, "little")
        if value is None:
            self.statuses.append(Reason.KEY_ABSENT)
            self.answered += bytes(size)
            return
        new = {
            Op.FETCH_ADD: (old + operand) % (1 << 8 * size),
            Op.FETCH_AND: old & operand,
            Op.FETCH_OR: old | operand,
            Op.FETCH_XOR: old ^ operand,
            Op.EXCHANGE: operand,
            Op.COMPARE_EXCHANGE: operand if old == expected else old,
        }[op]
        self.values[key] = value[:at] + new.to_bytes(size, "little") + value[at + size :]
        self.statuses.append(Reason.DONE)
        self.answered += old.to_bytes(size, "little")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(elements, st.sampled_from([FieldSpec(0, 8), FieldSpec(20, 4)]), st.booleans(), st.booleans())
def test_any_mix_of_operations_does_what_one_after_another_does(
    mixed: list[tuple[Op, int, int]], field: FieldSpec, create: bool, no_prealloc: bool
) -> None:
    if create:
        mixed = [one for one in mixed if one[0] is not Op.COMPARE_EXCHANGE] or [(Op.FETCH_ADD, 0, 1)]
    model = Model(field, create=create)
    for op, key, number in mixed:
        model.run(op, key, number)
    ops = bytes(op for op, _, _ in mixed)
    group = Group(
        count=len(mixed),
        ops=ops[:1] if len(set(ops)) == 1 else ops,
        keys=b"".join(key.to_bytes(8, "little") for _, key, _ in mixed),
        values=model.taken,
        field=field,
        create=create,
    )
    flags = MapFlag.NO_PREALLOC if no_prealloc else MapFlag(0)
    request = CreateMap(map_type=MapType.HASH, key_size=8, value_size=VALUE, max_entries=8, flags=flags)
    with vectors() as programs, served(request, programs) as one:
        outcome = one.run(group)
        assert list(outcome.statuses) == model.statuses
        assert bytes(outcome.values.view) == model.answered
        assert one.content() == {key.to_bytes(8, "little"): value for key, value in model.values.items()}


# ---- who is asked ----------------------------------------------------------------------------------


@kinds
def test_a_map_frozen_by_somebody_else_refuses_although_the_program_is_loaded(maps: Maps, kind: str) -> None:
    map_type, flags = KINDS[kind]
    made = maps.create(map_type, flags=flags)
    made.fill(2)
    with opened(made) as one:
        assert not any(one.run(adding([made.key(1)], 0)).statuses)
        KERNEL.control(FreezeMap(), [made.fd])
        for count in (1, 5_000):
            with pytest.raises(MapError) as caught:
                one.run(adding([made.key(1)] * count, 1))
            assert caught.value.reason is Reason.MAP_FROZEN
    assert made.lookup([made.key(1)]) == [made.value(1)]


def test_a_descriptor_that_only_reads_changes_nothing(maps: Maps) -> None:
    """A map created with BPF_F_RDONLY: the kernel binds its creator, and mapd's opening says nothing of it."""
    made = maps.create(flags=int(MapFlag.RDONLY))
    with opened(made) as one, pytest.raises(MapError) as caught:
        one.run(adding([made.key(1)], create=True))
    assert caught.value.reason is Reason.READ_ONLY
    assert made.walk() == []


def test_a_frozen_map_in_the_middle_of_a_group_refuses_the_rest(maps: Maps) -> None:
    """One segment is done, then somebody freezes: what was executed is answered, the rest has the refusal."""
    made = maps.create()
    made.fill(2)
    with opened(made) as one:
        group = Group(
            count=3,
            ops=bytes([Op.LOOKUP, Op.FETCH_ADD, Op.LOOKUP]),
            keys=made.key(1) * 3,
            values=bytes(8),
            field=FieldSpec(0, 8),
        )
        assert not any(one.run(group).statuses)
        KERNEL.control(FreezeMap(), [made.fd])
        outcome = one.run(group)
    assert list(outcome.statuses) == [Reason.DONE, Reason.MAP_FROZEN, Reason.MAP_FROZEN]
    assert outcome.values.take(8) == made.value(1)
    assert not any(outcome.values.view[8:])


def test_one_program_serves_every_field_of_a_size_and_goes_with_the_map(maps: Maps) -> None:
    made = maps.create(value_size=64)
    made.fill(1)
    with vectors() as programs:
        with served(made.fd, programs, load=False) as one:
            for offset in range(0, 64, 8):
                assert not any(one.run(adding([made.key(0)], field=FieldSpec(offset, 8))).statuses)
            assert programs.loaded == 1
            assert not any(one.run(adding([made.key(0)], field=FieldSpec(4, 4))).statuses)
            assert programs.loaded == 2
        assert programs.loaded == 0


# ---- beside others ---------------------------------------------------------------------------------

ROUNDS = 150
MANY = 100


@kinds
@pytest.mark.parametrize("size", [4, 8])
def test_what_threads_and_a_program_add_at_once_is_all_there(
    maps: Maps, cpus: tuple[int, int], kind: str, size: int
) -> None:
    map_type, flags = KINDS[kind]
    made = maps.create(map_type, flags=flags)
    key = made.key(3)
    if "array" not in kind and kind != "mmapable":
        assert made.each(Op.UPDATE, [key], [bytes(8)]) == [0]
    with ExitStack() as stack:
        one = stack.enter_context(opened(made))
        code = counter_program(made.fd, made.key_size, made.value_size)
        prog_fd = stack.enter_context(stack.enter_context(load_program(code, ProgramType.SYSCALL)).lease())

        def add() -> None:
            for _ in range(ROUNDS):
                assert not any(one.run(adding([key] * MANY, field=FieldSpec(0, size))).statuses)

        def count() -> None:
            ctx = Buffer.allocate(8)
            ctx.view[: len(key)] = key
            for _ in range(ROUNDS * 20):
                assert run_program(prog_fd, ctx) == 0

        together(cpus, add, add, count)
    (value,) = made.lookup([key])
    assert value == (2 * ROUNDS * MANY + ROUNDS * 20).to_bytes(8, "little")


def test_reading_and_writing_back_loses_what_others_add(maps: Maps, cpus: tuple[int, int]) -> None:
    """The canary: what atomics are there for."""
    made = maps.create(MapType.ARRAY)
    key = made.key(0)
    done = list[int]()

    def add() -> None:
        for _ in range(ROUNDS * MANY):
            (value,) = made.lookup([key])
            assert isinstance(value, bytes)
            number = int.from_bytes(value, "little") + 1
            assert made.each(Op.UPDATE, [key], [number.to_bytes(8, "little")]) == [0]
        done.append(ROUNDS * MANY)

    together(cpus, add, add)
    (value,) = made.lookup([key])
    assert isinstance(value, bytes)
    assert int.from_bytes(value, "little") < sum(done)


@pytest.mark.parametrize("kind", ["hash", "no_prealloc", "lru_hash"])
def test_keys_that_two_create_at_once_have_what_both_added(
    maps: Maps, cpus: tuple[int, int], kind: str
) -> None:
    map_type, flags = KINDS[kind]
    made = maps.create(map_type, flags=flags, max_entries=1 << 16)
    keys = [made.key(number) for number in range(4_000)]
    old: list[bytes] = []
    with opened(made) as one:

        def add() -> None:
            outcome = one.run(adding(keys, create=True))
            assert not any(outcome.statuses)
            old.append(bytes(outcome.values.view))

        for round_ in range(4):
            old.clear()
            together(cpus, add, add)
            before = round_ * 2
            for at in range(0, 8 * len(keys), 8):
                seen = sorted(int.from_bytes(one[at : at + 8], "little") for one in old)
                assert seen == [before, before + 1]


# ---- under the lock --------------------------------------------------------------------------------

LOCKED_VALUE = 64
LOCK_AT = 4


def with_lock(maps: Maps, size: int, map_type: MapType) -> TestMap:
    request = CreateMap(
        map_type=map_type,
        key_size=4,
        value_size=size,
        max_entries=8,
        with_btf=True,
        btf_key_type_id=spinlock.KEY_TYPE,
        btf_value_type_id=spinlock.PLACED_VALUE_TYPE,
    )
    with KERNEL.control(LoadBtf(blob=spinlock.placed_btf(size, LOCK_AT))) as btf, btf.lease() as btf_fd:
        return maps.adopt(KERNEL.control(request, [btf_fd]))


def counted(number: int) -> bytes:
    """A value that has its number at both ends, so that half of one would be seen."""
    return number.to_bytes(4, "little") + bytes(LOCKED_VALUE - 8) + number.to_bytes(4, "little")


def compare_and_update(one: Served, key: bytes, expected: bytes, new: bytes) -> bytes:
    """What was there."""
    ops = bytes([Op.COMPARE_UPDATE])
    outcome = one.run(Group(count=1, ops=ops, keys=key, values=expected + new))
    assert list(outcome.statuses) == [Reason.DONE]
    return bytes(outcome.values.view)


def in_user_space(one: Served, key: bytes, expected: bytes, new: bytes) -> bytes:
    """The same, each half of it under the lock, and both halves not."""
    flags = int(ElementFlag.LOCK)
    found = Buffer.allocate(LOCKED_VALUE)
    assert KERNEL.each(one.map_fd, Op.LOOKUP, Columns(1, Buffer.of(key), 4, found, LOCKED_VALUE), flags) == [
        0
    ]
    was = found.take(LOCKED_VALUE)
    if was == expected:
        columns = Columns(1, Buffer.of(key), 4, Buffer.of(new), LOCKED_VALUE)
        assert KERNEL.each(one.map_fd, Op.UPDATE, columns, flags) == [0]
    return was


SWAPS = 3_000


def swapped(
    maps: Maps,
    cpus: tuple[int, int],
    map_type: MapType,
    swap: Callable[[Served, bytes, bytes, bytes], bytes],
) -> int:
    """Of SWAPS increments by each of two threads, how many are left."""
    made = with_lock(maps, LOCKED_VALUE, map_type)
    key = made.key(1)
    assert made.each(Op.UPDATE, [key], [counted(0)]) == [0]
    with opened(made) as one:

        def count() -> None:
            number = done = 0
            while done < SWAPS:
                was = swap(one, key, counted(number), counted(number + 1))
                assert was[:4] == was[-4:], "half of one value and half of another"
                there = int.from_bytes(was[:4], "little")
                done += there == number
                number = number + 1 if there == number else there

        together(cpus, count, count)
    columns = made.columns([key])
    assert KERNEL.each(made.fd, Op.LOOKUP, columns, int(ElementFlag.LOCK)) == [0]
    assert columns.values is not None
    return int.from_bytes(columns.values.take(4), "little")


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.ARRAY])
def test_no_increment_under_the_lock_is_lost(maps: Maps, cpus: tuple[int, int], map_type: MapType) -> None:
    assert swapped(maps, cpus, map_type, compare_and_update) == 2 * SWAPS


def test_comparing_in_user_space_loses_some(maps: Maps, cpus: tuple[int, int]) -> None:
    """The canary: two syscalls that hold the lock are not one that holds it."""
    assert swapped(maps, cpus, MapType.ARRAY, in_user_space) < 2 * SWAPS


LARGE = 4_096
WRITES = 256
"""In one batch: between two syscalls the interpreter's lock would keep the threads apart."""
BATCHES = 2_000


def mixed_values(
    maps: Maps, cpus: tuple[int, int], looking: Callable[[Served, TestMap, bytes], Callable[[], bytes]]
) -> int:
    """Of what is seen while another thread writes with BPF_F_LOCK, how many are of two values."""
    made = with_lock(maps, LARGE, MapType.ARRAY)
    key, ended = made.key(1), threading.Event()
    values = [bytes([letter]) * LARGE for letter in b"ab"]
    writes = made.columns([key] * WRITES, values * (WRITES // 2))
    mixed, looks = list[bytes](), list[int]()

    def write() -> None:
        for _ in range(BATCHES):
            batch = KERNEL.batch(made.fd, BatchCommand.UPDATE, writes, int(ElementFlag.LOCK))
            assert (batch.count, batch.errno) == (WRITES, 0)
        ended.set()

    with opened(made) as one:
        look = looking(one, made, key)
        assert KERNEL.batch(made.fd, BatchCommand.UPDATE, writes, int(ElementFlag.LOCK)).errno == 0

        def read() -> None:
            while not ended.is_set():
                value = look()[LOCK_AT + 4 :]
                looks.append(value[0])
                if value.count(value[:1]) != len(value):
                    mixed.append(value)

        together(cpus, write, read)
    assert set(looks) == set(b"ab"), "nothing was written beside the looks"
    return len(mixed)


def by_comparing(one: Served, _: TestMap, key: bytes) -> Callable[[], bytes]:
    """What is expected is never there, so nothing is written."""
    group = Group(count=1, ops=bytes([Op.COMPARE_UPDATE]), keys=key, values=bytes(2 * LARGE))
    return lambda: bytes(one.run(group).values.view)


def by_looking(_: Served, made: TestMap, key: bytes) -> Callable[[], bytes]:
    columns = made.columns([key])
    values = columns.values
    assert values is not None

    def look() -> bytes:
        assert KERNEL.each(made.fd, Op.LOOKUP, columns) == [0]
        return values.take(LARGE)

    return look


def test_a_value_is_never_compared_while_it_is_half_written(maps: Maps, cpus: tuple[int, int]) -> None:
    assert mixed_values(maps, cpus, by_comparing) == 0


def test_a_lookup_without_the_lock_sees_halves(maps: Maps, cpus: tuple[int, int]) -> None:
    """The canary."""
    assert mixed_values(maps, cpus, by_looking) > 0

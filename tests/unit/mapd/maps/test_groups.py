"""Groups are checked whole before the first syscall, then run in order, and each element is accounted for.

The kernel here is a dict: it proves what we do with Linux's answers, not what Linux answers.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.bpf import Buffer, Fault, FaultyKernel
from mapd.bpf.abi import Command
from mapd.bpf.elements import COMMANDS
from mapd.maps.answers import ElementFailure, element_error, element_reason
from mapd.maps.errors import MapError
from mapd.maps.execute import BATCH_FROM, execute
from mapd.maps.groups import Group, plan
from mapd.maps.job import Outcome
from mapd.maps.opened import OpenMap, operation_of
from mapd.maps.types import TYPES
from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, ATOMICS, MUTATES, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP, ElementFlag, MapType
from tests.unit.mapd.dictkernel import DictKernel, DictMap, described, n, raw_info

OF_PROGRAMS: Final = ATOMICS | {Op.COMPARE_UPDATE}
"""What a dict of bytes cannot do."""

UPDATE: Final = Command.MAP_UPDATE_ELEM
UPDATE_BATCH: Final = Command.MAP_UPDATE_BATCH


class Bench:
    """One open map on a dict kernel that rules can break."""

    def __init__(
        self,
        map_type: int = MapType.HASH,
        *,
        key_size: int = 4,
        max_entries: int = 1_000,
        read_only: bool = False,
    ) -> None:
        self.kernel = DictKernel()
        self.faulty = FaultyKernel(self.kernel)
        self.map = DictMap(raw_info(map_type, key_size=key_size, max_entries=max_entries))
        self.opened = self.kernel.open(self.map, read_only=read_only)

    def seems_writable(self) -> OpenMap:
        """The opening of a map that another program created with a read-only descriptor."""
        return replace(self.opened, read_only=False)

    def with_lock(self) -> OpenMap:
        """The opening of a map whose values have a bpf_spin_lock."""
        return replace(self.opened, facts=replace(self.opened.facts, has_lock=True))

    def run(self, group: Group, opened: OpenMap | None = None) -> Outcome:
        opened = opened or self.opened
        with opened.lease() as map_fd:
            return execute(self.faulty, map_fd, opened, plan(group, opened))

    def close(self) -> None:
        self.opened.fd.close()

    def seen(self) -> list[tuple[Command | type, int]]:
        return [(seen.target, seen.count) for seen in self.faulty.seen]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def updates(numbers: Sequence[int], op: Op = Op.UPDATE, flags: int = 0) -> Group:
    keys, values = b"".join(map(n, numbers)), b"".join(n(number + 100) for number in numbers)
    return Group(count=len(numbers), ops=bytes([op]), keys=keys, values=values, flags=flags)


def on_keys(numbers: Sequence[int], op: Op) -> Group:
    return Group(count=len(numbers), ops=bytes([op]), keys=b"".join(map(n, numbers)))


def locking(op: Op, count: int) -> Group:
    """A group that asks for the values' lock."""
    group = updates(range(count), op) if op in TAKES_VALUE else on_keys(range(count), op)
    return replace(group, flags=int(ElementFlag.LOCK))


def refusal(bench: Bench, group: Group, opened: OpenMap | None = None) -> MapError:
    with pytest.raises(MapError) as caught:
        plan(group, opened or bench.opened)
    assert bench.faulty.seen == ()
    return caught.value


# ---- plan: refused before any syscall ----------------------------------------------------------


@pytest.mark.parametrize("count", [0, limits.BATCH_ELEMENTS + 1])
def test_a_count_outside_the_limits_is_refused_with_the_limit(bench: Bench, count: int) -> None:
    error = refusal(bench, Group(count=count, ops=b"\x01", keys=bytes(4 * count)))
    assert error.reason is Reason.BAD_COLUMNS
    assert f"count is {count}; a group has 1 to {limits.BATCH_ELEMENTS} elements" in str(error)


@pytest.mark.parametrize("ops", [b"", b"\x01\x01", b"\x01" * 4])
def test_an_op_column_of_another_length_is_refused_with_both_numbers(bench: Bench, ops: bytes) -> None:
    error = refusal(bench, Group(count=3, ops=ops, keys=bytes(12)))
    assert error.reason is Reason.BAD_COLUMNS
    assert f"the op column has {len(ops)} bytes for 3 elements" in str(error)


@pytest.mark.parametrize("op", [0, 21, 255])
def test_a_byte_that_is_no_operation_is_refused_with_those_known(bench: Bench, op: int) -> None:
    error = refusal(bench, Group(count=2, ops=bytes([1, op]), keys=bytes(8)))
    assert error.reason is Reason.BAD_FLAGS
    assert f"{op} is no operation; this daemon knows 1 LOOKUP, 2 UPDATE" in str(error)


@pytest.mark.parametrize(
    ("keys", "reason", "message"),
    [
        (bytes(16), Reason.KEY_SIZE_MISMATCH, "keys of 8 bytes; this hash map's keys have 4 bytes"),
        (b"", Reason.KEY_SIZE_MISMATCH, "keys of 0 bytes; this hash map's keys have 4 bytes"),
        (bytes(9), Reason.BAD_COLUMNS, "the key column has 9 bytes; 2 keys of 4 bytes each are due"),
    ],
)
def test_a_key_column_of_another_size_is_refused_with_both_numbers(
    bench: Bench, keys: bytes, reason: Reason, message: str
) -> None:
    error = refusal(bench, Group(count=2, ops=b"\x01", keys=keys))
    assert error.reason is reason
    assert message in str(error)
    if reason is Reason.KEY_SIZE_MISMATCH:
        assert error.refusal.metadata["given"] == str(len(keys) // 2)
        assert error.refusal.metadata["expected"] == "4"


@pytest.mark.parametrize(
    ("op", "values", "reason", "message"),
    [
        (Op.UPDATE, bytes(2), Reason.VALUE_SIZE_MISMATCH, "values of 1 bytes; this hash map's values have 4 bytes"),
        (Op.UPDATE, bytes(7), Reason.BAD_COLUMNS, "the value column has 7 bytes; 2 values of 4 bytes each are due"),
        (Op.LOOKUP, bytes(8), Reason.BAD_COLUMNS, "the value column has 8 bytes; 0 values of 4 bytes each are due"),
        (Op.DELETE, bytes(8), Reason.BAD_COLUMNS, "the value column has 8 bytes; 0 values of 4 bytes each are due"),
    ],
)  # fmt: skip
def test_a_value_column_of_another_size_is_refused_with_both_numbers(
    bench: Bench, op: Op, values: bytes, reason: Reason, message: str
) -> None:
    error = refusal(bench, Group(count=2, ops=bytes([op]), keys=bytes(8), values=values))
    assert error.reason is reason
    assert message in str(error)
    assert error.refusal.metadata["map_type"] == "hash"


def test_a_per_cpu_value_without_its_slots_is_refused_with_a_hint() -> None:
    bench = Bench(MapType.PERCPU_HASH)
    error = refusal(bench, Group(count=1, ops=bytes([Op.UPDATE]), keys=bytes(4), values=bytes(4)))
    assert "values of 4 bytes; this percpu_hash map's values have 16 bytes" in str(error)
    assert "(a slot of 4, padded to a multiple of 8, for each possible CPU)" in str(error)
    bench.close()


@pytest.mark.parametrize("flags", [1, 2, 5, 8, 1 << 31])
def test_flags_other_than_lock_are_refused(bench: Bench, flags: int) -> None:
    error = refusal(bench, updates([1], flags=flags))
    assert error.reason is Reason.BAD_FLAGS
    assert f"flags {flags:#x}; " in str(error)
    assert "BPF_F_LOCK (4) or 0" in str(error)


@pytest.mark.parametrize("op", [Op.LOOKUP, Op.UPDATE, Op.LOOKUP_AND_DELETE])
def test_a_lock_that_the_value_does_not_have_is_refused(bench: Bench, op: Op) -> None:
    group = locking(op, 2)
    error = refusal(bench, group)
    assert error.reason is Reason.BAD_FLAGS
    assert "flags 0x4; BPF_F_LOCK needs a bpf_spin_lock" in str(error)
    assert plan(group, bench.with_lock()).group is group


@pytest.mark.parametrize("ops", [[Op.DELETE], [Op.LOOKUP, Op.DELETE]])
@pytest.mark.parametrize("has_lock", [False, True])
def test_a_delete_takes_no_lock(bench: Bench, ops: list[Op], has_lock: bool) -> None:
    group = Group(count=2, ops=bytes(ops), keys=bytes(8), flags=int(ElementFlag.LOCK))
    error = refusal(bench, group, bench.with_lock() if has_lock else bench.opened)
    assert error.reason is Reason.BAD_FLAGS
    assert "BPF_F_LOCK is for lookups and updates" in str(error)


def test_an_operation_that_the_type_lacks_is_refused_with_what_it_has() -> None:
    bench = Bench(MapType.ARRAY)
    error = refusal(bench, Group(count=2, ops=bytes([Op.LOOKUP, Op.DELETE]), keys=bytes(8)))
    assert error.reason is Reason.OPERATION_UNSUPPORTED
    assert str(error).startswith("delete map 41 (flows): ")
    assert "array maps have no delete; they have lookup, update," in str(error)
    bench.close()


def test_a_type_whose_elements_are_not_served_is_refused() -> None:
    bench = Bench(MapType.RINGBUF)
    error = refusal(bench, on_keys([1], Op.LOOKUP))
    assert error.reason is Reason.OPERATION_UNSUPPORTED
    assert "lookup map 41 (flows): ringbuf maps: it holds records, not elements" in str(error)
    assert error.refusal.metadata["map_type"] == "ringbuf"
    bench.close()


KEYLESS: Final = {
    **dict.fromkeys((Op.PUSH, Op.PUSH_EXIST, Op.POP), MapType.QUEUE),
    Op.ADD: MapType.BLOOM_FILTER,
}
"""Mutations that only types without keys have."""


@pytest.mark.parametrize(
    "op", sorted(MUTATES.intersection(op for traits in TYPES.values() for op in traits.ops))
)
def test_any_mutation_through_a_read_only_opening_is_refused_whole(op: Op) -> None:
    kind = KEYLESS.get(op, MapType.HASH)
    read = min(TYPES[kind].ops - MUTATES)
    bench = Bench(kind, key_size=0 if op in KEYLESS else 4, read_only=True)
    values = bytes(4 * ((op in TAKES_VALUE) + (read in TAKES_VALUE)))
    keys = bytes(2 * bench.map.info.key_size)
    group = Group(count=2, ops=bytes([read, op]), keys=keys, values=values)
    error = refusal(bench, group, bench.with_lock() if op is Op.COMPARE_UPDATE else None)
    assert error.reason is Reason.READ_ONLY
    assert f"{operation_of(op)} map 41 (flows): opened read-only" in str(error)
    bench.close()


def test_an_answer_that_fits_no_message_is_refused_with_how_many_do() -> None:
    kernel = DictKernel()
    opened = kernel.open(DictMap(raw_info(value_size=4_096)))
    with pytest.raises(MapError, match=r"1009 values of 4096 bytes.* at most 1008 ") as caught:
        plan(on_keys(range(1_009), Op.LOOKUP), opened)
    assert caught.value.reason is Reason.BAD_COLUMNS
    assert plan(on_keys(range(1_008), Op.LOOKUP), opened).answer_bytes == limits.COLUMN_BYTES
    opened.fd.close()


# ---- execute -----------------------------------------------------------------------------------


def model(elements: dict[bytes, bytes], full: int, ops: bytes, keys: bytes, values: bytes) -> Outcome:
    """What a group must do, one element at a time, on a dict."""
    statuses, answers, taken = bytearray(), b"", 0
    for index, byte in enumerate(ops):
        op, key = Op(byte), keys[4 * index : 4 * index + 4]
        value = values[4 * taken : 4 * taken + 4] if op in TAKES_VALUE else b""
        taken += op in TAKES_VALUE
        there = elements.get(key)
        status = Reason.DONE
        if there is None and op in {Op.LOOKUP, Op.DELETE, Op.LOOKUP_AND_DELETE}:
            status = Reason.KEY_ABSENT
        elif there is None and op is Op.UPDATE_EXIST:
            status = Reason.KEY_MISSING
        elif there is not None and op is Op.UPDATE_NOEXIST:
            status = Reason.KEY_EXISTS
        elif there is None and op in TAKES_VALUE and len(elements) >= full:
            status = Reason.MAP_FULL
        elif op in TAKES_VALUE:
            elements[key] = value
        elif op in {Op.DELETE, Op.LOOKUP_AND_DELETE}:
            del elements[key]
        if op in ANSWERS_VALUE:
            answers += there or bytes(4)
        statuses.append(status)
    return Outcome(statuses, Buffer.of(answers))


hash_ops = st.sampled_from(sorted(TYPES[MapType.HASH].ops - OF_PROGRAMS))
columns_of_ops = st.lists(st.tuples(hash_ops, st.integers(0, 5)), min_size=1, max_size=40)


@given(columns_of_ops, st.integers(1, 6))
def test_any_op_column_does_what_one_operation_after_another_does(
    elements: list[tuple[Op, int]], max_entries: int
) -> None:
    bench = Bench(max_entries=max_entries)
    ops = bytes(op for op, _ in elements)
    keys = b"".join(n(key) for _, key in elements)
    values = b"".join(n(1_000 + index) for index, (op, _) in enumerate(elements) if op in TAKES_VALUE)
    expected: dict[bytes, bytes] = {}
    wanted = model(expected, max_entries, ops, keys, values)
    outcome = bench.run(Group(count=len(ops), ops=ops, keys=keys, values=values))
    assert list(outcome.statuses) == list(wanted.statuses)
    assert bytes(outcome.values.view) == bytes(wanted.values.view)
    assert bench.map.elements == expected
    bench.close()


def test_one_op_byte_stands_for_all_elements(bench: Bench) -> None:
    bench.run(updates([1, 2, 3]))
    assert bench.run(on_keys([1, 2, 3], Op.LOOKUP)).values.view == n(101) + n(102) + n(103)


def test_long_runs_of_updates_and_deletes_are_one_batch_each(bench: Bench) -> None:
    numbers = range(BATCH_FROM)
    keys = b"".join(map(n, [*numbers, *numbers, 0]))
    ops = bytes([Op.UPDATE] * BATCH_FROM + [Op.DELETE] * BATCH_FROM + [Op.LOOKUP])
    outcome = bench.run(
        Group(count=len(ops), ops=ops, keys=keys, values=bytes(4 * BATCH_FROM)),
    )
    assert list(outcome.statuses) == [0] * (2 * BATCH_FROM) + [Reason.KEY_ABSENT]
    assert bench.seen() == [
        (UPDATE_BATCH, BATCH_FROM),
        (Command.MAP_DELETE_BATCH, BATCH_FROM),
        (Command.MAP_LOOKUP_ELEM, 1),
    ]


@pytest.mark.parametrize("op", [Op.UPDATE_NOEXIST, Op.UPDATE_EXIST])
def test_conditional_updates_never_run_as_a_batch_which_would_ignore_the_condition(
    bench: Bench, op: Op
) -> None:
    bench.run(updates(range(10), op))
    assert bench.seen() == [(UPDATE, 10)]


def test_short_runs_are_single_syscalls(bench: Bench) -> None:
    bench.run(updates(range(BATCH_FROM - 1)))
    assert bench.seen() == [(UPDATE, BATCH_FROM - 1)]


def test_arrays_have_no_delete_batch_and_their_updates_are_batched() -> None:
    bench = Bench(MapType.ARRAY, max_entries=8)
    assert not any(bench.run(updates(range(8))).statuses)
    assert bench.seen() == [(UPDATE_BATCH, 8)]
    bench.close()


def test_a_batch_that_stops_goes_on_behind_the_element_that_failed() -> None:
    bench = Bench(max_entries=6)
    outcome = bench.run(updates([0, 1, 2, 3, 4, 5, 6, 7, 0, 1]))
    full = Reason.MAP_FULL
    assert list(outcome.statuses) == [0] * 6 + [full, full] + [0, 0]
    assert outcome.errors == [ElementFailure(6, full, errno.E2BIG), ElementFailure(7, full, errno.E2BIG)]
    assert [count for _, count in bench.seen()] == [10, 3, 2]
    bench.close()


def test_a_batch_that_the_kernel_cuts_short_without_a_reason_is_continued(bench: Bench) -> None:
    bench.faulty.add(Fault(target=UPDATE_BATCH, nth=1, done=3))
    assert not any(bench.run(updates(range(10))).statuses)
    assert [count for _, count in bench.seen()] == [10, 7]
    assert len(bench.map.elements) == 10


def test_a_batch_that_does_nothing_and_gives_no_reason_ends_instead_of_looping(bench: Bench) -> None:
    bench.faulty.add(Fault(target=UPDATE_BATCH, done=0))
    with pytest.raises(MapError, match="did nothing and gave no reason") as caught:
        bench.run(updates(range(10)))
    assert caught.value.reason is Reason.INTERNAL


def test_a_delete_batch_notes_the_keys_that_were_absent(bench: Bench) -> None:
    bench.map.fill(3)
    outcome = bench.run(on_keys([0, 9, 1, 8, 2], Op.DELETE))
    absent = Reason.KEY_ABSENT
    assert list(outcome.statuses) == [0, absent, 0, absent, 0]
    assert outcome.errors == []
    assert bench.map.elements == {}


def test_only_the_first_failures_come_with_their_errno_and_all_have_a_status() -> None:
    bench = Bench(max_entries=1)
    outcome = bench.run(updates(range(100)))
    assert outcome.statuses.count(Reason.MAP_FULL) == 99
    assert [failure.index for failure in outcome.errors] == list(range(1, limits.ERROR_DETAILS + 1))
    bench.close()


# ---- the map as a whole refuses ----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10], ids=["each", "batch"])
def test_a_frozen_map_refuses_the_group_and_nothing_of_it_was_executed(bench: Bench, count: int) -> None:
    bench.map.info = replace(bench.map.info, frozen=True)
    with pytest.raises(MapError, match="the map is frozen") as caught:
        bench.run(updates(range(count)))
    assert caught.value.reason is Reason.MAP_FROZEN
    assert caught.value.refusal.metadata["errno"] == "EPERM"
    assert bench.map.elements == {}


@pytest.mark.parametrize("count", [1, 10], ids=["each", "batch"])
def test_a_map_created_with_a_read_only_descriptor_refuses_as_read_only(count: int) -> None:
    bench = Bench(read_only=True)
    with pytest.raises(MapError, match="BPF_F_RDONLY") as caught:
        bench.run(updates(range(count)), bench.seems_writable())
    assert caught.value.reason is Reason.READ_ONLY
    bench.close()


@pytest.mark.parametrize(
    ("target", "count"), [(UPDATE, 3), (UPDATE_BATCH, 10)], ids=["each", "batch"]
)  # fmt: skip
def test_a_map_frozen_in_the_middle_gives_the_rest_that_status(
    bench: Bench, target: Command, count: int
) -> None:
    def freeze() -> None:
        bench.map.info = replace(bench.map.info, frozen=True)

    done = 0 if target is UPDATE else 2
    nth = 3 if target is UPDATE else 1
    fault = Fault(target=target, nth=nth, failpoint=freeze, errno=errno.EPERM, done=done or None)
    # The first two elements are written; in a batch, by the part that the rule lets through.
    if target is UPDATE_BATCH:
        fault = Fault(target=target, nth=1, after=True, failpoint=freeze, errno=errno.EPERM, done=2)
    bench.faulty.add(fault)
    ops = bytes([Op.UPDATE] * count + [Op.LOOKUP])
    keys = b"".join(map(n, [*range(count), 0]))
    outcome = bench.run(Group(count=count + 1, ops=ops, keys=keys, values=bytes(4 * count)))
    assert list(outcome.statuses) == [0, 0] + [Reason.MAP_FROZEN] * (count - 1)
    assert outcome.errors[0] == ElementFailure(2, Reason.MAP_FROZEN, errno.EPERM)
    assert set(bench.map.elements) == {n(0), n(1)}


def test_reads_before_the_first_mutation_count_as_executed(bench: Bench) -> None:
    bench.map.fill(1)
    bench.map.info = replace(bench.map.info, frozen=True)
    keys = n(0) + n(1)
    outcome = bench.run(Group(count=2, ops=bytes([Op.LOOKUP, Op.UPDATE]), keys=keys, values=n(7)))
    assert list(outcome.statuses) == [0, Reason.MAP_FROZEN]
    assert outcome.values.view == n(100)


def test_a_batch_command_that_the_kernel_lacks_falls_back_to_single_syscalls(bench: Bench) -> None:
    bench.faulty.add(Fault(target=UPDATE_BATCH, errno=ENOTSUPP))
    assert not any(bench.run(updates(range(10))).statuses)
    assert bench.seen() == [(UPDATE_BATCH, 10), (UPDATE, 10)]
    assert len(bench.map.elements) == 10


@pytest.mark.parametrize("number", [ENOTSUPP, errno.EOPNOTSUPP])
def test_an_operation_that_the_kernel_lacks_is_unsupported(bench: Bench, number: int) -> None:
    bench.faulty.add(Fault(target=Command.MAP_LOOKUP_AND_DELETE_ELEM, errno=number))
    with pytest.raises(MapError, match="this kernel has no such operation for hash maps") as caught:
        bench.run(on_keys([1], Op.LOOKUP_AND_DELETE))
    assert caught.value.reason is Reason.OPERATION_UNSUPPORTED


# ---- errnos of elements ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN])
@pytest.mark.parametrize("count", [1, 10], ids=["each", "batch"])
def test_a_busy_kernel_leaves_the_element_undone_and_says_so(bench: Bench, number: int, count: int) -> None:
    bench.faulty.add(Fault(target=UPDATE, nth=1, errno=number))
    bench.faulty.add(Fault(target=UPDATE_BATCH, nth=1, errno=number))
    outcome = bench.run(updates(range(count)))
    assert list(outcome.statuses) == [Reason.BUSY] + [0] * (count - 1)
    assert n(0) not in bench.map.elements


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_an_element_that_a_batch_stopped_at_busy_is_tried_again(bench: Bench, number: int) -> None:
    bench.faulty.add(Fault(target=UPDATE_BATCH, nth=1, errno=number, done=4))
    assert not any(bench.run(updates(range(10))).statuses)
    assert bench.seen() == [(UPDATE_BATCH, 10), (UPDATE, 1), (UPDATE_BATCH, 5)]
    assert len(bench.map.elements) == 10


@pytest.mark.parametrize("count", [1, 10], ids=["each", "batch"])
def test_no_kernel_memory_is_told_per_element(bench: Bench, count: int) -> None:
    bench.faulty.add(Fault(target=UPDATE, nth=1, errno=errno.ENOMEM))
    bench.faulty.add(Fault(target=UPDATE_BATCH, nth=1, errno=errno.ENOMEM, done=0))
    outcome = bench.run(updates(range(count)))
    assert outcome.errors == [ElementFailure(0, Reason.KERNEL_MEMORY, errno.ENOMEM)]
    assert outcome.statuses.count(0) == count - 1


@pytest.mark.parametrize(
    ("map_type", "op", "number", "reason"),
    [
        *((MapType.HASH, op, errno.ENOENT, Reason.KEY_ABSENT) for op in Op if op not in TAKES_VALUE),
        (MapType.HASH, Op.UPDATE_EXIST, errno.ENOENT, Reason.KEY_MISSING),
        (MapType.HASH, Op.UPDATE, errno.ENOENT, Reason.INTERNAL),
        (MapType.HASH, Op.UPDATE_NOEXIST, errno.ENOENT, Reason.INTERNAL),
        *((MapType.ARRAY, op, errno.ENOENT, Reason.INDEX_OUT_OF_RANGE) for op in Op),
        *((MapType.PERCPU_ARRAY, op, errno.E2BIG, Reason.INDEX_OUT_OF_RANGE) for op in TAKES_VALUE),
        *((map_type, op, errno.EEXIST, Reason.KEY_EXISTS) for map_type in MapType for op in Op),
        *((MapType.HASH, op, errno.E2BIG, Reason.MAP_FULL) for op in Op),
        *((MapType.LPM_TRIE, op, errno.ENOSPC, Reason.MAP_FULL) for op in Op),
        *((MapType.HASH, op, errno.ENOMEM, Reason.KERNEL_MEMORY) for op in Op),
        *((MapType.HASH, op, errno.EINVAL, Reason.BAD_COLUMNS) for op in Op),
        *(
            (MapType.HASH, op, number, Reason.BUSY)
            for op in Op
            for number in (errno.EBUSY, errno.EAGAIN, errno.EINTR)
        ),
        *((MapType.HASH, op, number, Reason.INTERNAL) for op in Op for number in (errno.EIO, errno.EFAULT)),
    ],
)
def test_each_errno_has_the_reason_of_the_table(
    map_type: MapType, op: Op, number: int, reason: Reason
) -> None:
    assert element_reason(described(map_type), op, number) is reason


@pytest.mark.parametrize("op", [Op.LOOKUP, Op.UPDATE, Op.LOOKUP_AND_DELETE])
@pytest.mark.parametrize("count", [1, BATCH_FROM])
def test_a_lock_that_the_kernel_does_not_take_is_a_bad_flag(bench: Bench, op: Op, count: int) -> None:
    bench.faulty.add(Fault(target=COMMANDS[op], errno=errno.EINVAL))
    bench.faulty.add(Fault(target=UPDATE_BATCH, errno=errno.EINVAL))
    group = locking(op, count)
    outcome = bench.run(group, bench.with_lock())
    assert set(outcome.statuses) == {Reason.BAD_FLAGS}


@pytest.mark.parametrize(
    ("map_type", "op", "reason", "number", "words"),
    [
        (MapType.HASH, Op.UPDATE, Reason.MAP_FULL, errno.E2BIG, "full, 1000 of max_entries=1000"),
        (MapType.LPM_TRIE, Op.UPDATE, Reason.MAP_FULL, errno.ENOSPC, "full, 1000 of max_entries=1000"),
        (MapType.ARRAY, Op.LOOKUP, Reason.INDEX_OUT_OF_RANGE, errno.ENOENT, "indexes go from 0 to 999"),
        (MapType.ARRAY, Op.UPDATE_NOEXIST, Reason.KEY_EXISTS, errno.EEXIST, "all exist from the start"),
        (MapType.HASH, Op.UPDATE_NOEXIST, Reason.KEY_EXISTS, errno.EEXIST, "NOEXIST was asked for"),
        (MapType.HASH, Op.UPDATE_EXIST, Reason.KEY_MISSING, errno.ENOENT, "EXIST was asked for"),
        (MapType.HASH, Op.UPDATE, Reason.KERNEL_MEMORY, errno.ENOMEM, "no memory for another element"),
        (MapType.HASH, Op.DELETE, Reason.BUSY, errno.EBUSY, "busy three times; nothing was changed"),
        (MapType.LPM_TRIE, Op.LOOKUP, Reason.BAD_COLUMNS, errno.EINVAL, "a prefix length above 32 bits"),
        (MapType.HASH, Op.UPDATE, Reason.BAD_COLUMNS, errno.EINVAL, "refuses this key or value"),
        (MapType.HASH, Op.UPDATE, Reason.BAD_FLAGS, errno.EINVAL, "BPF_F_LOCK needs a bpf_spin_lock"),
        (MapType.HASH, Op.UPDATE, Reason.INTERNAL, errno.EIO, "unexpected answer of the kernel"),
    ],
)
def test_a_refused_element_says_operation_map_errno_and_numbers(
    map_type: MapType, op: Op, reason: Reason, number: int, words: str
) -> None:
    error = element_error(described(map_type, key_size=8), op, ElementFailure(0, reason, number))
    word = "update" if op in TAKES_VALUE else op.name.lower()
    assert error.reason is reason
    assert str(error).startswith(f"{word} map 41 (flows): ")
    assert str(error).endswith(f"[{errno.errorcode[number]}]")
    assert words in str(error)
    assert dict(error.refusal.metadata) == {
        "operation": word,
        "map": "map 41 (flows)",
        "map_type": map_type.name.lower(),
        "errno": errno.errorcode[number],
        "max_entries": "1000",
    }

"""What a vector program must never change: freeze, access modes, recency; and what others left in the scratch."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from mapd.bpf import (
    CreateMap,
    Fault,
    FaultyKernel,
    FdLease,
    LinuxKernel,
    LoadBtf,
    LoadTemplate,
    OpenId,
    Template,
    load_program,
)
from mapd.bpf.abi import Command
from mapd.bpf.kernel import ControlRequest, R
from mapd.bpf.vector import Vector as Assembly
from mapd.bpf.vector_columns import write_ops
from mapd.maps.errors import MapError
from mapd.maps.execute import execute
from mapd.maps.groups import Plan
from mapd.maps.program_trials import LOCK_BTF
from mapd.maps.vector import Vector
from mapd.maps.vector_run import Program, Work, run
from mapd.maps.widths import Widths
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps
from tests.kernel.vectors import KINDS, Kind, Served, served, vectors

pytestmark = pytest.mark.usefixtures("one_cpu")

FREEZE = """
import sys
from mapd.bpf import FreezeMap, LinuxKernel, OpenId
with LinuxKernel().control(OpenId(map_id=int(sys.argv[1]))) as owned, owned.lease() as map_fd:
    LinuxKernel().control(FreezeMap(), [map_fd])
"""
LRU = (Kind(MapType.LRU_HASH, max_entries=4_096), Kind(MapType.LRU_PERCPU_HASH, max_entries=4_096))
HASH = Kind(MapType.HASH)


def freeze_elsewhere(map_id: int) -> None:
    """In a process that mapd knows nothing of."""
    subprocess.run([sys.executable, "-c", FREEZE, str(map_id)], check=True)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_map_that_another_process_froze_is_looked_up_and_not_written(kind: Kind) -> None:
    with vectors() as programs, served(kind.create, programs) as fast, served(kind.create) as slow:
        planted = kind.group([(Op.UPDATE, key, key) for key in range(4)])
        assert fast.told(planted) == slow.told(planted)
        before, looking = fast.content(), [(Op.LOOKUP, key, 0) for key in range(4)]
        for one in (fast, slow):
            freeze_elsewhere(one.opened.facts.id)
        for op in kind.ops[1:]:
            rows = [(op, key % 4, 99) for key in range(300)]
            assert fast.told(kind.group(rows[:1])) == (Reason.MAP_FROZEN, "EPERM")
            # Lookups before the first refusal are answered.
            for group in (rows, looking + rows + looking, [*looking, rows[0]]):
                assert fast.told(kind.group(group)) == slow.told(kind.group(group))
        assert fast.content() == before
        assert set(fast.run(kind.group(looking)).statuses) == {0}


@pytest.mark.parametrize("looked_up", [1, 4_097])
def test_a_single_lookup_before_what_only_syscalls_do_is_answered_on_a_frozen_map(looked_up: int) -> None:
    """A piece, or the last run of one, that is one lookup: its column of operations has one byte."""
    with vectors() as programs, served(HASH.create, programs) as fast, served(HASH.create) as slow:
        rows = [(Op.LOOKUP, at % 5, 0) for at in range(looked_up)]
        group = HASH.group([*rows, (Op.LOOKUP_AND_DELETE, 1, 0), (Op.UPDATE, 1, 9)])
        for one in (fast, slow):
            one.run(HASH.group([(Op.UPDATE, key, key) for key in range(4)]))
            freeze_elsewhere(one.opened.facts.id)
        told = fast.told(group)
        assert told == slow.told(group)
        assert isinstance(told[0], bytes)
        assert told[0][-2:] == bytes([Reason.MAP_FROZEN] * 2)
        assert Reason.MAP_FROZEN not in told[0][:-2]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_opening_that_only_reads_writes_by_no_path(kind: Kind) -> None:
    with vectors() as programs, served(kind.create, programs) as writer:
        writer.run(kind.group([(Op.UPDATE, key, key) for key in range(4)]))
        before, map_id = writer.content(), writer.opened.facts.id
        stolen = stolen_program(writer)
        with (
            KERNEL.control(OpenId(map_id=map_id, read_only=True)) as owned,
            owned.lease() as fd,
            served(fd, programs, read_only=True) as reader,
            stolen as prog_fd,
        ):
            assert reader.opened.vector is not None
            assert reader.opened.vector.load(KERNEL, reader.map_fd, writes=True) is None
            found = reader.run(kind.group([(Op.LOOKUP, key, 0) for key in range(4)]))
            assert set(found.statuses) == {0}
            for op in kind.ops[1:]:
                group = kind.group([(op, 1, 99)])
                assert reader.told(group) == (Reason.READ_ONLY, None)
                # Past the check that refuses it, the kernel is asked with this opening's descriptor: by syscall ...
                stride = reader.opened.facts.value_stride
                answered = stride if op is Op.LOOKUP_AND_DELETE else 0
                unchecked = Plan(group, frozenset({op}), Widths(stride), answered)
                with pytest.raises(MapError) as refused:
                    execute(KERNEL, reader.map_fd, reader.opened, unchecked)
                assert refused.value.reason is Reason.READ_ONLY
                # ... and before the program of the other opening is run.
                if op in write_ops(kind.map_type):
                    assert writer.opened.vector is not None
                    program = Program(writer.opened.vector, prog_fd, True, frozenset(kind.ops))
                    ran = run(KERNEL, reader.map_fd, program, Work(group.ops, group.keys, group.values, 1))
                    assert (ran.errnos, ran.refused) == (b"", errno.EPERM)
        assert writer.content() == before


def stolen_program(writer: Served) -> FdLease:
    assert writer.opened.vector is not None
    lease = writer.opened.vector.load(KERNEL, writer.map_fd, writes=True)
    assert lease is not None
    return lease


def survivors(kind: Kind, *, vector: bool, touch: bool) -> int:
    """How many of 1,000 old keys are there still, read again before 1,500 new ones push others out."""
    with vectors() as programs, served(kind.create, programs if vector else None) as one:
        keys = range(4_096)
        for start in range(0, 4_096, 1_024):
            one.run(kind.group([(Op.UPDATE, key, 1) for key in keys[start : start + 1_024]]))
        one.run(kind.group([(Op.LOOKUP, key, 0) for key in range(1_000)], touch=touch))
        one.run(kind.group([(Op.UPDATE, key, 1) for key in range(5_000, 6_500)]))
        there = one.content()
        return sum(kind.key(key) in there for key in range(1_000))


@pytest.mark.parametrize("kind", LRU, ids=str)
def test_lookups_refresh_recency_where_they_are_to_and_nowhere_else(kind: Kind) -> None:
    assert survivors(kind, vector=True, touch=True) > 900
    assert survivors(kind, vector=True, touch=False) < 100
    assert survivors(kind, vector=False, touch=False) < 100


@pytest.mark.parametrize("kind", LRU, ids=str)
def test_touch_is_refused_where_no_program_can_do_it(kind: Kind) -> None:
    looking = [(Op.UPDATE, 1, 1), (Op.LOOKUP, 1, 0)]
    refusing = FaultyKernel(KERNEL, Fault(target=LoadTemplate, errno=errno.EPERM))
    with served(kind.create) as plain, vectors(refusing) as programs:
        with pytest.raises(MapError, match="touch"):
            plain.run(kind.group(looking, touch=True))
        with served(plain.map_fd, programs, kernel=refusing) as without:
            with pytest.raises(MapError, match="touch") as refused:
                without.run(kind.group(looking, touch=True))
            assert refused.value.reason is Reason.OPERATION_UNSUPPORTED
        assert plain.content() == {}


def test_touch_means_nothing_where_nothing_is_evicted_and_no_lookup() -> None:
    with served(HASH.create) as plain, served(LRU[0].create) as lru:
        assert plain.told(HASH.group([(Op.LOOKUP, 1, 0)], touch=True)) == (b"\x01", (), ())
        assert lru.told(HASH.group([(Op.DELETE, 1, 0)], touch=True)) == (b"\x01", (), ())


def test_one_cpus_slot_cannot_be_touched() -> None:
    kind = LRU[1]
    with vectors() as programs, served(kind.create, programs) as fast:
        group = replace(kind.group([(Op.LOOKUP, 1, 0)], touch=True), cpu=0)
        with pytest.raises(MapError, match="name no CPU"):
            fast.run(group)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_miss_answers_zeros_whatever_was_in_the_scratch(kind: Kind) -> None:
    with vectors(slots=1) as programs, served(kind.create, programs) as fast:
        assert programs.scratch is not None
        there, absent = (
            0,
            6 if kind.map_type is MapType.LPM_TRIE else 13,
        )  # key 0 of a trie covers all that can be
        fast.run(kind.group([(Op.UPDATE, there, 7)]))
        for rows in (
            [(Op.LOOKUP, absent, 0)] * 50,
            [(Op.LOOKUP, absent, 0), (Op.UPDATE, there, 7), (Op.LOOKUP, there, 0), (Op.LOOKUP, absent, 0)]
            * 9,
        ):
            with programs.scratch.slot() as slot:
                slot.memory.view[:] = b"\xaa" * slot.memory.size
            group = replace(kind.group(rows), touch=True)
            outcome = fast.run(group)
            stride = fast.opened.facts.value_stride
            answers = [outcome.values.take(stride, at) for at in range(0, outcome.values.size, stride)]
            looked = [key for op, key, _ in rows if op is Op.LOOKUP]
            assert [answer == bytes(stride) for answer in answers] == [key != there for key in looked]
            assert b"\xaa" * 3 not in bytes(outcome.values.view)


def test_what_was_not_executed_answers_zeros() -> None:
    kind = HASH
    with vectors(slots=1) as programs, served(kind.create, programs) as fast:
        assert programs.scratch is not None
        fast.run(kind.group([(Op.UPDATE, 1, 7)]))
        freeze_elsewhere(fast.opened.facts.id)
        with programs.scratch.slot() as slot:
            slot.memory.view[:] = b"\xaa" * slot.memory.size
        rows = [(Op.LOOKUP, 1, 0), (Op.UPDATE, 1, 9), (Op.LOOKUP, 1, 0), (Op.LOOKUP, 1, 0)]
        outcome = fast.run(kind.group(rows))
        assert list(outcome.statuses) == [0] + [Reason.MAP_FROZEN] * 3
        assert bytes(outcome.values.view) == kind.value(7) + bytes(16)


class EveryHitPasses(LinuxKernel):
    """Loads the program that writes as one that ends its run at EEXIST and ENOENT, as it does at EBUSY."""

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        made: object = request
        if not isinstance(made, LoadTemplate) or made.template != Template.VECTOR_WRITE:
            return super().control(request, fds)
        vector = replace(Assembly.of(made, writes=True), passing=(errno.EEXIST, errno.ENOENT))
        asm = vector.assemble(fds[0], fds[1])
        return cast("R", load_program(asm.assemble(), vector.program_type, callbacks=asm.callbacks))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_element_that_is_tried_again_keeps_its_place(kind: Kind) -> None:
    """Runs that end at every third element or so, for an errno that a test can bring about."""
    rows = [(kind.ops[at * 7 % 5 % len(kind.ops)], at * 5 % 12, at % 256) for at in range(700)]
    stopping = FaultyKernel(EveryHitPasses())
    with (
        vectors(stopping) as programs,
        served(kind.create, programs, kernel=stopping) as fast,
        served(kind.create) as slow,
    ):
        group = kind.group(rows)
        assert fast.told(group) == slow.told(group)
        assert fast.content() == slow.content()
    assert sum(seen.target is Command.PROG_TEST_RUN for seen in stopping.seen) > 50


def test_an_element_that_stays_busy_is_told_and_the_rest_goes_on() -> None:
    kind = HASH
    busy = Fault(target=Command.MAP_UPDATE_ELEM, errno=errno.EBUSY)
    stopping = FaultyKernel(EveryHitPasses())
    with vectors(stopping) as programs, served(kind.create, programs, kernel=stopping) as fast:
        fast.run(kind.group([(Op.UPDATE, 1, 7)]))
        stopping.add(busy)
        rows = [(Op.UPDATE_NOEXIST, key, 9) for key in range(4)]
        outcome = fast.run(kind.group([*rows, (Op.LOOKUP, 1, 0)]))
        assert list(outcome.statuses) == [0, Reason.BUSY, 0, 0, 0]
        assert [(one.index, one.reason, one.errno) for one in outcome.errors] == [
            (1, Reason.BUSY, errno.EBUSY)
        ]
        assert outcome.values.take(8) == kind.value(7)


@pytest.mark.parametrize(
    ("flags", "served_by_programs"),
    [
        (MapFlag.RDONLY, True),
        (MapFlag.WRONLY, False),
        (MapFlag.RDONLY_PROG, False),
        (MapFlag.WRONLY_PROG, False),
    ],
)
def test_maps_that_programs_may_not_reach_are_left_to_syscalls(
    flags: MapFlag, served_by_programs: bool
) -> None:
    with vectors() as programs, served(replace(HASH, flags=int(flags)).create, programs) as one:
        assert (one.opened.vector is not None) is served_by_programs


def test_a_map_with_a_lock_is_left_to_syscalls(maps: Maps) -> None:
    with KERNEL.control(LoadBtf(blob=LOCK_BTF)) as btf, btf.lease() as btf_fd:
        create = CreateMap(
            map_type=MapType.HASH,
            key_size=4,
            value_size=8,
            max_entries=4,
            with_btf=True,
            btf_key_type_id=1,
            btf_value_type_id=3,
        )
        made = maps.adopt(KERNEL.control(create, [btf_fd]))
    with vectors() as programs, served(made.fd, programs) as one:
        assert one.opened.facts.has_lock
        assert one.opened.vector is None
        # And if nobody had looked for the lock, the verifier would: a program may not read it.
        found = Vector.of(one.opened.programs, replace(one.opened.facts, has_lock=False), made.fd)
        assert found is not None
        assert found.load(KERNEL, made.fd, writes=False) is None
        assert found.load(KERNEL, made.fd, writes=True) is None


@pytest.mark.parametrize(("number", "asked"), [(errno.EACCES, 1), (errno.EAGAIN, 5)])
def test_a_program_that_is_refused_is_not_asked_for_again_unless_for_want_of_something(
    number: int, asked: int
) -> None:
    refusing = FaultyKernel(KERNEL, Fault(target=LoadTemplate, errno=number))
    with vectors(refusing) as programs, served(HASH.create, programs, kernel=refusing, load=False) as one:
        for _ in range(5):
            rows = [(Op.UPDATE, key % 4, 1) for key in range(300)]
            assert set(one.run(HASH.group(rows)).statuses) == {0}
    assert sum(seen.target is LoadTemplate for seen in refusing.seen) == asked

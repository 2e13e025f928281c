"""Programs that a daemon keeps: bounded, shared by a map's openings, gone with the last, never closed under a run."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from mapd.bpf import Fault, FaultyKernel, FreezeMap, LoadTemplate, OpenId, ProgramInfo, possible_cpus
from mapd.maps.errors import MapError
from mapd.maps.program_trials import names_of, try_programs
from mapd.maps.spec import MapSpec
from mapd.maps.store import MapStore, NameRef
from mapd.memory import MemoryKernel
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL
from tests.kernel.vectors import Kind, Served, served, vectors
from tests.support.counts import no_map_left_behind, nothing_left_behind

HASH = Kind(MapType.HASH, max_entries=4_096)
pytestmark = pytest.mark.alone  # counts maps by names that other tests and daemons give too


def lookup(one: Served, key: int = 1) -> int:
    return one.run(HASH.group([(Op.LOOKUP, key, 0)])).statuses[0]


def test_programs_are_as_many_as_they_may_be_and_the_latest_used_stay() -> None:
    with vectors(most=3) as programs, ExitStack() as stack:
        maps = [stack.enter_context(served(HASH.create, programs, load=False)) for _ in range(5)]
        for number, one in enumerate(maps):
            for _ in range(3):
                one.run(HASH.group([(Op.LOOKUP, key, 0) for key in range(100)]))
            assert programs.loaded == min(3, number + 1)
        held = {number for number, one in enumerate(maps) if one.opened.programs.loaded}
        assert held == {2, 3, 4}
        lookup(maps[2])
        maps[0].load()
        held = {number for number, one in enumerate(maps) if one.opened.programs.loaded}
        assert held == {0, 2}
        # One whose program was closed goes on, by syscall or with it loaded anew.
        assert all(lookup(one) == Reason.KEY_ABSENT for one in maps)
        assert programs.loaded == 3


def test_a_program_is_not_closed_under_a_run() -> None:
    with vectors(most=1) as programs, served(HASH.create, programs, load=False) as one:
        assert one.opened.vector is not None
        lease = one.opened.vector.load(KERNEL, one.map_fd, writes=False)
        assert lease is not None
        with served(HASH.create, programs):
            assert not one.opened.programs.loaded  # the other map's have its room
            with lease as prog_fd:
                assert KERNEL.control(ProgramInfo(), [prog_fd]).name.startswith("mapd_vector")


def test_openings_of_a_map_share_its_programs_and_the_last_takes_them_along() -> None:
    kind = Kind(MapType.HASH)
    with vectors() as programs, no_map_left_behind("mapd_test"):
        with served(kind.create, programs) as first:
            assert programs.loaded == 2
            with served(first.map_fd, programs) as second:
                assert second.opened.programs is first.opened.programs
                assert programs.loaded == 2
            assert programs.loaded == 2
            map_id = first.opened.facts.id
            KERNEL.control(OpenId(map_id=map_id)).close()
        assert programs.loaded == 0


def test_a_map_closed_while_its_program_is_loaded_takes_it_along() -> None:
    with vectors() as programs, nothing_left_behind():
        fd = KERNEL.control(HASH.create)
        with fd.lease() as map_fd:
            entered = programs.enter(7, fd)
            request = LoadTemplate(template="count_entries", key_size=8, value_size=8)
            loading = FaultyKernel(KERNEL)
            program = loading.control(request, [map_fd])
        fd.close()
        with pytest.raises(OSError, match="closed") as refused:
            programs.keep(entered, request, program)
        assert refused.value.errno == errno.EBADF
        assert program.closed
        assert programs.loaded == 0


def test_two_threads_that_load_the_same_program_keep_one() -> None:
    with vectors() as programs, served(HASH.create, programs, load=False) as one:
        together, found = threading.Barrier(4), list[int]()

        def load() -> None:
            together.wait()
            assert one.opened.vector is not None
            lease = one.opened.vector.load(KERNEL, one.map_fd, writes=False)
            assert lease is not None
            with lease as prog_fd:
                found.append(KERNEL.control(ProgramInfo(), [prog_fd]).id)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert programs.loaded == 1


def test_closing_all_leaves_nothing_and_syscalls_serve() -> None:
    with nothing_left_behind(), no_map_left_behind("mapd_scratch"), vectors() as programs:
        with served(HASH.create, programs) as one:
            programs.close()
            assert programs.loaded == 0
            assert lookup(one) == Reason.KEY_ABSENT
            assert set(one.run(HASH.group([(Op.UPDATE, key, 1) for key in range(600)])).statuses) == {0}
        programs.close()


@pytest.mark.parametrize("maps", [1, 3])
def test_many_threads_over_one_map_or_several_get_their_own_answers(maps: int) -> None:
    """More threads than slots and than programs kept, each with keys of its own."""
    threads, rounds, keys = 6, 30, 400
    wrong: list[object] = []
    with vectors(slots=2, most=2) as programs, ExitStack() as stack:
        opened = [stack.enter_context(served(HASH.create, programs)) for _ in range(maps)]

        def work(number: int) -> None:
            one, first = opened[number % maps], number * keys
            mine = range(first, first + keys)
            for turn in range(rounds):
                rows = [(Op.UPDATE, key, (key + turn) & 0xFF) for key in mine]
                rows += [(Op.LOOKUP, key, 0) for key in mine]
                outcome = one.run(HASH.group(rows))
                wanted = b"".join(HASH.value((key + turn) & 0xFF) for key in mine)
                if any(outcome.statuses) or bytes(outcome.values.view) != wanted:
                    wrong.append((number, turn))
                found = one.run(HASH.group([(Op.LOOKUP, key, 0) for key in mine]))
                if any(found.statuses) or bytes(found.values.view) != wanted:
                    wrong.append((number, turn))

        started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        assert not wrong
        assert programs.loaded <= 2


@contextmanager
def store(bpffs: Path) -> Generator[MapStore]:
    with vectors() as programs:
        yield MapStore(
            kernel=KERNEL,
            possible_cpus=possible_cpus(),
            boot_id=uuid.uuid4(),
            names_root=str(bpffs),
            programs=programs,
        )


def frozen_under_writes(made: MapStore, name: str, *, in_line: bool) -> bool:
    """Whether anything was written after a freeze had been answered, beside a thread that writes without a pause."""
    spec = MapSpec(map_type=MapType.HASH, key_size=8, value_size=8, max_entries=4_096)
    opened, _ = made.create(NameRef("ns", name), spec, exist_ok=False)
    cpus = sorted(os.sched_getaffinity(0))
    with opened.fd, opened.lease() as map_fd:
        one, begun, refused = Served(opened, map_fd), threading.Event(), list[Reason]()
        one.load()
        # Made before: a thread that makes groups holds the GIL, and lets go of it between two runs.
        groups = [HASH.group([(Op.UPDATE, key, value) for key in range(4_000)]) for value in (1, 2)]

        def write() -> None:
            os.sched_setaffinity(0, {cpus[0]})
            try:
                for group in cycle(groups):
                    outcome = one.run(group)
                    begun.set()
                    if any(outcome.statuses):
                        raise MapError(Reason(outcome.statuses[-1]), "refused in the middle")
            except MapError as error:
                refused.append(error.reason)

        writer = threading.Thread(target=write)
        writer.start()
        assert begun.wait(30)
        if in_line:
            made.freeze(opened)
        else:
            KERNEL.control(FreezeMap(), [map_fd])
        before = one.content()
        writer.join()
        assert refused == [Reason.MAP_FROZEN]
        return one.content() != before


def test_nothing_is_written_behind_a_freeze_that_was_answered(bpffs: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: nothing is written during a freeze")
    with store(bpffs) as made:
        # The canary: a freeze that does not wait for the run under way is overtaken by it.
        assert any(frozen_under_writes(made, f"canary{turn}", in_line=False) for turn in range(200))
        assert not any(frozen_under_writes(made, f"line{turn}", in_line=True) for turn in range(30))


def test_the_trials_name_what_this_kernel_loads_and_leave_nothing() -> None:
    with nothing_left_behind(), no_map_left_behind("mapd_trial"):
        found = try_programs(KERNEL, 2, possible_cpus())
        assert found.names >= {"vector_read", "vector_write", "vector_lpm", "write_one_cpu", "atomic"}
        found.close()


def test_what_the_kernel_refuses_has_no_name_and_leaves_nothing() -> None:
    refusing = FaultyKernel(KERNEL, Fault(target=LoadTemplate, errno=errno.EPERM))
    with nothing_left_behind(), no_map_left_behind("mapd_trial"):
        found = try_programs(refusing, 2, possible_cpus())
        assert found.names == frozenset()
        found.close()


def test_memory_runs_no_vector_programs() -> None:
    found = try_programs(MemoryKernel(2), 2, 2)
    assert not found.names & {"vector_read", "vector_write", "vector_lpm"}
    found.close()
    assert names_of(KERNEL, None, 2) == {"write_one_cpu", "count_entries"}

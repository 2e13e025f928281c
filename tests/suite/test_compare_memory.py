"""Memory against the kernel: every call on every type of data answers the same, but for the known differences."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mapd.maps.groups import Group
from mapd.maps.scan import ScanOptions
from mapd.maps.spec import MapSpec
from mapd.memory.arrays import ArrayTable, StackTraceTable
from mapd.memory.creation import TYPES as IN_MEMORY
from mapd.memory.differences import BLOOM_MISTAKES, DIFFERENCES, HASH_ORDER, LRU_VICTIM
from mapd.memory.hashes import HashTable
from mapd.memory.lpm import LpmTable
from mapd.memory.memorymap import MemoryMap
from mapd.memory.queues import QueueTable
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.suite import comparison
from tests.suite.comparison import Elements, Side, Unlike, linux_and_memory
from tests.suite.machine import SPECS, STEPS, machine
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import nothing_left_behind

pytestmark = pytest.mark.kernel

RUNS = 200

COMPARED = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)


@pytest.fixture(scope="module")
def compared_bpffs() -> Generator[Path]:
    require_bpf()
    with mounted_bpffs() as folder:
        yield folder


@pytest.fixture
def sides(compared_bpffs: Path) -> Generator[tuple[Side, Side]]:
    with (
        nothing_left_behind(),
        tempfile.TemporaryDirectory(prefix="compared-", dir=compared_bpffs) as folder,
        linux_and_memory(Path(folder)) as found,
    ):
        yield found


def compare(sides: tuple[Side, Side], map_type: MapType, how: settings) -> None:
    """As many runs for each kind of map of a type: while it was drawn, 200 runs did no COMPARE_UPDATE on a lock."""
    specs = SPECS[map_type]
    each = settings(how, max_examples=-(-RUNS // len(specs)))
    for spec in specs:
        run_state_machine_as_test(machine(sides, (spec,)), settings=each)


@pytest.mark.parametrize("map_type", SPECS, ids=lambda kind: kind.name.lower())
def test_memory_answers_as_the_kernel_does(sides: tuple[Side, Side], map_type: MapType) -> None:
    """200 runs of 50 steps for each type; a failure prints the shortest series of calls that shows it."""
    compare(sides, map_type, COMPARED)


def test_every_type_in_memory_is_compared() -> None:
    assert set(SPECS) == IN_MEMORY


def always(answer: object) -> Callable[..., object]:
    """A method that always answers so."""

    def method(*arguments: object) -> object:
        del arguments
        return answer

    return method


def kept(table: object, value: bytes) -> bytes:
    """A value with its lock."""
    del table
    return value


PLANTED: Mapping[str, tuple[MapType, type[object], str, object]] = {
    "a full map grows": (MapType.HASH, HashTable, "_make_room", always(0)),
    "a lock is copied": (MapType.HASH, HashTable, "stored", kept),
    "what an atomic writes is forgotten": (MapType.HASH, HashTable, "overwrite", always(None)),
    "an update is forgotten": (MapType.ARRAY, ArrayTable, "update", always(0)),
    "a key that is gone ends the walk": (MapType.LPM_TRIE, LpmTable, "next_key", always(errno.ENOENT)),
    "peek finds nothing": (MapType.QUEUE, QueueTable, "lookup", always(errno.ENOENT)),
    "a command is missing": (MapType.STACK_TRACE, StackTraceTable, "takes_out", False),
    "a frozen map is written": (MapType.PERCPU_ARRAY, MemoryMap, "may", always(True)),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_found(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """A comparison that finds nothing where there is something would prove nothing."""
    map_type, table, name, wrong = PLANTED[planted]
    monkeypatch.setattr(table, name, wrong)
    found = settings(COMPARED, phases=(Phase.generate,), report_multiple_bugs=False)
    with pytest.raises(Unlike):
        compare(sides, map_type, found)


# ---- the known differences: what is promised of both -----------------------------------------------


def numbers(of: range, size: int = 8) -> list[bytes]:
    return [number.to_bytes(size, "little") for number in of]


@pytest.mark.parametrize("map_type", sorted(LRU_VICTIM.types))
def test_a_full_lru_map_drops_elements_and_refuses_none(sides: tuple[Side, Side], map_type: MapType) -> None:
    """Which ones go differs; that there is always room, never too many, and no wrong value, does not."""
    spec = MapSpec(map_type=map_type, key_size=8, value_size=8, max_entries=1_000)
    elements = Elements(spec)
    for one in sides:
        comparison.create(one, "full", spec)
        keys = numbers(range(3_000))
        value = b"".join(elements.value(number % 16) for number in range(3_000))
        group = Group(count=3_000, ops=bytes([Op.UPDATE]), keys=b"".join(keys), values=value)
        statuses, _, _ = comparison.apply(one, 0, group)
        assert not any(statuses)
        rows, _ = comparison.dump(one, 0, ScanOptions(), 1 << 20)
        assert 800 <= len(rows) <= 1_000
        assert all(found == elements.value(int.from_bytes(key, "little") % 16) for key, found in rows)
        assert keys[-1] in dict(rows)


def test_a_bloom_filter_is_seldom_wrong_and_never_misses(sides: tuple[Side, Side]) -> None:
    """Of which values it is wrong differs; how often does not."""
    spec = MapSpec(map_type=MapType.BLOOM_FILTER, key_size=0, value_size=8, max_entries=1_000)
    for one in sides:
        comparison.create(one, "full", spec)
        for op, of, least, most in (
            (Op.ADD, range(1_000), 1_000, 1_000),
            (Op.CONTAINS, range(1_000), 1_000, 1_000),
            (Op.CONTAINS, range(1_000, 9_000), 0, 800),
        ):
            group = Group(count=len(of), ops=bytes([op]), keys=b"", values=b"".join(numbers(of)))
            statuses, _, _ = comparison.apply(one, 0, group)
            assert least <= statuses.count(0) <= most


def test_every_difference_of_types_is_honoured_here() -> None:
    """A row that nothing allows for is no difference, and what is allowed for must be a row."""
    assert {LRU_VICTIM, BLOOM_MISTAKES, HASH_ORDER} == {row for row in DIFFERENCES if row.types}
    assert len(DIFFERENCES) <= 5

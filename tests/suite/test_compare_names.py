"""Memory against the kernel: what creation takes, and what a tree of pins does."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mapd.bpf import (
    CreateMap,
    ListFolder,
    ListPins,
    LoadBtf,
    MakeFolder,
    OpenPin,
    OwnedFd,
    Pin,
    RemoveFolder,
    Rename,
    StampFolders,
    Unpin,
)
from mapd.memory import MemoryKernel
from mapd.memory.creation import TYPES as IN_MEMORY
from mapd_api.layout import value_stride
from mapd_api.uapi import MapFlag, MapType
from tests.suite.comparison import CPUS, LOCKED, Side, linux_and_memory, same
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import nothing_left_behind

pytestmark = pytest.mark.kernel

MOST_BYTES = 16 << 20
"""Of a map to create: what a host's memory allows is not compared."""

HASHES = (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)

SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

QUIET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=SLOW,
    max_examples=1_500,
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


# ---- creation --------------------------------------------------------------------------------------

FLAGS = [
    MapFlag(0),
    MapFlag(0),
    *MapFlag,
    MapFlag.RDONLY | MapFlag.WRONLY,
    MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG,
]


FIELDS: dict[str, list[object]] = {
    "key_size": [0, 1, 4, 5, 9, 260, 261, 512, 4_194_000],
    "value_size": [0, 1, 3, 9, 12, 64, 1_016, 1_024, 32_761, 32_768, 32_769, 4_194_000, 1 << 22, 1 << 31],
    "max_entries": [0, 2, 3, 7, (1 << 27) + 1, 1 << 31, (1 << 32) - 1],
    "flags": [0, *map(int, FLAGS)],
    "kernel_name": ["", "a.b_C", "x" * 15, "x" * 16, "no-hyphen", "a b"],
    "map_extra": [1, 15, 16, 1 << 40],
    "numa_node": [0, 1 << 20],
    "btf_key_type_id": [0, 1, 2, 3, 4],
    "btf_value_type_id": [0, 1, 2, 3, 9],
    "exclusive_program_hash": [bytes(32), bytes(31), bytes(64)],
}
"""What a field of a request may become."""


@st.composite
def requests(draw: st.DrawFn) -> CreateMap:
    """One that can be made, and then up to three fields of it changed."""
    kind = draw(st.sampled_from(sorted(IN_MEMORY)))
    arrays = kind in (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.STACK_TRACE)
    keyless = kind in (MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER)
    request = CreateMap(
        map_type=kind,
        key_size=4 if arrays else 0 if keyless else 8,
        value_size=8,
        max_entries=draw(st.sampled_from([1, 5, 64])),
        flags=MapFlag.NO_PREALLOC if kind is MapType.LPM_TRIE else 0,
        kernel_name="fine",
    )
    if draw(st.booleans()):
        size = 4 if keyless or kind is MapType.LPM_TRIE else request.key_size
        request = replace(
            request,
            key_size=request.key_size and (size if kind is MapType.LPM_TRIE else 4),
            value_size=12,
            with_btf=True,
            btf_key_type_id=0 if keyless else 1,
            btf_value_type_id=draw(st.sampled_from([3, 4])),
        )
    for field in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3)):
        changed: dict[str, Any] = {field: draw(st.sampled_from(FIELDS[field]))}
        if field == "flags" and draw(st.booleans()):
            changed[field] |= request.flags
        request = replace(request, **changed)
    return request


def create(one: Side, request: CreateMap) -> object:
    """What info says of the new map."""
    fds: list[int] = []
    with one.kernel.control(LoadBtf(blob=LOCKED.blob)) as btf, btf.lease() as btf_fd:
        if request.with_btf:
            fds.append(btf_fd)
        with one.kernel.control(request, fds) as made, made.lease() as map_fd:
            info = one.kernel.info(map_fd)
            return replace(info, id=0, memlock=0, btf_id=int(info.btf_id != 0))


def too_large(request: CreateMap) -> bool:
    """Whether Linux might refuse for want of memory what it would take otherwise."""
    if request.map_type == MapType.LPM_TRIE or (request.map_type in HASHES and request.max_entries > 1 << 27):
        return False
    element = request.key_size + value_stride(request.map_type, request.value_size, CPUS)
    return request.max_entries * element > MOST_BYTES


def test_memory_creates_what_the_kernel_creates(sides: tuple[Side, Side]) -> None:
    made = 0

    @QUIET
    @given(requests().filter(lambda request: not too_large(request)))
    def compare(request: CreateMap) -> None:
        nonlocal made
        found = same("create", sides, partial(create, request=request))
        made += not isinstance(found, tuple)

    compare()
    assert made > QUIET.max_examples / 10


# ---- names -----------------------------------------------------------------------------------------

PARTS = ("a", "b", "d", "names", "", ".", "..", "a.b", "x" * 255, "x" * 256)
PATHS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join)
_runs = itertools.count()


class Names(RuleBasedStateMachine):
    """Pins of one map below a folder of its own."""

    sides: tuple[Side, Side]
    base: str

    def __init__(self) -> None:
        super().__init__()
        self.made: Sequence[OwnedFd] = ()

    @initialize()
    def create(self) -> None:
        """One map, open, and an empty folder."""
        self.root = f"{self.base}/{next(_runs)}"
        Path(self.root).mkdir()
        memory = self.sides[1].kernel
        assert isinstance(memory, MemoryKernel)
        memory.make_folder(self.root)
        request = CreateMap(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=4)
        self.made = [one.kernel.control(request) for one in self.sides]

    def teardown(self) -> None:
        """No pin is left; folders are."""
        if not self.made:
            return
        for one, made in zip(self.sides, self.made, strict=True):
            for path in one.kernel.control(ListPins(root=self.root)).paths:
                one.kernel.control(Unpin(root=self.root, path=path))
            made.close()

    @rule(path=PATHS, mkdir=st.booleans())
    def pin(self, path: str, mkdir: bool) -> None:
        """Give it one more name."""
        request = Pin(root=self.root, path=f"{self.root}/{path}", mkdir=mkdir)

        def action(one: Side) -> None:
            with self.made[self.sides.index(one)].lease() as map_fd:
                one.kernel.control(request, [map_fd])

        same(f"pin {path}", self.sides, action)

    @rule(path=PATHS, read_only=st.booleans())
    def open(self, path: str, read_only: bool) -> None:
        """By name."""
        request = OpenPin(root=self.root, path=f"{self.root}/{path}", read_only=read_only)
        same(f"open {path}", self.sides, lambda one: one.kernel.control(request).close())

    @rule(path=PATHS)
    def unpin(self, path: str) -> None:
        """Take a name away."""
        request = Unpin(root=self.root, path=f"{self.root}/{path}")
        same(f"unpin {path}", self.sides, lambda one: one.kernel.control(request))

    @rule(path=PATHS, new_path=PATHS, mkdir=st.booleans())
    def rename(self, path: str, new_path: str, mkdir: bool) -> None:
        """Another name."""
        request = Rename(
            root=self.root, path=f"{self.root}/{path}", new_path=f"{self.root}/{new_path}", mkdir=mkdir
        )
        same(f"rename {path} {new_path}", self.sides, lambda one: one.kernel.control(request))

    @rule(folder=st.sampled_from(("", "/a", "/b", "/a/b")))
    def folder(self, folder: str) -> None:
        """What is in a folder, and whether its stamp tells of a folder at all."""
        path = self.root + folder

        def action(one: Side) -> tuple[list[str], list[str], bool]:
            found = one.kernel.control(ListFolder(root=self.root, path=path))
            (stamp,) = one.kernel.control(StampFolders(root=self.root, paths=(path,)))
            return sorted(pin.name for pin in found.pins), sorted(found.folders), bool(stamp)

        same("folder", self.sides, action)

    @rule(path=PATHS)
    def make_folder(self, path: str) -> None:
        """One more folder."""
        request = MakeFolder(root=self.root, path=f"{self.root}/{path}")
        same(f"mkdir {path}", self.sides, lambda one: one.kernel.control(request))

    @rule(path=PATHS)
    def remove_folder(self, path: str) -> None:
        """One folder less."""
        request = RemoveFolder(root=self.root, path=f"{self.root}/{path}")
        same(f"rmdir {path}", self.sides, lambda one: one.kernel.control(request))

    @rule()
    def all_names(self) -> None:
        """All names."""
        request = ListPins(root=self.root)
        same("list", self.sides, lambda one: tuple(one.kernel.control(request).paths))


def test_memory_names_as_a_bpffs_does(sides: tuple[Side, Side]) -> None:
    base = sides[0].store.names_root.rpartition("/")[0]
    names = type("NamesOfTwo", (Names,), {"sides": sides, "base": base})
    run_state_machine_as_test(names, settings=settings(QUIET, max_examples=200, stateful_step_count=50))

"""Maps as mapd opens them, with vector programs or without: the same groups run on both."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from mapd.bpf import Buffer, Columns, CreateMap, Kernel, OwnedFd, possible_cpus
from mapd.maps.errors import MapError
from mapd.maps.execute import execute
from mapd.maps.groups import Group, plan
from mapd.maps.job import Outcome
from mapd.maps.locks import has_lock
from mapd.maps.opened import OpenMap, facts
from mapd.maps.programs import Programs, open_scratch
from mapd.maps.vector import LPM_NAME, Vector
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL

NAMES = frozenset({"vector_read", "vector_write", LPM_NAME})
CPUS = possible_cpus()


@contextlib.contextmanager
def vectors(kernel: Kernel = KERNEL, slots: int = 2, most: int = 64) -> Generator[Programs]:
    """A place for vector programs, with its scratch."""
    scratch = open_scratch(kernel, slots)
    assert scratch is not None
    programs = Programs(scratch, NAMES, most=most)
    try:
        yield programs
    finally:
        programs.close()


@dataclass(frozen=True)
class Served:
    """An opening of a map, and how groups run on it."""

    opened: OpenMap
    map_fd: int
    kernel: Kernel = KERNEL

    def run(self, group: Group) -> Outcome:
        return execute(self.kernel, self.map_fd, self.opened, plan(group, self.opened))

    def told(self, group: Group) -> tuple[object, ...]:
        """What became of a group, to be compared: its columns and errors, or why it was refused as a whole."""
        try:
            outcome = self.run(group)
        except MapError as error:
            return error.reason, error.refusal.metadata.get("errno")
        return bytes(outcome.statuses), self.answers(group, outcome), tuple(outcome.errors)

    def answers(self, group: Group, outcome: Outcome) -> tuple[bytes, ...]:
        """The values answered where there was one; a miss is only said to be none, its bytes are checked apart."""
        stride = self.opened.facts.value_stride
        at, found = 0, list[bytes]()
        for index in range(group.count):
            op = Op(group.ops[index if len(group.ops) > 1 else 0])
            if op not in (Op.LOOKUP, Op.LOOKUP_AND_DELETE):
                continue
            if outcome.statuses[index] == Reason.DONE:
                found.append(outcome.values.take(stride, at))
            at += stride
        assert at == outcome.values.size
        return tuple(found)

    def content(self) -> dict[bytes, bytes]:
        """Every element, read by syscalls."""
        info, stride = self.opened.facts.info, self.opened.facts.value_stride
        found: dict[bytes, bytes] = {}
        key = KERNEL.next_key(self.map_fd, None, info.key_size)
        while key is not None:
            columns = Columns(1, Buffer.of(key), info.key_size, Buffer.allocate(stride), stride)
            assert KERNEL.each(self.map_fd, Op.LOOKUP, columns) == [0]
            assert columns.values is not None
            found[key] = columns.values.take(stride)
            key = KERNEL.next_key(self.map_fd, key, info.key_size)
        return found

    def load(self) -> None:
        """Have the programs now, where there are any: a program is loaded for many elements only."""
        vector = self.opened.vector
        for writes in (False, True):
            lease = vector.load(self.kernel, self.map_fd, writes=writes) if vector is not None else None
            if lease is not None:
                lease.release()


@contextlib.contextmanager
def served(
    over: CreateMap | int,
    programs: Programs | None = None,
    *,
    kernel: Kernel = KERNEL,
    read_only: bool = False,
    load: bool = True,
) -> Generator[Served]:
    """A new map, or one more opening of a map that an fd leads to; without ``programs`` by syscalls alone."""
    fd = OwnedFd(os.dup(over)) if isinstance(over, int) else KERNEL.control(over)
    with fd, fd.lease() as map_fd:
        info = KERNEL.info(map_fd)
        of = facts(info, CPUS, has_lock=has_lock(KERNEL, map_fd, info))
        entered = (programs if programs is not None else Programs()).enter(of.id, fd)
        opened = OpenMap(
            fd=fd,
            facts=of,
            read_only=read_only,
            programs=entered,
            vector=Vector.of(entered, of, map_fd),
        )
        found = Served(opened, map_fd, kernel)
        if load:
            found.load()
        yield found


@dataclass(frozen=True)
class Kind:
    """A data type to try: the map, and keys of it by number."""

    map_type: MapType
    key_size: int = 8
    value_size: int = 8
    flags: int = 0
    max_entries: int = 8

    @property
    def create(self) -> CreateMap:
        return CreateMap(
            map_type=self.map_type,
            key_size=self.key_size,
            value_size=self.value_size,
            max_entries=self.max_entries,
            flags=self.flags,
            kernel_name="mapd_test",
        )

    @property
    def ops(self) -> tuple[Op, ...]:
        ops = [Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST]
        if self.map_type not in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            ops.append(Op.DELETE)
            if self.map_type is not MapType.LPM_TRIE:
                ops.append(Op.LOOKUP_AND_DELETE)
        return tuple(ops)

    def key(self, number: int) -> bytes:
        """Of a trie, prefixes of many lengths, some of which cannot be."""
        if self.map_type is MapType.LPM_TRIE:
            bits = (0, 8, 9, 24, 31, 32, 33)[number % 7]
            return bits.to_bytes(4, "little") + bytes([10, number % 3, 7, number % 5])[: self.key_size - 4]
        return number.to_bytes(self.key_size, "little")

    def value(self, number: int) -> bytes:
        """Of per-CPU types another in each slot."""
        if self.map_type in (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH):
            return b"".join(
                bytes((number + cpu * 64 + at) & 0xFF for at in range(self.value_size)).ljust(
                    -(-self.value_size // 8) * 8, b"\0"
                )
                for cpu in range(CPUS)
            )
        return bytes((number + at) & 0xFF for at in range(self.value_size))

    def group(self, elements: Sequence[tuple[Op, int, int]], *, touch: bool = False) -> Group:
        """Elements of (operation, number of the key, number of the value)."""
        ops = bytes(op for op, _, _ in elements)
        return Group(
            count=len(elements),
            ops=ops[:1] if len(set(ops)) == 1 else ops,
            keys=b"".join(self.key(key) for _, key, _ in elements),
            values=b"".join(
                self.value(value)
                for op, _, value in elements
                if op in (Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST)
            ),
            touch=touch,
        )


KINDS = (
    Kind(MapType.HASH),
    Kind(MapType.HASH, key_size=5, value_size=3, flags=MapFlag.NO_PREALLOC),
    Kind(MapType.HASH, key_size=1, value_size=300),
    Kind(MapType.ARRAY, key_size=4),
    Kind(MapType.ARRAY, key_size=4, value_size=7, flags=MapFlag.MMAPABLE),
    Kind(MapType.PERCPU_HASH),
    Kind(MapType.PERCPU_HASH, key_size=3, value_size=13, flags=MapFlag.NO_PREALLOC),
    Kind(MapType.PERCPU_ARRAY, key_size=4, value_size=12),
    Kind(MapType.LRU_HASH),
    Kind(MapType.LRU_HASH, value_size=9, flags=MapFlag.NO_COMMON_LRU),
    Kind(MapType.LRU_PERCPU_HASH, value_size=20),
    Kind(MapType.LPM_TRIE, flags=MapFlag.NO_PREALLOC),
)
"""Every type that there is a vector program for."""

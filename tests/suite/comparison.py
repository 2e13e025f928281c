"""Two kernels side by side: the same calls on each, and what may differ.

``mapd.memory.DIFFERENCES`` is the list of what may; nothing else is allowed for here.
"""

from __future__ import annotations

import errno
import struct
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from mapd.bpf import (
    BatchCommand,
    Buffer,
    Columns,
    FreezeMap,
    Kernel,
    LinuxKernel,
    LoadTemplate,
    SyscallError,
    possible_cpus,
)
from mapd.bpf.templates import COUNTED, ONE_CPU_HEAD, Template, one_cpu_context
from mapd.maps.errors import MapError
from mapd.maps.execute import execute
from mapd.maps.groups import Group, plan
from mapd.maps.opened import OpenMap
from mapd.maps.program_trials import try_programs
from mapd.maps.scan import ScanOptions
from mapd.maps.spec import BtfSpec, MapSpec
from mapd.maps.store import MapStore, NameRef
from mapd.memory import MemoryKernel
from mapd.memory.differences import BLOOM_MISTAKES, HASH_ORDER, LRU_VICTIM
from mapd_api.layout import value_stride
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.uapi import MapType
from tests.kernel import btf as reader

T = TypeVar("T")

CPUS: Final = possible_cpus()
NAMESPACE: Final = "compared"
UNORDERED: Final = HASH_ORDER.types
MISTAKEN: Final = BLOOM_MISTAKES.types
EVICTING: Final = LRU_VICTIM.types


class Unlike(AssertionError):
    """The two answered differently."""

    def __init__(self, what: str, first: object, second: object) -> None:
        super().__init__(f"{what}:\n  first  {first}\n  second {second}")


@dataclass(slots=True)
class Side:
    """One kernel with a store on it, and what is open of the map under test.

    ``openings``: the creator's, then those by name; closed ones stay, closed.
    """

    kernel: Kernel
    store: MapStore
    openings: list[OpenMap] = field(default_factory=list[OpenMap])

    def release(self) -> None:
        """Close everything."""
        for opened in self.openings:
            opened.fd.close()
        self.openings.clear()

    def close(self) -> None:
        """Close everything, and what programs are run with."""
        self.release()
        self.store.programs.close()


def side(kernel: Kernel, root: str) -> Side:
    """A store with its names below ``root``, where other pins may be too."""
    store = MapStore(
        kernel=kernel,
        possible_cpus=CPUS,
        boot_id=uuid.UUID(int=1),
        names_root=f"{root}/names",
        pin_roots=(root,),
        programs=try_programs(kernel, 1, CPUS),
    )
    return Side(kernel, store)


@contextmanager
def linux_and_memory(folder: Path) -> Generator[tuple[Side, Side]]:
    """Linux in a folder of a bpffs, and memory in a folder of the same path."""
    (folder / "names").mkdir(exist_ok=True)
    memory = MemoryKernel(CPUS, [str(folder), f"{folder}/names"])
    with ExitStack() as stack:
        sides = side(LinuxKernel(), str(folder)), side(memory, str(folder))
        for one in sides:
            stack.callback(one.close)
        yield sides


def observe(action: Callable[[], T]) -> T | tuple[str, object]:
    """What an action answers, or how it was refused."""
    try:
        return action()
    except MapError as error:
        return "refused", error.reason
    except SyscallError as error:
        return "errno", error.errno
    except ValueError:
        return "ValueError", None


def same(what: str, sides: tuple[Side, Side], action: Callable[[Side], T]) -> T | tuple[str, object]:
    """The common answer of both.

    Raises:
        Unlike: they differ.
    """
    first, second = (observe(partial(action, one)) for one in sides)
    if first != second:
        raise Unlike(what, first, second)
    return first


# ---- shapes ----------------------------------------------------------------------------------------

_STRINGS: Final = b"\0u32\0bpf_spin_lock\0locked\0val\0"
_LOCKED_BYTES: Final = 12


def _name(text: bytes) -> int:
    return _STRINGS.index(b"\0" + text + b"\0") + 1


def _type(name: bytes, kind: int, size: int, *rest: int, members: int = 0) -> bytes:
    return struct.pack(f"<{3 + len(rest)}I", _name(name), kind << 24 | members, size, *rest)


_TYPES: Final = (
    _type(b"u32", reader.INT, 4, 32)
    + _type(b"bpf_spin_lock", reader.STRUCT, 4, _name(b"val"), 1, 0, members=1)
    + _type(
        b"locked", reader.STRUCT, _LOCKED_BYTES, _name(b"val"), 1, 0, _name(b"val"), 2, 32, _name(b"val"), 1, 64,
        members=3,
    )
    + _type(b"val", reader.STRUCT, _LOCKED_BYTES, _name(b"val"), 1, 0, _name(b"locked"), 1, 64, members=2)
)  # fmt: skip
LOCKED: Final = BtfSpec(
    blob=struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_STRINGS))
    + _TYPES
    + _STRINGS,
    key_type_id=1,
    value_type_id=3,
)
"""Keys of 4 bytes, values of 12 with a spin lock in bytes 4 to 7; type 4 has 12 bytes and no lock."""


@dataclass(frozen=True, slots=True)
class Elements:
    """Keys and values of a map under test, by small numbers."""

    spec: MapSpec

    @property
    def stride(self) -> int:
        """Bytes of a value."""
        return value_stride(self.spec.map_type, self.spec.value_size, CPUS)

    def key(self, number: int) -> bytes:
        """Number 0 to 15. Of an array some, of a trie some lengths, are out of range."""
        size = self.spec.key_size
        match self.spec.map_type:
            case MapType.ARRAY | MapType.PERCPU_ARRAY | MapType.STACK_TRACE:
                return struct.pack(
                    "=I", number if number < 14 else (self.spec.max_entries, 1 << 31)[number % 2]
                )
            case MapType.LPM_TRIE:
                bits = (size - 4) * 8
                length = (0, 1, bits // 2, bits - 1, bits, bits + 1, 2, bits)[number % 8]
                return struct.pack("=I", length) + bytes([(0x00, 0xFF)[number // 8]] * (size - 4))
            case _:
                return number.to_bytes(1, "little").ljust(size, b"\xa5")[:size]

    def value(self, number: int) -> bytes:
        """Number 0 to 15; of all CPUs different ones, and the padding is not zero."""
        return bytes((number * 16 + at // 8) & 0xFF for at in range(self.stride))

    def columns(self, numbers: Sequence[int], salt: int) -> tuple[bytes, bytes]:
        """A key column, and as many values."""
        keys = b"".join(map(self.key, numbers)) if self.spec.key_size else b""
        return keys, b"".join(self.value((number + salt) % 16) for number in numbers)


# ---- calls ----------------------------------------------------------------------------------------


Statuses = tuple[list[int], list[tuple[int, int, int]], list[bytes]]
Rows = list[tuple[bytes, bytes]]
Trailer = tuple[int, str, int, int, str]
"""Entries, method, restarts, duplicates, why it is incomplete."""


def apply(one: Side, at: int, group: Group) -> Statuses:
    """A group through mapd.maps: statuses, failures, and the values of those that were found."""
    opened = one.openings[at]
    checked = plan(group, opened)
    with opened.lease() as map_fd:
        outcome = execute(one.kernel, map_fd, opened, checked)
    values, taken = list[bytes](), 0
    for index, status in enumerate(outcome.statuses):
        op = Op(group.ops[index % len(group.ops)])
        if op in ANSWERS_VALUE:
            width = checked.widths.answered(op)
            values.append(b"" if status else outcome.values.take(width, taken))
            taken += width
    failures = [(failure.index, int(failure.reason), failure.errno) for failure in outcome.errors]
    return list(outcome.statuses), failures, values


def each(
    one: Side, at: int, op: Op, count: int, keys: bytes, values: bytes, flags: int
) -> tuple[list[int], bytes]:
    """``Elements.each`` as it is, also where the table of types has no such operation."""
    opened, buffer = one.openings[at], Buffer.allocate(len(values))
    buffer.view[:] = values
    columns = Columns(count, Buffer.of(keys), opened.facts.key_stride, buffer, opened.facts.value_stride)
    with opened.lease() as map_fd:
        errnos = one.kernel.each(map_fd, op, columns, flags)
    return errnos, bytes(buffer.view) if op not in TAKES_VALUE else b""


def batch(
    one: Side, at: int, command: BatchCommand, count: int, keys: bytes, values: bytes, flags: int
) -> object:
    """``Elements.batch``."""
    opened = one.openings[at]
    columns = Columns(
        count, Buffer.of(keys), opened.facts.key_stride, Buffer.of(values), opened.facts.value_stride
    )
    with opened.lease() as map_fd:
        done = one.kernel.batch(map_fd, command, columns, flags)
    return done.count, done.errno


def lookup_batches(one: Side, at: int, count: int) -> object:
    """A walk by ``Elements.lookup_batch``, ``count`` at a time, more where a bucket needs it.

    Of hashes the rows alone, sorted; of others each step with its cursor.
    """
    opened = one.openings[at]
    facts, steps, rows = opened.facts, list[object](), list[tuple[bytes, bytes]]()
    cursor, first, ended = Buffer.allocate(max(4, facts.key_stride)), True, 0
    for _ in range(200):
        columns = Columns(
            count,
            Buffer.allocate(max(1, count * facts.key_stride)),
            facts.key_stride,
            Buffer.allocate(max(1, count * facts.value_stride)),
            facts.value_stride,
        )
        with opened.lease() as map_fd:
            done = one.kernel.lookup_batch(map_fd, cursor, first, columns)
        if done.errno == errno.ENOSPC:
            count *= 2
            continue
        assert columns.values is not None
        rows += [
            (
                columns.keys.take(facts.key_stride, index * facts.key_stride),
                columns.values.take(facts.value_stride, index * facts.value_stride),
            )
            for index in range(done.count)
        ]
        steps.append((done.count, done.errno, cursor.take(cursor.size)))
        first = False
        ended = done.errno
        if ended or count == 0:
            break
    if facts.info.map_type in UNORDERED:
        return sorted(rows), ended
    return rows, steps


def walk(one: Side, at: int) -> object:
    """All keys by next_key; of hashes sorted."""
    opened, keys = one.openings[at], list[bytes]()
    with opened.lease() as map_fd:
        key = one.kernel.next_key(map_fd, None, opened.facts.key_stride)
        while key is not None and len(keys) < 200:
            keys.append(key)
            key = one.kernel.next_key(map_fd, key, opened.facts.key_stride)
    return sorted(keys) if opened.facts.info.map_type in UNORDERED else keys


def next_key(one: Side, at: int, key: bytes) -> object:
    """The key after one that may not be there; of hashes whether there is one."""
    opened = one.openings[at]
    with opened.lease() as map_fd:
        found = one.kernel.next_key(map_fd, key, opened.facts.key_stride)
    if opened.facts.info.map_type in UNORDERED:
        there, _ = each(one, at, Op.LOOKUP, 1, key, bytes(opened.facts.value_stride), 0)
        return "somewhere" if there == [0] else found is None
    return found


def dump(one: Side, at: int, options: ScanOptions, page_bytes: int) -> tuple[Rows, Trailer]:
    """A dump through mapd.maps: rows (of hashes sorted), and what its trailer says."""
    opened, rows = one.openings[at], list[tuple[bytes, bytes]]()
    scan = one.store.scan(opened, options)
    facts = opened.facts
    while not scan.done:
        with opened.lease() as map_fd:
            page = scan.page(map_fd, page_bytes)
        keys, values = page.keys, page.values
        rows += [
            (
                keys[index * facts.key_stride : (index + 1) * facts.key_stride],
                values[index * facts.value_stride : (index + 1) * facts.value_stride],
            )
            for index in range(page.count)
        ]
    trailer = scan.entries, scan.method, scan.restarts, scan.duplicates, scan.incomplete
    if facts.info.map_type in UNORDERED:
        return ([] if options.limit else sorted(rows)), trailer
    return rows, trailer


def facts(one: Side, at: int) -> object:
    """What info says, less what is the host's: id, memlock, the id of BTF."""
    with one.openings[at].lease() as map_fd:
        info = one.kernel.info(map_fd)
    return (
        info.map_type,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags,
        info.name,
        info.map_extra,
        info.frozen,
        info.btf_id != 0,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


def count(one: Side, at: int) -> object:
    """The count of the program that counts, where it can be loaded."""
    opened = one.openings[at]
    size = opened.facts.info.key_size, opened.facts.info.value_size
    with opened.lease() as map_fd:
        request = LoadTemplate(template=Template.COUNT_ENTRIES, key_size=size[0], value_size=size[1])
        program = one.kernel.control(request, [map_fd])
    context = Buffer.allocate(COUNTED.size)
    with program, program.lease() as prog_fd:
        return one.kernel.run(prog_fd, context), COUNTED.unpack(context.view)


def write_one_cpu(one: Side, at: int, key: bytes, value: bytes, cpu: int) -> object:
    """What the program that writes one CPU's slot answers."""
    opened = one.openings[at]
    key_size, value_size = opened.facts.info.key_size, opened.facts.info.value_size
    with opened.lease() as map_fd:
        request = LoadTemplate(template=Template.WRITE_ONE_CPU, key_size=key_size, value_size=value_size)
        program = one.kernel.control(request, [map_fd])
    context = Buffer.allocate(one_cpu_context(key_size, value_size))
    ONE_CPU_HEAD.pack_into(context.view, 0, cpu)
    context.view[ONE_CPU_HEAD.size : ONE_CPU_HEAD.size + key_size] = key
    start = context.size - (value_size + 7 & ~7)
    context.view[start : start + value_size] = value[:value_size]
    with program, program.lease() as prog_fd:
        return one.kernel.run(prog_fd, context)


def create(one: Side, name: str, spec: MapSpec, *, exist_ok: bool = False) -> object:
    """Create; whether it is new."""
    opened, new = one.store.create(NameRef(NAMESPACE, name), spec, exist_ok=exist_ok)
    one.openings.append(opened)
    return new


def reopen(one: Side, name: str, *, read_only: bool) -> object:
    """Open by name."""
    one.openings.append(one.store.open(NameRef(NAMESPACE, name), read_only=read_only))
    return None


def freeze(one: Side, at: int, *, raw: bool) -> None:
    """By mapd.maps, or ``FreezeMap`` as it is."""
    opened = one.openings[at]
    if raw:
        with opened.lease() as map_fd:
            one.kernel.control(FreezeMap(), [map_fd])
    else:
        one.store.freeze(opened)

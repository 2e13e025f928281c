"""Every element operation of one map type in guarded buffers, at each size that the type takes.

A process of its own, because an overrun ends it: ``python -m tests.kernel.buffer_trial hash``. It says
each pair of sizes before it tries them, so that the last line names those it died of.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from mapd.bpf import BatchCommand, Columns, possible_cpus
from mapd.bpf.abi import Command, NextKeyAttr
from mapd.bpf.elements import COMMANDS
from mapd.bpf.syscall import attempt
from mapd.maps import creation
from mapd.maps.spec import MapSpec
from mapd.maps.traits import Cursor, Entries, TypeTraits, Value
from mapd.maps.types import TYPES
from mapd_api.layout import round_up8, value_stride
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.uapi import MapType as T
from scripts.type_trial import KERNEL, Objects
from tests.support.guarded import Guarded, guarded
from tests.support.samples import sample

SIZES: Final = (1, 3, 7, 8, 9, 64, 4095, 65_536)
KINDS: Final = tuple(sorted(T(number) for number, traits in TYPES.items() if traits.ops))
OVERRUN: Final = "overrun"
"""Instead of a type: write one byte too many, which must end the process."""

ELEMENTS: Final = 3
CAPACITY: Final = 16
BATCHES: Final = frozenset({Cursor.BUCKET, Cursor.INDEX, Cursor.KEY})
DATA: Final = frozenset({Value.PLAIN, Value.PER_CPU})


def sizes(allowed: range) -> Sequence[int]:
    """Those to try: all where there are two at most."""
    return list(allowed) if len(allowed) <= 2 else [size for size in SIZES if size in allowed]


def pairs(traits: TypeTraits) -> Sequence[tuple[int, int]]:
    """Key and value sizes to try."""
    return list(itertools.product(sizes(traits.key_sizes), sizes(traits.value_sizes)))


def pattern(number: int, size: int) -> bytes:
    """Bytes that tell the element and the place."""
    return bytes((number * 37 + at * 5 + 1) & 0xFF for at in range(251)) * (size // 251 + 1)


@dataclass(frozen=True)
class Trial:
    """A fresh map, and elements for it. ``complete``: they can be put into it on this host."""

    fd: int
    traits: TypeTraits
    key_size: int
    value_size: int
    keys: Sequence[bytes]
    values: Sequence[bytes]
    complete: bool

    @property
    def stride(self) -> int:
        return value_stride(self.traits.type, self.value_size, possible_cpus())

    @property
    def data(self) -> bool:
        """Whether what is read is what was written, and no id of a kernel object."""
        return self.traits.value in DATA and self.traits.type is not T.STACK_TRACE

    # ---- one command in buffers of exactly the right size ----

    def columns(self, keys: Sequence[bytes], values: Sequence[bytes] | None) -> Columns:
        column = guarded(self.stride * len(keys) if values is None else b"".join(values))
        return Columns(len(keys), guarded(b"".join(keys)), self.key_size, column, self.stride)

    def each(self, op: Op) -> tuple[list[int], list[bytes]]:
        """Of all elements: their errnos and values."""
        columns = self.columns(self.keys, self.values if op in TAKES_VALUE else None)
        errnos = KERNEL.each(self.fd, op, columns)
        assert errno.EFAULT not in errnos, (op.name, errnos)
        self.sound(columns, [*self.values] if op in TAKES_VALUE else None)
        values = columns.values
        assert values is not None
        return errnos, [values.take(self.stride, at * self.stride) for at in range(columns.count)]

    def sound(self, columns: Columns, values: Sequence[bytes] | None, *, keys: bool = True) -> None:
        """Nothing before the buffers was written, and nothing of what is only read."""
        for buffer in (columns.keys, columns.values):
            assert isinstance(buffer, Guarded)
            assert buffer.untouched_before
        if keys:
            assert bytes(columns.keys.view) == b"".join(self.keys)
        if values is not None:
            assert columns.values is not None
            assert bytes(columns.values.view) == b"".join(values)

    def done(self, op: Op) -> list[bytes]:
        """The values of an operation that must go through for all elements."""
        errnos, values = self.each(op)
        assert not any(errnos), (op.name, [errno.errorcode.get(n, n) for n in errnos])
        return values

    def next_key(self, key: Guarded | None) -> Guarded | None:
        """The key after this one by the command itself, and as LinuxKernel finds it."""
        found = guarded(self.key_size)
        attr = NextKeyAttr(map_fd=self.fd, key=0 if key is None else key.address, next_key=found.address)
        result = attempt(Command.MAP_GET_NEXT_KEY, attr)
        assert result in (0, -errno.ENOENT), result
        assert found.untouched_before
        said = KERNEL.next_key(self.fd, None if key is None else bytes(key.view), self.key_size)
        assert said == (bytes(found.view) if result == 0 else None)
        return found if result == 0 else None

    def walk(self) -> list[bytes]:
        keys: list[bytes] = []
        key = self.next_key(None)
        while key is not None and len(keys) < CAPACITY:
            keys.append(bytes(key.view))
            key = self.next_key(key)
        return keys

    @property
    def cursor_size(self) -> int:
        """What the kernel reads and writes; mapd gives it key_size where that is more."""
        return 4 if self.traits.cursor is Cursor.BUCKET else self.key_size

    def scan(self) -> dict[bytes, bytes]:
        """All by LOOKUP_BATCH, which begins with room for one and grows."""
        found: dict[bytes, bytes] = {}
        cursor, first, count = guarded(self.cursor_size), True, 1
        while True:
            keys, values = guarded(count * self.key_size), guarded(count * self.stride)
            columns = Columns(count, keys, self.key_size, values, self.stride)
            answer = KERNEL.lookup_batch(self.fd, cursor, first, columns)
            self.sound(columns, None, keys=False)
            assert cursor.untouched_before
            for at in range(answer.count):
                key = keys.take(self.key_size, at * self.key_size)
                found[key] = values.take(self.stride, at * self.stride)
            if answer.errno == errno.ENOENT:
                return found
            if answer.errno == errno.ENOSPC:
                count *= 2
                assert count <= CAPACITY
                continue
            assert answer.errno == 0, answer
            first = False

    def batch(self, command: BatchCommand) -> None:
        """Of all elements, which must go through."""
        values = self.values if command is BatchCommand.UPDATE else None
        columns = self.columns(self.keys, values)
        answer = KERNEL.batch(self.fd, command, columns)
        assert (answer.count, answer.errno) == (len(self.keys), 0), (command, answer)
        self.sound(columns, values)

    # ---- one byte too few ----

    def short_each(self, op: Op, *, key: int = 0, value: int = 0) -> int:
        """The errno of the first element where the buffers lack so many bytes, and the columns lie about it."""
        key_size, stride = self.key_size - key, self.stride - value
        keys = guarded(self.keys[0][:key_size])
        values = guarded(self.values[0][:stride] if op in TAKES_VALUE else stride)
        (number,) = KERNEL.each(self.fd, op, Columns(1, keys, key_size, values, stride))
        assert keys.untouched_before
        assert values.untouched_before
        return number

    def faults(self, op: Op) -> None:
        """A buffer one byte too short is EFAULT: the guard stands."""
        if self.key_size:
            assert self.short_each(op, key=1) == errno.EFAULT, (op.name, "key")
        if op in TAKES_VALUE or (op in ANSWERS_VALUE and self.data):
            assert self.short_each(op, value=1) == errno.EFAULT, (op.name, "value")

    def walks_fault(self) -> None:
        """The same of the commands that walk, on a map that has an element."""
        short = guarded(self.key_size - 1)
        attr = NextKeyAttr(map_fd=self.fd, next_key=short.address)
        assert attempt(Command.MAP_GET_NEXT_KEY, attr) == -errno.EFAULT
        whole = guarded(self.key_size)
        attr = NextKeyAttr(map_fd=self.fd, key=short.address, next_key=whole.address)
        assert attempt(Command.MAP_GET_NEXT_KEY, attr) == -errno.EFAULT
        if self.traits.cursor not in BATCHES:
            return
        held = len(self.scan())
        for cursor, key, value in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            key_size, stride = self.key_size - key, self.stride - value
            # All of the map at once; the last element is the one that lacks bytes.
            keys = guarded(held * self.key_size - key)
            values = guarded(held * self.stride - value)
            columns = Columns(held, keys, key_size, values, stride)
            room = guarded(self.cursor_size - cursor)
            answer = KERNEL.lookup_batch(self.fd, room, True, columns)
            assert answer.errno == errno.EFAULT, (answer, cursor, key, value)

    def batches_fault(self) -> None:
        for command, has, lacks in (
            (BatchCommand.UPDATE, self.traits.batch_update, ((1, 0), (0, 1))),
            (BatchCommand.DELETE, self.traits.batch_delete, ((1, 0),)),
        ):
            for key, value in lacks if has else ():
                keys = guarded(b"".join(self.keys)[: len(self.keys) * self.key_size - key])
                values = guarded(b"".join(self.values)[: len(self.keys) * self.stride - value])
                columns = Columns(len(self.keys), keys, self.key_size - key, values, self.stride - value)
                answer = KERNEL.batch(self.fd, command, columns)
                assert answer.errno == errno.EFAULT, (command, answer)

    # ---- all of it ----

    def keyless(self) -> None:
        """A queue, stack or Bloom filter."""
        if Op.ADD in self.traits.ops:
            self.done(Op.ADD)
            self.done(Op.CONTAINS)
            for op in (Op.ADD, Op.CONTAINS):
                self.faults(op)
            return
        order = [*self.values] if self.traits.type is T.QUEUE else [*reversed(self.values)]
        self.done(Op.PUSH)
        assert self.done(Op.PEEK) == [order[0]] * len(order)
        assert self.done(Op.POP) == order
        self.done(Op.PUSH_EXIST)
        for op in (Op.PUSH, Op.PUSH_EXIST, Op.PEEK, Op.POP):
            self.faults(op)

    def elements(self) -> None:
        """Data by key."""
        ops, fresh = self.traits.ops, not self.traits.indexed
        if fresh:
            self.done(Op.UPDATE_NOEXIST)
        else:
            assert self.each(Op.UPDATE_NOEXIST)[0] == [errno.EEXIST] * len(self.keys)
        self.done(Op.UPDATE)
        self.done(Op.UPDATE_EXIST)
        self.holds_all()
        self.walks_fault()
        for op in sorted(ops & COMMANDS.keys() - {Op.DELETE, Op.LOOKUP_AND_DELETE}):
            if op is not Op.UPDATE_NOEXIST:
                self.faults(op)
        if Op.LOOKUP_AND_DELETE in ops:
            assert self.done(Op.LOOKUP_AND_DELETE) == [*self.values]
            self.done(Op.UPDATE_NOEXIST)
            self.faults(Op.LOOKUP_AND_DELETE)
            self.done(Op.UPDATE)
        if Op.DELETE in ops:
            self.faults(Op.DELETE)
            self.done(Op.DELETE)
            assert self.walk() == []
        if self.traits.batch_update:
            self.batch(BatchCommand.UPDATE)
            self.holds_all()
        if self.traits.batch_delete:
            self.batch(BatchCommand.DELETE)
            assert self.walk() == []
        self.batches_fault()

    def holds_all(self) -> None:
        """Each way to read answers what was written."""
        written = dict(zip(self.keys, self.values, strict=True))
        assert self.done(Op.LOOKUP) == [*self.values]
        assert set(self.keys) <= set(self.walk())
        if self.traits.cursor in BATCHES:
            assert written.items() <= self.scan().items()

    def objects(self) -> None:
        """An element whose value is a kernel object, or that programs write: what is read is another thing."""
        put = self.complete and self.traits.type is not T.STACK_TRACE
        if put:
            self.done(Op.UPDATE)
        else:
            assert any(self.each(Op.UPDATE)[0])
        self.faults(Op.UPDATE)
        if Op.LOOKUP in self.traits.ops:
            errnos, values = self.each(Op.LOOKUP)
            sockets_by_fd = self.traits.value is Value.SOCKET and self.value_size == 4
            due = errno.ENOSPC if sockets_by_fd else 0 if put else errno.ENOENT
            assert errnos == [due]
            assert any(values[0]) == (due == 0)
            assert self.short_each(Op.LOOKUP, key=1) == errno.EFAULT
            if due == 0:
                assert self.short_each(Op.LOOKUP, value=1) == errno.EFAULT
        if self.traits.iterable:
            assert not put or self.keys[0] in self.walk()
        if self.traits.iterable and put:
            self.walks_fault()
        if Op.LOOKUP_AND_DELETE in self.traits.ops:
            assert self.each(Op.LOOKUP_AND_DELETE)[0] == [errno.ENOENT]
            assert self.short_each(Op.LOOKUP_AND_DELETE, key=1) == errno.EFAULT
        self.faults(Op.DELETE)
        (number,) = self.each(Op.DELETE)[0]
        assert not put or number == 0

    def run(self) -> None:
        if not self.key_size:
            self.keyless()
        elif self.data:
            self.elements()
        else:
            self.objects()


def key_of(kind: T, number: int, size: int) -> bytes:
    """A key that differs from the others in its first byte; of an LPM trie one whole address."""
    if kind is T.LPM_TRIE:
        return ((size - 4) * 8).to_bytes(4, sys.byteorder) + key_of(T.HASH, number, size - 4)
    if TYPES[kind].indexed:
        return number.to_bytes(4, sys.byteorder)
    return bytes([number]) + pattern(number, size)[: size - 1]


def value_of(kind: T, number: int, size: int) -> bytes:
    """A value that tells its number; per CPU another in each slot, with zero padding."""
    if TYPES[kind].value is not Value.PER_CPU:
        return pattern(number, size)[:size]
    slots = (pattern(number + cpu, size)[:size] for cpu in range(possible_cpus()))
    return b"".join(slot.ljust(round_up8(size), b"\0") for slot in slots)


def trial(stack: ExitStack, objects: Objects, kind: T, key_size: int, value_size: int) -> Trial:
    """A fresh map of these sizes."""
    traits = TYPES[kind]
    spec: MapSpec = replace(sample(kind), key_size=key_size, value_size=value_size)
    if traits.entries is Entries.ANY and not traits.indexed:
        spec = replace(spec, max_entries=CAPACITY)
    template = objects.template if spec.inner else None
    owned = creation.create(KERNEL, "guarded", spec, "guarded", template)
    stack.callback(owned.close)
    fd = stack.enter_context(owned.lease())
    if traits.value in DATA and kind is not T.STACK_TRACE:
        keys = [key_of(kind, number, key_size) if key_size else b"" for number in range(ELEMENTS)]
        values = [value_of(kind, number, value_size) for number in range(ELEMENTS)]
        return Trial(fd, traits, key_size, value_size, keys, values, complete=True)
    key, value, complete = objects.element(kind, spec)
    return Trial(fd, traits, key_size, value_size, [key], [value], complete)


def main(name: str) -> None:
    if name == OVERRUN:
        buffer = guarded(1)
        ctypes.memset(buffer.address, 1, buffer.size)
        print("one byte within", flush=True)
        ctypes.memset(buffer.address, 1, buffer.size + 1)
        return
    kind = T[name.upper()]
    with ExitStack() as whole:
        objects = Objects(whole)
        for key_size, value_size in pairs(TYPES[kind]):
            print(f"key_size={key_size} value_size={value_size}", flush=True)
            with ExitStack() as stack:
                trial(stack, objects, kind, key_size, value_size).run()


if __name__ == "__main__":
    main(sys.argv[1])

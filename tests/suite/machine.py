"""The state machine that compares: calls on one map, good and bad, the same on both sides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mapd.bpf import BatchCommand
from mapd.bpf.elements import COMMANDS
from mapd.maps.groups import FieldSpec, Group
from mapd.maps.scan import ScanOptions
from mapd.maps.spec import MapSpec
from mapd.maps.store import NameRef
from mapd_api.ops import ANSWERS_VALUE, ATOMICS, TAKES_VALUE, Op
from mapd_api.uapi import ElementFlag, MapFlag, MapType
from tests.suite import comparison
from tests.suite.comparison import EVICTING, LOCKED, MISTAKEN, NAMESPACE, Elements, Side, same

STEPS: Final = 50
NAME: Final = "compared"
_FREEZE_FROM: Final = 35
"""Steps before anything is frozen: afterwards little is left to happen."""

_runs = itertools.count()


def _spec(kind: MapType, key: int, value: int, entries: int, flags: int = 0, **other: Any) -> MapSpec:
    return MapSpec(map_type=kind, key_size=key, value_size=value, max_entries=entries, flags=flags, **other)


_LPM: Final = MapFlag.NO_PREALLOC
_ROOMY: Final = 4_096
"""Far more than the keys there are: what an LRU map drops when it is full is not compared."""

SPECS: Final[Mapping[MapType, Sequence[MapSpec]]] = MappingProxyType(
    {
        MapType.HASH: (
            _spec(MapType.HASH, 4, 8, 6),
            _spec(MapType.HASH, 1, 3, 64, MapFlag.NO_PREALLOC),
            _spec(MapType.HASH, 4, 12, 8, btf=LOCKED),
            _spec(MapType.HASH, 9, 65, 12, MapFlag.RDONLY),
            _spec(MapType.HASH, 8, 8, 7, MapFlag.WRONLY | MapFlag.ZERO_SEED),
        ),
        MapType.PERCPU_HASH: (
            _spec(MapType.PERCPU_HASH, 4, 8, 6),
            _spec(MapType.PERCPU_HASH, 3, 9, 64, MapFlag.NO_PREALLOC),
            _spec(MapType.PERCPU_HASH, 4, 8, 5, MapFlag.WRONLY_PROG),
        ),
        MapType.LRU_HASH: (
            _spec(MapType.LRU_HASH, 4, 8, _ROOMY),
            _spec(MapType.LRU_HASH, 7, 1, _ROOMY + 1, MapFlag.NO_COMMON_LRU),
        ),
        MapType.LRU_PERCPU_HASH: (
            _spec(MapType.LRU_PERCPU_HASH, 4, 4, _ROOMY),
            _spec(MapType.LRU_PERCPU_HASH, 8, 7, _ROOMY, MapFlag.NO_COMMON_LRU),
        ),
        MapType.ARRAY: (
            _spec(MapType.ARRAY, 4, 8, 14),
            _spec(MapType.ARRAY, 4, 3, 5, MapFlag.MMAPABLE),
            _spec(MapType.ARRAY, 4, 12, 16, btf=LOCKED),
        ),
        MapType.PERCPU_ARRAY: (
            _spec(MapType.PERCPU_ARRAY, 4, 8, 14),
            _spec(MapType.PERCPU_ARRAY, 4, 5, 3, MapFlag.RDONLY_PROG),
        ),
        MapType.LPM_TRIE: (
            _spec(MapType.LPM_TRIE, 8, 8, 64, _LPM),
            _spec(MapType.LPM_TRIE, 5, 1, 4, _LPM),
            _spec(MapType.LPM_TRIE, 20, 9, 7, _LPM),
        ),
        MapType.QUEUE: (_spec(MapType.QUEUE, 0, 8, 4), _spec(MapType.QUEUE, 0, 3, 20)),
        MapType.STACK: (_spec(MapType.STACK, 0, 8, 4), _spec(MapType.STACK, 0, 65, 20)),
        MapType.BLOOM_FILTER: (
            _spec(MapType.BLOOM_FILTER, 0, 8, 1_000),
            _spec(MapType.BLOOM_FILTER, 0, 3, 1_000, map_extra=3),
        ),
        MapType.STACK_TRACE: (_spec(MapType.STACK_TRACE, 4, 64, 14),),
    }
)
"""Maps to compare, of each type that there is in memory."""

_PROGRAMS: Final = sorted(ATOMICS | {Op.COMPARE_UPDATE})
_OPS: Final = sorted(set(Op).difference(_PROGRAMS))
_FIELDS: Final = st.builds(FieldSpec, st.sampled_from((0, 4, 8, 12, 2)), st.sampled_from((4, 8)))
_NUMBERS: Final = st.lists(st.integers(0, 15), min_size=1, max_size=6)
_SALT: Final = st.integers(0, 3)
_LOCK: Final = st.sampled_from((0, 0, 0, int(ElementFlag.LOCK)))
_FLAGS: Final = st.sampled_from((0, 0, 4, 1, 8))


class Comparison(RuleBasedStateMachine):
    """Calls on one map. Subclasses say which two sides, and of which specs."""

    sides: tuple[Side, Side]
    specs: Sequence[MapSpec]

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self._added: set[bytes] = set()

    @initialize(data=st.data())
    def create(self, data: st.DataObject) -> None:
        """A new map of a name of its own."""
        self.spec = data.draw(st.sampled_from(self.specs))
        self.elements = Elements(self.spec)
        self.name = f"{NAME}-{next(_runs)}"
        self._both("create", partial(comparison.create, name=self.name, spec=self.spec))
        self._both("open", partial(comparison.reopen, name=self.name, read_only=False))
        self._both("open", partial(comparison.reopen, name=self.name, read_only=True))
        self._both("facts", partial(comparison.facts, at=0))

    def teardown(self) -> None:
        """Nothing is left of the map."""
        for one in self.sides:
            one.release()
            if hasattr(self, "name"):
                one.store.unpin(NameRef(NAMESPACE, self.name))

    def _both(self, what: str, action: Callable[[Side], Any]) -> Any:
        self._steps += 1
        return same(what, self.sides, action)

    @rule(op=st.sampled_from(_OPS), numbers=_NUMBERS, salt=_SALT, flags=_LOCK, at=st.integers(0, 2))
    def group(self, op: Op, numbers: list[int], salt: int, flags: int, at: int) -> None:
        """One operation on some keys, by mapd.maps."""
        keys, values = self.elements.columns(numbers, salt)
        taken = values if op in TAKES_VALUE else b""
        self._apply(Group(count=len(numbers), ops=bytes([op]), keys=keys, values=taken, flags=flags), at)

    @rule(pairs=st.lists(st.tuples(st.sampled_from(_OPS), st.integers(0, 15)), min_size=2, max_size=8))
    def mixed_group(self, pairs: list[tuple[Op, int]]) -> None:
        """Operations in turn."""
        allowed = self.sides[0].openings[1].facts.traits
        pairs = [(op, number) for op, number in pairs if allowed and op in allowed.ops] or pairs[:1]
        keys, _ = self.elements.columns([number for _, number in pairs], 0)
        taken = b"".join(self.elements.value(number) for op, number in pairs if op in TAKES_VALUE)
        self._apply(Group(count=len(pairs), ops=bytes(op for op, _ in pairs), keys=keys, values=taken), 1)

    @rule(
        op=st.sampled_from(_PROGRAMS),
        numbers=_NUMBERS,
        salt=_SALT,
        field=_FIELDS,
        create=st.booleans(),
        at=st.integers(0, 2),
    )
    def programs(
        self, op: Op, numbers: list[int], salt: int, field: FieldSpec, create: bool, at: int
    ) -> None:
        """Atomics, and compare-and-update: what is expected is there where salt is that of an update."""
        keys, values = self.elements.columns(numbers, salt)
        _, others = self.elements.columns(numbers, salt + 1)
        stride = self.elements.stride
        taken = b""
        for begin in range(0, len(values), stride):
            there, new = values[begin : begin + stride], others[begin : begin + stride]
            if op is Op.COMPARE_UPDATE:
                taken += there + new
                continue
            end = field.offset + field.size
            operand = new[field.offset : end].ljust(field.size, b"\1")
            expected = there[field.offset : end].ljust(field.size, b"\1")
            taken += expected + operand if op is Op.COMPARE_EXCHANGE else operand
        group = Group(
            count=len(numbers), ops=bytes([op]), keys=keys, values=taken, field=field, create=create
        )
        self._both(op.name, partial(comparison.apply, at=at, group=group))

    @rule(
        op=st.sampled_from((Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.DELETE)),
        numbers=_NUMBERS,
        cpu=st.integers(0, comparison.CPUS),
        at=st.integers(0, 2),
    )
    def one_cpu(self, op: Op, numbers: list[int], cpu: int, at: int) -> None:
        """One CPU's slot of some elements, by mapd.maps."""
        keys, _ = self.elements.columns(numbers, 0)
        slots = b"".join(self.elements.value(number)[: self.spec.value_size] for number in numbers)
        taken = slots if op in TAKES_VALUE else b""
        group = Group(count=len(numbers), ops=bytes([op]), keys=keys, values=taken, cpu=cpu)
        self._both("one cpu", partial(comparison.apply, at=at, group=group))

    def _apply(self, group: Group, at: int) -> None:
        if self.spec.map_type in MISTAKEN:
            self._apply_bloom(group, at)
        else:
            self._both("apply", partial(comparison.apply, at=at, group=group))

    def _apply_bloom(self, group: Group, at: int) -> None:
        """What was added is in the filter; of other values either may be wrong."""
        stride, ops = self.elements.stride, group.ops * (group.count if len(group.ops) == 1 else 1)
        values = [group.values[at : at + stride] for at in range(0, len(group.values), stride)]
        if all(Op(op) in (Op.ADD, Op.CONTAINS) for op in ops):
            adds = {value for op, value in zip(ops, values, strict=True) if op == Op.ADD}
            if Op.CONTAINS in ops and not set(values) <= self._added | adds:
                return
            answer = self._both("apply", partial(comparison.apply, at=at, group=group))
            if answer[0] != "refused":
                self._added |= adds
        else:
            self._both("apply", partial(comparison.apply, at=at, group=group))

    @rule(
        op=st.sampled_from(sorted(COMMANDS)), numbers=_NUMBERS, salt=_SALT, flags=_FLAGS, at=st.integers(0, 2)
    )
    def each(self, op: Op, numbers: list[int], salt: int, flags: int, at: int) -> None:
        """One operation on some keys, past the table of types."""
        keys, values = self.elements.columns(numbers, salt)
        if self.spec.map_type in MISTAKEN and op in ANSWERS_VALUE | TAKES_VALUE:
            return
        call = partial(
            comparison.each, at=at, op=op, count=len(numbers), keys=keys, values=values, flags=flags
        )
        self._both(f"each {op.name}", call)

    @rule(
        command=st.sampled_from(BatchCommand),
        numbers=_NUMBERS | st.just([]),
        salt=_SALT,
        flags=_FLAGS,
        at=st.integers(0, 2),
    )
    def batch(self, command: BatchCommand, numbers: list[int], salt: int, flags: int, at: int) -> None:
        """A batch command."""
        keys, values = self.elements.columns(numbers, salt)
        call = partial(
            comparison.batch,
            at=at,
            command=command,
            count=len(numbers),
            keys=keys,
            values=values,
            flags=flags,
        )
        self._both(command, call)

    @rule(count=st.sampled_from((0, 1, 2, 3, 64)), at=st.integers(0, 2))
    def lookup_batches(self, count: int, at: int) -> None:
        """The whole map by LOOKUP_BATCH."""
        self._both("lookup_batch", partial(comparison.lookup_batches, at=at, count=count))

    @rule(at=st.integers(0, 2))
    def walk(self, at: int) -> None:
        """The whole map by next_key."""
        self._both("walk", partial(comparison.walk, at=at))

    @rule(number=st.integers(0, 15), at=st.integers(0, 2))
    def next_key(self, number: int, at: int) -> None:
        """The key after one that may not be there."""
        key = self.elements.key(number) if self.spec.key_size else b""
        self._both("next_key", partial(comparison.next_key, at=at, key=key))

    @rule(
        at=st.integers(0, 2),
        prefix=st.sampled_from((b"", b"\0", b"\5")),
        limit=st.sampled_from((0, 0, 1, 3)),
        page_bytes=st.sampled_from((1, 100, 1 << 16)),
    )
    def dump(self, at: int, prefix: bytes, limit: int, page_bytes: int) -> None:
        """A dump by mapd.maps."""
        options = ScanOptions(prefix=prefix, limit=limit)
        self._both("dump", partial(comparison.dump, at=at, options=options, page_bytes=page_bytes))

    @precondition(lambda self: self.spec.map_type == MapType.LPM_TRIE)
    @rule(number=st.integers(0, 15))
    def covered(self, number: int) -> None:
        """A dump of the prefixes within one."""
        options = ScanOptions(covered_by=self.elements.key(number))
        self._both("covered", partial(comparison.dump, at=1, options=options, page_bytes=1 << 16))

    @rule(at=st.integers(0, 2))
    def facts(self, at: int) -> None:
        """What info says."""
        self._both("facts", partial(comparison.facts, at=at))

    @rule()
    def count(self) -> None:
        """What the program that counts says."""
        self._both("count", partial(comparison.count, at=1))

    @rule(number=st.integers(0, 15), salt=_SALT, cpu=st.integers(0, comparison.CPUS))
    def write_one_cpu(self, number: int, salt: int, cpu: int) -> None:
        """One CPU's slot of an element."""
        key = self.elements.key(number) if self.spec.key_size else b""
        value = self.elements.value((number + salt) % 16)
        self._both("one cpu", partial(comparison.write_one_cpu, at=1, key=key, value=value, cpu=cpu))

    @rule(exist_ok=st.booleans(), other=st.integers(0, 4))
    def create_again(self, exist_ok: bool, other: int) -> None:
        """Of the same name, of this or another shape."""
        spec = self.specs[other % len(self.specs)]
        held = [len(one.openings) for one in self.sides]
        self._both("create", partial(comparison.create, name=self.name, spec=spec, exist_ok=exist_ok))
        for one, before in zip(self.sides, held, strict=True):
            for opened in one.openings[before:]:
                opened.fd.close()
            del one.openings[before:]

    @precondition(lambda self: self._steps >= _FREEZE_FROM)
    @rule(at=st.integers(0, 2), raw=st.booleans())
    def freeze(self, at: int, raw: bool) -> None:
        """For ever."""
        self._both("freeze", partial(comparison.freeze, at=at, raw=raw))


def machine(sides: tuple[Side, Side], specs: Sequence[MapSpec]) -> type[Comparison]:
    """The machine for two sides."""
    return type("ComparisonOfTwo", (Comparison,), {"sides": sides, "specs": specs})


assert set(SPECS).isdisjoint(EVICTING) or _ROOMY > STEPS * 6

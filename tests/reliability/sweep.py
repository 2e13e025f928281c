"""Every method and operation with one of its system calls failing: which there are is asked of a run that works."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from mapd.bpf import CreateMap, Fault, FaultyKernel, FreezeMap, Pin, Rename, Seen, Unpin
from mapd.bpf.abi import Command
from mapd.bpf.elements import BATCH_COMMANDS
from mapd.bpf.faulty import Target
from mapd_api import contract
from mapd_api.ops import ATOMICS, TAKES_VALUE, Op
from mapd_api.reasons import Reason, decode
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1 import types_pb2 as types
from mapd_api.v1.types_pb2 import MapRef
from tests.reliability.everymethod import METHODS, ROUND, Names, begin

ERRNOS: Final = (
    *(errno.EPERM, errno.ENOENT, errno.EINTR, errno.E2BIG, errno.EAGAIN, errno.ENOMEM, errno.EBUSY),
    *(errno.EEXIST, errno.EINVAL, errno.ENFILE, errno.EMFILE, errno.ENOSPC),
)

ELEMENTS: Final = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """A map that operations are tried on: its name is that of its type."""

    type: int
    key: int
    value: int
    flags: int = 0


KINDS: Final = {
    "hash": Kind(types.MAP_TYPE_HASH, 4, 8),
    "lru": Kind(types.MAP_TYPE_LRU_HASH, 4, 8),
    "percpu": Kind(types.MAP_TYPE_PERCPU_HASH, 4, 8),
    "array": Kind(types.MAP_TYPE_ARRAY, 4, 8),
    "lpm": Kind(types.MAP_TYPE_LPM_TRIE, 8, 8, 1),
    "queue": Kind(types.MAP_TYPE_QUEUE, 0, 8),
    "bloom": Kind(types.MAP_TYPE_BLOOM_FILTER, 0, 8),
}

OF_OP: Final = {
    **dict.fromkeys((Op.PUSH, Op.PUSH_EXIST, Op.POP, Op.PEEK), ("queue",)),
    **dict.fromkeys((Op.ADD, Op.CONTAINS), ("bloom",)),
    Op.LOOKUP_EXACT: ("lpm",),
    **dict.fromkeys((Op.LOOKUP, Op.UPDATE), ("hash", "lru", "percpu", "array", "lpm")),
    Op.DELETE: ("hash", "lru", "percpu", "lpm"),
}
"""Kinds that an operation is tried on; hash maps where none are named."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to ask for.

    Attributes:
        step: of a round, whose earlier steps are made before it; -1: an operation, which needs none.
    """

    name: str
    method: str
    requests: Sequence[Message]
    step: int = -1


WORK: Final[frozenset[Target]] = frozenset(
    {
        *(Command.MAP_LOOKUP_ELEM, Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM),
        *(Command.MAP_LOOKUP_AND_DELETE_ELEM, Command.PROG_TEST_RUN, *BATCH_COMMANDS.values()),
        *(CreateMap, FreezeMap, Pin, Rename, Unpin),
    }
)
"""Calls that do what is asked for: who says "done" where one of them has failed has made more than where none fails."""

SAYS_HOW: Final = frozenset({"ListMaps", "ListMapStats", "CountEntries"})
"""Their answers say what they lack, and how a number was come by."""

_BATCHES: Final = frozenset(BATCH_COMMANDS.values())


@dataclass(frozen=True, slots=True)
class Case:
    """One call that fails in one action.

    Attributes:
        plain: what its caller is told where none fails.
        work: how many calls of WORK are made then.
    """

    action: Action
    target: Target
    nth: int
    place: str
    errno: int
    plain: frozenset[str] = frozenset()
    work: int = 0

    def lied(self, told: Set[str], work: int) -> bool:
        """Whether it was told as done, and cannot be, after so many calls of WORK."""
        absent = self.errno == errno.ENOENT and self.action.method in {"Lookup", "Delete"}  # it says so
        done = told == {"ok"} and not absent and self.action.method not in SAYS_HOW
        return done and self.target in WORK and work <= self.work

    def __str__(self) -> str:
        target = getattr(self.target, "__name__", None) or getattr(self.target, "name", "")
        return f"{self.action.name}: {self.place} call, {target} #{self.nth}: {errno.errorcode[self.errno]}"


@dataclass(slots=True)
class Sweep:
    """Goes over one daemon, whose kernel is ``kernel``.

    Attributes:
        forget: closes handles: of calls, they are no session's, and a principal has 1,024.
        told: what callers were told, by errno: "ok", or reasons of calls, groups and elements.
        strange: cases that ended as no case may.
        missed: cases in which the call that was to fail did not come.
    """

    channel: grpc.aio.Channel
    kernel: FaultyKernel
    names: Names
    forget: Callable[[], None]
    told: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    strange: list[str] = field(default_factory=list[str])
    cases: int = 0
    missed: int = 0

    async def prepare(self) -> None:
        """The maps that operations are tried on, and what a round finds."""
        for name, kind in KINDS.items():
            made = maps.CreateMapRequest(
                type=kind.type,  # type: ignore[arg-type]  # enum numbers are ints
                key_size=kind.key,
                value_size=kind.value,
                max_entries=64,
                map_flags=kind.flags,
            )
            made.named.name = f"r4-{name}"
            assert await self.ask("CreateMap", [made]) == {"ok"}

    def actions(self) -> Iterator[Action]:
        """Every method, and every operation on every kind that it is tried on."""
        for step, (name, build) in enumerate(ROUND):
            made = build(self.names)
            requests = [made] if isinstance(made, Message) else list(made)
            yield Action(f"{name} ({step})", name, requests, step)
        for op in contract.op_verbs():
            for kind in OF_OP.get(op, ("hash",)):
                request = pb.ApplyRequest(groups=[self._group(op, kind)])
                yield Action(f"Apply {op.name} on {kind}", "Apply", [request])

    @staticmethod
    def _group(op: Op, name: str) -> pb.OpGroup:
        kind = KINDS[name]
        found = pb.OpGroup(map=MapRef(name=f"r4-{name}"), count=ELEMENTS, ops=bytes([op]))
        prefix = (32).to_bytes(4, "little") if name == "lpm" else b""
        order = "big" if name == "lpm" else "little"
        if kind.key:
            found.keys = b"".join(prefix + n.to_bytes(4, order) for n in range(ELEMENTS))  # type: ignore[arg-type]
        value = 16 if op in (Op.COMPARE_EXCHANGE, Op.COMPARE_UPDATE) else 8
        if name == "percpu":
            value = 16
        if op in TAKES_VALUE:
            found.values = bytes(value * ELEMENTS)
        if op in ATOMICS:
            found.field.size = 8
            found.create = op is not Op.COMPARE_EXCHANGE
        return found

    async def cases_of(self, action: Action, choice: random.Random, part: float) -> list[Case]:
        """The first, the second and the last call of an action that works, each with every errno; or a part of them."""
        await self._before(action)
        self.kernel.forget()
        plain = frozenset(await self.ask(action.method, action.requests))
        calls = [seen.target for seen in self.kernel.seen for _ in range(_asked(seen))]
        work = self._work()
        await self._after(action)
        places = {"first": 0, "second": 1, "last": len(calls) - 1}
        found: dict[int, Case] = {}
        for place, at in places.items():
            if 0 <= at < len(calls):
                nth = calls[: at + 1].count(calls[at])
                found.setdefault(at, Case(action, calls[at], nth, place, 0))
        return [
            Case(case.action, case.target, case.nth, case.place, number, plain, work)
            for case in found.values()
            for number in ERRNOS
            if choice.random() < part
        ]

    async def run(self, case: Case) -> None:
        """One case, from a state that is the same each time."""
        await self._before(case.action)
        fault = Fault(target=case.target, nth=case.nth, errno=case.errno)
        self.kernel.forget()
        self.kernel.add(fault)
        try:
            told = await self.ask(case.action.method, case.action.requests)
        finally:
            self.kernel.remove(fault)
        if fault not in self.kernel.fired:
            self.missed += 1
        elif case.lied(told, self._work()):
            self.strange.append(f"{case}: it was told as done, and the call was not made again")
        await self._after(case.action)
        self.cases += 1
        self.told.setdefault(errno.errorcode[case.errno], Counter()).update(told)
        self.strange += [f"{case}: {one}" for one in told if not documented(case, one)]

    def _work(self) -> int:
        """How many calls of WORK have been made, or tried, since the last ``forget``."""
        return sum(seen.count for seen in self.kernel.seen if seen.target in WORK)

    async def _before(self, action: Action) -> None:
        for name, build in ROUND[: max(0, action.step)]:
            if name not in {"Dump", "Load", "ListMaps", "ListMapStats", "GetHostInfo", "Session"}:
                made = build(self.names)
                told = await self.ask(name, [made] if isinstance(made, Message) else list(made))
                assert told == {"ok"} or name == "GetBtf", f"before {action.name}: {name}: {told}"

    async def _after(self, action: Action) -> None:
        """Take away what the round has made, whatever became of it."""
        self.forget()
        if action.step < 0:
            return
        for name in (self.names.mine, f"{self.names.mine}-2"):
            await self.ask("UnpinMap", [maps.UnpinMapRequest(map=MapRef(name=name))])
        pin = MapRef(pin=f"{self.names.pins}/{self.names.mine}")
        await self.ask("UnpinMap", [maps.UnpinMapRequest(map=pin)])
        (revoke,) = [build(self.names) for name, build in ROUND if name == "LeaseRevoke"]
        assert isinstance(revoke, Message)
        await self.ask("LeaseRevoke", [revoke])

    async def ask(self, name: str, requests: Sequence[Message]) -> set[str]:
        """What one call was told: "ok", and the reasons for which it, its groups or its elements were refused."""
        method = METHODS[name]
        call = begin(self.channel, method, requests)
        told: set[str] = set()
        try:
            if method.server_streaming:
                async for answer in call:
                    told |= _inside(answer)
            else:
                told |= _inside(await call)
        except grpc.aio.AioRpcError as error:
            return {_reason(error)}
        return told or {"ok"}


def _asked(seen: Seen) -> int:
    """How many calls a rule of ``FaultyKernel`` takes it for: a batch is one."""
    return 1 if seen.target in _BATCHES else seen.count


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            refusal = decode(Status.FromString(value))
            if refusal is not None:
                return refusal.reason.name
    return f"{error.code().name} without a reason: {error.details()}"


def _inside(answer: Any) -> set[str]:
    """Reasons in an answer: of groups, of elements, of a dump that is not complete."""
    told: set[str] = set()
    for result in getattr(answer, "results", ()):
        if result.HasField("error"):
            told.add(Reason(int(result.error.reason)).name)
        told |= {Reason(one).name for one in result.statuses}
    for one in getattr(answer, "errors", ()):
        told.add(Reason(int(one.reason)).name)
    if isinstance(answer, pb.DumpResponse) and answer.HasField("trailer") and not answer.trailer.complete:
        told.add(f"incomplete: {answer.trailer.incomplete_reason}")
    if isinstance(answer, maps.ListMapsResponse):
        told |= {"not looked at" for one in answer.not_looked_at if "ask for" not in one}
    return told - {"DONE"} or ({"ok"} if told else set())


_PASSING: Final = {errno.EINTR, errno.EAGAIN, errno.EBUSY}
_SCARCE: Final = {errno.ENOMEM, errno.EMFILE, errno.ENFILE}
_ELEMENTS: Final = {
    *_PASSING,
    errno.ENOMEM,
    errno.ENOENT,
    errno.EEXIST,
    errno.E2BIG,
    errno.EINVAL,
    errno.ENOSPC,
}


def possible(target: Target) -> set[int]:
    """What the kernel may answer there: these have a reason of their own each, and no other is INTERNAL to a caller.

    Source: kernel/bpf/syscall.c. The opener may be busy, and short of anything, at every request.
    """
    if target is Command.PROG_TEST_RUN:
        return {errno.ENOMEM}
    if target is Command.MAP_GET_NEXT_KEY:  # "no more keys" is no errno where it is asked here
        return _PASSING | {errno.ENOMEM}
    if target is Command.OBJ_GET_INFO_BY_FD:  # with what is read of /proc/self/fdinfo
        return _PASSING | _SCARCE
    if target is Command.MAP_UPDATE_ELEM:  # ENOENT is of EXIST alone
        return _ELEMENTS - {errno.ENOENT}
    if isinstance(target, Command):
        return _ELEMENTS | {errno.EPERM} if target in set(BATCH_COMMANDS.values()) else _ELEMENTS
    return _PASSING | _SCARCE | {errno.EPERM}


REASONS: Final[Mapping[int, frozenset[str]]] = {
    **dict.fromkeys(_PASSING, frozenset({"BUSY"})),
    errno.ENOMEM: frozenset({"KERNEL_MEMORY"}),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), frozenset({"QUOTA"})),
    errno.EPERM: frozenset(
        {"DAEMON_CAPABILITY", "MAP_FROZEN", "READ_ONLY", "OPERATION_UNSUPPORTED", "BAD_SPEC"}
    ),
    errno.ENOENT: frozenset({"MAP_NOT_FOUND", "KEY_MISSING", "KEY_ABSENT", "INDEX_OUT_OF_RANGE", "BAD_SPEC"}),
    errno.EEXIST: frozenset({"KEY_EXISTS", "MAP_EXISTS", "INCOMPATIBLE", "BAD_SPEC"}),
    errno.E2BIG: frozenset({"MAP_FULL", "INDEX_OUT_OF_RANGE", "BAD_SPEC"}),
    errno.ENOSPC: frozenset({"MAP_FULL", "KERNEL_MEMORY", "BAD_SPEC"}),
    errno.EINVAL: frozenset(
        {"BAD_COLUMNS", "BAD_SPEC", "BAD_FLAGS", "OPERATION_UNSUPPORTED", "INCOMPATIBLE"}
    ),
}
"""What each errno may become (design: errors); which of several depends on the call and the map's type."""


def documented(case: Case, told: str) -> bool:
    """Whether a caller may be told so.

    What he would be told without the failure, what was said to be left out, or a reason of this errno. Where the kernel
    has no such errno for the call any reason will do, INTERNAL with an incident too. A key that is not there may have
    been removed by an element before.
    """
    if told in case.plain or told in {"ok", "not looked at", "KEY_ABSENT"} or told.startswith("incomplete: "):
        return True
    if case.errno not in possible(case.target):
        return told in Reason.__members__
    return told in REASONS[case.errno]

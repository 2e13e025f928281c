"""A client of a daemon against ``mapd.maps`` on the same kernel: the way through gRPC changes no answer."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import mapd_client
from mapd.bpf import Columns, Kernel, LinuxKernel
from mapd.daemon import running
from mapd.maps.errors import MapError
from mapd.maps.groups import Group
from mapd.maps.scan import ScanOptions
from mapd.maps.spec import MapSpec
from mapd.maps.store import NameRef
from mapd_api import limits
from mapd_api.ops import TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES, MapType
from mapd_client import BatchFailed, Bloom, Bytes, Client, Map, MapdError, PerCpu, Queue
from mapd_client.info import UpdateFlag
from tests.suite import comparison
from tests.suite.comparison import MISTAKEN, NAMESPACE, UNORDERED, Elements, Side, Unlike, side
from tests.suite.machine import SPECS, STEPS
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import nothing_left_behind
from tests.support.daemon import Place

pytestmark = pytest.mark.e2e

RUNS: Final = 200
_FREEZE_FROM: Final = 30
_runs = itertools.count()

COMPARED: Final[Sequence[MapSpec]] = [spec for specs in SPECS.values() for spec in specs if spec.btf is None]
"""Without a lock in the value: the client holds it unless told not to."""

FLAGS: Final[dict[Op, UpdateFlag]] = {
    Op.UPDATE: "any",
    Op.UPDATE_NOEXIST: "noexist",
    Op.UPDATE_EXIST: "exist",
}
NUMBERS: Final = st.lists(st.integers(0, 15), min_size=1, max_size=6)

Raw = Map[bytes, bytes]


class Remote:
    """The far side, step by step: nothing of it runs between steps."""

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self._runner = runner
        self.client = client

    def do(self, step: Coroutine[Any, Any, Any]) -> Any:
        """What a call answers, or its Reason."""
        try:
            return self._runner.run(step)
        except MapdError as error:
            return "refused", error.reason


async def create(client: Client, name: str, spec: MapSpec) -> None:
    """A map of the spec, by the client."""
    value: Any = PerCpu(Bytes(spec.value_size)) if spec.map_type in PER_CPU_TYPES else Bytes(spec.value_size)
    created = await client.create_map(
        name,
        MapType(spec.map_type),
        key=Bytes(spec.key_size),
        value=value,
        max_entries=spec.max_entries,
        flags=spec.flags,
        map_extra=spec.map_extra,
    )
    await created.aclose()


class Comparison(RuleBasedStateMachine):
    """The same calls by mapd.maps here, and by the client there, on a map each."""

    here: Side
    there: Remote

    @initialize(spec=st.sampled_from(COMPARED), read_only=st.sampled_from((False, False, False, True)))
    def create(self, spec: MapSpec, read_only: bool) -> None:
        """A map on each side, opened by name."""
        self.spec, self.elements = spec, Elements(spec)
        self.name, self._steps = f"remote-{next(_runs)}", 0
        self._added: set[bytes] = set()
        comparison.create(self.here, self.name, spec)
        comparison.reopen(self.here, self.name, read_only=read_only)
        self.there.do(create(self.there.client, self.name, spec))
        client, codec = self.there.client, Bytes(self.elements.stride)
        self.far: Raw | Queue[bytes] | Bloom[bytes]
        if spec.map_type == MapType.BLOOM_FILTER:
            self.far = self.there.do(_opened(client.open_bloom(self.name, value=codec)))
        elif not spec.key_size:
            self.far = self.there.do(_opened(client.open_queue(self.name, value=codec)))
        else:
            self.far = self.there.do(_opened(client.open_map(self.name, read_only=read_only)))
        if read_only and not spec.key_size:  # these are opened for both ways only
            comparison.reopen(self.here, self.name, read_only=False)

    def teardown(self) -> None:
        """Nothing is left of either."""
        if not hasattr(self, "far"):
            return
        self.here.release()
        self.here.store.unpin(NameRef(NAMESPACE, self.name))
        self.there.do(self.far.aclose())
        self.there.do(self.there.client.unpin_map(self.name))

    def _same(self, what: str, near: Callable[[], Any], far: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._steps += 1
        try:
            first = near()
        except MapError as error:
            first = "refused", error.reason
        second = self.there.do(far())
        if first != second:
            raise Unlike(f"{what} on {self.spec}", first, second)

    def _near(self, op: Op, numbers: list[int], salt: int = 0) -> list[object]:
        """What became of each element: its value, or its Reason."""
        keys, values = self.elements.columns(numbers, salt)
        taken = values if op in TAKES_VALUE else b""
        group = Group(count=len(numbers), ops=bytes([op]), keys=keys, values=taken)
        statuses, _, found = comparison.apply(self.here, -1, group)
        values_or_nothing = found or [b""] * len(numbers)
        return [
            Reason(status) if status else value
            for status, value in zip(statuses, values_or_nothing, strict=True)
        ]

    def _near_one(self, op: Op, number: int, salt: int = 0) -> object:
        """A single call: what it answers, or how it is refused."""
        (found,) = self._near(op, [number], salt)
        return found if isinstance(found, bytes) or found is Reason.KEY_ABSENT else ("refused", found)

    @precondition(lambda self: self.spec.key_size)
    @rule(op=st.sampled_from((Op.LOOKUP, Op.LOOKUP_AND_DELETE)), number=st.integers(0, 15))
    def fetch(self, op: Op, number: int) -> None:
        """Values by key."""
        far, key = self._map, self.elements.key(number)

        async def there() -> object:
            found = await (far.lookup(key) if op is Op.LOOKUP else far.lookup_and_delete(key))
            return Reason.KEY_ABSENT if found is None else found

        self._same(op.name, partial(self._near_one, op, number), there)

    @precondition(lambda self: self.spec.key_size)
    @rule(op=st.sampled_from(sorted(FLAGS)), number=st.integers(0, 15), salt=st.integers(0, 3))
    def update(self, op: Op, number: int, salt: int) -> None:
        """One element."""
        far, key, value = self._map, self.elements.key(number), self.elements.value((number + salt) % 16)

        async def there() -> object:
            await far.update(key, value, flags=FLAGS[op])
            return b""

        self._same(op.name, partial(self._near_one, op, number, salt), there)

    @precondition(lambda self: self.spec.key_size)
    @rule(number=st.integers(0, 15))
    def delete(self, number: int) -> None:
        """One element."""
        far, key = self._map, self.elements.key(number)

        async def there() -> object:
            return b"" if await far.delete(key) else Reason.KEY_ABSENT

        self._same("delete", partial(self._near_one, Op.DELETE, number), there)

    @precondition(lambda self: self.spec.key_size)
    @rule(op=st.sampled_from(sorted(FLAGS)), numbers=NUMBERS, salt=st.integers(0, 3))
    def update_many(self, op: Op, numbers: list[int], salt: int) -> None:
        """Each element's fate."""
        far = self._map
        pairs = [(self.elements.key(n), self.elements.value((n + salt) % 16)) for n in numbers]

        async def there() -> object:
            try:
                await far.update_many(pairs, flags=FLAGS[op])
            except BatchFailed as failed:
                whole = _whole(failed, len(pairs))
                return whole or [
                    failed.errors[at].reason if at in failed.errors else b"" for at in range(len(pairs))
                ]
            return [b""] * len(pairs)

        self._same(f"many {op.name}", partial(self._near, op, numbers, salt), there)

    @precondition(lambda self: self.spec.key_size)
    @rule(numbers=NUMBERS)
    def lookup_many(self, numbers: list[int]) -> None:
        """Values in order; where a key cannot be, the whole call is refused."""
        far, keys = self._map, [self.elements.key(number) for number in numbers]

        def here() -> object:
            found = self._near(Op.LOOKUP, numbers)
            bad = [one for one in found if isinstance(one, Reason) and one is not Reason.KEY_ABSENT]
            return ("refused", bad[0]) if bad else found

        async def there() -> object:
            return [Reason.KEY_ABSENT if found is None else found for found in await far.lookup_many(keys)]

        self._same("lookup_many", here, there)

    @precondition(lambda self: not self.spec.key_size and self.spec.map_type not in MISTAKEN)
    @rule(numbers=NUMBERS, exist=st.booleans())
    def push(self, numbers: list[int], exist: bool) -> None:
        """Values into a queue or stack, one by one."""
        far, op = self.far, Op.PUSH_EXIST if exist else Op.PUSH
        assert isinstance(far, Queue)
        for number in numbers:

            async def there(value: bytes = self.elements.value(number)) -> object:
                await far.push(value, exist=exist)
                return b""

            self._same(op.name, partial(self._near_one, op, number), there)

    @precondition(lambda self: not self.spec.key_size and self.spec.map_type not in MISTAKEN)
    @rule(op=st.sampled_from((Op.POP, Op.PEEK)))
    def take(self, op: Op) -> None:
        """The next value."""
        far = self.far
        assert isinstance(far, Queue)

        async def there() -> object:
            found = await (far.pop() if op is Op.POP else far.peek())
            return Reason.KEY_ABSENT if found is None else found

        self._same(op.name, partial(self._near_one, op, 0), there)

    @precondition(lambda self: self.spec.map_type in MISTAKEN)
    @rule(number=st.integers(0, 15), adds=st.booleans())
    def filter(self, number: int, adds: bool) -> None:
        """A Bloom filter has what was added; of the rest either side may be wrong."""
        far, value = self.far, self.elements.value(number)
        assert isinstance(far, Bloom)
        if not adds and value not in self._added:
            return

        async def there() -> object:
            if adds:
                await far.add(value)
                return b""
            return b"" if await far.contains(value) else Reason.KEY_ABSENT

        frozen: list[bool] = [self._frozen()]
        self._same("filter", partial(self._near_one, Op.ADD if adds else Op.CONTAINS, number), there)
        if adds and not any(frozen):
            self._added.add(value)

    def _frozen(self) -> bool:
        with self.here.openings[-1].lease() as map_fd:
            return self.here.kernel.info(map_fd).frozen

    @precondition(lambda self: self.spec.key_size)
    @rule(prefix=st.sampled_from((b"", b"\0", b"\5")), limit=st.sampled_from((None, None, 1, 3)))
    def dump(self, prefix: bytes, limit: int | None) -> None:
        """Everything, and the trailer."""
        far, unordered = self._map, self.spec.map_type in UNORDERED

        def here() -> object:
            options = ScanOptions(prefix=prefix, limit=limit or 0)
            rows, trailer = comparison.dump(self.here, -1, options, limits.CHUNK_MIN_BYTES)
            entries, method, restarts, duplicates, incomplete = trailer
            return rows, entries, method, restarts, duplicates, not incomplete

        async def there() -> object:
            dump = far.items(prefix=prefix, limit=limit)
            rows = [pair async for pair in dump]
            assert dump.trailer is not None
            found = dump.trailer
            if unordered:
                rows = [] if limit else sorted(rows)
            numbers = found.entries, found.method, found.restarts, found.duplicates_suppressed, found.complete
            return rows, *numbers

        self._same("dump", here, there)

    @precondition(lambda self: self._steps >= _FREEZE_FROM)
    @rule()
    def freeze(self) -> None:
        """For ever."""
        self._same("freeze", partial(comparison.freeze, self.here, -1, raw=False), self.far.freeze)

    @property
    def _map(self) -> Raw:
        assert isinstance(self.far, Map)
        return self.far


def _whole(failed: BatchFailed, count: int) -> tuple[str, Reason | None] | None:
    """The refusal of all elements together, as mapd.maps would say it; None where each has its own fate."""
    reasons = {error.reason for error in failed.errors.values()}
    if len(failed.errors) == count and reasons <= {
        Reason.OPERATION_UNSUPPORTED,
        Reason.MAP_FROZEN,
        Reason.READ_ONLY,
    }:
        return "refused", reasons.pop()
    return None


async def _opened(opening: Any) -> Any:
    return await opening


@contextmanager
def two_ways(kernel: Kernel | None = None) -> Generator[type[Comparison]]:
    """The machine for a store here and a client of a daemon, in two folders of one bpffs."""
    require_bpf()
    with (
        nothing_left_behind(),
        mounted_bpffs() as bpffs,
        tempfile.TemporaryDirectory(prefix="mapd-") as folder,
    ):
        near, far = bpffs / "near", bpffs / "far"
        for made in (near, near / "names", far):
            made.mkdir()
        here = side(LinuxKernel(), str(near))
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()

            async def start() -> Client:
                ready = await stack.enter_async_context(running(Place(Path(folder), far).config(), kernel))
                return await stack.enter_async_context(mapd_client.connect(str(ready.socket)))

            try:
                there = Remote(runner, runner.run(start()))
                yield type("RemoteComparison", (Comparison,), {"here": here, "there": there})
            finally:
                here.close()
                runner.run(stack.aclose())


STEPPED: Final = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)


def test_a_client_gets_the_answers_that_mapd_maps_gives() -> None:
    """200 runs of 50 steps over all types of data."""
    with two_ways() as machine:
        run_state_machine_as_test(machine, settings=STEPPED)


class Forgetful(LinuxKernel):
    """Takes NOEXIST for ANY."""

    __slots__ = ()

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        """As ``Elements.each``, but for that."""
        return super().each(map_fd, Op.UPDATE if op is Op.UPDATE_NOEXIST else op, columns, flags)


def test_a_planted_difference_is_found() -> None:
    """A comparison that finds nothing where there is something would prove nothing."""
    found = settings(STEPPED, phases=(Phase.generate,), report_multiple_bugs=False)
    with two_ways(Forgetful()) as machine, pytest.raises(Unlike):
        run_state_machine_as_test(machine, settings=found)

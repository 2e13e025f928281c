"""A kernel, through mapd.maps alone: no daemon, no socket, no client."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from mapd.bpf import Kernel, LinuxKernel, boot_id, possible_cpus
from mapd.maps.counting import Counted, by_kernel, by_shape
from mapd.maps.errors import MapError
from mapd.maps.execute import execute
from mapd.maps.groups import FieldSpec, Group, plan
from mapd.maps.job import Outcome
from mapd.maps.listing import Wanted, list_maps
from mapd.maps.opened import OpenMap
from mapd.maps.program_trials import try_programs
from mapd.maps.scan import Page, ScanOptions
from mapd.maps.spec import BtfSpec, MapSpec
from mapd.maps.store import IdRef, MapStore, NameRef, PinRef, Ref
from mapd.opener import Limits
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.suite.backend import AnyMap, Backend, Facts, Field, Flag, Pair, Part, Refused, Types
from tests.support.daemon import Place
from tests.support.openers import opener

T = TypeVar("T")

NAMESPACE = "suite"

UPDATES = {"any": Op.UPDATE, "noexist": Op.UPDATE_NOEXIST, "exist": Op.UPDATE_EXIST}


@contextlib.contextmanager
def _reasons() -> Generator[None]:
    try:
        yield
    except MapError as error:
        raise Refused(error.reason, str(error)) from error


class KernelMap:
    """An open map of a store."""

    def __init__(self, store: MapStore, opened: OpenMap) -> None:
        self._store = store
        self._opened = opened
        self._frozen = opened.facts.info.frozen

    @property
    def facts(self) -> Facts:
        of, info = self._opened.facts, self._opened.facts.info
        return Facts(
            id=info.id,
            type=info.map_type,
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
            value_stride=of.value_stride,
            frozen=self._frozen,
            name=self._opened.name,
            pin_path=self._opened.pin_path,
            operations=frozenset(of.traits.operations if of.traits else ()),
        )

    def _run(self, op: Op, keys: Sequence[bytes], values: Sequence[bytes] = ()) -> Outcome:
        return self._apply(
            Group(count=len(keys), ops=bytes([op]), keys=b"".join(keys), values=b"".join(values))
        )

    def _apply(self, group: Group) -> Outcome:
        with _reasons():
            checked = plan(group, self._opened)
            with self._opened.lease() as map_fd:
                return execute(self._store.kernel, map_fd, self._opened, checked)

    def _one(self, op: Op, key: bytes, values: Sequence[bytes] = ()) -> Outcome:
        outcome = self._run(op, [key], values)
        for failure in outcome.errors:
            raise Refused(failure.reason, f"{op.name} {key.hex()}: errno {failure.errno}")
        return outcome

    def _value(self, outcome: Outcome, at: int = 0) -> bytes | None:
        stride = self._opened.facts.value_stride
        return None if outcome.statuses[at] else outcome.values.take(stride, at * stride)

    async def lookup(self, key: bytes) -> bytes | None:
        return self._value(self._one(Op.LOOKUP, key))

    async def update(self, key: bytes, value: bytes, flag: Flag = "any") -> None:
        self._one(UPDATES[flag], key, [value])

    async def delete(self, key: bytes) -> bool:
        return self._one(Op.DELETE, key).statuses[0] == Reason.DONE

    async def lookup_and_delete(self, key: bytes) -> bytes | None:
        return self._value(self._one(Op.LOOKUP_AND_DELETE, key))

    async def lookup_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for some in _messages(keys):
            outcome = self._run(Op.LOOKUP, some)
            for failure in outcome.errors:
                raise Refused(failure.reason, f"element {failure.index}")
            found += [self._value(outcome, at) for at in range(len(some))]
        return found

    async def update_many(self, pairs: Sequence[Pair], flag: Flag = "any") -> list[Reason]:
        return [
            Reason(status)
            for some in _messages(pairs)
            for status in self._run(UPDATES[flag], [k for k, _ in some], [v for _, v in some]).statuses
        ]

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        return sum(self._run(Op.DELETE, some).statuses.count(Reason.DONE) for some in _messages(keys))

    def _pages(self, options: ScanOptions) -> list[Page]:
        pages: list[Page] = []
        with _reasons():
            scan = self._store.scan(self._opened, options)
            while not scan.done:
                with self._opened.lease() as map_fd:
                    pages.append(scan.page(map_fd, limits.CHUNK_MIN_BYTES))
        assert not scan.incomplete
        return pages

    def _part(self, page: Page) -> Part:
        of = self._opened.facts
        return Part(_cut(page.keys, of.key_stride), _cut(page.values, of.value_stride), page.token)

    async def items(self, *, prefix: bytes = b"", limit: int | None = None) -> list[Pair]:
        parts = map(self._part, self._pages(ScanOptions(prefix=prefix, limit=limit or 0)))
        return [pair for part in parts for pair in zip(part.keys, part.values, strict=True)]

    async def keys(self, *, prefix: bytes = b"", limit: int | None = None) -> list[bytes]:
        pages = self._pages(ScanOptions(values=False, prefix=prefix, limit=limit or 0))
        assert not any(page.values for page in pages)
        return [key for page in pages for key in self._part(page).keys]

    async def values(self, *, limit: int | None = None) -> list[bytes]:
        pages = self._pages(ScanOptions(keys=False, limit=limit or 0))
        assert not any(page.keys for page in pages)
        return [value for page in pages for value in self._part(page).values]

    async def parts(self, *, resume: bytes | None = None) -> list[Part]:
        pages = self._pages(ScanOptions(token=resume or b""))
        return [self._part(page) for page in pages if page.count]

    async def count(self) -> Counted:
        found = by_shape(self._opened.facts)
        if found is None:
            with self._opened.lease() as map_fd:
                found = by_kernel(self._store.kernel, self._opened.facts, map_fd)
        return found or Counted(len(await self.keys()), False, "scan")

    async def lookup_exact(self, key: bytes) -> bytes | None:
        return self._value(self._one(Op.LOOKUP_EXACT, key))

    async def atomic(
        self, op: Op, key: bytes, operand: int, part: Field, *, expected: int = 0, create: bool = False
    ) -> int | None:
        given = [expected, operand] if op is Op.COMPARE_EXCHANGE else [operand]
        (found,) = self._atomics(op, [key], given, part, create=create)
        return found

    async def fetch_add_many(
        self, keys: Sequence[bytes], operands: Sequence[int], part: Field, *, create: bool = False
    ) -> list[int | None]:
        return self._atomics(Op.FETCH_ADD, keys, operands, part, create=create)

    def _atomics(
        self, op: Op, keys: Sequence[bytes], operands: Sequence[int], part: Field, *, create: bool
    ) -> list[int | None]:
        offset, size = part
        group = Group(
            count=len(keys),
            ops=bytes([op]),
            keys=b"".join(keys),
            values=b"".join((number % (1 << 8 * size)).to_bytes(size, "little") for number in operands),
            field=FieldSpec(offset, size),
            create=create,
        )
        outcome = self._apply(group)
        for failure in outcome.errors:
            raise Refused(failure.reason, f"element {failure.index}: errno {failure.errno}")
        return [
            None if status else int.from_bytes(outcome.values.take(size, at * size), "little")
            for at, status in enumerate(outcome.statuses)
        ]

    async def compare_update(self, key: bytes, expected: bytes, new: bytes) -> bytes | None:
        return self._value(self._one(Op.COMPARE_UPDATE, key, [expected + new]))

    async def freeze(self) -> None:
        with _reasons():
            self._store.freeze(self._opened)
        self._frozen = True

    async def pin(self, path: Path) -> None:
        with _reasons():
            self._store.pin(self._opened, str(path))

    async def close(self) -> None:
        self.release()

    def release(self) -> None:
        """Give the descriptor back; again does nothing."""
        self._opened.fd.close()


class KernelBackend:
    """A store of maps in this process."""

    def __init__(self, place: Place, kernel: Kernel) -> None:
        self.kernel: Kernel = kernel
        self._programs = try_programs(kernel, 1, possible_cpus())
        self._store = MapStore(
            kernel=kernel,
            possible_cpus=possible_cpus(),
            boot_id=uuid.UUID(boot_id()),
            names_root=str(place.names),
            pin_roots=(str(place.bpffs),),
            programs=self._programs,
        )
        self._maps: list[KernelMap] = []
        self.pins = place.bpffs

    def path_of(self, name: str) -> Path:
        return Path(self._store.path_of(NameRef(NAMESPACE, name)))

    def _keep(self, opened: OpenMap) -> KernelMap:
        self._maps.append(KernelMap(self._store, opened))
        return self._maps[-1]

    async def create(
        self,
        name: str,
        type: MapType,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        exist_ok: bool = False,
        btf: Types | None = None,
    ) -> AnyMap:
        spec = MapSpec(
            map_type=type,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            flags=flags,
            btf=BtfSpec(blob=btf.blob, key_type_id=btf.key, value_type_id=btf.value) if btf else None,
        )
        with _reasons():
            opened, _ = self._store.create(NameRef(NAMESPACE, name), spec, exist_ok=exist_ok)
        return self._keep(opened)

    async def open(self, ref: str, *, read_only: bool = False) -> AnyMap:
        with _reasons():
            return self._keep(self._store.open(_ref(ref), read_only=read_only))

    async def unpin(self, ref: str) -> None:
        found = _ref(ref)
        assert not isinstance(found, IdRef)
        with _reasons():
            self._store.unpin(found)

    async def names(self) -> list[str]:
        return [found.name for found in list_maps(self._store, Wanted()).maps]

    def close(self) -> None:
        """Close what is open."""
        for one in self._maps:
            one.release()
        self._programs.close()


@asynccontextmanager
async def kernel_backend(place: Place) -> AsyncGenerator[Backend]:
    place.names.mkdir()
    backend = KernelBackend(place, LinuxKernel())
    try:
        yield backend
    finally:
        backend.close()


@asynccontextmanager
async def opener_backend(place: Place) -> AsyncGenerator[Backend]:
    """The same, where an opener does what needs rights."""
    place.names.mkdir()
    with opener(Limits(names_root=str(place.names), pin_roots=(str(place.bpffs),))) as kernel:
        backend = KernelBackend(place, kernel)
        backend.kernel = LinuxKernel()
        try:
            yield backend
        finally:
            backend.close()


def _ref(ref: str) -> Ref:
    kind, _, rest = ref.partition(":")
    match kind:
        case "pin":
            return PinRef(rest)
        case "id":
            return IdRef(int(rest))
        case _:
            return NameRef(NAMESPACE, ref)


def _cut(column: bytes, stride: int) -> list[bytes]:
    return [column[at : at + stride] for at in range(0, len(column), stride)]


def _messages(elements: Sequence[T]) -> Generator[Sequence[T]]:
    """As many at once as a group takes."""
    for start in range(0, len(elements), limits.BATCH_ELEMENTS):
        yield elements[start : start + limits.BATCH_ELEMENTS]

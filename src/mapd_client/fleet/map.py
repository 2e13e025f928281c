"""One map on many hosts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, cast

from mapd_client.chunk import Chunk
from mapd_client.codec import decoded as decoded_column
from mapd_client.errors import DeadlineExceeded, MapdError, TypeMismatch
from mapd_client.info import Count
from mapd_client.map import Map

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FleetCount:
    """How many elements there are, on all hosts that answered.

    Attributes:
        by_host: of each.
        unreachable: the others, with the reason.
    """

    by_host: Mapping[str, Count]
    unreachable: Mapping[str, MapdError]

    @property
    def entries(self) -> int:
        """Of all that answered."""
        return sum(one.entries for one in self.by_host.values())

    @property
    def exact(self) -> bool:
        """Whether every host answered, and each count is exact."""
        return not self.unreachable and all(one.exact for one in self.by_host.values())


@dataclass(frozen=True, slots=True)
class FleetSum:
    """The sum of all values, on all hosts that answered.

    Attributes:
        by_host: of each.
        unreachable: the others, with the reason.
    """

    by_host: Mapping[str, int | float]
    unreachable: Mapping[str, MapdError]

    @property
    def total(self) -> int | float:
        """Of all that answered."""
        return sum(self.by_host.values())


class FleetMap(Generic[K, V]):
    """The map of one name on many hosts, open for reading; from ``Fleet.open_map``.

    Attributes:
        maps: by host, where it is open.
        unreachable: the other hosts with the reason; those that fail later join them.
    """

    def __init__(
        self,
        name: str,
        maps: Mapping[str, Map[K, V]],
        unreachable: dict[str, MapdError],
        timeout: float,
        turns: asyncio.Semaphore,
        concurrency: int,
    ) -> None:
        self.maps: Final = maps
        self.unreachable: dict[str, MapdError] = unreachable
        self._name = name
        self._timeout = timeout
        self._turns = turns
        self._concurrency = concurrency

    def __repr__(self) -> str:
        return f"<FleetMap {self._name} on {len(self.maps)} hosts, {len(self.unreachable)} not>"

    def items(self) -> Merged[tuple[str, K, V]]:
        """Every element of every host with the host's name, as they come; no order between hosts.

        A host's own elements are as exact as a dump of it. One that fails in the middle is in ``unreachable``, and what
        it gave until then was given. ``async with`` ends what is running.
        """

        def decoded(host: str, chunk: Chunk) -> Iterable[tuple[str, K, V]]:
            keys: Sequence[K] = decoded_column(chunk.key_codec, chunk.keys, chunk.count)
            values: Sequence[V] = decoded_column(chunk.value_codec, chunk.values, chunk.count)
            return [(host, key, value) for key, value in zip(keys, values, strict=True)]

        return Merged(self.maps, self.unreachable, self._timeout, self._concurrency, decoded)

    def keys(self) -> Merged[tuple[str, K]]:
        """Every key of every host with the host's name; as ``items``, and values do not travel."""

        def decoded(host: str, chunk: Chunk) -> Iterable[tuple[str, K]]:
            keys: Sequence[K] = decoded_column(chunk.key_codec, chunk.keys, chunk.count)
            return [(host, key) for key in keys]

        return Merged(self.maps, self.unreachable, self._timeout, self._concurrency, decoded, keys_only=True)

    async def lookup(self, key: K) -> Mapping[str, V | None]:
        """The value of one key by host; None where the host does not have it. Cancelling costs nothing."""

        async def one(opened: Map[K, V]) -> V | None:
            return await opened.lookup(key)

        return await self._each(one)

    async def count(self) -> FleetCount:
        """How many elements there are. Cancelling costs nothing."""

        async def one(opened: Map[K, V]) -> Count:
            return await opened.count()

        return FleetCount(await self._each(one), dict(self.unreachable))

    async def sum(self) -> FleetSum:
        """The sum of all values, which must be numbers, or lists of one for each CPU.

        A host whose dump does not come to its end is in ``unreachable`` and counts nothing. Cancelling costs nothing.

        Raises:
            TypeMismatch: values that are no numbers.
        """

        async def one(opened: Map[K, V]) -> int | float:
            total: int | float = 0
            async with opened.chunks() as chunks:
                while (chunk := await _next(chunks, self._timeout)) is not None:
                    total += _total(decoded_column(chunk.value_codec, chunk.values, chunk.count), self._name)
            return total

        return FleetSum(await self._each(one, deadline=False), dict(self.unreachable))

    async def _each(
        self, work: Callable[[Map[K, V]], Awaitable[T]], *, deadline: bool = True
    ) -> dict[str, T]:
        found: dict[str, T] = {}
        wrong: list[TypeMismatch] = []

        async def one(host: str, opened: Map[K, V]) -> None:
            async with self._turns:
                try:
                    async with asyncio.timeout(self._timeout if deadline else None):
                        found[host] = await work(opened)
                except TypeMismatch as error:  # the caller's, not the host's
                    wrong.append(error)
                except MapdError as error:
                    self.unreachable[host] = error
                except TimeoutError:
                    self.unreachable[host] = late(self._timeout)
                else:
                    self.unreachable.pop(host, None)

        await all_of({host: one(host, opened) for host, opened in self.maps.items()})
        if wrong:
            raise wrong[0]
        return {host: found[host] for host in self.maps if host in found}

    async def aclose(self) -> None:
        """Give all handles back; the maps stay. Idempotent."""
        await asyncio.gather(*(one.aclose() for one in self.maps.values()), return_exceptions=True)

    async def __aenter__(self) -> FleetMap[K, V]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Merged(AsyncIterator[T], AbstractAsyncContextManager["Merged[T]"], Generic[T]):
    """The dumps of many hosts as one; from ``FleetMap.items``. Iterate it once.

    As many hosts are read at the same time as the fleet's ``concurrency`` says, beside whatever else it is asked: a
    reader may ask the fleet between two elements. For each of them at most two parts of at most 1 MiB wait, so a reader
    that is slow slows the hosts, and a host that is slow keeps one place alone.
    """

    def __init__(
        self,
        maps: Mapping[str, Map[Any, Any]],
        unreachable: dict[str, MapdError],
        timeout: float,
        concurrency: int,
        decoded: Callable[[str, Chunk], Iterable[T]],
        *,
        keys_only: bool = False,
    ) -> None:
        self._maps = maps
        self._unreachable = unreachable
        self._timeout = timeout
        # Not the fleet's own: who iterates and asks the fleet meanwhile would wait for itself.
        self._turns = asyncio.Semaphore(concurrency)
        self._decoded = decoded
        self._keys_only = keys_only
        self._parts: asyncio.Queue[tuple[str, Chunk] | BaseException | None] = asyncio.Queue(
            max(1, min(len(maps), concurrency))
        )
        self._tasks: list[asyncio.Task[None]] | None = None
        self._running = len(maps)
        self._now: deque[T] = deque()

    async def __anext__(self) -> T:
        """The next element of any host; cancelling loses none."""
        while not self._now:
            if self._tasks is None:
                self._tasks = [
                    asyncio.create_task(self._read(host, opened), name=f"mapd fleet dump {host}")
                    for host, opened in self._maps.items()
                ]
            if not self._running:
                raise StopAsyncIteration
            part = await self._parts.get()
            if not self._running:  # closed meanwhile
                self._parts.put_nowait(None)  # for who else waits
            elif part is None:
                self._running -= 1
                if not self._running:
                    self._parts.put_nowait(None)
            elif isinstance(part, BaseException):
                await self.aclose()
                raise part
            else:
                try:
                    self._now.extend(self._decoded(*part))
                except BaseException:
                    await self.aclose()
                    raise
        return self._now.popleft()

    async def _read(self, host: str, opened: Map[Any, Any]) -> None:
        try:
            async with self._turns, opened.chunks(keys_only=self._keys_only) as chunks:
                while (chunk := await _next(chunks, self._timeout)) is not None:
                    await self._parts.put((host, chunk))
        except MapdError as error:
            self._unreachable[host] = error
        except TimeoutError:
            self._unreachable[host] = late(self._timeout)
        except Exception as error:  # a fault of ours: whoever reads is told, and does not wait for ever
            await self._parts.put(error)
        await self._parts.put(None)

    async def aclose(self) -> None:
        """End what is running; the iterator is at its end, also for who waits for an element. Idempotent."""
        tasks, self._tasks, self._running = self._tasks or [], [], 0
        self._now.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        while not self._parts.empty():
            self._parts.get_nowait()
        self._parts.put_nowait(None)  # whoever waits for an element finds the end

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _next(chunks: AsyncIterator[Chunk], timeout: float) -> Chunk | None:
    """The next part within so many seconds; None at the end."""
    async with asyncio.timeout(timeout):
        return await anext(chunks, None)


async def all_of(works: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Do the work of all hosts; one that raises has the others cancelled, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for host, work in works.items():
                group.create_task(work, name=f"mapd fleet {host}")
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


def late(timeout: float) -> DeadlineExceeded:
    """A host that did not answer in time."""
    return DeadlineExceeded(f"no answer within {timeout:g} s")


def _total(values: Iterable[Any], name: str) -> int | float:
    try:
        return sum(sum(cast("list[int]", one)) if isinstance(one, list) else one for one in values)
    except TypeError as error:
        raise TypeMismatch(
            f"sum {name}: its values are no numbers: open it with value=U64, or another number"
        ) from error

"""Many daemons, asked at the same time: a bound on how many, a deadline for each, and who did not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, cast, overload

from mapd_client.client import Client
from mapd_client.codec import Codec
from mapd_client.errors import MapdError, Misuse
from mapd_client.fleet import targets as files
from mapd_client.fleet.map import FleetMap, all_of, late
from mapd_client.fleet.targets import Host, unique
from mapd_client.map import Map
from mapd_client.opening import Opener, Opening
from mapd_client.refs import MapRef, as_ref
from mapd_client.requests import seconds
from mapd_client.tls import Tls

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_MOST: Final = 10_000
"""Hosts of a fleet: each costs a connection."""


def _hosts(targets: Mapping[str, str] | Iterable[Host]) -> Sequence[Host]:
    if isinstance(targets, Mapping):
        named = cast("Mapping[str, str]", targets)
        return [Host(name, address) for name, address in named.items()]
    return list(targets)


class Fleet:
    """The daemons of many hosts. Making one does no I/O; ``async with`` and ``aclose`` close all of it.

    A host that fails costs nobody else anything: it is in ``unreachable`` with the reason, until it is asked again.

    Args:
        targets: addresses by the names that results have.
        tls: certificates for the hosts that are reached over TCP; the environment's if None.
        concurrency: hosts that are asked at the same time.
        timeout: seconds for each answer of a host: to connect and open, to count, for each part of a dump.
    """

    def __init__(
        self,
        targets: Mapping[str, str] | Iterable[Host],
        *,
        tls: Tls | None = None,
        concurrency: int = 32,
        timeout: float = 5.0,
    ) -> None:
        given = _hosts(targets)
        if not 0 < len(given) <= _MOST:
            raise Misuse(f"a fleet has 1 to {_MOST} hosts, not {len(given)}")
        if concurrency < 1:
            raise Misuse(f"concurrency is {concurrency}: at least one host is asked at a time")
        self.hosts: Mapping[str, Host] = {one.name: one for one in unique(given)}
        self.unreachable: dict[str, MapdError] = {}
        self._timeout = seconds("timeout", timeout)
        self._turns, self._concurrency = asyncio.Semaphore(concurrency), concurrency
        self._clients = {
            one.name: Client(
                one.address,
                tls=None if one.address.startswith(("unix:", "/")) else one.tls or tls,
                timeout=timeout,
            )
            for one in given
        }

    @classmethod
    def from_toml(cls, path: str | Path, **more: Any) -> Fleet:
        """The hosts of a file, as ``fleet.from_toml`` reads it; ``more`` as for Fleet."""
        return cls(files.from_toml(path), **more)

    @classmethod
    def from_file_sd(cls, path: str | Path, **more: Any) -> Fleet:
        """The hosts of a file that Prometheus reads; ``more`` as for Fleet."""
        return cls(files.from_file_sd(path), **more)

    def select(self, **labels: str) -> Sequence[Host]:
        """The hosts that have all these labels: ``Fleet(fleet.select(dc="fra"))``."""
        return [one for one in self.hosts.values() if labels.items() <= one.labels.items()]

    async def each(
        self, work: Callable[[Client, str], Awaitable[T]], *, deadline: bool = True
    ) -> dict[str, T]:
        """What ``work`` gives for each host that answered, in the order of the hosts.

        The others are in ``unreachable`` afterwards, also where ``work`` raised any other error of this library. What
        else it raises is raised here, and the work of the other hosts is cancelled.

        Args:
            work: takes a host's client and its name.
            deadline: all of a host's work has ``timeout`` seconds; False: each of its calls has.

        Cancelled: the work of all hosts is cancelled first.
        """
        found: dict[str, T] = {}

        async def one(name: str) -> None:
            async with self._turns:
                try:
                    async with asyncio.timeout(self._timeout if deadline else None):
                        found[name] = await work(self._clients[name], name)
                except MapdError as error:
                    self.unreachable[name] = error
                except TimeoutError:
                    self.unreachable[name] = late(self._timeout)
                else:
                    self.unreachable.pop(name, None)

        await all_of({name: one(name) for name in self.hosts})
        return {name: found[name] for name in self.hosts if name in found}

    @overload
    def open_map(self, ref: MapRef | str) -> Opening[FleetMap[bytes, bytes]]: ...
    @overload
    def open_map(self, ref: MapRef | str, *, key: Codec[K], value: Codec[V]) -> Opening[FleetMap[K, V]]: ...
    def open_map(
        self, ref: MapRef | str, *, key: Codec[Any] | None = None, value: Codec[Any] | None = None
    ) -> Opening[FleetMap[Any, Any]]:
        """Open the map of that name on each host, read-only; hosts where that fails are in ``unreachable``.

        Args:
            ref: as ``Client.open_map`` takes it; an id means another map on each host.
            key: codec of the keys. Without codecs keys and values are bytes.
            value: codec of the values.

        Cancelled: what the daemons open nevertheless is closed again.

        Raises:
            MapdError: no host has opened it; the error of the first, with the number of the others.
        """
        parsed = as_ref(ref)

        async def opened() -> FleetMap[Any, Any]:
            there: list[Map[Any, Any]] = []

            async def open_one(client: Client, _: str) -> Map[Any, Any]:
                if key is None or value is None:
                    made: Map[Any, Any] = await client.open_map(parsed, read_only=True)
                else:
                    made = await client.open_map(parsed, key=key, value=value, read_only=True)
                there.append(made)
                return made

            try:
                found = await self.each(open_one)
            except BaseException:
                await asyncio.gather(*(one.aclose() for one in there), return_exceptions=True)
                raise
            if not found:
                first, error = next(iter(self.unreachable.items()))
                error.add_note(f"host {first}; {len(self.unreachable) - 1} others failed too")
                raise error
            return FleetMap(
                str(parsed), found, dict(self.unreachable), self._timeout, self._turns, self._concurrency
            )

        return Opener(opened, f"open_map({str(parsed)!r})")

    async def aclose(self) -> None:
        """Close every client, and with it what was opened through it. Idempotent.

        One that cannot be closed keeps none of the others open; its error is raised when they are closed.
        """
        ended = await asyncio.gather(
            *(one.aclose() for one in self._clients.values()), return_exceptions=True
        )
        for error in ended:
            if error is not None:
                raise error

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

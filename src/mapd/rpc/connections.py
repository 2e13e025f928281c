"""Connections of TCP clients, by principal: how many there are, and when each grows old.

gRPC tells of connections only through the calls in them. So one counts from its first call until its socket is
closed, which is looked up among the sockets of this process where a principal seems to have too many.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd_api.reasons import Reason

LOOK_S: Final = 1.0
"""Between two looks at all sockets: 300 of them take 3 ms. A connection that was closed may count for so long."""

Peer = tuple[str, int]
"""Address and port of the other end."""


@dataclass(slots=True)
class _Seen:
    principal: Principal
    since: float


class Connections:
    """Those of one listening daemon. For its event loop.

    Args:
        longest: seconds after which no connection can be the same.
        live: the peers of all sockets that are open.
    """

    def __init__(self, longest: float, live: Callable[[], Iterable[Peer]] | None = None) -> None:
        self._longest = longest
        self._live = live or peers_of_open_sockets
        self._seen: dict[Principal, dict[Peer, _Seen]] = {}
        self._looked = float("-inf")

    def count(self, principal: Principal) -> int:
        """How many of its connections have been seen and, as far as was looked, are open."""
        return len(self._seen.get(principal, ()))

    def seen(self, peer: str, principal: Principal, most: int | None) -> float:
        """A call came over a connection; time.monotonic() of the first one.

        Args:
            peer: as gRPC has it.
            most: connections that the principal may have; None: any number.

        Raises:
            MapError: QUOTA, it is one too many. Its calls are refused until another one is closed.
        """
        where, now = parsed(peer), time.monotonic()
        own = self._seen.setdefault(principal, {})
        found = own.get(where)
        if found is not None and now - found.since < self._longest:
            return found.since
        own.pop(where, None)
        if most is not None and len(own) >= most:
            self._forget_closed(now)
            own = self._seen.setdefault(principal, {})
            if len(own) >= most:
                raise MapError(
                    Reason.QUOTA,
                    f"connections: {principal.name} has {len(own)} of {most}; close some, or use one client for more "
                    "(a client has two)",
                    quota="connections",
                    limit=most,
                )
        elif len(own) % 64 == 63:
            self._forget_closed(now)  # so that nothing grows where there is no limit
            own = self._seen.setdefault(principal, {})
        own[where] = _Seen(principal, now)
        return now

    def _forget_closed(self, now: float) -> None:
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        live = set(self._live())
        for principal, own in list(self._seen.items()):
            kept = {where: each for where, each in own.items() if where in live}
            if kept:
                self._seen[principal] = kept
            else:
                del self._seen[principal]


def parsed(peer: str) -> Peer:
    """``"ipv4:127.0.0.1:41233"`` or ``"ipv6:%5B::1%5D:41233"`` as address and port."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return _plain(host.removeprefix("[").removesuffix("]")), int(port)


def _plain(host: str) -> str:
    """One spelling: IPv4 within IPv6 as IPv4, which is what gRPC makes of it."""
    address = ipaddress.ip_address(host.partition("%")[0])
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(inner or address)


def peers_of_open_sockets() -> list[Peer]:
    """The other ends of this process' TCP connections."""
    return [peer for peer in map(peer_of, _descriptors()) if peer is not None]


def peer_of(fd: int) -> Peer | None:
    """The other end of a TCP connection; None for anything else that the number is, or is by now."""
    with suppress(OSError, ValueError):
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        return peer_of_copy(os.dup(fd))
    return None


def peer_of_copy(fd: int) -> Peer | None:
    """Closes it. Other threads close and open: the number that was a socket's may be a file's, here for good."""
    try:
        copy = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
    with copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port = copy.getpeername()[:2]
        return _plain(host), port


def _descriptors() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]

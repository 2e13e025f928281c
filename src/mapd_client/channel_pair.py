"""grpc: the two channels of one event loop to one daemon, and who uses them.

Python's channels cannot take other certificates, so that new files need a new pair; the old one is closed when the
last call in it has ended.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final, Protocol

import grpc
from grpc import aio

from mapd_api import limits
from mapd_client import closed_loops, discovery, tls
from mapd_client.tls import Material

OPTIONS: Final = (
    # A proxy from the environment would get local calls.
    ("grpc.enable_http_proxy", 0),
    # A connection per channel; grpc would share one between all channels to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    # A daemon that restarts is back within a second; grpc's own first pause is one second, its longest 120.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # No pause, whatever its name says: so long one attempt may take, from connect() to the daemon's first frame
    # (subchannel.cc, min_connect_timeout_). Both ends wait as long.
    ("grpc.min_reconnect_backoff_ms", int(limits.HANDSHAKE_S * 1_000)),
)

LOCAL_OPTIONS: Final = (
    *OPTIONS,
    # A try costs a system call. With pauses that go on growing clients were served up to 0.45 s behind a daemon that
    # had taken 0.6 s to start; with this one 0.1 s.
    ("grpc.max_reconnect_backoff_ms", 100),
)

TCP_OPTIONS: Final = (
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A host that is gone closes nothing: without pings calls would wait for their deadlines, and sessions for ever.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


OWN_S: Final = 10.0


class _Ending(Protocol):
    def add_done_callback(self, callback: Any) -> None: ...


class Pair:
    """A channel for calls and one for bulk streams, each with a connection of its own.

    Attributes:
        material: the certificates, None for a socket of this host.
    """

    def __init__(self, target: str, material: Material | None) -> None:
        closed_loops.enter()
        self.material = material
        self.calls = _channel(target, material)
        self.bulk = _channel(target, material)
        self._users = 0
        self._own: tuple[float, str] | None = None
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._users += 1

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        self._close_if_unused()

    def used_by(self, call: _Ending) -> None:
        """Stay open until a call has ended."""
        self._users += 1
        call.add_done_callback(self.__exit__)

    def own_certificate(self) -> str:
        """What this client shows, for messages; "" where it shows nothing. Reads files, but not again and again."""
        if self.material is None:
            return ""
        now = time.monotonic()
        if self._own is None or now - self._own[0] > OWN_S:
            self._own = now, tls.own_certificate(self.material.tls)
        return self._own[1]

    def retire(self) -> None:
        """Close when nobody uses it any more."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and not self._users and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.close(), name="mapd close channels")

    async def close(self) -> None:
        """Cancel what is running and close both connections. Idempotent."""
        await self.calls.close(None)
        await self.bulk.close(None)

    @property
    def is_closed(self) -> bool:
        """Whether it was retired, and its closing has ended."""
        return self._closing is not None and self._closing.done()

    async def abandon(self) -> None:
        """As close, from another loop, when this one's is closed."""
        for channel in (self.calls, self.bulk):
            with suppress(RuntimeError):  # Event loop is closed
                await channel.close(None)


def _channel(target: str, material: Material | None) -> aio.Channel:
    if material is None:
        return aio.insecure_channel(discovery.uri(target), options=LOCAL_OPTIONS)
    credentials, options = secured(material)
    return aio.secure_channel(discovery.uri(target), credentials, options=options)


def secured(material: Material) -> tuple[grpc.ChannelCredentials, tuple[tuple[str, int | str], ...]]:
    """Credentials and options of a channel with certificates."""
    name = material.tls.server_name
    renamed = () if name is None else (("grpc.ssl_target_name_override", name),)
    credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)
    return credentials, (*OPTIONS, *TCP_OPTIONS, *renamed)

"""What the tests of bad input share.

A daemon on a kernel that keeps record, two ways to ask it, and what a refusal must be.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio

import mapd_client
from mapd.bpf import (
    CreateMap,
    FaultyKernel,
    LinuxKernel,
    OwnedFd,
    Pin,
)
from mapd.bpf.faulty import Target
from mapd.daemon import Ready, running
from mapd_api import contract, reasons
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2, maps_pb2, types_pb2
from mapd_client import MapdError
from tests.support.counts import kernel_maps
from tests.support.daemon import Place
from tests.support.pinned import KERNEL

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
E = TypeVar("E", bound=MapdError)

Calls: TypeAlias = Sequence[tuple[str, Callable[[], Awaitable[object]]]]
"""Operations of a client, and the calls that are to be refused."""


def pins_below(folder: Path) -> set[str]:
    """Every pin and folder below a folder of a bpffs."""
    return {str(path) for path in folder.rglob("*")}


@contextlib.contextmanager
def nothing_created(place: Place, kernel_name: str) -> Generator[None]:
    """Fail if a pin was made, or a map of this kernel name is in the kernel afterwards."""
    before = pins_below(place.bpffs)
    yield
    assert pins_below(place.bpffs) == before
    assert kernel_name not in kernel_maps().values()


def unique_name() -> str:
    """A name that no map of any other test has."""
    return f"bad{secrets.token_hex(5)}"


def pin_foreign(pin: Path, request: CreateMap) -> OwnedFd:
    """A map that another program made and pinned; whoever gets it closes it."""
    owned = KERNEL.control(request)
    with owned.lease() as map_fd:
        KERNEL.control(Pin(root=str(pin.parent), path=str(pin)), [map_fd])
    return owned


# ---- what was refused, and how -----------------------------------------------------------------


@contextlib.contextmanager
def refused(kind: type[E], reason: Reason | None, *says: object) -> Generator[pytest.ExceptionInfo[E]]:
    """Expect exactly this class and Reason (None: the client's own check), and a message that says all this."""
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert type(error) is kind, f"{type(error).__name__}: {error}"
    assert error.reason is reason, str(error)
    missing = [word for word in map(str, says) if word not in str(error)]
    assert not missing, f"{missing} not in {str(error)!r}"


def check(refusal: Refusal, reason: Reason, *says: object, **metadata: object) -> None:
    """Compare a refusal of the daemon with what it must be, say, and carry for programs."""
    assert refusal.reason is reason, refusal.message
    missing = [word for word in map(str, says) if word not in refusal.message]
    assert not missing, f"{missing} not in {refusal.message!r}"
    told = {name: refusal.metadata.get(name) for name in metadata}
    assert told == {name: str(value) for name, value in metadata.items()}


class RawClient:
    """Protobuf messages to the daemon as they are, past every check of mapd_client."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel

    async def call(self, method: str, request: Message | bytes, response: type[Response]) -> Response:
        """One unary call; ``bytes`` travel as they are."""
        factory = self._channel.unary_unary(
            _path(method), request_serializer=_serialize, response_deserializer=response.FromString
        )
        return await factory(request, timeout=30)

    async def upload(
        self, method: str, requests: Iterable[Message | bytes], response: type[Response]
    ) -> Response:
        """One answer for a stream of messages."""
        factory = self._channel.stream_unary(
            _path(method), request_serializer=_serialize, response_deserializer=response.FromString
        )
        call = factory(iter(requests), timeout=30)
        return await call

    async def download(
        self, method: str, request: Message | bytes, response: type[Response]
    ) -> list[Response]:
        """All answers to one message."""
        factory = self._channel.unary_stream(
            _path(method), request_serializer=_serialize, response_deserializer=response.FromString
        )
        return [message async for message in factory(request, timeout=30)]

    async def open(self, ref: types_pb2.MapRef, *, read_only: bool = False) -> types_pb2.MapRef:
        """A handle, as a reference."""
        request = maps_pb2.OpenMapRequest(map=ref, read_only=read_only)
        opened = await self.call("OpenMap", request, maps_pb2.OpenMapResponse)
        return types_pb2.MapRef(handle=opened.handle)

    async def refusal(self, method: str, *requests: Message | bytes) -> Refusal:
        """The refusal of a call, which must have the status that its reason has in the table."""
        kind = _method(method)
        try:
            if kind.client_streaming:
                answer: object = await self.upload(method, requests, elements_pb2.LoadResponse)
            elif kind.server_streaming:
                answer = await self.download(method, requests[0], elements_pb2.DumpResponse)
            else:
                answer = await self.call(method, requests[0], elements_pb2.DeleteResponse)
        except aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was not refused: {answer}")

    async def group_refusal(self, group: elements_pb2.OpGroup) -> Refusal:
        """The refusal of a group in an Apply that is answered otherwise."""
        request = elements_pb2.ApplyRequest(groups=[group])
        answer = await self.call("Apply", request, elements_pb2.ApplyResponse)
        (result,) = answer.results
        assert not result.statuses
        assert not result.values
        error = result.error
        return Refusal(Reason(int(error.reason)), error.message, dict(error.metadata))


def refusal_of(error: aio.AioRpcError) -> Refusal:
    """What the daemon said; fails where gRPC itself said it."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            refusal = reasons.decode(status_pb2.Status.FromString(value))
            assert refusal is not None
            assert error.code() is reasons.STATUS[refusal.reason]
            return refusal
    raise AssertionError(f"no refusal of the daemon: {error.code()} {error.details()}")


def _method(name: str) -> Any:
    found = [s.methods_by_name[name] for s in contract.SERVICES if name in s.methods_by_name]
    return found[0]


def _path(name: str) -> str:
    return contract.full_name(_method(name))


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


# ---- a daemon --------------------------------------------------------------------------------


HOUR_S: Final = 3600.0
"""Before the daemon looks at pins by itself, which would stand in the record beside what a caller's request asks."""


@dataclass(frozen=True)
class Ground:
    """A daemon in this loop on the real kernel, which keeps record, and both ways to ask it."""

    place: Place
    ready: Ready
    kernel: FaultyKernel
    client: mapd_client.Client
    raw: RawClient

    def pin(self, name: str) -> Path:
        """Where a name of the admin's is pinned."""
        return self.place.names / "admin" / name

    @contextlib.contextmanager
    def no_call(self, *besides: Target) -> Generator[None]:
        """Fail if the kernel was asked for anything but ``besides``."""
        self.kernel.forget()
        yield
        asked = {seen.target for seen in self.kernel.seen}
        assert asked <= set(besides), f"the kernel was asked for {asked - set(besides)}"


@asynccontextmanager
async def on_ground(place: Place, inner: LinuxKernel = KERNEL) -> AsyncGenerator[Ground]:
    """A ground on private folders."""
    kernel = FaultyKernel(inner)
    async with (
        running(place.config(), kernel=kernel, pins_check_s=HOUR_S) as ready,
        mapd_client.connect(str(ready.socket)) as client,
    ):
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = aio.insecure_channel(f"unix:{ready.socket}", options=options)
        try:
            yield Ground(place, ready, kernel, client, RawClient(channel))
        finally:
            await channel.close()


def by_name(name: str) -> types_pb2.MapRef:
    return types_pb2.MapRef(name=name)

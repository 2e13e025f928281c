"""A session as a foreign client speaks it: the contract's messages, and nothing of our client library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio

from mapd_api.ops import TAKES_VALUE, Op
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1.types_pb2 import MapRef

SESSION = "/mapd_api.v1.ElementService/Session"


def group(ref: MapRef, op: Op, *keys: bytes, value: bytes = b"", **more: Any) -> pb.OpGroup:
    """One operation on some keys, each with the same value where it takes one."""
    values = value * len(keys) if op in TAKES_VALUE else b""
    return pb.OpGroup(map=ref, count=len(keys), ops=bytes([op]), keys=b"".join(keys), values=values, **more)


class RawSession:
    """One stream. ``opened`` is what the daemon said first."""

    def __init__(self, stream: Any, opened: pb.SessionOpened) -> None:
        self.stream = stream
        self.opened = opened

    @classmethod
    async def open(
        cls,
        channel: grpc.aio.Channel,
        resume: pb.SessionOpened | None = None,
        *,
        timeout: float | None = None,
    ) -> RawSession:
        """A new session, or the one that ``resume`` names."""
        anything: Any = channel
        stream = anything.stream_stream(
            SESSION,
            request_serializer=pb.SessionRequest.SerializeToString,
            response_deserializer=pb.SessionResponse.FromString,
        )(timeout=timeout)
        asked = (
            pb.SessionOpen() if resume is None else pb.SessionOpen(session=resume.session, epoch=resume.epoch)
        )
        await stream.write(pb.SessionRequest(open=asked))
        first = await stream.read()
        assert first is not grpc.aio.EOF, await stream.details()
        return cls(stream, first.opened)

    def message(
        self, slot: int, sequence: int, groups: Sequence[pb.OpGroup], acknowledged: int = 0, **names: str
    ) -> pb.SessionRequest:
        """A message of this session; ``names`` are a session or epoch that are not its own."""
        own = {"session": self.opened.session, "epoch": self.opened.epoch, **names}
        stamp = pb.Stamp(slot=slot, sequence=sequence, acknowledged=acknowledged, **own)
        return pb.SessionRequest(apply=pb.ApplyRequest(stamp=stamp, groups=groups))

    async def send(
        self, slot: int, sequence: int, *groups: pb.OpGroup, acknowledged: int = 0, **names: str
    ) -> None:
        """Write a message."""
        await self.stream.write(self.message(slot, sequence, groups, acknowledged, **names))

    async def read(self) -> pb.SessionResponse:
        """The next message of the daemon."""
        message = await self.stream.read()
        assert message is not grpc.aio.EOF, f"{await self.stream.code()}: {await self.stream.details()}"
        found: pb.SessionResponse = message
        return found

    async def answer(self) -> pb.ApplyResponse:
        """The next message, which answers one."""
        message = await self.read()
        assert message.HasField("apply"), message
        return message.apply

    async def ask(
        self, slot: int, sequence: int, *groups: pb.OpGroup, acknowledged: int = 0, **names: str
    ) -> pb.ApplyResponse:
        """Write a message, and read the next answer."""
        await self.send(slot, sequence, *groups, acknowledged=acknowledged, **names)
        return await self.answer()

    async def end(self) -> grpc.StatusCode:
        """End it cleanly."""
        await self.stream.done_writing()
        while await self.stream.read() is not grpc.aio.EOF:
            pass
        code: grpc.StatusCode = await self.stream.code()
        return code

    def cut(self) -> None:
        """Break it."""
        self.stream.cancel()

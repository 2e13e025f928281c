"""A client without our client library, run as some uid: calls come by standard input, answers go by its output.

A line of JSON each. Only gRPC and the contract are imported, so that nothing but the kernel and the daemon decides
what this process may do. Bytes travel as hexadecimal digits.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from mapd_api.v1 import elements_pb2 as pb

SESSION = "/mapd_api.v1.ElementService/Session"
TIMEOUT_S = 20.0
MAKERS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}

Answer = dict[str, Any]


def credentials(tls: dict[str, str]) -> grpc.ChannelCredentials:
    """Of the files that are named; without a certificate the client shows none."""
    read = {name: Path(path).read_bytes() for name, path in tls.items() if name != "name"}
    return grpc.ssl_channel_credentials(read["ca"], read.get("key"), read.get("certificate"))


def connect(target: str, tls: dict[str, str] | None) -> aio.Channel:
    """A channel of its own, which tries again at once where it could not connect."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 100),
    ]
    if tls is None:
        return aio.insecure_channel(target, options=options)
    return aio.secure_channel(target, credentials(tls), options=options)


def failure(error: aio.AioRpcError) -> Answer:
    """A status with its details and whatever else was told beside."""
    told = [
        (name, value.hex() if isinstance(value, bytes) else value)
        for name, value in error.trailing_metadata() or ()
    ]
    return {"code": error.code().name, "details": error.details() or "", "metadata": told, "replies": []}


async def _error(call: Any) -> aio.AioRpcError:
    return aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


class Conversation:
    """One session on its stream, and where its only slot stands."""

    def __init__(self, stream: Any, opened: pb.SessionOpened) -> None:
        self.stream = stream
        self.opened = opened
        self.sequence = 0


class Agent:
    """Its channels and sessions, by the name that the other side gave them."""

    def __init__(self) -> None:
        self.channels: dict[str, aio.Channel] = {}
        self.sessions: dict[str, Conversation] = {}
        self.kept: list[Any] = []

    async def serve(self, line: dict[str, Any]) -> Answer:
        """Do what a line asks for."""
        try:
            found: Answer = await getattr(self, line.pop("do"))(**line)
        except aio.AioRpcError as error:
            return failure(error)
        return {"code": "OK", "details": "", "metadata": [], "replies": [], **found}

    async def whoami(self) -> Answer:
        """Who this process is to the kernel."""
        return {"uid": os.geteuid(), "gid": os.getegid(), "groups": os.getgroups()}

    async def channel(self, name: str, target: str, tls: dict[str, str] | None = None) -> Answer:
        """Make a channel, in place of the one of that name."""
        await self.close(name)
        self.channels[name] = connect(target, tls)
        return {}

    async def close(self, name: str) -> Answer:
        """Close a channel, and forget the sessions on it."""
        channel = self.channels.pop(name, None)
        for key in [key for key in self.sessions if key.partition("#")[0] == name]:
            del self.sessions[key]
        if channel is not None:
            await channel.close()
        return {}

    async def call(
        self, channel: str, method: str, requests: Sequence[str], streams: Sequence[bool]
    ) -> Answer:
        """One call of any kind; ``streams``: whether requests and replies are."""
        sends, answers = streams
        made: Any = getattr(self.channels[channel], MAKERS[sends, answers])(method)
        messages = [bytes.fromhex(request) for request in requests]
        call = made(iter(messages) if sends else messages[0], timeout=TIMEOUT_S)
        replies = [reply async for reply in call] if answers else [await call]
        return {"replies": [reply.hex() for reply in replies]}

    async def together(
        self,
        channel: str,
        method: str,
        requests: Sequence[str],
        streams: Sequence[bool],
        keep: bool = False,
    ) -> Answer:
        """A call for each request, all at once; ``keep``: streams are left where their first message is read."""
        made: Any = getattr(self.channels[channel], MAKERS[streams[0], streams[1]])(method)

        async def one(request: str) -> Answer:
            try:
                call = made(bytes.fromhex(request), timeout=TIMEOUT_S)
                if not streams[1]:
                    return {"code": "OK", "replies": [(await call).hex()]}
                first = await call.read()
                if first is aio.EOF:
                    raise await _error(call)
                if keep:
                    self.kept.append(call)
                return {"code": "OK", "replies": [first.hex()]}
            except aio.AioRpcError as error:
                return failure(error)

        return {"each": await asyncio.gather(*map(one, requests))}

    async def release(self) -> Answer:
        """End the streams that were left."""
        for call in self.kept:
            call.cancel()
        self.kept.clear()
        return {}

    async def open(self, channel: str, session: str, resume: str = "", epoch: str = "") -> Answer:
        """A session, new or gone on with, under the name ``session``."""
        again = 0
        while True:
            answer = await self._open(channel, session, resume, epoch)
            # What grpc.aio makes of a message that is written while the refusal arrives: the status is lost then.
            if answer.get("details") != "Internal error from Core":
                return {**answer, "again": again}
            again += 1

    async def _open(self, channel: str, session: str, resume: str, epoch: str) -> Answer:
        anything: Any = self.channels[channel]
        stream = anything.stream_stream(
            SESSION,
            request_serializer=pb.SessionRequest.SerializeToString,
            response_deserializer=pb.SessionResponse.FromString,
        )()
        first: Any
        try:
            await stream.write(pb.SessionRequest(open=pb.SessionOpen(session=resume, epoch=epoch)))
            first = await asyncio.wait_for(stream.read(), TIMEOUT_S)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            first = aio.EOF  # it was refused before anything was said
        if first is aio.EOF:
            return await self._ended(stream)
        self.sessions[f"{channel}#{session}"] = Conversation(stream, first.opened)
        opened = first.opened
        return {"session": opened.session, "epoch": opened.epoch, "resumed": opened.resumed}

    async def apply(
        self, channel: str, session: str, request: str, stamp: dict[str, Any] | None = None
    ) -> Answer:
        """One message of a session, and its answer; ``stamp`` says otherwise than the session would."""
        conversation = self.sessions[f"{channel}#{session}"]
        conversation.sequence += 1
        message = pb.ApplyRequest.FromString(bytes.fromhex(request))
        own: dict[str, Any] = {
            "session": conversation.opened.session,
            "epoch": conversation.opened.epoch,
            "slot": 0,
            "sequence": conversation.sequence,
            "acknowledged": conversation.sequence - 1,
        }
        message.stamp.CopyFrom(pb.Stamp(**{**own, **(stamp or {})}))
        if stamp is not None:
            conversation.sequence -= 1
        await conversation.stream.write(pb.SessionRequest(apply=message))
        reply = await asyncio.wait_for(conversation.stream.read(), TIMEOUT_S)
        if reply is aio.EOF:
            return await self._ended(conversation.stream)
        return {"replies": [reply.SerializeToString().hex()]}

    @staticmethod
    async def _ended(stream: Any) -> Answer:
        told = [
            (name, value.hex() if isinstance(value, bytes) else value)
            for name, value in await stream.trailing_metadata() or ()
        ]
        code = await stream.code()
        return {"code": code.name, "details": await stream.details() or "", "metadata": told}


async def main() -> None:
    """Until standard input ends."""
    agent = Agent()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        answer = await agent.serve(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for name in list(agent.channels):
        await agent.close(name)


if __name__ == "__main__":
    asyncio.run(main())

"""Processes of other users, each asking the daemon for whatever it is told to ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from google.rpc import status_pb2

from mapd_api import contract, reasons
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2 as pb
from tests.support.daemon import environment

PROGRAM = Path(__file__).with_name("agent.py")
CHANNEL = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who a process is to the kernel."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call.

    Attributes:
        code: gRPC's name of the status.
        refusal: what the daemon said, where it was the daemon that refused; of an Apply's only group, too.
        replies: messages, encoded.
        raw: all that came back, as it came.
    """

    code: str
    details: str
    refusal: Refusal | None
    replies: tuple[bytes, ...]
    raw: dict[str, Any]

    @property
    def reason(self) -> Reason | None:
        """The refusal's, None without one."""
        return None if self.refusal is None else self.refusal.reason

    def __str__(self) -> str:
        said = f"{self.refusal.reason.name}: {self.refusal.message}" if self.refusal else self.details
        return f"{self.code} {said}".strip()


def _answer(raw: dict[str, Any]) -> Answer:
    refusal = None
    for name, value in raw["metadata"]:
        if name == "grpc-status-details-bin":
            refusal = reasons.decode(status_pb2.Status.FromString(bytes.fromhex(value)))
    replies = tuple(bytes.fromhex(reply) for reply in raw["replies"])
    return Answer(raw["code"], raw["details"], refusal, replies, raw)


class Agent:
    """One such process. Not for two callers at once."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.calls = 0

    async def ask(self, do: str, **what: Any) -> Answer:
        """Tell it to do something, and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.calls += 1
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "an agent ended"
        return _answer(json.loads(line))

    async def connect(
        self, target: str, *, channel: str = CHANNEL, tls: dict[str, str] | None = None
    ) -> None:
        """A channel to ``target``, instead of any that it had; nothing is sent yet."""
        await self.ask("channel", name=channel, target=target, tls=tls)

    async def call(self, method: Any, *requests: Message, channel: str = CHANNEL) -> Answer:
        """A call of a method of the contract."""
        found = await self.ask(
            "call",
            channel=channel,
            method=contract.full_name(method),
            requests=[request.SerializeToString().hex() for request in requests],
            streams=[method.client_streaming, method.server_streaming],
        )
        if method.name == "Apply" and found.replies:
            return _of_group(found, pb.ApplyResponse.FromString(found.replies[0]))
        if method.name == "Load" and found.replies:
            return _of_load(found, pb.LoadResponse.FromString(found.replies[0]))
        return found

    async def together(
        self, method: Any, requests: Sequence[Message], *, keep: bool = False, channel: str = CHANNEL
    ) -> list[Answer]:
        """A call for each of these, all at once; what came of each.

        Args:
            keep: streams are not read past their first message until ``ask("release")``.
        """
        found = await self.ask(
            "together",
            channel=channel,
            method=contract.full_name(method),
            requests=[request.SerializeToString().hex() for request in requests],
            streams=[method.client_streaming, method.server_streaming],
            keep=keep,
        )
        empty: dict[str, Any] = {"details": "", "metadata": [], "replies": []}
        return [_answer({**empty, **each}) for each in found.raw["each"]]

    async def open_session(
        self, name: str = "session", *, resume: str = "", epoch: str = "", channel: str = CHANNEL
    ) -> Answer:
        """A session on a channel."""
        return await self.ask("open", channel=channel, session=name, resume=resume, epoch=epoch)

    async def apply(
        self,
        request: pb.ApplyRequest,
        *,
        session: str = "session",
        channel: str = CHANNEL,
        stamp: dict[str, Any] | None = None,
    ) -> Answer:
        """A message of a session."""
        found = await self.ask(
            "apply", channel=channel, session=session, request=request.SerializeToString().hex(), stamp=stamp
        )
        if not found.replies:
            return found
        response = pb.SessionResponse.FromString(found.replies[0])
        if response.HasField("error"):
            return _refused(found, response.error)
        return _of_group(found, response.apply)


def _of_group(found: Answer, response: pb.ApplyResponse) -> Answer:
    """The answer of the only group of a message."""
    if response.HasField("error"):
        return _refused(found, response.error)
    (result,) = response.results
    if result.HasField("error"):
        return _refused(found, result.error)
    statuses = set(result.statuses)
    if statuses == {Reason.POLICY}:
        return _refused(found, None)
    return found


def _of_load(found: Answer, response: pb.LoadResponse) -> Answer:
    """A load of one element that may not be written is refused in its answer."""
    return (
        _refused(found, None)
        if {int(one.reason) for one in response.errors} == {Reason.POLICY.value}
        else found
    )


def _refused(found: Answer, error: Any) -> Answer:
    """An answer in which a refusal stands; None: of the only element, with no words of its own."""
    if error is None:
        return Answer(Reason.POLICY.name, "", Refusal(Reason.POLICY, ""), found.replies, found.raw)
    refusal = Refusal(Reason(int(error.reason)), error.message, dict(error.metadata))
    return Answer(refusal.reason.name, "", refusal, found.replies, found.raw)


@asynccontextmanager
async def agent(sources: Path, user: User, *prefix: str) -> AsyncGenerator[Agent]:
    """Start one.

    Args:
        sources: a copy of the contract that everybody can read (``client_sources``).
        prefix: a command to run it under; that one changes the user then.
    """
    # Not by the call's own user=, for which Python forks, with gRPC's threads and handlers in this process: an agent
    # ended so before it had begun, with an epoll descriptor that was closed under gRPC's poller.
    process = await asyncio.create_subprocess_exec(
        *(prefix or setpriv(user)),
        sys.executable,
        "-c",
        PROGRAM.read_text(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**environment(), "PYTHONPATH": str(sources), "HOME": "/nonexistent"},
        cwd="/",
        limit=1 << 24,
    )
    try:
        yield Agent(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


def setpriv(user: User) -> Sequence[str]:
    """The command line that becomes this user."""
    groups = ["--groups", ",".join(map(str, user.groups))] if user.groups else ["--clear-groups"]
    return ["setpriv", "--reuid", str(user.uid), "--regid", str(user.gid), *groups, "--"]

"""``--print-grpcurl``: the call that a verb would make, as grpcurl takes it, for users of other clients.

What has to be known first is asked of the daemon: the map is opened, for its sizes and types. The first call that does
the verb's work is printed and not made. Where there is none besides (``show``, ``host``), the last of the others is.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import redirect_stdout
from itertools import islice
from typing import Any, Final

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from mapd_api.v1 import maps_pb2, types_pb2
from mapd_client import methods, watching
from mapd_client.cli import outcomes
from mapd_client.client import Client
from mapd_client.errors import MapdError
from mapd_client.methods import Method
from mapd_client.tls import Tls

_FIRST: Final = frozenset({methods.OPEN_MAP.path, methods.GET_BTF.path, methods.GET_HOST_INFO.path})
"""What is asked to find out what to ask."""

_ASIDE: Final = frozenset({methods.GET_SERVER_INFO.path, methods.CLOSE_MAP.path})
"""What every connection asks, whatever it is for."""

_OWN: Final = frozenset({"session", "stamp", "remaining_ms"})
"""What means nothing outside of this process' session."""


class _Seen(MapdError):
    """The call to print was about to be made. Whatever lies between lets it through, as it does a daemon's refusal."""


class _Printer:
    """Keeps the call to print."""

    def __init__(self, tls: Tls | None) -> None:
        self.text = ""
        self.more = False
        self.seen = False
        self._tls = tls
        self._opened: dict[int, types_pb2.MapRef] = {}

    def asks(self, target: str, method: Method[Any, Any], requests: Iterable[Message]) -> None:
        if method.path in _ASIDE:
            return
        if self.seen:
            raise _Seen("printed")
        coming = iter(requests)
        first = next(coming)
        self.more = any(True for _ in islice(coming, 1))
        self.text = command(target, method.path, self._for_others(first), self._tls)
        self.seen = method.path not in _FIRST
        if self.seen:
            raise _Seen("printed")

    def answered(self, request: Message, response: Message) -> None:
        if isinstance(request, maps_pb2.OpenMapRequest) and isinstance(response, maps_pb2.OpenMapResponse):
            self._opened[response.handle] = request.map

    def _for_others(self, message: Message) -> Message:
        """A copy whose maps are named as the user named them: a handle is this session's own."""
        copy = type(message)()
        copy.CopyFrom(message)
        self._name(copy)
        return copy

    def _name(self, message: Message) -> None:
        if isinstance(message, types_pb2.MapRef):
            if message.handle in self._opened:
                message.CopyFrom(self._opened[message.handle])
            return
        for field, value in message.ListFields():
            if field.name in _OWN:
                message.ClearField(field.name)
            elif field.message_type is not None:
                for one in [value] if isinstance(value, Message) else value:
                    self._name(one)


def command(target: str, path: str, request: Message, tls: Tls | None) -> str:
    """A line for a shell. Bytes are base64, as in JSON of every protobuf library."""
    data = MessageToJson(request, preserving_proto_field_name=True, indent=None)
    words = [
        "grpcurl",
        *_security(target, tls),
        "-d",
        data,
        target.removeprefix("unix:"),
        path.removeprefix("/"),
    ]
    return shlex.join(words)


def _security(target: str, tls: Tls | None) -> list[str]:
    if target.startswith("unix:"):
        return ["-plaintext", "-unix", "-authority", "localhost"]
    if tls is None:
        from mapd_client.tls import from_environment

        tls = from_environment()
    if tls is None:
        return []
    words = ["-cacert", os.fspath(tls.ca), "-cert", os.fspath(tls.certificate), "-key", os.fspath(tls.key)]
    return words + (["-authority", tls.server_name] if tls.server_name else [])


def instead(work: Callable[[Client], Awaitable[int]], tls: Tls | None) -> Callable[[Client], Awaitable[int]]:
    """Work that prints its call instead of making it."""

    async def printed(client: Client) -> int:
        printer = _Printer(tls)
        with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230, PTH123  # no disk is behind it
            try:
                with redirect_stdout(nowhere), watching.watched_by(printer):
                    code = await work(client)
            except (MapdError, ExceptionGroup):
                if not printer.seen:
                    raise
                code = outcomes.OK
        sys.stdout.write(printer.text + "\n" if printer.text else "")
        if printer.more:
            sys.stderr.write("mapctl: the first message of a stream; give grpcurl all of them with -d @\n")
        return code

    return printed

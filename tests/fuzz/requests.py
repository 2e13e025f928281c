"""The target "requests": bytes of any method's messages, through the daemon's checks, rights and plans."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from google.protobuf.message import Message

from mapd.rpc import convert
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MAP_TYPE_HASH, MapRef
from tests.fuzz.stage import METHODS, Stage
from tests.fuzz.target import Target
from tests.reliability.everymethod import ROUND, Names

_NAMES: Final = Names("kept", "/bpf/others")


@cache
def stage() -> Stage:
    """The daemon of this process, with a map that every round looks for. It has threads, and lives as long."""
    made = Stage()
    standing = maps.CreateMapRequest(type=MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=16)
    standing.named.name = "standing"
    for who in (0, 1):
        for method, _, messages in calls(written("CreateMap", who, [standing])):
            assert made.call(method, who, messages) == "ok"
    return made


def requests(data: bytes) -> None:
    """Calls one after the other: method, principal, and messages, each with its length before it."""
    for method, who, messages in calls(data):
        stage().call(method, who, messages)
    stage().close_handles()


def planted(data: bytes) -> None:
    """The same of a daemon in which a reference with a capital letter is a fault."""
    plain = convert.ref

    def ref(message: MapRef, *more: Any, **options: Any) -> Any:
        if not message.name.islower() and message.name:
            raise KeyError(message.name)
        return plain(message, *more, **options)

    setattr(convert, "ref", ref)  # noqa: B010 - of a module's function
    try:
        requests(data)
    finally:
        setattr(convert, "ref", plain)  # noqa: B010


def calls(data: bytes) -> Iterator[tuple[int, int, Sequence[bytes]]]:
    """What an input means; every input means something."""
    at = 0
    for _ in range(8):
        if len(data) - at < 3:
            return
        method, who, count = data[at : at + 3]
        at += 3
        messages: list[bytes] = []
        for _ in range(1 + count % 3):
            if len(data) - at < 2:
                break
            (size,) = struct.unpack_from("<H", data, at)
            messages.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        yield method, who, messages


def written(name: str, who: int, messages: Sequence[Message]) -> bytes:
    """A call as ``calls`` reads it."""
    number = next(at for at, method in enumerate(METHODS) if method.name == name)
    parts = [bytes((number, who, len(messages) - 1))]
    for one in messages:
        packed = one.SerializeToString()
        parts += [struct.pack("<H", len(packed)), packed]
    return b"".join(parts)


def _seeds() -> list[bytes]:
    found: list[bytes] = []
    create = next(build(_NAMES) for name, build in ROUND if name == "CreateMap")
    assert isinstance(create, Message)
    for name, build in ROUND:
        made = build(_NAMES)
        messages = [made] if isinstance(made, Message) else list(made)
        if name == "Load":
            messages = messages[:1]
        found += [written("CreateMap", who, [create]) + written(name, who, messages) for who in (0, 1)]
    return found


_WORDS: Final = (b"kept", b"admin/", b"web/", b"standing", b"\x0a")
TARGETS: Final = {
    "requests": Target(requests, _seeds(), _WORDS, max_len=1_024),
    "planted": Target(planted, _seeds(), _WORDS, max_len=1_024),
}

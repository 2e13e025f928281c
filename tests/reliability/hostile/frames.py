"""Byte streams that a server must survive: HTTP/2 as RFC 9113 forbids it, and as it allows it without end.

Each is what one connection sends. ``hyperframe`` and ``hpack`` write what is right in it; what is wrong is put together
here by hand.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHOD: Final = "/mapd_api.v1.MapService/GetServerInfo"

Headers: TypeAlias = list[tuple[str, str]]

CALL: Final[Headers] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]

PING: Final = PingFrame(opaque_data=b"8bytes!!")

EMPTY_MESSAGE: Final = bytes(5)
"""A gRPC message of no bytes: not compressed, length 0."""


def hello(*more: Frame | bytes) -> bytes:
    """What every connection begins with, and then ``more``."""
    return PREFACE + join([SettingsFrame(), *more])


def join(parts: Iterable[Frame | bytes]) -> bytes:
    """Frames and raw bytes, one behind the other."""
    return b"".join(one if isinstance(one, bytes) else one.serialize() for one in parts)


def raw(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame, whatever is wrong with it; ``length`` is what its head says."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def encoded(headers: Headers) -> bytes:
    """A block of headers; what is no text comes as it does from os.fsdecode()."""
    return Encoder().encode([(os.fsencode(name), os.fsencode(value)) for name, value in headers])


def begun(stream: int = 1, headers: Headers = CALL, *, ended: bool = False) -> HeadersFrame:
    """The headers of a call, whole."""
    frame = HeadersFrame(stream, encoded(headers))
    frame.flags.add("END_HEADERS")
    if ended:
        frame.flags.add("END_STREAM")
    return frame


def sent(stream: int = 1, payload: bytes = EMPTY_MESSAGE, *, ended: bool = True) -> DataFrame:
    """A part of the body."""
    frame = DataFrame(stream, payload)
    if ended:
        frame.flags.add("END_STREAM")
    return frame


def call(stream: int = 1) -> bytes:
    """A call that is right."""
    return join([begun(stream), sent(stream)])


def with_header(*extra: tuple[str, str]) -> bytes:
    """A call with other headers beside its own."""
    return hello(begun(headers=[*CALL, *extra]), sent())


def without(name: str) -> bytes:
    """A call that lacks a header."""
    return hello(begun(headers=[one for one in CALL if one[0] != name]), sent())


def instead(name: str, value: str) -> bytes:
    """A call with another value in one header."""
    return hello(begun(headers=[(key, value if key == name else old) for key, old in CALL]), sent())


def table_bomb() -> bytes:
    """One large header in the table, referred to 15,000 times: 16 KiB on the wire, 60 MB as text."""
    encoder = Encoder()
    block = encoder.encode([*CALL, ("x", "a" * 4_000)])
    return hello(HeadersFrame(1, block), *(ContinuationFrame(1, b"\xbe" * 15_000) for _ in range(1)))


def many_continuations() -> bytes:
    """Headers that never end: 20,000 frames of one byte each (CVE-2024-27316's kind)."""
    first = HeadersFrame(1, Encoder().encode(CALL))
    return hello(first, *(ContinuationFrame(1, b"\x00") for _ in range(20_000)))


def rapid_reset(streams: int) -> Iterator[bytes]:
    """Calls that are given up as soon as they are made (CVE-2023-44487), in parts of 100."""
    yield hello()
    block = Encoder().encode(CALL)
    for first in range(1, 2 * streams, 200):
        parts: list[bytes] = []
        for stream in range(first, min(first + 200, 2 * streams), 2):
            frame = HeadersFrame(stream, block)
            frame.flags.add("END_HEADERS")
            parts += [frame.serialize(), RstStreamFrame(stream, error_code=8).serialize()]
        yield b"".join(parts)


def flood(frame: Frame, count: int) -> Iterator[bytes]:
    """The same frame again and again, in parts of 100."""
    yield hello()
    part = frame.serialize() * 100
    for _ in range(count // 100):
        yield part


def _zero_window() -> bytes:
    """Answers are wanted, and none may be sent."""
    settings = SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    return PREFACE + join([settings, *(call(stream) for stream in range(1, 401, 2))])


def _half_closed() -> bytes:
    return hello(call(), sent(), begun())


CLASSICS: Final[Mapping[str, Callable[[], bytes]]] = MappingProxyType(
    {
        "nothing": lambda: b"",
        "no HTTP": lambda: bytes(range(256)) * 40,
        "HTTP/1.1": lambda: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "an endless first line": lambda: b"GET /" + b"a" * 200_000,
        "half a preface": lambda: PREFACE[:10],
        "TLS to who speaks none": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505),
        "garbage behind the preface": lambda: PREFACE + b"\xff" * 10_000,
        "no settings first": lambda: PREFACE + call(),
        "settings on a stream": lambda: PREFACE + raw(4, 0, 1, b""),
        "settings of five bytes": lambda: PREFACE + raw(4, 0, 0, bytes(5)),
        "an acknowledgement with a payload": lambda: hello(raw(4, 1, 0, bytes(6))),
        "a window of 2^31": lambda: PREFACE + raw(4, 0, 0, struct.pack(">HI", 4, 1 << 31)),
        "a frame size of 1": lambda: PREFACE + raw(4, 0, 0, struct.pack(">HI", 5, 1)),
        "a header table of 4 GiB": lambda: PREFACE + raw(4, 0, 0, struct.pack(">HI", 1, (1 << 32) - 1)) + call(),
        "data on stream 0": lambda: hello(raw(0, 0, 0, b"x")),
        "data on a stream that is none": lambda: hello(sent(7)),
        "padding longer than its frame": lambda: hello(begun(), raw(0, 8, 1, b"\xff" + bytes(4))),
        "headers on stream 0": lambda: hello(raw(1, 4, 0, Encoder().encode(CALL))),
        "headers on an even stream": lambda: hello(begun(2), sent(2)),
        "a stream below the last": lambda: hello(call(9), call(3)),
        "a stream twice": _half_closed,
        "a continuation of nothing": lambda: hello(ContinuationFrame(1, b"\x82")),
        "headers cut by a ping": lambda: hello(HeadersFrame(1, Encoder().encode(CALL)), PING),
        "headers without an end": many_continuations,
        "a priority of itself": lambda: hello(PriorityFrame(1, depends_on=1)),
        "a priority of four bytes": lambda: hello(raw(2, 0, 1, bytes(4))),
        "a reset of an idle stream": lambda: hello(RstStreamFrame(5, error_code=0)),
        "a reset of stream 0": lambda: hello(raw(3, 0, 0, bytes(4))),
        "a ping of seven bytes": lambda: hello(raw(6, 0, 0, bytes(7))),
        "a window update of 0": lambda: hello(begun(), raw(8, 0, 1, bytes(4))),
        "a window past 2^31": lambda: hello(begun(), *[WindowUpdateFrame(0, window_increment=(1 << 31) - 1)] * 2),
        "a promise of a client": lambda: hello(PushPromiseFrame(1, 2, data=b"\x82")),
        "a farewell, and more": lambda: hello(GoAwayFrame(0, last_stream_id=0), call()),
        "an unknown frame": lambda: hello(raw(0xFA, 0xFF, 3, bytes(100)), call()),
        "a frame of 16 MiB, by its head": lambda: hello(raw(0, 0, 1, bytes(100), (1 << 24) - 1)),
        "a frame past the largest": lambda: hello(begun(), raw(0, 0, 1, bytes(1 << 17))),
        "an index past the table": lambda: hello(raw(1, 5, 1, b"\xff\xff\xff\x0f")),
        "a table size past the bound": lambda: hello(raw(1, 5, 1, b"\x3f\xff\xff\xff\x7f" + Encoder().encode(CALL))),
        "a string longer than its block": lambda: hello(raw(1, 5, 1, b"\x40\x7f\xff\xff\x07abc")),
        "bad Huffman": lambda: hello(raw(1, 5, 1, b"\x40\x84\xff\xff\xff\xff\x01a")),
        "a table bomb": table_bomb,
        "64 KiB of metadata": lambda: with_header(("x-large", "a" * 65_536)),
        "10,000 headers": lambda: with_header(*((f"x-{number}", "") for number in range(10_000))),
        "upper case": lambda: with_header(("X-Upper", "a")),
        "a line feed in a header": lambda: with_header(("x-split", "a\r\nb: c")),
        "a second path": lambda: with_header((":path", METHOD)),
        "no path": lambda: without(":path"),
        "no method": lambda: without(":method"),
        "no content type": lambda: without("content-type"),
        "JSON": lambda: instead("content-type", "application/json"),
        "GET": lambda: instead(":method", "GET"),
        "a method that is none": lambda: instead(":path", "/mapd_api.v1.MapService/Format"),
        "a path that is no text": lambda: instead(":path", "/\udcff\udcfe"),
        "a header that is no text": lambda: with_header(("x-bytes", "\udcff\udcfe")),
        "a path up": lambda: instead(":path", "/../../../etc/passwd"),
        "a path of 8 KiB": lambda: instead(":path", "/" + "a" * 8_192),
        "a timeout that is none": lambda: with_header(("grpc-timeout", "99999999999S")),
        "a negative timeout": lambda: with_header(("grpc-timeout", "-1S")),
        "an encoding that is none": lambda: with_header(("grpc-encoding", "zip")),
        "compressed, by its head": lambda: hello(begun(), sent(payload=b"\x01\x00\x00\x00\x03abc")),
        "a message of 4 GiB, by its head": lambda: hello(begun(), sent(payload=b"\x00\xff\xff\xff\xff" + bytes(100))),
        "a message cut": lambda: hello(begun(), sent(payload=b"\x00\x00\x00\x00\x64abc")),
        "half a length": lambda: hello(begun(), sent(payload=b"\x00\x00")),
        "two messages where one is due": lambda: hello(begun(), sent(payload=EMPTY_MESSAGE * 2)),
        "no message where one is due": lambda: hello(begun(ended=True)),
        "a message that is no protobuf": lambda: hello(begun(), sent(payload=b"\x00\x00\x00\x00\x04\xff\xff\xff\xff")),
        "answers that may not be sent": _zero_window,
        "20,000 empty parts": lambda: hello(begun(), *(sent(payload=b"", ended=False) for _ in range(20_000))),
    }
)  # fmt: skip
"""What is wrong with it, in a few words: its bytes."""


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """A good exchange of three calls with a few bytes changed, cut, repeated or put in; the same for a seed."""
    good = hello(SettingsFrame(flags=["ACK"]), *(call(stream) for stream in (1, 3, 5)))
    choice = random.Random(seed)  # noqa: S311 - to be the same again
    for _ in range(count):
        changed = bytearray(good)
        for _ in range(choice.randint(1, 6)):
            _change(changed, choice)
        yield bytes(changed)


def _change(data: bytearray, choice: random.Random) -> None:
    at = choice.randrange(len(data) + 1)
    match choice.randrange(5):
        case 0 if at < len(data):
            data[at] = choice.randrange(256)
        case 1:
            del data[at : at + choice.randint(1, 12)]
        case 2:
            data[at:at] = choice.randbytes(choice.randint(1, 12))
        case 3:
            data[at:at] = data[at : at + choice.randint(1, 60)]
        case _:
            if at < len(data):
                data[at] ^= 1 << choice.randrange(8)

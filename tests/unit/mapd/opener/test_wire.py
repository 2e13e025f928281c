"""Messages between front and opener: whole or refused, with their descriptors or without, and nothing left open."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from mapd.opener.wire import ANSWER_BYTES, HEADER, MOST_FDS, PACKET_BYTES, Ended, Malformed, Message, Receiver
from tests.support.counts import nothing_left_behind
from tests.support.openers import pair
from tests.unit.mapd.opener.lies import Packet, send

SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
INLINE = PACKET_BYTES - HEADER.size


@pytest.fixture
def ends() -> Generator[tuple[socket.socket, socket.socket]]:
    """Both ends of a socket; no descriptor is left."""
    with nothing_left_behind():
        one, other = pair()
        with one, other:
            yield one, other


@pytest.fixture
def ours(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[0]


@pytest.fixture
def theirs(ends: tuple[socket.socket, socket.socket]) -> Receiver:
    return Receiver(ends[1])


@pytest.mark.parametrize("raw", [0, 1, INLINE - 2, INLINE - 1, 100_000, 20 << 20])
def test_a_message_arrives_as_it_was_sent(ours: socket.socket, theirs: Receiver, raw: int) -> None:
    content = os.urandom(raw)
    Message(7, b"{}", content).send(ours)
    packet = theirs.receive()
    assert (packet.number, packet.inline is None) == (7, raw > INLINE - 2)
    assert packet.body(ANSWER_BYTES) == (b"{}", content)
    assert packet.fds == []


@pytest.mark.parametrize("raw", [b"", b"x" * PACKET_BYTES])
def test_descriptors_arrive_in_their_order(ours: socket.socket, theirs: Receiver, raw: bytes) -> None:
    reading, writing = os.pipe()
    Message(1, b"[]", raw, [reading, writing]).send(ours)
    os.close(reading)
    os.close(writing)
    packet = theirs.receive()
    assert packet.body(ANSWER_BYTES) == (b"[]", raw)
    first, second = packet.fds
    with second.lease() as into, first.lease() as out:
        assert os.write(into, b"it is") == 5
        assert os.read(out, 9) == b"it is"
        assert fcntl.fcntl(out, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    packet.close()


def test_a_message_larger_than_what_is_taken_is_not_read(ours: socket.socket, theirs: Receiver) -> None:
    Message(1, b"[]", bytes(100_000)).send(ours)
    packet = theirs.receive()
    with pytest.raises(Malformed, match="100002 bytes where 100001 are taken"):
        packet.body(100_001)
    packet.close()


@pytest.mark.parametrize("size", [0, 1, HEADER.size - 1])
def test_a_packet_without_a_header_is_malformed_and_not_the_end(
    ours: socket.socket, theirs: Receiver, size: int
) -> None:
    ours.send(bytes(size))
    packet = theirs.receive()
    assert (packet.number, packet.wrong) == (None, f"a packet of {size} bytes")
    Message(2, b"[]").send(ours)
    assert theirs.receive().number == 2


def test_a_closed_socket_is_the_end(ours: socket.socket, theirs: Receiver) -> None:
    Message(2, b"[]").send(ours)
    ours.close()
    assert theirs.receive().number == 2
    with pytest.raises(Ended):
        theirs.receive()
    with pytest.raises(Ended):
        Message(3, b"[]").send(theirs.sock)


@pytest.mark.parametrize(
    ("header", "body", "why"),
    [
        ((1, 3, 0, 0), b"[]", "speaks of others"),
        ((1, 1, 0, 0), b"[]", "speaks of others"),
        ((1, 2, 2**32 - 1, 0), b"[]", "speaks of others"),
        ((1, 2, 0, 1), b"[]", "speaks of others"),
        ((1, 2, 0, 2), b"[]", "unknown flags"),
        ((1, PACKET_BYTES, 0, 0), bytes(PACKET_BYTES), "more than 16384 bytes"),
    ],
)
def test_a_header_that_lies_is_malformed(
    ours: socket.socket, theirs: Receiver, header: tuple[int, ...], body: bytes, why: str
) -> None:
    ours.send(HEADER.pack(*header) + body)
    packet = theirs.receive()
    assert packet.number == 1
    with pytest.raises(Malformed, match=why):
        packet.body(ANSWER_BYTES)


@pytest.mark.parametrize("count", [MOST_FDS + 1, MOST_FDS + 2, 60, 250])
def test_more_descriptors_than_a_message_has_are_closed(
    ours: socket.socket, theirs: Receiver, count: int
) -> None:
    """Those beyond the room for them the kernel drops (MSG_CTRUNC); none of the others stays open."""
    null = os.open("/dev/null", os.O_RDONLY)
    send(ours, Packet(HEADER.pack(1, 2, 0, 0) + b"[]", [null] * count))
    os.close(null)
    packet = theirs.receive()
    with pytest.raises(Malformed, match="more than 3 descriptors"):
        packet.body(ANSWER_BYTES)
    assert MOST_FDS < len(packet.fds) <= MOST_FDS + 2
    packet.close()


@pytest.mark.parametrize(
    "missing", [fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE]
)
def test_a_body_that_can_still_be_changed_is_refused(
    ours: socket.socket, theirs: Receiver, missing: int
) -> None:
    memfd = os.memfd_create("body", os.MFD_ALLOW_SEALING)
    os.write(memfd, b"[]")
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALED & ~missing)
    send(ours, Packet(HEADER.pack(1, 2, 0, 1), [memfd]))
    os.close(memfd)
    with pytest.raises(Malformed, match="can still be changed"):
        theirs.receive().body(ANSWER_BYTES)


@pytest.mark.parametrize("size", [1, 3, 1 << 40])
def test_a_body_of_another_size_is_refused(ours: socket.socket, theirs: Receiver, size: int) -> None:
    memfd = os.memfd_create("body", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, size)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALED)
    send(ours, Packet(HEADER.pack(1, 2, 0, 1), [memfd]))
    os.close(memfd)
    with pytest.raises(Malformed, match=f"a memfd of {size} bytes"):
        theirs.receive().body(ANSWER_BYTES)


def test_a_body_that_is_no_memfd_is_refused_without_reading_it(
    ours: socket.socket, theirs: Receiver, tmp_path: Path
) -> None:
    """A read of an empty pipe would wait for ever; a file could be changed meanwhile."""
    reading, writing = os.pipe()
    (tmp_path / "body").write_bytes(b"[]")
    file = os.open(tmp_path / "body", os.O_RDONLY)
    for fd in (reading, file):
        send(ours, Packet(HEADER.pack(1, 2, 0, 1), [fd]))
        with pytest.raises(Malformed, match="no memfd"):
            theirs.receive().body(ANSWER_BYTES)
    for fd in (reading, writing, file):
        os.close(fd)


def test_a_body_that_was_said_to_come_and_did_not_is_refused(ours: socket.socket, theirs: Receiver) -> None:
    send(ours, Packet(HEADER.pack(1, 2, 0, 1)))
    with pytest.raises(Malformed, match="no memfd"):
        theirs.receive().body(ANSWER_BYTES)

"""What travels between front and opener: one message for each request and each answer, and descriptors beside it.

A message is a header, a text (JSON) and raw bytes. Small ones travel whole as one packet of a SOCK_SEQPACKET socket;
of a larger one the packet is the header alone, and text and bytes lie in a sealed memfd that goes with it, so that
neither side ever waits for a second packet or reads what the other may still change. Nothing here is evaluated or
unpickled: a text becomes plain values, and ``shapes`` says of each whether it is what was expected.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from mapd.bpf.fd import OwnedFd

HEADER: Final = struct.Struct("=IIII")
"""The request's number; bytes of text; raw bytes behind it; 1 if both lie in a memfd, else 0."""

PACKET_BYTES: Final = 16 << 10
"""Of a whole message that needs no memfd; a unix socket takes ten times as much."""

TEXT_BYTES: Final = 256 << 10
"""Of a request's text: 256 folders with paths of 1,000 characters."""

REQUEST_BYTES: Final = TEXT_BYTES + (16 << 20)
"""Of a request: its text and a BTF blob, of which the kernel takes 16 MiB (kernel/bpf/btf.c, BTF_MAX_SIZE)."""

ANSWER_BYTES: Final = 64 << 20
"""Of an answer: 500,000 pins with paths of 100 characters."""

MOST_FDS: Final = 3
"""Beside one message: two that a request names, and the memfd."""

_MFD_NOEXEC_SEAL: Final = 0x0008
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_INTS: Final = struct.calcsize("i")
# One more than may come, so that too many are seen; those beyond that the kernel closes (MSG_CTRUNC).
_ANCILLARY: Final = socket.CMSG_SPACE((MOST_FDS + 1) * _INTS)


class Malformed(ValueError):
    """A message that breaks the grammar. Says what was wrong, and none of the bytes."""


class Ended(Exception):
    """The other side has closed its end."""


@dataclass(slots=True)
class Packet:
    """One received packet. Whoever gets it calls ``close``, or ``take`` and closes what that gives.

    Attributes:
        number: the request's; None where not even a header came.
        wrong: why it is malformed; "" if it is not, as far as its header tells.
        lost: descriptors came with it that this process had no room for.
    """

    number: int | None
    fds: list[OwnedFd]
    text_bytes: int = 0
    raw_bytes: int = 0
    inline: bytes | None = None
    wrong: str = ""
    lost: bool = False

    def close(self) -> None:
        """Close the descriptors that came with it."""
        while self.fds:
            self.fds.pop().close()

    def body(self, most: int) -> tuple[bytes, bytes]:
        """Text and raw bytes; the memfd they lay in is closed.

        Raises:
            Malformed: they are not whole, more than ``most``, or in something that somebody else can still change.
        """
        if self.wrong:
            raise Malformed(self.wrong)
        size = self.text_bytes + self.raw_bytes
        if size > most:
            raise Malformed(f"{size} bytes where {most} are taken")
        if self.inline is not None:
            return self.inline[: self.text_bytes], self.inline[self.text_bytes :]
        if not self.fds:
            raise Malformed("no memfd")
        with self.fds.pop() as owned, owned.lease() as memfd:
            whole = _read_sealed(memfd, size)
        return whole[: self.text_bytes], whole[self.text_bytes :]


@dataclass(slots=True)
class Receiver:
    """Receives packets into one buffer of its own. For one thread at a time."""

    sock: socket.socket
    _buffer: bytearray = field(default_factory=lambda: bytearray(PACKET_BYTES + 1))

    def receive(self) -> Packet:
        """The next packet. Blocks.

        Raises:
            Ended: there will be none.
        """
        try:
            size, ancillary, flags, _ = self.sock.recvmsg_into(
                [self._buffer], _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError as error:
            raise Ended from error
        fds = _owned(ancillary)
        if size == 0 and not fds and _hung_up(self.sock):
            raise Ended
        lost = bool(flags & socket.MSG_CTRUNC) and len(fds) <= MOST_FDS
        packet = Packet(None, fds, lost=lost)
        if size < HEADER.size:
            packet.wrong = f"a packet of {size} bytes"
            return packet
        packet.number, packet.text_bytes, packet.raw_bytes, in_memfd = HEADER.unpack_from(self._buffer)
        within = size - HEADER.size
        if flags & socket.MSG_TRUNC or size > PACKET_BYTES:
            packet.wrong = f"a packet of more than {PACKET_BYTES} bytes"
        elif len(fds) > MOST_FDS:
            packet.wrong = f"more than {MOST_FDS} descriptors"
        elif in_memfd not in (0, 1):
            packet.wrong = "a header with unknown flags"
        elif within != (0 if in_memfd else packet.text_bytes + packet.raw_bytes):
            packet.wrong = f"{within} bytes behind a header that speaks of others"
        elif not in_memfd:
            packet.inline = bytes(memoryview(self._buffer)[HEADER.size : size])
        return packet


@dataclass(slots=True)
class Message:
    """One message to be sent. ``fds`` stay the caller's."""

    number: int
    text: bytes
    raw: bytes = b""
    fds: Sequence[int] = field(default_factory=tuple)

    def send(self, sock: socket.socket) -> None:
        """Send it, in one packet. Blocks while the other side takes none.

        Raises:
            Ended: nobody will read it.
            OSError: EMFILE, ENOMEM: no memfd; ETOOMANYREFS, the other side takes no descriptors.
        """
        with contextlib.ExitStack() as stack:
            inline = HEADER.size + len(self.text) + len(self.raw) <= PACKET_BYTES
            fds = list(self.fds)
            if not inline:
                fds.append(stack.enter_context(_sealed(self.text, self.raw)))
            header = HEADER.pack(self.number, len(self.text), len(self.raw), not inline)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sock.sendmsg([header, self.text, self.raw] if inline else [header], ancillary)
            except ConnectionError as error:
                raise Ended from error


@contextlib.contextmanager
def _sealed(*parts: bytes) -> Generator[int]:
    """The number of a memfd with these bytes, which nobody can change any more; closed at the end of the block."""
    with OwnedFd(_memfd()) as owned, owned.lease() as memfd:
        for part in parts:
            _write(memfd, part)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
        yield memfd


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("mapd", flags | _MFD_NOEXEC_SEAL)
    except OSError:  # before Linux 6.3, which has vm.memfd_noexec
        return os.memfd_create("mapd", flags)


def _write(fd: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(fd, view) :]


def _read_sealed(fd: int, size: int) -> bytes:
    """The bytes of a memfd. Reading one cannot block, as that of a pipe or of somebody's file system could."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:  # EINVAL: any other file (mm/memfd.c)
        raise Malformed("a descriptor that is no memfd") from None
    if seals & _SEALS != _SEALS:
        raise Malformed("a memfd that can still be changed")
    if (found := os.fstat(fd).st_size) != size:
        raise Malformed(f"a memfd of {found} bytes with a header that speaks of {size}")
    parts: list[bytes] = []
    at = 0
    while at < size:
        part = os.pread(fd, size - at, at)
        if not part:
            raise Malformed(f"a memfd that ends after {at} bytes")
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _owned(ancillary: Sequence[tuple[int, int, bytes]]) -> list[OwnedFd]:
    """The descriptors of a received message; with MSG_CTRUNC those that the kernel had made until then."""
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) // _INTS * _INTS])
    return [OwnedFd(number) for number in numbers]


def _hung_up(sock: socket.socket) -> bool:
    """Whether nothing came because nobody is there; an empty packet looks the same."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))

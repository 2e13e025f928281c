"""The front's side: a ``Kernel`` whose control half is carried out by an opener, and whose elements half is its own.

Many threads ask at once over one socket. There is no thread of its own that reads: of those that wait for an answer
one reads for all, and hands that over when it has its own answer, so an answer costs no thread hop.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import queue
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from mapd.bpf import program
from mapd.bpf.elements import LinuxElements
from mapd.bpf.kernel import (
    ControlEnded,
    ControlRequest,
    FreezeMap,
    MakeFolder,
    Pin,
    ProgramInfo,
    R,
    RemoveFolder,
    Rename,
    SyscallError,
    Unpin,
)
from mapd.opener import forms
from mapd.opener.wire import ANSWER_BYTES, Ended, Malformed, Message, Packet, Receiver

IN_FLIGHT: Final = 64
"""Requests on their way at once; further threads wait for one of them. Half of what the opener queues."""

LOCAL: Final[Mapping[type[ControlRequest[Any]], Callable[[Any, Sequence[int]], Any]]] = MappingProxyType(
    {ProgramInfo: program.program_info}
)
"""Requests that need no rights and that a front without any may carry out itself: the opener does not know them."""


CHANGING: Final = frozenset(
    kind.__name__ for kind in (FreezeMap, MakeFolder, Pin, RemoveFolder, Rename, Unpin)
)
"""Requests that leave something behind even if nobody takes their answer."""


class OpenerEnded(ControlEnded):
    """The opener is gone, and this process can open and make nothing any more.

    What it holds it can still read and write. Whether a request of ``CHANGING`` that was under way was done is not
    known.
    """

    def __init__(self, request: str, why: str, *, sent: bool) -> None:
        hint = "its log says why; what is pinned is still there"
        super().__init__(
            request, f"the opener has ended ({why}); {hint}", unknown=sent and request in CHANGING
        )


class _Lead:
    """Said to one who waits: nobody reads at this moment."""


_LEAD: Final = _Lead()
_Word: TypeAlias = "Packet | _Lead | Ended"


class OpenerKernel(LinuxElements):
    """``Kernel`` by an opener at the other end of ``sock`` (SOCK_SEQPACKET), which it owns. Serves all threads.

    What a request answers and raises is what ``LinuxControl`` would, and beside that ``LimitRefused`` for the
    opener's own limits and ``OpenerEnded``. A thread that waits cannot be cancelled, as in a syscall; the opener's end
    wakes it.
    """

    __slots__ = (
        "_closing",
        "_ended",
        "_lock",
        "_numbers",
        "_reading",
        "_receiver",
        "_room",
        "_sock",
        "_users",
        "_waiting",
    )

    def __init__(self, sock: socket.socket) -> None:
        self._sock: Final = sock
        self._receiver: Final = Receiver(sock)
        self._room: Final = threading.BoundedSemaphore(IN_FLIGHT)
        self._lock: Final = threading.Lock()
        self._numbers: Final = itertools.count(1)
        self._waiting: Final[dict[int, queue.SimpleQueue[_Word]]] = {}
        self._reading = False
        self._ended = ""
        self._closing = False
        self._users = 0

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """See ``Kernel.control``.

        Raises:
            SyscallError: what the kernel answered; LimitRefused: a limit of the opener; EMFILE: this process has no
                room for the descriptor that was the answer.
            OpenerEnded: the opener is gone.
            ValueError: ``fds`` are not those that the request takes, or a value is out of all bounds.
            TypeError: no request of this kernel.
        """
        local = LOCAL.get(type(request))
        if local is not None:
            return cast("R", local(request, fds))
        text, raw = forms.put_request(request)
        with self._room:
            packet = self._ask(type(request).__name__, text, raw, fds)
        try:
            return cast("R", self._answer(request, packet))
        finally:
            packet.close()

    def _answer(self, request: ControlRequest[Any], packet: Packet) -> object:
        name = type(request).__name__
        try:
            answer = forms.take_answer(request, *packet.body(ANSWER_BYTES))
        except Malformed as error:
            if packet.lost:
                raise SyscallError(errno.EMFILE, name) from error
            self._end(f"it answered what nobody can read: {error}")
            raise OpenerEnded(name, self._ended, sent=True) from error
        if forms.FORMS[type(request)].answer is not forms.Answer.DESCRIPTOR:
            return answer
        if not packet.fds:
            raise SyscallError(errno.EMFILE, name)
        return packet.fds.pop(0)

    def _ask(self, name: str, text: bytes, raw: bytes, fds: Sequence[int]) -> Packet:
        """Send a request and wait for its answer."""
        mine: queue.SimpleQueue[_Word] = queue.SimpleQueue()
        with self._lock:
            if self._ended:
                raise OpenerEnded(name, self._ended, sent=False)
            number = next(self._numbers) & 0xFFFF_FFFF
            self._waiting[number] = mine
            self._users += 1
        sent = False
        try:
            Message(number, text, raw, fds).send(self._sock)
            sent = True
            return self._wait(number, mine)
        except Ended as error:
            self._end(str(error) or "it has closed its socket")
            raise OpenerEnded(name, self._ended, sent=sent) from None
        finally:
            self._leave(number)

    def _wait(self, number: int, mine: queue.SimpleQueue[_Word]) -> Packet:
        while True:
            with self._lock:
                lead = not self._reading and number in self._waiting
                self._reading |= lead
            if lead:
                self._read_until(number)
            word = mine.get()
            if isinstance(word, Packet):
                return word
            if isinstance(word, Ended):
                raise word

    def _read_until(self, number: int) -> None:
        """Read for all who wait, until the answer to ``number`` is there."""
        try:
            while True:
                packet = self._receiver.receive()
                with self._lock:
                    waiter = self._waiting.pop(packet.number, None) if packet.number is not None else None
                if waiter is None:  # of one that gave up waiting
                    packet.close()
                    continue
                waiter.put(packet)
                if packet.number == number:
                    return
        finally:
            with self._lock:
                self._reading = False

    def _leave(self, number: int) -> None:
        """One request is over; another that waits is told if nobody reads for it."""
        with self._lock:
            self._waiting.pop(number, None)
            if not self._reading and self._waiting:
                next(iter(self._waiting.values())).put(_LEAD)
            self._users -= 1
            last = self._closing and self._users == 0
        if last:
            self._sock.close()

    def _end(self, why: str) -> None:
        """There will be no further answers: everybody who waits hears so, and whoever comes later."""
        with self._lock:
            self._ended = self._ended or why
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for waiter in waiting:
            waiter.put(Ended(why))

    def until_ended(self, timeout_s: float | None = None) -> bool:
        """Wait until the opener is gone, or this is closed; False if neither was in that time. For one thread."""
        with self._lock:
            if self._ended or self._closing:
                return True
            self._users += 1
        try:
            poll = select.poll()
            poll.register(self._sock, 0)  # POLLHUP is always told; answers are others' to read
            return bool(poll.poll(None if timeout_s is None else timeout_s * 1_000))
        finally:
            self._leave(0)

    def close(self) -> None:
        """Let go of the opener, which ends then. Requests under way fail; again does nothing."""
        self._end("this process has closed its socket")
        with self._lock:
            if self._closing:
                return
            self._closing = True
            idle = self._users == 0
            if not idle:  # wakes who reads and who waits; the last one closes
                with contextlib.suppress(OSError):  # ENOTCONN: the opener has gone before
                    self._sock.shutdown(socket.SHUT_RDWR)
        if idle:
            self._sock.close()

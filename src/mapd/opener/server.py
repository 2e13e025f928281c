"""The opener's loop: takes requests from one front, checks them, carries them out, answers.

The reading thread does what takes microseconds itself, and hands to a few others what may take longer, so that an
array of 1 GiB, which takes 2 s to make, holds up nobody who opens a pin. Nothing is queued without a bound: requests
beyond it are answered EAGAIN, and where the front takes no answers, none of its requests are taken either. A message
that breaks the grammar is answered as far as it has a number, logged, and changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import threading
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from mapd.bpf.control import LinuxControl
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    ControlRequest,
    CreateMap,
    GetBtf,
    LimitRefused,
    ListFolder,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    StampFolders,
    SyscallError,
)
from mapd.opener import forms
from mapd.opener.checks import Checks
from mapd.opener.limits import Limits
from mapd.opener.log import Log
from mapd.opener.wire import (
    ANSWER_BYTES,
    REQUEST_BYTES,
    TEXT_BYTES,
    Ended,
    Malformed,
    Message,
    Packet,
    Receiver,
)

MAKERS: Final = 4
"""Threads that make large maps, at most. That takes seconds in which a kernel that does not preempt itself
(CONFIG_PREEMPT_NONE) lets nobody else have the CPU, so they are fewer than there are CPUs, but for one."""

THREADS: Final = 2
"""Threads for everything else that takes longer, milliseconds mostly: a lookup may wait for its program."""

WAITING: Final = 128
"""Requests that wait for threads of either kind; a front that keeps to ``client.IN_FLIGHT`` never fills it."""

QUICK_BYTES: Final = 1 << 20
"""A map of no more is made while the others wait: 30 us for small ones, 0.3 ms for one of so many bytes."""

END_S: Final = 5.0
"""How long what is under way may take once the front has gone; then the process ends all the same."""

_SLOW: Final = (LoadTemplate, LoadBtf, GetBtf, ListPins, ListFolder, StampFolders, ListHolders)


def serve(sock: socket.socket, limits: Limits, *, log: Log | None = None) -> None:
    """Serve the front at the other end of ``sock`` (SOCK_SEQPACKET) until it is gone. Blocks; closes the socket.

    To be called when the process has its user and its capabilities, and its sandbox around it. What the front has
    made stays: pins, and the descriptors that it holds.

    Raises:
        ValueError: a socket of another kind.
    """
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
        raise ValueError("the opener speaks over unix sockets of type SOCK_SEQPACKET")
    with sock:
        _Opener(sock, limits, log or Log()).run()


@dataclass(frozen=True, slots=True)
class _Job:
    """A request on its way, with its descriptors, which whoever has the job closes."""

    number: int
    request: ControlRequest[Any]
    fds: Sequence[OwnedFd]


_Jobs: TypeAlias = "queue.Queue[_Job | None]"


class _Opener:
    def __init__(self, sock: socket.socket, limits: Limits, log: Log) -> None:
        self._sock: Final = sock
        self._checks: Final = Checks(limits)
        self._kernel: Final = LinuxControl()
        self._log: Final = log
        self._makes: Final[_Jobs] = queue.Queue(WAITING)
        self._others: Final[_Jobs] = queue.Queue(WAITING)
        self._gone: Final = threading.Event()

    def run(self) -> None:
        """Until the front is gone, and what it has asked for is done, or has taken END_S."""
        lines = self._lines()
        threads = [
            threading.Thread(target=self._work, args=(jobs,), name=f"opener-{index}", daemon=True)
            for index, jobs in enumerate(lines)
        ]
        for thread in threads:
            thread.start()
        receiver = Receiver(self._sock)
        try:
            while True:
                self._take(receiver.receive())
        except Ended:
            pass
        finally:
            self._end(threads, lines)

    def _lines(self) -> Sequence[_Jobs]:
        """What each thread takes its jobs from."""
        makers = min(MAKERS, max(1, len(os.sched_getaffinity(0)) - 1))
        return (*(self._makes,) * makers, *(self._others,) * THREADS)

    def _end(self, threads: Sequence[threading.Thread], lines: Sequence[_Jobs]) -> None:
        self._gone.set()
        # Nobody waits for what is still queued, and each thread wants a word to end.
        for jobs in (self._makes, self._others):
            with contextlib.suppress(queue.Empty):
                while True:
                    _close(jobs.get_nowait())
        for jobs in lines:
            jobs.put(None)
        for thread in threads:
            thread.join(END_S / len(threads))

    def _work(self, jobs: _Jobs) -> None:
        try:
            while (job := jobs.get()) is not None:
                self._carry_out(job)
        except Ended:
            pass
        finally:
            # Whatever the reason: without this thread somebody would wait for ever, so the process ends.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def _take(self, packet: Packet) -> None:
        """One packet: carried out at once, or queued, or refused."""
        try:
            job = self._read(packet)
        except Malformed as error:
            self._log.write("warning", "a message that is no request", why=error)
            if packet.number is not None:
                self._answer(packet.number, forms.put_error(ValueError(f"no request: {error}")))
            return
        except OSError as error:  # no room for its descriptors, or its memfd cannot be read
            self._log.write("error", "a request could not be read", why=error)
            if packet.number is not None:
                self._answer(packet.number, forms.put_error(error))
            return
        finally:
            packet.close()
        if self._is_quick(job.request):
            self._carry_out(job)
            return
        try:
            (self._makes if isinstance(job.request, CreateMap) else self._others).put_nowait(job)
        except queue.Full:
            _close(job)
            busy = LimitRefused(errno.EAGAIN, type(job.request).__name__, f"{WAITING} requests wait already")
            self._refuse(job, busy)

    def _read(self, packet: Packet) -> _Job:
        if packet.number is None:
            raise Malformed(packet.wrong)
        if packet.lost:
            raise SyscallError(errno.EMFILE, "recvmsg")
        if packet.text_bytes > TEXT_BYTES:
            raise Malformed(f"a text of {packet.text_bytes} bytes where {TEXT_BYTES} are taken")
        request = forms.take_request(*packet.body(REQUEST_BYTES))
        fds = list(packet.fds)
        packet.fds.clear()
        return _Job(packet.number, request, fds)

    def _carry_out(self, job: _Job) -> None:
        """Check a request, do it, close its descriptors, answer it.

        Raises:
            Ended: the front has gone meanwhile; what was made for it is closed.
        """
        try:
            answer = self._do(job)
        except Exception as error:
            self._refuse(job, error)
            return
        if isinstance(answer, OwnedFd):
            with answer, answer.lease() as made:
                self._done(job, answer, [made])
        else:
            self._done(job, answer, [])

    def _is_quick(self, request: ControlRequest[Any]) -> bool:
        if isinstance(request, CreateMap):
            try:
                return self._checks.bytes_of(request) <= QUICK_BYTES
            except ValueError:  # no such type: refused at once
                return True
        return not isinstance(request, _SLOW)

    def _do(self, job: _Job) -> object:
        try:
            with _numbers(job.fds) as fds:
                self._checks.check(job.request, fds)
                answer: object = self._kernel.control(job.request, fds)
                return answer
        finally:
            _close(job)

    def _done(self, job: _Job, answer: object, fds: Sequence[int]) -> None:
        try:
            text, raw = forms.put_answer(job.request, answer)
            if len(text) + len(raw) > ANSWER_BYTES:
                raise Malformed(f"an answer of {len(text) + len(raw)} bytes where {ANSWER_BYTES} are taken")
            self._answer(job.number, text, raw, fds)
        except Malformed as error:
            name = type(job.request).__name__
            self._refuse(job, LimitRefused(errno.EMSGSIZE, name, str(error)))

    def _refuse(self, job: _Job, error: Exception) -> None:
        if isinstance(error, LimitRefused):
            self._log.write(
                "warning", f"refused: {type(job.request).__name__} beyond a limit", limit=error.limit
            )
        elif not isinstance(error, (OSError, ValueError)):
            self._log.write(
                "error",
                f"{type(job.request).__name__} failed by a mistake of the opener's",
                error="".join(traceback.format_exception(error))[-500:],
            )
        self._answer(job.number, forms.put_error(error))

    def _answer(self, number: int, text: bytes, raw: bytes = b"", fds: Sequence[int] = ()) -> None:
        """One answer to one request; a front that waited for none would wait for ever.

        Raises:
            Ended: nobody reads it, or it cannot be sent.
        """
        try:
            Message(number, text, raw, fds).send(self._sock)
        except OSError as error:  # EMFILE, ENOMEM: no memfd; ETOOMANYREFS: the front takes no descriptors
            self._log.write("error", "an answer could not be sent", why=error)
            try:
                refusal = forms.put_error(SyscallError(error.errno or errno.EIO, "sendmsg"))
                Message(number, refusal).send(self._sock)
            except OSError:
                raise Ended from error


@contextlib.contextmanager
def _numbers(fds: Sequence[OwnedFd]) -> Generator[list[int]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(owned.lease()) for owned in fds]


def _close(job: _Job | None) -> None:
    for owned in job.fds if job is not None else ():
        owned.close()

"""bpf(2) of a process that fails as a test says, on the real kernel: seccomp's user notification (seccomp_unotify(2)).

``python -m tests.support.seccompnotify SOCKET COMMANDS PROGRAM ...`` installs a filter that asks before each of these
commands of bpf(2), hands the one who answers to the socket, and becomes the program. Its children ask too. An answer is
an errno, and then the call is not made, or "go on". Linux 5.5.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import select
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_BPF_NR: Final = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_SECCOMP_NR: Final = {"x86_64": 317, "aarch64": 277}[os.uname().machine]

# include/uapi/linux/seccomp.h and filter.h
_RET_ALLOW: Final = 0x7FFF_0000
_RET_USER_NOTIF: Final = 0x7FC0_0000
_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
_NOTIF_RECV: Final = 0xC050_2100
_NOTIF_SEND: Final = 0xC018_2101
_CONTINUE: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_LD, _JEQ, _RET = 0x20, 0x15, 0x06
_NR_OFFSET, _ARG0_OFFSET = 0, 16
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=Qqii")


def _filter(commands: Sequence[int]) -> bytes:
    """Ask for these commands, let everything else go."""
    last = len(commands)
    made = [(_LD, 0, 0, _NR_OFFSET), (_JEQ, 0, last + 1, _BPF_NR), (_LD, 0, 0, _ARG0_OFFSET)]
    made += [(_JEQ, last - at, 0, command) for at, command in enumerate(commands)]
    made += [(_RET, 0, 0, _RET_ALLOW), (_RET, 0, 0, _RET_USER_NOTIF)]
    return b"".join(struct.pack("=HBBI", *one) for one in made)


def install(commands: Sequence[int]) -> int:
    """The descriptor on which this process' calls are answered from now on."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    code = _filter(commands)
    program = Program(len(code) // 8, code)
    fd: int = libc.syscall(_SECCOMP_NR, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "SECCOMP_SET_MODE_FILTER")
    return fd


class Injector:
    """Answers, in a thread of its own: some calls fail, the others are made.

    Attributes:
        asked: how often each command was.
        failed: how often each (command, errno) was the answer.
    """

    def __init__(self, fd: int, errnos: Mapping[int, Sequence[int]], part: float, seed: int) -> None:
        self.asked: Counter[int] = Counter()
        self.failed: Counter[tuple[int, int]] = Counter()
        self._fd = fd
        self._errnos = errnos
        self._part = part
        self._choice = random.Random(seed)  # noqa: S311
        self._armed = False
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, name="seccomp answers", daemon=True)
        self._thread.start()

    def arm(self, *, on: bool = True) -> None:
        """Let calls fail from now on, or none any more."""
        self._armed = on

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._stopped], [], [])
            if self._stopped in ready:
                return
            buffer = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self._fd, _NOTIF_RECV, buffer)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # who asked was killed meanwhile
                    if select.select([self._fd], [], [], 0)[0] and self._gone():
                        return
                    continue
                return
            found = _NOTIFICATION.unpack(buffer)
            number = self._answer(int(found[6]))
            answer = _ANSWER.pack(found[0], 0, -number, 0 if number else _CONTINUE)
            try:
                fcntl.ioctl(self._fd, _NOTIF_SEND, bytearray(answer))
            except OSError:
                continue  # ENOENT: the same

    def _gone(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def _answer(self, command: int) -> int:
        self.asked[command] += 1
        if not self._armed or self._choice.random() >= self._part:
            return 0
        number = self._choice.choice(self._errnos[command])
        self.failed[command, number] += 1
        return number

    def close(self) -> None:
        """Answer no more: who asks then is told ENOSYS."""
        os.write(self._stop, b".")
        self._thread.join()
        for one in (self._fd, self._stopped, self._stop):
            os.close(one)


class Injecting:
    """Waits for the program to begin, and answers it."""

    def __init__(self, path: Path, commands: Sequence[int]) -> None:
        self.prefix: Final = (
            *("env", f"PYTHONPATH={ROOT}:{ROOT / 'src'}"),
            *(sys.executable, "-m", "tests.support.seccompnotify", str(path), ",".join(map(str, commands))),
        )
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(20)

    def answer(self, errnos: Mapping[int, Sequence[int]], part: float, seed: int) -> Injector:
        """Once the program is about to begin. It stands still at its first such call until then."""
        connection, _ = self._listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 1, 1)
        return Injector(fds[0], errnos, part, seed)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def injecting(path: Path, commands: Sequence[int]) -> Generator[Injecting]:
    """Inside the block; ``prefix`` goes before the command that shall ask."""
    found = Injecting(path, commands)
    try:
        yield found
    finally:
        found.close()


def main(path: str, commands: str, *program: str) -> None:
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.connect(path)
        fd = install([int(one) for one in commands.split(",")])
        socket.send_fds(supervisor, [b"."], [fd])
        os.close(fd)
    os.execvp(program[0], program)  # noqa: S606 - what the test asked for


if __name__ == "__main__":
    main(*sys.argv[1:])

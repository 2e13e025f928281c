"""The seccomp filter, assembled by hand: classic BPF over struct seccomp_data. Read seccomp(2).

Calls that are never refused, whatever their arguments, cost nothing: the kernel finds them in a bitmap without
running the filter (kernel/seccomp.c, seccomp_cache_check_allow(), Linux 5.11). bpf(2) is not one of them; its
commands are asked first.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mapd.sandbox import numbers
from mapd.sandbox.libc import Machine, machine, syscall

_LD_W_ABS: Final = 0x20
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_AND: Final = 0x54
_RET: Final = 0x06

_NR: Final = 0
_ARCH: Final = 4
_ARGS: Final = 16
"""Offsets in struct seccomp_data; arguments are 8 bytes each, their low half first."""

_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_EPERM: Final = _ERRNO | errno.EPERM
_ENOSYS: Final = _ERRNO | errno.ENOSYS

_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1

_THREAD: Final = 0x00010000
"""CLONE_THREAD (include/uapi/linux/sched.h)."""
_SOCK_TYPE: Final = 0xF
_PR_SET_DUMPABLE: Final = 4
_PR_SET_PTRACER: Final = 0x59616D61
_MSG_FASTOPEN: Final = 0x20000000
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
"""Both put characters into a terminal's input (include/uapi/asm-generic/ioctls.h)."""

# include/uapi/linux/bpf.h, enum bpf_cmd
FRONT_COMMANDS: Final = frozenset({1, 2, 3, 4, 10, 15, 21, 24, 25, 26, 27})
"""On descriptors that are held: MAP_{LOOKUP,UPDATE,DELETE}_ELEM, MAP_GET_NEXT_KEY, PROG_TEST_RUN,
OBJ_GET_INFO_BY_FD, MAP_LOOKUP_AND_DELETE_ELEM, MAP_{LOOKUP,LOOKUP_AND_DELETE,UPDATE,DELETE}_BATCH."""

OPENER_COMMANDS: Final = frozenset({0, 5, 6, 7, 11, 12, 13, 14, 15, 18, 19, 22})
"""MAP_CREATE, PROG_LOAD, OBJ_PIN, OBJ_GET, {PROG,MAP}_GET_NEXT_ID, {PROG,MAP}_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD,
BTF_LOAD, BTF_GET_FD_BY_ID, MAP_FREEZE."""

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What stays allowed of the calls that are judged by their arguments.

    Attributes:
        bpf: commands of bpf(2).
        families: of socket(2): AF_UNIX of any type; AF_INET and AF_INET6 as streams of TCP alone.
    """

    bpf: frozenset[int]
    families: frozenset[int] = frozenset()


def program(calls: Calls, host: Machine) -> list[Instruction]:
    """The filter. Another architecture's calls end the process; those of x32 and all that is denied answer EPERM."""
    found = [
        _load(_ARCH),
        (_JEQ, 1, 0, host.audit_arch),
        _answer(_KILL_PROCESS),
        _load(_NR),
    ]
    if host.x32:
        found += [(_JGE, 0, 1, host.x32), _answer(_EPERM)]
    found += _when(_at(numbers.BPF, host), [_load(_argument(0)), *_one_of(calls.bpf)])
    # Threads alone: neither another process nor, with it, a namespace. CLONE_THREAD excludes CLONE_NEWUSER and
    # CLONE_NEWPID; the others need CAP_SYS_ADMIN, and answer EPERM here (kernel/fork.c, copy_process()).
    found += _when(
        _at(numbers.CLONE, host),
        [
            _load(_argument(0)),
            (_JSET, 0, 2, _THREAD),
            (_JSET, 1, 0, _NAMESPACES),
            _answer(_ALLOW),
            _answer(_EPERM),
        ],
    )
    # Its flags are in memory, which a filter cannot read; libc goes on with clone(2).
    found += _when(_at(numbers.CLONE3, host), [_answer(_ENOSYS)])
    found += _when(_at(numbers.SOCKET, host), _sockets(calls.families))
    found += _when(
        _at(numbers.SOCKETPAIR, host), [_load(_argument(0)), *_one_of(frozenset({int(socket.AF_UNIX)}))]
    )
    found += _when(
        _at(numbers.PRCTL, host),
        [
            _load(_argument(0)),
            (_JEQ, 2, 0, _PR_SET_DUMPABLE),
            (_JEQ, 1, 0, _PR_SET_PTRACER),
            _answer(_ALLOW),
            _answer(_EPERM),
        ],
    )
    # Whoever started this at a terminal reads there what would be pushed: a shell, of root's.
    found += _when(
        _at(numbers.IOCTL, host), [_load(_argument(1)), *_none_of(frozenset({_TIOCSTI, _TIOCLINUX}))]
    )
    # Of another process it asks for its user alone (kernel/sys.c, check_prlimit_permission()).
    found += _when(_at(numbers.PRLIMIT64, host), [_load(_argument(0)), *_one_of(frozenset({0}))])
    found += _sending(calls.families, host)
    for both in numbers.DENIED.values():
        found += _when(_at(both, host), [_answer(_EPERM)])
    return [*found, _answer(_ALLOW)]


def assembled(instructions: Sequence[Instruction]) -> bytes:
    """As the kernel reads it: struct sock_filter, 8 bytes each."""
    return b"".join(struct.pack("=HBBI", *one) for one in instructions)


def enforce(calls: Calls) -> None:
    """Put the filter in force for all threads of this process, for ever. Needs no_new_privs.

    Raises:
        OSError: the kernel refused, or a thread could not be brought under it.
        UnknownMachineError: no filter is written for this architecture.
    """
    host = machine()
    code = assembled(program(calls, host))
    kept = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    given = ctypes.create_string_buffer(fprog, len(fprog))
    thread = syscall("seccomp", host.seccomp, _SET_MODE_FILTER, _TSYNC, ctypes.addressof(given))
    if thread:
        raise OSError(errno.EBUSY, f"seccomp: thread {thread} has a filter of its own")


_NAMESPACES: Final = (
    0x00020000  # CLONE_NEWNS
    | 0x02000000  # CLONE_NEWCGROUP
    | 0x04000000  # CLONE_NEWUTS
    | 0x08000000  # CLONE_NEWIPC
    | 0x10000000  # CLONE_NEWUSER
    | 0x20000000  # CLONE_NEWPID
    | 0x40000000  # CLONE_NEWNET
)


def _sockets(families: frozenset[int]) -> list[Instruction]:
    unix, internet = int(socket.AF_UNIX), families & {int(socket.AF_INET), int(socket.AF_INET6)}
    if not internet:
        return [_load(_argument(0)), *_one_of(families & {unix})]
    found = [_load(_argument(0))]
    if unix in families:
        found += [(_JEQ, 0, 1, unix), _answer(_ALLOW)]
    for family in sorted(internet):
        stream = [
            _load(_argument(1)),
            (_AND, 0, 0, _SOCK_TYPE),
            (_JEQ, 1, 0, int(socket.SOCK_STREAM)),
            _answer(_EPERM),
            # landlock looks at TCP alone (security/landlock/net.c): an MPTCP socket connects to every TCP server.
            _load(_argument(2)),
            *_one_of(frozenset({0, int(socket.IPPROTO_TCP)})),
        ]
        found += [(_JEQ, 0, len(stream), family), *stream]
    return [*found, _answer(_EPERM)]


def _sending(families: frozenset[int], host: Machine) -> list[Instruction]:
    """Where there are TCP sockets: nothing that is sent connects one.

    MSG_FASTOPEN does so inside of sendmsg(2), and landlock is not asked (net/ipv4/tcp.c, tcp_sendmsg_fastopen()).
    """
    if not families & {int(socket.AF_INET), int(socket.AF_INET6)}:
        return []
    found: list[Instruction] = []
    for both, index in ((numbers.SENDTO, 3), (numbers.SENDMSG, 2), (numbers.SENDMMSG, 3)):
        connects = [(_JSET, 0, 1, _MSG_FASTOPEN), _answer(_EPERM), _answer(_ALLOW)]
        found += _when(_at(both, host), [_load(_argument(index)), *connects])
    return found


def _none_of(values: Iterable[int]) -> list[Instruction]:
    """EPERM where the loaded word is one of ``values``; else allow."""
    found: list[Instruction] = []
    for value in sorted(values):
        found += [(_JEQ, 0, 1, value), _answer(_EPERM)]
    return [*found, _answer(_ALLOW)]


def _one_of(values: Iterable[int]) -> list[Instruction]:
    """Allow where the loaded word is one of ``values``; else EPERM."""
    found: list[Instruction] = []
    for value in sorted(values):
        found += [(_JEQ, 0, 1, value), _answer(_ALLOW)]
    return [*found, _answer(_EPERM)]


def _when(number: int | None, body: list[Instruction]) -> list[Instruction]:
    """``body`` for one call; it must answer on every path, for it may load something else than the number."""
    return [] if number is None else [(_JEQ, 0, len(body), number), *body]


def _at(both: numbers.Numbers, host: Machine) -> int | None:
    return both[host.column]


def _argument(index: int) -> int:
    return _ARGS + 8 * index


def _load(offset: int) -> Instruction:
    return (_LD_W_ABS, 0, 0, offset)


def _answer(value: int) -> Instruction:
    return (_RET, 0, 0, value)

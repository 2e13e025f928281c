"""The seccomp filter: run instruction by instruction here, for both architectures, and once in the kernel."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path

import pytest

from mapd.sandbox import numbers
from mapd.sandbox.libc import MACHINES, Machine
from mapd.sandbox.seccomp import (
    FRONT_COMMANDS,
    OPENER_COMMANDS,
    Calls,
    Instruction,
    assembled,
    program,
)

ALLOW = 0x7FFF0000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
KILL = 0x80000000

UNIX, INET, INET6, NETLINK = (
    int(f) for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
)
FRONT = Calls(bpf=FRONT_COMMANDS, families=frozenset({UNIX}))
TCP = Calls(bpf=FRONT_COMMANDS, families=frozenset({UNIX, INET, INET6}))
OPENER = Calls(bpf=OPENER_COMMANDS)

HOSTS = pytest.mark.parametrize("host", MACHINES.values(), ids=MACHINES)


def verdict(code: list[Instruction], data: dict[int, int]) -> int:
    """What the filter answers: the few instructions it is made of, as the kernel runs them."""
    at, word = 0, 0
    while True:
        operation, when_true, when_false, value = code[at]
        at += 1
        match operation:
            case 0x20:
                word = data.get(value, 0)
            case 0x54:
                word &= value
            case 0x15:
                at += when_true if word == value else when_false
            case 0x35:
                at += when_true if word >= value else when_false
            case 0x45:
                at += when_true if word & value else when_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


def asked(calls: Calls, host: Machine, number: int | None, *arguments: int, arch: int | None = None) -> int:
    assert number is not None
    data = {0: number, 4: host.audit_arch if arch is None else arch}
    for index, argument in enumerate(arguments):
        data[16 + 8 * index] = argument & 0xFFFFFFFF
        data[20 + 8 * index] = argument >> 32
    return verdict(program(calls, host), data)


@HOSTS
def test_of_bpf_exactly_the_commands_of_the_list_are_left(host: Machine) -> None:
    for calls in (FRONT, OPENER):
        for command in range(64):
            expected = ALLOW if command in calls.bpf else EPERM
            assert asked(calls, host, numbers.BPF[host.column], command) == expected, command


def test_the_front_can_make_open_pin_load_and_freeze_nothing() -> None:
    create, load, pin, get, freeze = 0, 5, 6, 7, 22
    by_id = {11, 12, 13, 14, 19, 23, 30, 31}  # *_GET_NEXT_ID, *_GET_FD_BY_ID
    assert not FRONT_COMMANDS & {create, load, pin, get, freeze, *by_id}
    assert not (FRONT_COMMANDS | OPENER_COMMANDS) & {
        8,
        9,
        17,
        20,
        28,
        29,
        32,
        33,
        34,
        35,
        36,
    }  # attach, links, tokens


@HOSTS
def test_every_other_architecture_ends_the_process(host: Machine) -> None:
    others = {0x40000003, 0x40000028, *(other.audit_arch for other in MACHINES.values())} - {host.audit_arch}
    for arch in others:
        assert asked(FRONT, host, 0, arch=arch) == KILL


def test_x32_is_refused_whatever_is_called() -> None:
    host = MACHINES["x86_64"]
    for number in (0, 1, 321, 59):
        assert asked(FRONT, host, 0x40000000 + number) == EPERM


@HOSTS
@pytest.mark.parametrize("name", numbers.DENIED)
def test_what_is_denied_answers_eperm(host: Machine, name: str) -> None:
    number = numbers.DENIED[name][host.column]
    if number is not None:
        assert {asked(calls, host, number) for calls in (FRONT, TCP, OPENER)} == {EPERM}


@HOSTS
def test_a_process_can_start_threads_and_no_process(host: Machine) -> None:
    thread = 0x00010000 | 0x00000100 | 0x00000800
    clone = numbers.CLONE[host.column]
    assert asked(FRONT, host, clone, thread) == ALLOW
    assert asked(FRONT, host, clone, 17) == EPERM  # fork, as libc makes it
    assert asked(FRONT, host, clone, thread | 0x10000000) == EPERM  # CLONE_NEWUSER
    assert asked(FRONT, host, clone, thread | 0x00020000) == EPERM  # CLONE_NEWNS
    assert asked(FRONT, host, numbers.CLONE3[host.column]) == ENOSYS


@HOSTS
def test_sockets_are_of_the_families_that_are_configured(host: Machine) -> None:
    stream, datagram = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)
    flags = int(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    number = numbers.SOCKET[host.column]
    table = {
        (UNIX, stream | flags): (ALLOW, ALLOW, EPERM),
        (UNIX, datagram): (ALLOW, ALLOW, EPERM),
        (INET, stream | flags): (EPERM, ALLOW, EPERM),
        (INET6, stream): (EPERM, ALLOW, EPERM),
        (INET, datagram): (EPERM, EPERM, EPERM),
        (INET6, 3): (EPERM, EPERM, EPERM),
        (NETLINK, 3): (EPERM, EPERM, EPERM),
        (17, 3): (EPERM, EPERM, EPERM),  # AF_PACKET
    }
    for (family, kind), expected in table.items():
        assert tuple(asked(c, host, number, family, kind) for c in (FRONT, TCP, OPENER)) == expected


@HOSTS
def test_a_stream_is_tcp_which_landlock_judges_and_no_other_protocol(host: Machine) -> None:
    """MPTCP connects to every TCP server, and landlock looks at TCP sockets alone."""
    number, stream = numbers.SOCKET[host.column], int(socket.SOCK_STREAM)
    for family in (INET, INET6):
        assert [asked(TCP, host, number, family, stream, protocol) for protocol in (0, 6)] == [ALLOW] * 2
        assert {asked(TCP, host, number, family, stream, other) for other in (132, 256, 262)} == {EPERM}


@HOSTS
def test_nothing_is_sent_that_connects(host: Machine) -> None:
    """MSG_FASTOPEN connects inside of sendmsg(2), where landlock is not asked."""
    fast, quiet = 0x20000000, int(socket.MSG_NOSIGNAL)
    for both, index in ((numbers.SENDTO, 3), (numbers.SENDMSG, 2), (numbers.SENDMMSG, 3)):
        for flags, expected in ((0, ALLOW), (quiet, ALLOW), (fast, EPERM), (fast | quiet, EPERM)):
            assert asked(TCP, host, both[host.column], *[0] * index, flags) == expected
            assert asked(FRONT, host, both[host.column], *[0] * index, flags) == ALLOW  # no TCP, no cost


@HOSTS
def test_no_key_is_pressed_on_the_terminal_of_who_started_it(host: Machine) -> None:
    push, linux, winsize = 0x5412, 0x541C, 0x5413
    for calls in (FRONT, TCP, OPENER):
        answers = [asked(calls, host, numbers.IOCTL[host.column], 0, it) for it in (push, linux, winsize)]
        assert answers == [EPERM, EPERM, ALLOW]


@HOSTS
def test_limits_are_its_own_and_no_other_process_is_given_any(host: Machine) -> None:
    """prlimit(2) asks for the same user alone, and that is root where there are no two users."""
    for calls in (FRONT, OPENER):
        answers = [asked(calls, host, numbers.PRLIMIT64[host.column], pid) for pid in (0, 1)]
        assert answers == [ALLOW, EPERM]


@HOSTS
def test_a_pair_of_sockets_is_of_unix_sockets(host: Machine) -> None:
    number = numbers.SOCKETPAIR[host.column]
    assert [asked(FRONT, host, number, family) for family in (UNIX, INET, 40)] == [ALLOW, EPERM, EPERM]


@HOSTS
def test_nobody_can_be_let_into_the_memory_again(host: Machine) -> None:
    number = numbers.PRCTL[host.column]
    set_dumpable, set_ptracer, set_name = 4, 0x59616D61, 15
    assert [asked(FRONT, host, number, option) for option in (set_dumpable, set_ptracer, set_name)] == [
        EPERM,
        EPERM,
        ALLOW,
    ]


@HOSTS
def test_what_a_server_lives_on_is_left(host: Machine) -> None:
    for pair in (
        (0, 63),
        (1, 64),
        (9, 222),
        (202, 98),
        (232, 22),
        (47, 212),
        (318, 278),
    ):  # read ... getrandom
        assert asked(FRONT, host, pair[host.column]) == ALLOW


@HOSTS
def test_the_filter_is_one_that_the_kernel_takes(host: Machine) -> None:
    """BPF_MAXINSNS, and jumps that stay inside."""
    code = program(TCP, host)
    assert len(assembled(code)) == 8 * len(code) <= 8 * 4096
    jumps = [(at, max(yes, no)) for at, (operation, yes, no, _) in enumerate(code) if operation & 7 == 5]
    assert jumps
    assert all(at + 1 + far < len(code) for at, far in jumps)


def headers(path: str) -> dict[str, int]:
    file = Path(path)
    if not file.exists():
        pytest.skip(f"{path} is not installed")
    return {
        name: int(number)
        for name, number in re.findall(
            r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", file.read_text(), re.MULTILINE
        )
    }


@pytest.mark.parametrize(
    ("column", "path"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],
)
def test_the_numbers_are_those_of_the_kernels_headers(column: int, path: str) -> None:
    """Calls newer than the headers are not compared; they have one number everywhere."""
    known = headers(path)
    table = {
        **numbers.DENIED,
        **{
            name: getattr(numbers, name.upper())
            for name in (
                "bpf",
                "clone",
                "clone3",
                "ioctl",
                "prctl",
                "prlimit64",
                "sendmmsg",
                "sendmsg",
                "sendto",
                "socket",
                "socketpair",
            )
        },
    }
    newest = max(known.values())
    for name, both in table.items():
        number = both[column]
        if number is not None and number <= newest:
            assert known[name] == number, name
        elif number is not None:
            assert both[0] == both[1], name
        else:
            assert name not in known, name

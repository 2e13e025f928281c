from __future__ import annotations

import errno
import struct
import uuid

import pytest

from mapd.bpf import (
    SyscallError,
    boot_id,
    describe,
    effective_capabilities,
    errno_name,
    is_bpffs,
    possible_cpus,
)
from mapd.bpf.abi import Command, UnsupportedArchitecture, syscall_numbers
from mapd.bpf.cpus import parse_cpu_list
from mapd.bpf.host import parse_capabilities
from mapd_api.uapi import ENOTSUPP


@pytest.mark.parametrize(
    ("text", "count"),
    [("0\n", 1), ("0-1\n", 2), ("0-3,5\n", 5), ("0,2,4", 3), ("0-127", 128), ("0-1,4-5,8", 5)],
)
def test_cpu_list_counts_its_members(text: str, count: int) -> None:
    assert parse_cpu_list(text) == count


@pytest.mark.parametrize("text", ["", "\n", "a", "3-1", "0-", "-1", "0,,1"])
def test_cpu_list_that_is_none_raises(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any will do: the file is the kernel's
        parse_cpu_list(text)


def test_this_host_has_a_cpu_and_a_boot_id() -> None:
    assert possible_cpus() >= 1
    assert str(uuid.UUID(boot_id())) == boot_id()


def test_capabilities_are_named_by_bit() -> None:
    assert parse_capabilities("0") == frozenset()
    assert parse_capabilities(f"{1 << 39 | 1 << 21 | 1:016x}") == {"CAP_BPF", "CAP_SYS_ADMIN", "CAP_CHOWN"}
    assert parse_capabilities(f"{1 << 63:x}") == {"CAP_63"}


def test_effective_capabilities_are_all_named() -> None:
    assert not any(name[4:].isdigit() for name in effective_capabilities())


def test_proc_is_no_bpffs() -> None:
    assert not is_bpffs("/proc")


def test_is_bpffs_of_nothing_raises() -> None:
    with pytest.raises(SyscallError) as caught:
        is_bpffs("/proc/no such file")
    assert (caught.value.errno, caught.value.command) == (errno.ENOENT, "statfs")


def test_errno_names_are_the_kernels() -> None:
    assert errno_name(errno.E2BIG) == "E2BIG"
    assert errno_name(errno.EOPNOTSUPP) == "EOPNOTSUPP"
    assert errno_name(ENOTSUPP) == "ENOTSUPP"
    assert errno_name(999) == "errno 999"
    assert describe(errno.ENOENT) == "ENOENT (No such file or directory)"


def test_syscall_error_says_command_and_errno() -> None:
    error = SyscallError(ENOTSUPP, Command.MAP_UPDATE_BATCH.uapi_name)
    assert str(error) == (
        "[Errno 524] BPF_MAP_UPDATE_BATCH: ENOTSUPP (not supported by this map type or kernel)"
    )


def test_syscall_numbers_of_known_architectures() -> None:
    assert syscall_numbers("x86_64", 8).bpf == 321
    assert syscall_numbers("aarch64", 8).bpf == 280
    assert syscall_numbers("s390x", 8).openat2 == 437
    assert syscall_numbers("riscv64", 8).renameat2 == 276


@pytest.mark.parametrize(("machine", "pointer_size"), [("vax", 8), ("x86_64", 4)])
def test_unknown_architecture_names_itself_and_the_known(machine: str, pointer_size: int) -> None:
    with pytest.raises(UnsupportedArchitecture, match=rf"{machine}.*aarch64"):
        syscall_numbers(machine, pointer_size)


def test_this_process_is_64_bit() -> None:
    assert struct.calcsize("P") == 8

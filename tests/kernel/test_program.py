from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mapd.bpf import (
    Buffer,
    FreezeMap,
    Pin,
    ProgramRefused,
    ProgramType,
    SyscallError,
    counter_program,
    load_program,
    run_program,
)
from mapd.bpf.asm import Assembler, Reg, Size
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.kernel import counting
from tests.kernel.maps import KERNEL, Maps, TestMap


def count(made: TestMap, numbers: list[int]) -> list[int]:
    """Run the counter program once for each key; its answers."""
    code = counter_program(made.fd, made.key_size, made.value_size)
    with load_program(code, ProgramType.SYSCALL) as owned, owned.lease() as prog_fd:
        return [run_program(prog_fd, context(made.key(number))) for number in numbers]


def context(key: bytes) -> Buffer:
    """The key, padded with what must not matter; writable, since the kernel writes it back."""
    buffer = Buffer.allocate(len(key) + -len(key) % 8)
    buffer.view[:] = key.ljust(buffer.size, b"\xff")
    return buffer


@pytest.mark.parametrize("map_type", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY])
@pytest.mark.parametrize("value_size", [8, 20])
def test_counter_program_counts_each_key(maps: Maps, map_type: MapType, value_size: int) -> None:
    made = maps.create(map_type, value_size=value_size, max_entries=4)
    assert count(made, [1, 2, 1, 1]) == [0, 0, 0, 0]
    assert made.lookup([made.key(1), made.key(2)]) == [made.value(3), made.value(1)]


def test_counter_program_reports_a_full_map(maps: Maps) -> None:
    made = maps.create(MapType.HASH, key_size=13, max_entries=1)
    assert count(made, [1, 2, 1]) == [0, 1, 0]
    assert count(maps.create(MapType.ARRAY, max_entries=1), [1]) == [1]


def test_processes_count_in_one_map_and_lose_nothing(maps: Maps, bpffs: Path) -> None:
    made = maps.create(MapType.HASH)
    KERNEL.control(Pin(root=str(bpffs), path=f"{bpffs}/counters"), [made.fd])
    command = [sys.executable, counting.__file__, str(bpffs), f"{bpffs}/counters", "7", "5000"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert made.lookup([made.key(7)]) == [made.value(10_000)]


def test_loading_and_running_needs_cap_bpf_alone(maps: Maps, bpffs: Path) -> None:
    made = maps.create(MapType.HASH)
    KERNEL.control(Pin(root=str(bpffs), path=f"{bpffs}/counters"), [made.fd])
    counter = [sys.executable, counting.__file__, str(bpffs), f"{bpffs}/counters", "7", "1"]

    def with_only(capability: str) -> subprocess.CompletedProcess[str]:
        only = ["setpriv", f"--bounding-set=-all,{capability}", f"--inh-caps=-all,{capability}"]
        return subprocess.run([*only, *counter], check=False, capture_output=True, text=True)

    assert with_only("+bpf").returncode == 0
    assert "BPF_PROG_LOAD: EPERM" in with_only("+net_admin").stderr
    assert made.lookup([made.key(7)]) == [made.value(1)]


def test_a_program_writes_a_frozen_map(maps: Maps) -> None:
    made = maps.create(MapType.ARRAY)
    KERNEL.control(FreezeMap(), [made.fd])
    assert count(made, [1]) == [0]
    assert made.lookup([made.key(1)]) == [made.value(1)]
    assert made.each(Op.UPDATE, [made.key(1)], [made.value(9)]) == [errno.EPERM]


def test_a_refused_program_shows_the_verifiers_last_words() -> None:
    asm = Assembler()
    asm.load(Size.DW, Reg.R0, Reg.R5, 0)
    asm.exit()
    with pytest.raises(ProgramRefused) as caught:
        load_program(asm.assemble(), ProgramType.SYSCALL)
    assert caught.value.errno == errno.EACCES
    assert "R5 !read_ok" in caught.value.log
    assert "R5 !read_ok" in str(caught.value)


def test_a_context_shorter_than_the_program_reads_is_einval(maps: Maps) -> None:
    made = maps.create(MapType.HASH, key_size=16)
    code = counter_program(made.fd, 16, 8)
    with (
        load_program(code, ProgramType.SYSCALL) as owned,
        owned.lease() as prog_fd,
        pytest.raises(SyscallError, match="BPF_PROG_TEST_RUN: EINVAL"),
    ):
        run_program(prog_fd, Buffer.allocate(8))

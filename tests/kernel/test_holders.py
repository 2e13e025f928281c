"""Who holds a map: processes by their descriptors, programs by what they use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mapd.bpf import (
    ListHolders,
    NextProgramId,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    ProgramInfo,
    ProgramType,
    SyscallError,
    counter_program,
    holders,
    load_program,
)
from tests.kernel.maps import KERNEL, Maps
from tests.kernel.programs import pin_program, program_id, returning


def test_a_process_that_has_a_descriptor_is_a_holder(maps: Maps) -> None:
    map_id = KERNEL.info(maps.create().fd).id
    found = KERNEL.control(ListHolders())
    (own,) = [holder for holder in found.holders if map_id in holder.map_ids]
    assert (own.pid, own.comm) == (os.getpid(), Path("/proc/self/comm").read_text().strip())


def test_a_process_that_may_not_be_looked_into_is_counted(
    maps: Maps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look into all, so a /proc is planted in which one process has no readable folder."""
    maps.create()
    (tmp_path / "1" / "fd").mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "2").mkdir()  # ended meanwhile

    def scandir(path: Path) -> object:
        if path == tmp_path / "1" / "fd":
            raise PermissionError
        return real(path)

    real = os.scandir
    monkeypatch.setattr(holders, "PROC", tmp_path)
    monkeypatch.setattr(os, "scandir", scandir)
    found = KERNEL.control(ListHolders())
    assert (found.holders, found.unread) == ([], 1)


def test_a_program_tells_its_name_and_its_maps(maps: Maps) -> None:
    made = maps.create()
    code = counter_program(made.fd, made.key_size, made.value_size)
    with load_program(code, ProgramType.SYSCALL, "counter") as program, program.lease() as prog_fd:
        info = KERNEL.control(ProgramInfo(), [prog_fd])
        with KERNEL.control(OpenProgramId(prog_id=info.id)) as again, again.lease() as again_fd:
            assert KERNEL.control(ProgramInfo(), [again_fd]) == info
    assert (info.prog_type, info.name) == (ProgramType.SYSCALL, "counter")
    assert info.map_ids == (KERNEL.info(made.fd).id,)


def test_programs_are_walked_by_id() -> None:
    with load_program(returning(0), ProgramType.SOCKET_FILTER) as program, program.lease() as prog_fd:
        wanted = program_id(prog_fd)
        found: list[int] = []
        number = KERNEL.control(NextProgramId(prog_id=0))
        while number is not None:
            found.append(number)
            number = KERNEL.control(NextProgramId(prog_id=number))
    assert wanted in found
    assert found == sorted(set(found))


def test_a_program_that_is_not_there_is_enoent() -> None:
    with pytest.raises(SyscallError, match="BPF_PROG_GET_FD_BY_ID: ENOENT"):
        KERNEL.control(OpenProgramId(prog_id=2**31 - 1))


def test_a_program_is_opened_by_its_pin_and_a_map_is_none(maps: Maps, bpffs: Path) -> None:
    with load_program(returning(0), ProgramType.SOCKET_FILTER) as program, program.lease() as prog_fd:
        pin_program(bpffs / "program", prog_fd)
        wanted = program_id(prog_fd)
    request = OpenProgramPin(root=str(bpffs), path=f"{bpffs}/program")
    with KERNEL.control(request) as opened, opened.lease() as opened_fd:
        assert program_id(opened_fd) == wanted
    KERNEL.control(Pin(root=str(bpffs), path=f"{bpffs}/map"), [maps.create().fd])
    with pytest.raises(SyscallError, match="EINVAL"):
        KERNEL.control(OpenProgramPin(root=str(bpffs), path=f"{bpffs}/map"))

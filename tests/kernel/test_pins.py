from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mapd.bpf import (
    CreateMap,
    FreezeMap,
    ListPins,
    NextMapId,
    OpenId,
    OpenPin,
    Pin,
    PinNotFound,
    PinPaths,
    ProgramType,
    Rename,
    SyscallError,
    Unpin,
    is_bpffs,
    load_program,
    pins,
)
from mapd.bpf.syscall import openat2
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps
from tests.kernel.programs import pin_program, returning
from tests.support.counts import no_map_left_behind


def pin(root: Path, path: str, map_fd: int, *, mkdir: bool = False) -> None:
    KERNEL.control(Pin(root=str(root), path=f"{root}/{path}", mkdir=mkdir), [map_fd])


def open_errno(root: Path, path: Path | str) -> int:
    with pytest.raises(SyscallError) as caught:
        KERNEL.control(OpenPin(root=str(root), path=str(path)))
    assert caught.value.filename == str(path)
    return caught.value.errno or 0


def pinned_program(path: Path) -> None:
    with load_program(returning(0), ProgramType.SYSCALL) as owned, owned.lease() as prog_fd:
        pin_program(path, prog_fd)


def test_a_pin_is_opened_as_the_same_map(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    pin(bpffs, "flows", made.fd)
    opened = maps.adopt(KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/flows")))
    assert KERNEL.info(opened.fd).id == KERNEL.info(made.fd).id
    assert is_bpffs(str(bpffs))
    assert (bpffs / "flows").stat().st_mode & 0o777 == 0o600


def test_a_read_only_pin_is_read_and_not_written(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    made.fill(1)
    pin(bpffs, "flows", made.fd)
    opened = maps.adopt(KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/flows", read_only=True)))
    assert opened.lookup([made.key(0)]) == [made.value(0)]
    for op in (Op.UPDATE, Op.DELETE, Op.LOOKUP_AND_DELETE):
        assert opened.each(op, [made.key(0)]) == [errno.EPERM]
    with pytest.raises(SyscallError, match="BPF_MAP_FREEZE: EPERM"):
        KERNEL.control(FreezeMap(), [opened.fd])


def test_a_read_only_opening_is_not_pinned(maps: Maps, bpffs: Path) -> None:
    """The kernel would pin it, and the pin would open for writing."""
    made = maps.create()
    pin(bpffs, "flows", made.fd)
    by_pin = OpenPin(root=str(bpffs), path=f"{bpffs}/flows", read_only=True)
    by_id = OpenId(map_id=KERNEL.info(made.fd).id, read_only=True)
    created = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1, flags=MapFlag.RDONLY)
    for request in (by_pin, by_id, created):
        opened = maps.adopt(KERNEL.control(request))
        with pytest.raises(SyscallError) as caught:
            pin(bpffs, "again", opened.fd)
        assert caught.value.errno == errno.EBADF
    assert not (bpffs / "again").exists()


def test_a_read_only_id_is_read_and_not_written(maps: Maps) -> None:
    made = maps.create()
    map_id = KERNEL.info(made.fd).id
    opened = maps.adopt(KERNEL.control(OpenId(map_id=map_id, read_only=True)))
    assert opened.each(Op.UPDATE, [made.key(0)], [made.value(0)]) == [errno.EPERM]
    writable = maps.adopt(KERNEL.control(OpenId(map_id=map_id)))
    assert writable.each(Op.UPDATE, [made.key(0)], [made.value(0)]) == [0]


def test_ids_are_listed_and_unknown_ones_not_found(maps: Maps) -> None:
    map_id = KERNEL.info(maps.create().fd).id
    assert KERNEL.control(NextMapId(map_id=map_id - 1)) == map_id
    assert KERNEL.control(NextMapId(map_id=2**31 - 2)) is None  # from 2**31 - 1 on: EINVAL
    with pytest.raises(SyscallError, match="BPF_MAP_GET_FD_BY_ID: ENOENT"):
        KERNEL.control(OpenId(map_id=2**31 - 1))


def test_an_absent_pin_is_not_found_as_a_file_is(bpffs: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/no/such"))
    assert isinstance(caught.value, SyscallError)


@pytest.mark.parametrize("where", ["flows", "folder/flows"])
def test_a_symbolic_link_is_refused(maps: Maps, bpffs: Path, where: str) -> None:
    made = maps.create()
    pin(bpffs, "real/flows", made.fd, mkdir=True)
    if "/" in where:
        (bpffs / "folder").symlink_to("real")
    else:
        (bpffs / where).symlink_to("real/flows")
    assert open_errno(bpffs, bpffs / where) == errno.ELOOP
    if "/" in where:
        with pytest.raises(SyscallError, match="ELOOP"):
            pin(bpffs, "folder/other", made.fd)
    with pytest.raises(SyscallError, match="ELOOP"):
        KERNEL.control(Unpin(root=str(bpffs), path=str(bpffs / where)))


def test_a_path_that_leaves_the_root_is_refused(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    pin(bpffs, "outside", made.fd)
    root = bpffs / "root"
    root.mkdir()
    for path in (f"{root}/../outside", f"{bpffs}/outside", "../outside", f"{bpffs}/root-not/x"):
        assert open_errno(root, path) == errno.EXDEV
        with pytest.raises(SyscallError, match="EXDEV"):
            KERNEL.control(Unpin(root=str(root), path=path))
    with pytest.raises(SyscallError, match="EXDEV"):
        pin(root, "../escaped", made.fd)
    with pytest.raises(SyscallError, match="EXDEV"):
        pin(root, "../escaped/deeper", made.fd, mkdir=True)
    assert sorted(entry.name for entry in bpffs.iterdir()) == ["outside", "root"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("with.dot", errno.EPERM),  # kernel/bpf/inode.c, bpf_lookup(): kept for files of its own
        (".", errno.EEXIST),
        ("..", errno.EEXIST),
        ("", errno.EINVAL),
        ("x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_a_name_that_no_pin_may_have_is_refused(maps: Maps, bpffs: Path, name: str, expected: int) -> None:
    (bpffs / "folder").mkdir()
    with pytest.raises(SyscallError) as caught:
        pin(bpffs, f"folder/{name}", maps.create().fd)
    assert caught.value.errno == expected


def test_a_taken_name_is_refused_and_keeps_its_map(maps: Maps, bpffs: Path) -> None:
    first, second = maps.create(), maps.create()
    pin(bpffs, "flows", first.fd)
    with pytest.raises(SyscallError, match="BPF_OBJ_PIN: EEXIST"):
        pin(bpffs, "flows", second.fd)
    opened = maps.adopt(KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/flows")))
    assert KERNEL.info(opened.fd).id == KERNEL.info(first.fd).id


def test_one_missing_folder_is_made_if_asked_for(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    with pytest.raises(PinNotFound):
        pin(bpffs, "ns/flows", made.fd)
    pin(bpffs, "ns/flows", made.fd, mkdir=True)
    pin(bpffs, "ns/other", made.fd, mkdir=True)
    assert (bpffs / "ns").stat().st_mode & 0o777 == 0o700
    with pytest.raises(PinNotFound):
        pin(bpffs, "two/levels/flows", made.fd, mkdir=True)


def test_a_pin_outside_of_bpffs_is_refused(maps: Maps, tmp_path: Path) -> None:
    with pytest.raises(SyscallError, match="BPF_OBJ_PIN: EPERM"):
        pin(tmp_path, "flows", maps.create().fd)
    (tmp_path / "file").touch()
    assert open_errno(tmp_path, tmp_path / "file") == errno.EACCES
    with pytest.raises(SyscallError, match="EACCES"):
        KERNEL.control(Unpin(root=str(tmp_path), path=str(tmp_path / "file")))
    assert (tmp_path / "file").exists()


def test_a_pinned_program_is_neither_opened_nor_removed(bpffs: Path) -> None:
    pinned_program(bpffs / "prog")
    for read_only in (False, True):
        with pytest.raises(SyscallError, match="EINVAL"):
            KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/prog", read_only=read_only))
    with pytest.raises(SyscallError, match="EINVAL"):
        KERNEL.control(Unpin(root=str(bpffs), path=f"{bpffs}/prog"))
    assert (bpffs / "prog").exists()


def test_only_maps_are_pinned(bpffs: Path) -> None:
    with Path("/dev/null").open() as file, pytest.raises(SyscallError, match="BPF_OBJ_PIN: EINVAL"):
        pin(bpffs, "null", file.fileno())


def test_a_folder_is_no_pin(bpffs: Path) -> None:
    (bpffs / "ns").mkdir()
    assert open_errno(bpffs, bpffs / "ns") == errno.EISDIR
    assert open_errno(bpffs, bpffs) == errno.EISDIR


def test_a_path_with_a_nul_pins_nothing(maps: Maps, bpffs: Path) -> None:
    """The kernel would end the name there, and pin at another path than was asked for."""
    with pytest.raises(SyscallError, match="EINVAL"):
        pin(bpffs, "name\0rest", maps.create().fd)
    assert list(bpffs.iterdir()) == []


def test_unpinning_removes_the_name_and_then_the_map(maps: Maps, bpffs: Path) -> None:
    del maps
    with no_map_left_behind("mapd_unpin"):
        request = CreateMap(
            map_type=MapType.HASH, key_size=8, value_size=8, max_entries=1, kernel_name="mapd_unpin"
        )
        with KERNEL.control(request) as owned, owned.lease() as map_fd:
            pin(bpffs, "flows", map_fd)
        KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/flows")).close()
        KERNEL.control(Unpin(root=str(bpffs), path=f"{bpffs}/flows"))
    with pytest.raises(FileNotFoundError):
        KERNEL.control(Unpin(root=str(bpffs), path=f"{bpffs}/flows"))


def test_pins_are_listed_sorted_and_links_are_not(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    assert KERNEL.control(ListPins(root=str(bpffs))).paths == []
    for path in ("b/two", "a", "b/one"):
        pin(bpffs, path, made.fd, mkdir=True)
    (bpffs / "link").symlink_to("a")
    (bpffs / "b" / "up").symlink_to("..")
    expected = [f"{bpffs}/{path}" for path in ("a", "b/one", "b/two")]
    assert KERNEL.control(ListPins(root=str(bpffs))).paths == expected
    assert KERNEL.control(ListPins(root=f"{bpffs}/")).paths == expected
    with pytest.raises(FileNotFoundError):
        KERNEL.control(ListPins(root=f"{bpffs}/missing"))


def rename(root: Path, old: str, new: str, *, mkdir: bool = False) -> None:
    KERNEL.control(Rename(root=str(root), path=f"{root}/{old}", new_path=f"{root}/{new}", mkdir=mkdir))


def test_a_renamed_pin_is_the_same_map_under_another_path(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    pin(bpffs, "old", made.fd)
    rename(bpffs, "old", "ns/new", mkdir=True)
    assert KERNEL.control(ListPins(root=str(bpffs))).paths == [f"{bpffs}/ns/new"]
    opened = maps.adopt(KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/ns/new")))
    assert KERNEL.info(opened.fd).id == KERNEL.info(made.fd).id


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("old", "taken", errno.EEXIST),
        ("old", "old", errno.EEXIST),
        ("missing", "free", errno.ENOENT),
        ("old", "nowhere/free", errno.ENOENT),
        ("old", "with.dot", errno.EPERM),
        ("old", "../out", errno.EXDEV),
        ("link", "free", errno.ELOOP),
        ("program", "free", errno.EINVAL),
        ("folder", "free", errno.EISDIR),
    ],
)
def test_a_pin_that_cannot_be_renamed_stays_and_overwrites_nothing(
    maps: Maps, bpffs: Path, old: str, new: str, number: int
) -> None:
    for name in ("old", "taken"):
        pin(bpffs, name, maps.create().fd)
    (bpffs / "link").symlink_to("old")
    (bpffs / "folder").mkdir()
    pinned_program(bpffs / "program")
    before = {path.name: path.stat().st_ino for path in bpffs.iterdir()}
    with pytest.raises(SyscallError) as caught:
        rename(bpffs, old, new)
    assert caught.value.errno == number
    assert {path.name: path.stat().st_ino for path in bpffs.iterdir()} == before


def test_folders_that_cannot_be_read_are_told(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read any folder, so the refusal is planted where the kernel would give it."""
    (bpffs / "closed").mkdir()
    (bpffs / "open").mkdir()

    def resolve(dir_fd: int, relative: str, flags: int, resolve: int) -> int:
        if relative == "closed":
            raise SyscallError(errno.EACCES, "openat2", relative)
        return openat2(dir_fd, relative, flags, resolve)

    monkeypatch.setattr(pins, "openat2", resolve)
    assert KERNEL.control(ListPins(root=str(bpffs))) == PinPaths([], [f"{bpffs}/closed"])


def test_a_request_with_wrong_fds_is_refused(bpffs: Path) -> None:
    with pytest.raises(ValueError, match="0 file descriptors"):
        KERNEL.control(Pin(root=str(bpffs), path=f"{bpffs}/x"))
    with pytest.raises(ValueError, match="1 file descriptors"):
        KERNEL.control(OpenId(map_id=1), [0])


def test_every_fd_closes_on_exec(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    pin(bpffs, "flows", made.fd)
    opened = maps.adopt(KERNEL.control(OpenPin(root=str(bpffs), path=f"{bpffs}/flows")))
    assert not os.get_inheritable(made.fd)
    assert not os.get_inheritable(opened.fd)

"""Pins: opening, making, removing and listing names of maps on a bpffs.

Every path is resolved by openat2(2) below a root and through no symbolic link, so that a name which a
client chose, or a link that somebody else made meanwhile, cannot lead out of it. Afterwards the object
is named by its own fd (/proc/self/fd/N), never by the path again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Generator, Sequence
from pathlib import Path

from mapd.bpf import abi
from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    STAMPED_FOLDERS,
    FolderPins,
    ListFolder,
    ListPins,
    MakeFolder,
    OpenPin,
    OpenProgramPin,
    Pin,
    PinPaths,
    PinStamp,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.syscall import bpf, openat2, rename_noreplace

_SAFELY = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS

_MAP = Path("anon_inode:bpf-map")
_PROGRAM = Path("anon_inode:bpf-prog")
"""What descriptors of these lead to (kernel/bpf/syscall.c, bpf_map_new_fd() and bpf_prog_new_fd())."""


class PinNotFound(SyscallError, FileNotFoundError):
    """ENOENT of a pin or a folder above it."""


def open_pin(request: OpenPin, fds: Sequence[int] = ()) -> OwnedFd:
    """See ``OpenPin``. Needs the rights on the pin's inode that the access mode asks for.

    Raises:
        PinNotFound: there is nothing of that name.
        SyscallError: EXDEV or ELOOP, the path leaves the root or a symbolic link is in it; EACCES, no
            rights; EINVAL, a program or a link is pinned there; EISDIR, it is a folder.

    Source: kernel/bpf/inode.c, bpf_obj_get_user(). Linux 5.6 (openat2).
    """
    _expect(fds, 0)
    with _open_below(request.root, request.path, os.O_PATH) as pin:
        return _get_map(pin, request.path, read_only=request.read_only)


def open_program_pin(request: OpenProgramPin, fds: Sequence[int] = ()) -> OwnedFd:
    """See ``OpenProgramPin``. Asks for read access to the pin; a program's fd has no access mode.

    Raises:
        PinNotFound, SyscallError: as for ``open_pin``; EINVAL, a map or a link is pinned there.

    Source: kernel/bpf/inode.c, bpf_obj_get_user(). Linux 5.6 (openat2).
    """
    _expect(fds, 0)
    with _open_below(request.root, request.path, os.O_PATH) as pin:
        return _get(pin, request.path, _PROGRAM, read_only=True)


def pin(request: Pin, fds: Sequence[int]) -> None:
    """See ``Pin``. The new pin has mode 0600 less the umask.

    Raises:
        PinNotFound: the folder is missing (with ``mkdir``: the folder above it).
        SyscallError: EEXIST, the name is taken; EPERM, it holds a '.' or is not on a bpffs; EINVAL,
            ``fds[0]`` is no map; EBADF, it only reads (and who opens the pin may write);
            EXDEV or ELOOP as for ``OpenPin``.

    Source: kernel/bpf/inode.c, bpf_obj_pin_user(). Linux 5.6 (openat2).
    """
    (map_fd,) = _expect(fds, 1)
    if not is_map(map_fd):
        raise SyscallError(errno.EINVAL, Command.OBJ_PIN.uapi_name, request.path)
    # The access mode is the file's, not the map's (kernel/bpf/syscall.c, bpf_map_new_fd()).
    if fcntl.fcntl(map_fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise SyscallError(errno.EBADF, Command.OBJ_PIN.uapi_name, request.path)
    folder, name = _split(request.path)
    with _folder(request.root, folder, mkdir=request.mkdir) as folder_fd:
        # bpf(2) creates the last component and does not follow it (kern_path_create()).
        pathname = Buffer.of(os.fsencode(f"/proc/self/fd/{folder_fd}/{name}") + b"\0")
        attr = abi.ObjectAttr(pathname=pathname.address, bpf_fd=map_fd)
        bpf(Command.OBJ_PIN, attr, request.path)


def unpin(request: Unpin, fds: Sequence[int] = ()) -> None:
    """See ``Unpin``. Asks for read access to the pin, to see that a map is there.

    The look and the removal are two steps: who may write the folder can swap pins between them.

    Raises:
        PinNotFound: there is nothing of that name.
        SyscallError: as for ``OpenPin``; EACCES also where the folder may not be written.
    """
    _expect(fds, 0)
    folder, name = _split(request.path)
    with _folder(request.root, folder) as folder_fd:
        with _opened(_resolve(folder_fd, name, os.O_PATH, request.path)) as pin_fd:
            _get_map(pin_fd, request.path, read_only=True).close()
        with _translated("unlinkat", request.path):
            os.unlink(name, dir_fd=folder_fd)


def rename(request: Rename, fds: Sequence[int] = ()) -> None:
    """See ``Rename``. Asks for read access to the pin, to see that a map is there, as ``unpin`` does.

    Raises:
        PinNotFound: there is nothing of that name (or no folder for the new one).
        SyscallError: EEXIST, the new name is taken; EPERM, it holds a '.'; as for ``unpin`` otherwise.

    Source: fs/namei.c, do_renameat2(); fs/libfs.c, simple_rename(). Linux 5.6 (openat2).
    """
    _expect(fds, 0)
    folder, name = _split(request.path)
    new_folder, new_name = _split(request.new_path)
    with _folder(request.root, folder) as folder_fd:
        with _opened(_resolve(folder_fd, name, os.O_PATH, request.path)) as pin_fd:
            _get_map(pin_fd, request.path, read_only=True).close()
        with _folder(request.root, new_folder, mkdir=request.mkdir) as new_folder_fd:
            try:
                rename_noreplace(folder_fd, name, new_folder_fd, new_name)
            except SyscallError as error:
                raise _named(error, "renameat2", request.new_path) from None


def make_folder(request: MakeFolder, fds: Sequence[int] = ()) -> None:
    """See ``MakeFolder``. Its mode is 0700 less the umask.

    Raises:
        PinNotFound: the folder above is missing.
        SyscallError: EEXIST; EPERM, the name holds a '.'; EACCES; ENOTDIR, EXDEV, ELOOP.

    Source: kernel/bpf/inode.c, bpf_mkdir(). Linux 5.6 (openat2).
    """
    _expect(fds, 0)
    above, name = _split(request.path)
    with _folder(request.root, above) as above_fd, _translated("mkdirat", request.path):
        os.mkdir(name, 0o700, dir_fd=above_fd)


def remove_folder(request: RemoveFolder, fds: Sequence[int] = ()) -> None:
    """See ``RemoveFolder``. Never the root itself, for it is in no folder below the root.

    Raises:
        PinNotFound: there is no such folder.
        SyscallError: ENOTEMPTY; ENOTDIR, it is a pin or a link; EACCES, EXDEV, ELOOP.

    Source: fs/libfs.c, simple_rmdir(). Linux 5.6 (openat2).
    """
    _expect(fds, 0)
    above, name = _split(request.path)
    with _folder(request.root, above) as above_fd, _translated("unlinkat", request.path):
        os.rmdir(name, dir_fd=above_fd)


def list_pins(request: ListPins, fds: Sequence[int] = ()) -> PinPaths:
    """See ``ListPins``. Paths begin with ``root``; symbolic links are neither listed nor followed.

    Pins of programs are listed too: only opening one tells what it is.

    Raises:
        PinNotFound: there is no ``root``.
        SyscallError: EACCES, the root itself cannot be read.
    """
    _expect(fds, 0)
    root = request.root.rstrip("/")
    found: list[str] = []
    unread: list[str] = []
    with _root(request.root) as root_fd:
        waiting = _list_folder(root_fd, ".", found)
        while waiting:
            folder = waiting.pop()
            try:
                waiting += _list_folder(root_fd, folder, found)
            except PinNotFound:
                continue  # removed meanwhile
            except SyscallError:
                unread.append(f"{root}/{folder}")
    return PinPaths(sorted(f"{root}/{path}" for path in found), sorted(unread))


def list_folder(request: ListFolder, fds: Sequence[int] = ()) -> FolderPins:
    """See ``ListFolder``. About 2 us a pin; links are neither listed nor followed.

    Raises:
        PinNotFound: there is no such folder.
        SyscallError: EACCES, it cannot be read; ENOTDIR, EXDEV, ELOOP.

    Source: kernel/bpf/inode.c, bpf_dentry_finalize(); fs/libfs.c, simple_unlink(), simple_rename_timestamp().
    """
    _expect(fds, 0)
    pins: list[PinStamp] = []
    folders: list[str] = []
    flags = os.O_RDONLY | os.O_DIRECTORY
    with _open_below(request.root, request.path, flags) as fd, _translated("getdents64", request.path):
        folder = os.fstat(fd)  # first: what changes from here on has another stamp
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif _may_be_map(entry):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    pins.append(PinStamp(entry.name, found.st_ino, found.st_ctime_ns))
    return FolderPins(folder.st_ctime_ns, pins, folders, folder.st_uid, stat.S_IMODE(folder.st_mode))


def stamp_folders(request: StampFolders, fds: Sequence[int] = ()) -> Sequence[int]:
    """See ``StampFolders``. About 4 us a folder; asks for no rights on it but those to reach it.

    Raises:
        ValueError: more folders than one request may name.
        PinNotFound, SyscallError: the root cannot be opened.

    Source: as ``list_folder``. Linux 5.6 (openat2).
    """
    _expect(fds, 0)
    if len(request.paths) > STAMPED_FOLDERS:
        raise ValueError(f"{len(request.paths)} folders; a request names at most {STAMPED_FOLDERS}")
    stamps: list[int] = []
    with _root(request.root) as root_fd:
        for path in request.paths:
            try:
                fd = _resolve(root_fd, _relative(request.root, path), os.O_PATH | os.O_DIRECTORY, path)
            except SyscallError:
                stamps.append(0)
                continue
            with _opened(fd):
                stamps.append(os.fstat(fd).st_ctime_ns)
    return stamps


def is_map(fd: int) -> bool:
    """Whether ``fd`` is a map's, by the name of its anonymous inode (kernel/bpf/syscall.c).

    Raises:
        SyscallError: EBADF or ENOENT, it is not open.
    """
    return _is(fd, _MAP)


def _is(fd: int, kind: Path) -> bool:
    with _translated("readlink"):
        return Path(f"/proc/self/fd/{fd}").readlink() == kind


def _get_map(pin_fd: int, path: str, *, read_only: bool) -> OwnedFd:
    return _get(pin_fd, path, _MAP, read_only=read_only)


def _get(pin_fd: int, path: str, kind: Path, *, read_only: bool) -> OwnedFd:
    # bpf(2) says EACCES of a folder, as it does where the modes forbid it.
    if stat.S_ISDIR(os.fstat(pin_fd).st_mode):
        raise SyscallError(errno.EISDIR, Command.OBJ_GET.uapi_name, path)
    pathname = Buffer.of(f"/proc/self/fd/{pin_fd}".encode() + b"\0")
    attr = abi.ObjectAttr(pathname=pathname.address, file_flags=abi.F_RDONLY if read_only else 0)
    found = OwnedFd(bpf(Command.OBJ_GET, attr, path))
    with found.lease() as fd:
        if _is(fd, kind):
            return found
    found.close()
    raise SyscallError(errno.EINVAL, Command.OBJ_GET.uapi_name, path)


def _list_folder(root_fd: int, folder: str, found: list[str]) -> list[str]:
    """Add the pins of one folder to ``found``; return the folders in it, relative to the root."""
    prefix = "" if folder == "." else f"{folder}/"
    folders: list[str] = []
    with (
        _opened(_resolve(root_fd, folder, os.O_RDONLY | os.O_DIRECTORY, folder)) as fd,
        _translated("getdents64", folder),
        os.scandir(fd) as entries,
    ):
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(prefix + entry.name)
            elif _may_be_map(entry):
                found.append(prefix + entry.name)
    return folders


def _may_be_map(entry: os.DirEntry[str]) -> bool:
    """Whether something in a folder is a pin, and no link or folder.

    No map can be pinned under a name with a '.' (kernel/bpf/inode.c, bpf_lookup()): those are the kernel's own
    maps.debug and progs.debug.
    """
    return "." not in entry.name and entry.is_file(follow_symlinks=False)


@contextlib.contextmanager
def _folder(root: str, folder: str, *, mkdir: bool = False) -> Generator[int]:
    """The fd of a folder below ``root``, which is made (0700) if it alone is missing and ``mkdir``."""
    with _root(root) as root_fd:
        relative = _relative(root, folder)
        try:
            fd = _resolve(root_fd, relative, os.O_PATH | os.O_DIRECTORY, folder)
        except PinNotFound:
            if not mkdir:
                raise
            above, name = _split(relative)
            with _opened(_resolve(root_fd, above or ".", os.O_PATH | os.O_DIRECTORY, folder)) as above_fd:
                with _translated("mkdirat", folder), contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above_fd)
                fd = _resolve(above_fd, name, os.O_PATH | os.O_DIRECTORY, folder)
        with _opened(fd):
            yield fd


@contextlib.contextmanager
def _open_below(root: str, path: str, flags: int) -> Generator[int]:
    with _root(root) as root_fd, _opened(_resolve(root_fd, _relative(root, path), flags, path)) as fd:
        yield fd


@contextlib.contextmanager
def _root(root: str) -> Generator[int]:
    """The fd of a root. It comes from configuration: its own path may go through symbolic links."""
    with _translated("openat", root):
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with _opened(fd):
        yield fd


@contextlib.contextmanager
def _opened(fd: int) -> Generator[int]:
    """``fd``, closed at the end. It lives in one thread and one block, so it needs no leases."""
    try:
        yield fd
    finally:
        os.close(fd)


def _resolve(dir_fd: int, relative: str, flags: int, path: str) -> int:
    try:
        return openat2(dir_fd, relative, flags, _SAFELY)
    except SyscallError as error:
        raise _named(error, "openat2", path) from None


def _relative(root: str, path: str) -> str:
    """``path`` below ``root``; any other path as it is, for the kernel to refuse (EXDEV if absolute)."""
    root = root.rstrip("/")
    if path == root:
        return "."
    return path[len(root) + 1 :].lstrip("/") or "." if path.startswith(f"{root}/") else path


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    if not name or "\0" in name:  # a NUL would end the name there
        raise SyscallError(errno.EINVAL, "openat2", path)
    return folder, name


@contextlib.contextmanager
def _translated(command: str, path: str | None = None) -> Generator[None]:
    try:
        yield
    except SyscallError:
        raise
    except OSError as error:
        raise _named(error, command, path) from error


def _named(error: OSError, command: str, path: str | None) -> SyscallError:
    kind = PinNotFound if error.errno == errno.ENOENT else SyscallError
    return kind(error.errno or errno.EIO, command, path)


def _expect(fds: Sequence[int], count: int) -> Sequence[int]:
    if len(fds) != count:
        raise ValueError(f"{len(fds)} file descriptors where the request takes {count}")
    return fds

"""Pins: a tree of names, by the rules of a bpffs. Nothing of it is in the file system."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from mapd.bpf.kernel import FolderPins, PinStamp, SyscallError
from mapd.bpf.pins import PinNotFound

T = TypeVar("T")

_NAME_MAX: Final = 255


class PinTree(Generic[T]):
    """Folders and pins of ``T`` by absolute path. Has no owners and no modes. Not for two threads at once.

    A path is resolved below its root, as openat2(2) does it for the real ones: EXDEV where it leads out.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._pins: dict[str, T] = {}
        self._inodes: dict[str, int] = {}
        self._folders: dict[str, int] = {}
        self._changes = 0
        for folder in folders:
            self.make_folder(folder)

    def make_folder(self, path: str) -> None:
        """A folder, and those above it; it may exist."""
        while path not in self._folders:
            self._folders[path] = self._change()
            path = posixpath.dirname(path)
        self._folders[path] = self._change()

    def get(self, root: str, path: str) -> T:
        """What is pinned there.

        Raises:
            PinNotFound, SyscallError: ENOTDIR, a pin stands in the way; EISDIR, it is a folder; EPERM, no pin has
                a '.' in its name.
        """
        found = self._resolve(root, path)
        if found in self._folders:
            raise SyscallError(errno.EISDIR, "BPF_OBJ_GET", path)
        return self._pins[found]

    def put(self, root: str, path: str, pinned: T, *, mkdir: bool = False) -> None:
        """Pin it.

        Raises:
            PinNotFound, SyscallError: EEXIST, the name is taken; EPERM, it holds a '.'; as for ``get``.
        """
        at = self._free(root, path, "BPF_OBJ_PIN", mkdir=mkdir)
        self._pins[at], self._inodes[at] = pinned, self._change()
        self._touch(at)

    def remove(self, root: str, path: str) -> T:
        """Take a pin away; what was pinned. Raises as ``get``; EINVAL for a path without a last part."""
        entry = self._entry(root, path)
        self._touch(entry)
        del self._inodes[entry]
        return self._pins.pop(entry)

    def rename(self, root: str, path: str, new_path: str, *, mkdir: bool = False) -> None:
        """Give a pin another name, which must be free. Raises as ``remove`` and ``put``."""
        _split(new_path)
        entry = self._entry(root, path)
        at = self._free(root, new_path, "renameat2", mkdir=mkdir)
        self._pins[at], self._inodes[at] = self._pins.pop(entry), self._inodes.pop(entry)
        self._touch(entry)
        self._touch(at)

    def mkdir(self, root: str, path: str) -> None:
        """A folder in one that exists. Raises as ``put``."""
        above, name = _split(path)
        at = self._resolve(root, above)
        if at not in self._folders:
            raise SyscallError(errno.ENOTDIR, "openat2", path)
        found = posixpath.join(at, name)
        if name in (".", "..") or found in self._pins or found in self._folders:
            raise SyscallError(errno.EEXIST, "mkdirat", path)
        _check_name(name, "mkdirat", path)
        self._folders[found] = self._change()
        self._touch(found)

    def rmdir(self, root: str, path: str) -> None:
        """Take an empty folder away.

        Raises:
            PinNotFound, SyscallError: ENOTEMPTY; ENOTDIR, it is a pin; EINVAL for a path that ends in '.'.
        """
        above, name = _split(path)
        at = self._resolve(root, above)
        if at not in self._folders:
            raise SyscallError(errno.ENOTDIR, "openat2", path)
        if name in (".", ".."):
            raise SyscallError(errno.EINVAL if name == "." else errno.ENOTEMPTY, "unlinkat", path)
        _check_name(name, "unlinkat", path)
        found = posixpath.join(at, name)
        if found in self._pins:
            raise SyscallError(errno.ENOTDIR, "unlinkat", path)
        if found not in self._folders:
            raise PinNotFound(errno.ENOENT, "unlinkat", path)
        if any(posixpath.dirname(one) == found for one in (*self._pins, *self._folders) if one != found):
            raise SyscallError(errno.ENOTEMPTY, "unlinkat", path)
        del self._folders[found]
        self._touch(found)

    def below(self, root: str) -> Sequence[str]:
        """Paths of the pins below a root, sorted.

        Raises:
            PinNotFound: there is no such folder.
        """
        top = root.rstrip("/")
        if posixpath.normpath(root) not in self._folders:
            raise PinNotFound(errno.ENOENT, "openat", root)
        return sorted(path for path in self._pins if path.startswith(f"{top}/"))

    def folder(self, root: str, path: str) -> FolderPins:
        """What is in a folder. Its stamp is no time, and each change has another.

        Raises:
            PinNotFound, SyscallError: ENOTDIR, a pin is there; as for ``get``.
        """
        at = self._resolve(root, path)
        if at not in self._folders:
            raise SyscallError(errno.ENOTDIR, "openat2", path)
        inside = [found for found in self._pins if posixpath.dirname(found) == at]
        pins = [PinStamp(posixpath.basename(found), self._inodes[found], 0) for found in inside]
        folders = [found for found in self._folders if posixpath.dirname(found) == at != found]
        return FolderPins(self._folders[at], pins, [posixpath.basename(found) for found in folders])

    def stamp(self, root: str, path: str) -> int:
        """The stamp of a folder; 0 where none is."""
        try:
            return self._folders.get(self._resolve(root, path), 0)
        except SyscallError:
            return 0

    def _change(self) -> int:
        self._changes += 1
        return self._changes

    def _touch(self, path: str) -> None:
        """Say that the folder of a pin has changed."""
        self._folders[posixpath.dirname(path)] = self._change()

    def values(self) -> Iterable[T]:
        """Everything that is pinned, as often as it is."""
        return self._pins.values()

    def _resolve(self, root: str, path: str) -> str:
        """The folder or pin at a path; raises where there is none."""
        at = posixpath.normpath(root)
        if at not in self._folders:
            raise PinNotFound(errno.ENOENT, "openat", root)
        top = root.rstrip("/")
        if path != top and not path.startswith(f"{top}/"):
            raise SyscallError(errno.EXDEV, "openat2", path)
        for part in path[len(top) :].split("/"):
            if at not in self._folders:
                raise SyscallError(errno.ENOTDIR, "openat2", path)
            if part in ("", "."):
                continue
            if part == "..":
                if at == posixpath.normpath(root):
                    raise SyscallError(errno.EXDEV, "openat2", path)
                at = posixpath.dirname(at)
                continue
            _check_name(part, "openat2", path)
            at = posixpath.join(at, part)
            if at not in self._folders and at not in self._pins:
                raise PinNotFound(errno.ENOENT, "openat2", path)
        return at

    def _entry(self, root: str, path: str) -> str:
        """The pin at a path, by folder and name."""
        folder, name = _split(path)
        if self._resolve(root, folder) not in self._folders:
            raise SyscallError(errno.ENOTDIR, "openat2", path)
        if name == "..":
            raise SyscallError(errno.EXDEV, "openat2", path)
        entry = self._resolve(root, path)
        if entry in self._folders:
            raise SyscallError(errno.EISDIR, "BPF_OBJ_GET", path)
        return entry

    def _free(self, root: str, path: str, command: str, *, mkdir: bool) -> str:
        """A path that nothing has, in a folder that exists, or is made where it alone is missing."""
        folder, name = _split(path)
        try:
            at = self._resolve(root, folder)
        except PinNotFound:
            if not mkdir:
                raise
            above, made = _split(folder)
            at = self._resolve(root, above)
            _check_name(made, "mkdirat", folder)
            at = posixpath.join(at, made)
            self._folders[at] = self._change()
            self._touch(at)
        if at not in self._folders:
            raise SyscallError(errno.ENOTDIR, "openat2", path)
        if name in (".", ".."):
            raise SyscallError(errno.EEXIST, command, path)
        _check_name(name, command, path)
        found = posixpath.join(at, name)
        if found in self._pins or found in self._folders:
            raise SyscallError(errno.EEXIST, command, path)
        return found


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    if not name or "\0" in name:
        raise SyscallError(errno.EINVAL, "openat2", path)
    return folder, name


def _check_name(name: str, command: str, path: str) -> None:
    """Kernel/bpf/inode.c, bpf_lookup(): names with a '.' are reserved."""
    if "." in name:
        raise SyscallError(errno.EPERM, command, path)
    if len(name.encode()) > _NAME_MAX:
        raise SyscallError(errno.ENAMETOOLONG, command, path)

"""POSIX ACLs written as the kernel keeps them, so that no helper program is needed.

The extended attribute system.posix_acl_access is a u32 version (2) and entries of {u16 tag, u16
permissions, u32 id}, sorted by tag, then id (uapi linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID: Final = 0xFFFFFFFF
_ENTRY: Final = struct.Struct("<HHI")


def encode(owner: int, users: Collection[int], groups: Collection[int], admitted: int) -> bytes:
    """An ACL: ``owner`` permissions for the owner, ``admitted`` for each uid and gid, nothing for others.

    Permissions are the digits of a mode: 4 read, 2 write, 1 search.
    """
    entries = [
        (_USER_OBJ, owner, _NO_ID),
        *((_USER, admitted, uid) for uid in sorted(set(users))),
        (_GROUP_OBJ, 0, _NO_ID),
        *((_GROUP, admitted, gid) for gid in sorted(set(groups))),
        (_MASK, admitted, _NO_ID),
        (_OTHER, 0, _NO_ID),
    ]
    return struct.pack("<I", _VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def admit(path: str, owner: int, users: Collection[int], groups: Collection[int], admitted: int) -> None:
    """Give ``path`` that ACL; without anybody to admit, the plain mode of its owner.

    Raises:
        OSError: ENOTSUP where the file system keeps no ACLs.
    """
    if users or groups:
        os.setxattr(path, ATTRIBUTE, encode(owner, users, groups, admitted))
        return
    # The mode first: it is the mask of an ACL that is there, so nobody is admitted in between.
    os.chmod(path, owner << 6)  # noqa: PTH101 - beside setxattr, which pathlib has not
    _forget(path)


def open_to_all(path: str, mode: int) -> None:
    """Give ``path`` a plain mode, whatever ACL it had."""
    _forget(path)
    os.chmod(path, mode)  # noqa: PTH101


def _forget(path: str) -> None:
    try:
        os.removexattr(path, ATTRIBUTE)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may do what with one file: what the kernel has kept of it, read back.

    Attributes:
        owner, group: of the file.
        mode: its permission bits.
        entries: (tag, permissions, id) in the kernel's order; empty where the mode is all there is.
    """

    owner: int
    group: int
    mode: int
    entries: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, path: str) -> Self:
        """That of a file; a symbolic link's own.

        Raises:
            OSError: it cannot be looked at.
            ValueError: its ACL is in a form that this version does not know.
        """
        found = os.lstat(path)
        try:
            raw = os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
                raise
            raw = b""
        mode = stat.S_IMODE(found.st_mode)
        return cls(owner=found.st_uid, group=found.st_gid, mode=mode, entries=decode(raw) if raw else ())

    def permits(self, uid: int, gids: Collection[int], wanted: int) -> bool:
        """Whether a process without capabilities is granted ``wanted`` (fs/posix_acl.c, posix_acl_permission())."""
        if uid == self.owner:
            return (self.mode >> 6) & wanted == wanted
        if not self.entries:
            bits = self.mode >> 3 if self.group in gids else self.mode
            return bits & wanted == wanted
        mask = next((allowed for tag, allowed, _ in self.entries if tag == _MASK), 7)
        in_group = False
        for tag, allowed, number in self.entries:
            if tag == _USER and number == uid:
                return allowed & mask & wanted == wanted
            if (tag == _GROUP_OBJ and self.group in gids) or (tag == _GROUP and number in gids):
                in_group = True
                if allowed & wanted == wanted:
                    return mask & wanted == wanted
            if tag == _OTHER:
                return not in_group and allowed & wanted == wanted
        return False


def decode(raw: bytes) -> tuple[tuple[int, int, int], ...]:
    """The entries of an ACL in the kernel's form: (tag, permissions, id).

    Raises:
        ValueError: it is none.
    """
    if len(raw) < 4 or (len(raw) - 4) % _ENTRY.size or struct.unpack_from("<I", raw)[0] != _VERSION:
        raise ValueError(f"{len(raw)} bytes that are no ACL of version {_VERSION}")
    return tuple(_ENTRY.iter_unpack(raw[4:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Whom one socket admits, beside root and the daemon's own uid.

    Attributes:
        uids, gids: by the kernel, at connect().
        mount: whoever reaches the socket, which lies in a folder that nobody reaches on this side.
    """

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    mount: bool = False

    def within(self, other: Admitted) -> bool:
        """Whether the other admits at least these."""
        return self.mount == other.mount and self.uids <= other.uids and self.gids <= other.gids

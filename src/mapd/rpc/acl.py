"""POSIX ACLs written as the kernel keeps them, so that no helper program is needed.

The extended attribute system.posix_acl_access is a u32 version (2) and entries of {u16 tag, u16
permissions, u32 id}, sorted by tag, then id (uapi linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from typing import Final

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
    else:
        os.chmod(path, owner << 6)  # noqa: PTH101 - beside setxattr, which pathlib has not

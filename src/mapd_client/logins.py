"""A login that is older than its user's groups: the commonest reason why a socket refuses somebody whom it names.

Groups are given to a session when it begins. Who has been added to one since is not in it until the next login.
Blocking: a few system calls, and the group database, which may ask a directory service.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_ACL: Final = "system.posix_acl_access"
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = 2
_GROUP: Final = 0x08
_SEARCH: Final = 1


def admitted_groups(acl: bytes) -> list[int]:
    """The gids that an ACL lets search a folder; none where it is in a form that is not known.

    Its form: a u32 version (2), then {u16 tag, u16 permissions, u32 id} each (uapi linux/posix_acl_xattr.h).
    """
    if len(acl) < _HEAD.size or (len(acl) - _HEAD.size) % _ENTRY.size:
        return []
    (version,) = _HEAD.unpack_from(acl)
    entries = _ENTRY.iter_unpack(acl[_HEAD.size :])
    return [
        gid for tag, allowed, gid in entries if version == _VERSION and tag == _GROUP and allowed & _SEARCH
    ]


def stale_group(folder: Path) -> str | None:
    """What to do, where this process may not search ``folder`` but its user has been in an admitted group since.

    Reading a folder's ACL needs no right on the folder itself, only on those above it.
    """
    try:
        import grp
        import pwd

        admitted = admitted_groups(os.getxattr(folder, _ACL))
        user = pwd.getpwuid(os.getuid())
    except (ImportError, AttributeError, OSError, KeyError):
        return None  # no such thing here, no ACL, or a uid without a name, which no group can list
    mine = {os.getgid(), os.getegid(), *os.getgroups()}
    for gid in admitted:
        if gid in mine:
            continue
        try:
            group = grp.getgrgid(gid)
        except KeyError:
            continue
        if user.pw_name in group.gr_mem or user.pw_gid == gid:
            return (
                f"{user.pw_name} is in group {group.gr_name}, which this socket admits, but this login is older than "
                f"that: log in again (or: newgrp {group.gr_name})"
            )
    return None


def refused_by(target: str) -> str:
    """The same for the socket of an address, "" where there is nothing to be said."""
    if not target.startswith("unix:"):
        return ""
    return stale_group(Path(target.removeprefix("unix:")).parent) or ""

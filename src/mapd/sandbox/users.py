"""Users that the processes run as, and files that they must be able to read."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NO_ID: Final = (1 << 32) - 1
"""uid_t and gid_t are 32 bits; this one means "unchanged" (setresuid(2))."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its own group; in no other group."""

    uid: int
    gid: int


def account(user: str | int) -> Account | None:
    """The user of a name or number, and its login group; None where no user has the name.

    A number needs no entry in the user database; its group then has the same number.

    Raises:
        ValueError: a number that no user can have.
    """
    if isinstance(user, str) and not user.isdecimal():
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            return None
        return Account(entry.pw_uid, entry.pw_gid)
    number = int(user)
    if not 0 <= number < NO_ID:
        raise ValueError(f"user {number}: a number is from 0 to {NO_ID - 1}")
    try:
        return Account(number, pwd.getpwuid(number).pw_gid)
    except KeyError:
        return Account(number, number)


def unreadable(paths: Iterable[Path], user: Account) -> Path | None:
    """The first folder on the way to any of ``paths``, or at its end, that ``user`` may not enter; None: all can be.

    By modes alone, since it is asked before the user is taken on: an access list is not looked at.
    """
    seen: set[Path] = set()
    for path in paths:
        for folder in (*reversed(path.resolve().parents), path.resolve()):
            if folder in seen:
                continue
            seen.add(folder)
            if folder.is_dir() and not _admits(os.stat(folder), user):  # noqa: PTH116 - the modes, not the text
                return folder
    return None


def _admits(found: os.stat_result, user: Account) -> bool:
    if user.uid == 0:
        return True
    if found.st_uid == user.uid:
        needed = stat.S_IXUSR
    elif found.st_gid == user.gid:
        needed = stat.S_IXGRP
    else:
        needed = stat.S_IXOTH
    return bool(found.st_mode & needed)

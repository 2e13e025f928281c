"""Whom the two processes run as, decided before anything is given up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mapd.config import DEFAULT_USERS, Config
from mapd.launch import LaunchError
from mapd.launch.settings import python_files
from mapd.sandbox import Account, account, bits_of, held
from mapd.sandbox.users import unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Two users, or nobody else than who starts mapd.

    Attributes:
        front, opener: whom to become; None: stay.
        together: why both run as one user, and the lines that mend it; (): they do not.
    """

    front: Account | None = None
    opener: Account | None = None
    together: tuple[str, ...] = ()


def people(config: Config) -> People:
    """As configured, where both users exist and this process may become them.

    Without the users that are meant where none is named, both processes stay who starts them, and it is said; who
    names one means it.

    Raises:
        LaunchError: a user that was named does not exist, a number is no user's, or a user cannot read the program.
    """
    names = [config.daemon.user, config.opener.user]
    if config.daemon.backend == "memory" or config.opener.socket:
        names = names[:1]
    if held().effective & (needed := bits_of({"CAP_SETUID", "CAP_SETGID"})) != needed:
        # Nothing to decide: whoever started this (a systemd unit) has chosen the user.
        apart = len(names) == 1
        return People(
            together=() if apart else ("mapd was not started by root, so both processes are its user's",)
        )
    try:
        found = [account(name) for name in names]
    except ValueError as error:
        raise LaunchError(str(error)) from None
    missing = [str(name) for name, one in zip(names, found, strict=True) if one is None]
    if chosen := [name for name in missing if name not in DEFAULT_USERS]:
        raise LaunchError(
            f"this host has no user {' and no user '.join(chosen)}, which [daemon] user or [opener] user names: "
            f"make it (useradd --system --no-create-home --shell /usr/sbin/nologin {chosen[0]}), or leave the key out"
        )
    if missing:
        return People(
            together=(
                f"this host has no user {' and no user '.join(missing)}:",
                *(f"useradd --system --no-create-home --shell /usr/sbin/nologin {name}" for name in missing),
            )
        )
    front, opener = found[0], found[-1]
    if len(names) == 2 and front is not None and opener is not None and front.uid == opener.uid:
        return People(together=(f"[daemon] user and [opener] user are both uid {front.uid}: name two",))
    for name, one in zip(names, found, strict=True):
        folder = one and unreadable(map(Path, python_files()), one)
        if folder:
            raise LaunchError(
                f"user {name} may not enter {folder}, where mapd or its Python is: install it where everybody may read "
                "it (/opt/mapd), or set [daemon] user and [opener] user to one that may"
            )
    return People(front=front, opener=opener if len(names) == 2 else None)

"""Names of errnos, the kernel's internal one included."""

from __future__ import annotations

import errno
import os

from mapd_api.uapi import ENOTSUPP


def errno_name(number: int) -> str:
    """``E2BIG`` for 7; ``ENOTSUPP`` for 524, which libc does not know; ``errno 999`` otherwise."""
    if number == ENOTSUPP:
        return "ENOTSUPP"
    if number == errno.EOPNOTSUPP:
        return "EOPNOTSUPP"  # Python's errorcode says ENOTSUP, which is another thing in the kernel
    return errno.errorcode.get(number, f"errno {number}")


def describe(number: int) -> str:
    """The name, and libc's sentence where it has one."""
    if number == ENOTSUPP:
        return "ENOTSUPP (not supported by this map type or kernel)"
    return f"{errno_name(number)} ({os.strerror(number)})"

"""The policy in force: read at the start, read again on request, and the last good one kept.

Blocks: called in a thread, or where nothing else waits.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mapd.access.policy.decide import Decider
from mapd.access.policy.file import FILE_BYTES, PolicyError, parse
from mapd.access.policy.model import Policy

DEFAULT_PATH: Final = Path("/etc/mapd/policy.toml")

NOBODY_ELSE: Final = parse(b"", "built-in")
"""The policy where there is no file: the admin, and nobody else."""


def read(path: Path) -> bytes:
    """The content of a policy's file.

    Raises:
        PolicyError: it is not there, no regular file, too large, or everybody may change it.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise PolicyError(f"{path}: not a regular file")
        if found.st_mode & stat.S_IWOTH:
            raise PolicyError(
                f"{path}: every user may write it, and so grant himself everything; chmod o-w {path}"
            )
        content = bytearray()
        while len(content) <= FILE_BYTES and (more := os.read(fd, FILE_BYTES + 1 - len(content))):
            content += more
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(content) > FILE_BYTES:
        raise PolicyError(f"{path}: more than {FILE_BYTES} bytes, which is the most that a policy has")
    return bytes(content)


def load(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        PolicyError: it cannot be read or used.
    """
    return parse(read(path), str(path))


class PolicyHolder:
    """One daemon's policy.

    Attributes:
        decider: of the policy in force; replaced as a whole, so that one decision never sees two.
        reloads: how often another policy was put in force.
        failures: how often a reload was refused; ``last_error`` is the last one's message, None after a success.
        since: time.time() at which the policy in force was.
    """

    def __init__(
        self, policy: Policy, path: Path | None = None, check: Callable[[Policy], None] | None = None
    ) -> None:
        self._path = path
        self._check = check
        self.decider = Decider(policy)
        self.reloads = 0
        self.failures = 0
        self.last_error: str | None = None
        self.since = time.time()

    @classmethod
    def start(cls, path: Path, check: Callable[[Policy], None] | None = None) -> PolicyHolder:
        """The first reading. A daemon does not start on a file that is wrong.

        Args:
            check: what else must hold before a policy is put in force; raises PolicyError.

        Raises:
            PolicyError: the file cannot be read or used.
        """
        policy = load(path)
        if check is not None:
            check(policy)
        return cls(policy, path, check)

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.decider.policy

    def reload(self) -> bool:
        """Read the file again; whether another policy is in force now. Any fault leaves the old one in force."""
        if self._path is None:
            return False
        try:
            policy = load(self._path)
            if policy.version != self.policy.version and self._check is not None:
                self._check(policy)
        except PolicyError as error:
            self.failures += 1
            self.last_error = str(error)
            return False
        self.last_error = None
        if policy.version == self.policy.version:
            return False
        self.decider = Decider(policy)
        self.reloads += 1
        self.since = time.time()
        return True

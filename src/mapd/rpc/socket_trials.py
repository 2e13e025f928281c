"""Whether a socket admits whom it shall and nobody else, by connecting as them. Blocking.

Only a process that is root can be others, and a front that has locked itself in can neither be others nor start a
process. So the one that tries is started before the lock, waits for what it is to try, does that once, and ends.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapd.rpc.acl import Admitted
from mapd.rpc.socket_checks import SocketError, questions

PROBES: Final = 8_192
"""Connections that are tried at most; 600 took 29 ms, 18 of them to start the process."""
PROBE_S: Final = 10.0
UNTRIED: Final = -1

_ADMITTED: Final = frozenset({0, errno.EAGAIN, errno.ECONNREFUSED})
"""connect()'s answers behind the kernel's check of rights (unix_find_bsd): a queue that is full, and a socket on which
nobody listens for the moment, for gRPC has ended its server."""

_TRY: Final = """
import json, os, socket, sys
for line in sys.stdin:
    path, uid, gid = json.loads(line)
    try:
        os.setgroups([gid]); os.setegid(gid); os.seteuid(uid)
    except OSError:
        failed = -1
    else:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.setblocking(False)
            failed = trial.connect_ex(path)
    os.seteuid(0); os.setegid(0)
    print(failed)
"""
"""In a process of its own: identities are of threads in the kernel, and a daemon's others must keep theirs.
Prints connect()'s errno, or -1 where it may not be that user (no CAP_SETUID, or no such id in its user namespace)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One socket whose path is to be tried."""

    path: Path
    admitted: Admitted


class Others:
    """A process that connects as other users and does nothing else. For one use; ``end`` is idempotent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    def start(cls) -> Others | None:
        """One that waits; None where this process is not root, or can start none."""
        if os.geteuid() != 0:
            return None
        try:
            return cls(
                subprocess.Popen(  # noqa: S603 - this Python, and a constant
                    [sys.executable, "-I", "-S", "-c", _TRY],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={},
                    cwd="/",
                    text=True,
                )
            )
        except OSError:
            return None

    def try_sockets(self, trials: Sequence[Trial]) -> int:
        """Connect as those who are admitted and as one who is not; how often.

        Returns:
            trials that could be made: none where this root may not change its identity.

        Raises:
            SocketError: the kernel admits somebody who shall not be, or refuses one who shall; or it cannot be tried.
        """
        asked = [
            (each, uid, gids[0], yes) for each in trials for uid, gids, yes in questions(each.admitted) if uid
        ]
        asked = asked[:PROBES]
        lines = "".join(json.dumps([str(each.path), uid, gid]) + "\n" for each, uid, gid, _ in asked)
        try:
            said, _ = self._process.communicate(lines, PROBE_S)
            answers = [int(line) for line in said.split()]
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise SocketError(f"cannot try who may connect ({error}); nothing is served") from error
        finally:
            self.end()
        if len(answers) != len(asked):
            raise SocketError(
                f"of {len(asked)} trials who may connect {len(answers)} ended; nothing is served"
            )
        for (each, uid, gid, yes), failed in zip(asked, answers, strict=True):
            if failed == UNTRIED:
                continue
            admitted = failed in _ADMITTED
            if admitted != yes:
                how = "connected" if admitted else f"was refused ({os.strerror(failed)})"
                raise SocketError(
                    f"{each.path}: uid {uid} with group {gid} {how}, against the policy; it is not served. Every "
                    "folder above [daemon] runtime_dir must be searchable by all (chmod a+x)"
                )
        return sum(failed != UNTRIED for failed in answers)

    def end(self) -> None:
        """Let it go: it ends where its standard input does."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PROBE_S)

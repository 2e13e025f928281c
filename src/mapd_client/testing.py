"""A daemon for tests of programs that use mapd: maps in memory, no root, no kernel map touched.

::

    async with mapd_client.testing.daemon() as target:
        async with mapd_client.connect(target) as client: ...

It is ``mapd serve`` with the memory backend as a child process, on a socket in a temporary folder; both are
gone afterwards, and it ends too when this process does. It needs the packages of the daemon
(``pip install 'bpf-mapd[daemon]'``), and imports none of them here. What it cannot show is in
docs/reference/memory.md: it proves your program, and never Linux.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from mapd_client.errors import Misuse, Unavailable

START_S: Final = 20.0
STOP_S: Final = 5.0
GRACE_S: Final = 1.0

# Found where this package was, behind everything else: a child does not inherit sys.path.
_PROGRAM: Final = "import sys; sys.path.append(sys.argv.pop(1)); from mapd.__main__ import main; main()"


class MemoryDaemon:
    """A daemon to be started by ``with`` or ``async with``, which give its address, for ``connect``.

    Once for each block; blocks may follow each other, and each has a daemon without maps.
    """

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._stack: ExitStack | None = None

    def __enter__(self) -> str:
        """Start it; its address."""
        if self._stack is not None:
            raise Misuse("this daemon is running already; make another by mapd_client.testing.daemon()")
        with ExitStack() as stack:
            target = _start(stack, self._start_s)
            self._stack = stack.pop_all()
        return target

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and remove its folder."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    async def __aenter__(self) -> str:
        """As ``__enter__``. Cancelling: what was begun has been stopped again when it ends."""
        starting = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(Unavailable):
                await starting
            await asyncio.to_thread(self.__exit__, None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As ``__exit__``."""
        await asyncio.to_thread(self.__exit__, kind, error, trace)


def daemon(*, start_s: float = START_S) -> MemoryDaemon:
    """A daemon with maps in memory, for ``with`` or ``async with``; the block's value is its address.

    Starting takes about half a second, stopping a few milliseconds; in the event loop's thread neither blocks.

    Args:
        start_s: seconds to wait for it at most.

    Raises:
        Unavailable: it did not start; with what it said, and the line that installs what it lacks.
    """
    return MemoryDaemon(start_s)


def _start(stack: ExitStack, start_s: float) -> str:
    """Start one; everything of it ends with ``stack``."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mapd-")))
    config = folder / "mapd.toml"
    policy = folder / "policy.toml"
    policy.write_text("")  # the admin alone, whatever this host's own policy says
    config.write_text(
        f"[daemon]\nbackend = 'memory'\nruntime_dir = '{folder}'\npolicy = '{policy}'\n"
        f"grace_s = {GRACE_S}\nlog_format = 'json'\n"
    )
    ready = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    ready.bind(str(folder / "ready"))
    log = stack.enter_context((folder / "log").open("w+b"))
    process = subprocess.Popen(  # noqa: S603 - this Python, this project
        [
            *(sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parents[1])),
            *("serve", "--config", str(config), "--until-stdin-ends"),
        ],
        env={**os.environ, "NOTIFY_SOCKET": str(folder / "ready")},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
    )
    stack.callback(_stop, process)
    pidfd = os.pidfd_open(process.pid)
    stack.callback(os.close, pidfd)
    said, _, _ = select.select([ready.fileno(), pidfd], [], [], start_s)
    if ready.fileno() not in said:
        log.seek(0)
        what = "ended" if said else f"did not start in {start_s:g} s"
        raise Unavailable(f"the test daemon {what}:\n{log.read().decode(errors='replace')}")
    return f"unix:{folder}/admin/mapd.sock"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()  # somebody who was forked meanwhile may hold the other end of its stdin
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""The policy's file read again: by SIGHUP, and when it changes. The last good policy stays in force."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from mapd.access.policy.file import PolicyError
from mapd.access.policy.holder import NOBODY_ELSE, PolicyHolder
from mapd.notify import notify
from mapd.rpc.servers import Servers
from mapd.runtime.pool import Lane, SyscallPool
from mapd.start import resolve

_log = structlog.stdlib.get_logger("mapd")

POLL_S: Final = 1.0
"""How often the file is looked at. A stat(2) costs 2 us, and a watch would not see a file behind a bind mount that is
replaced, as a Kubernetes ConfigMap is."""

Stamp = tuple[int, ...]


def stamp(path: Path) -> Stamp | None:
    """What changes when a file's content does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def status(servers: Servers, policy: PolicyHolder) -> str:
    """What systemctl status shows."""
    count = len(servers.sockets)
    return f"STATUS=serving {count} principal{'' if count == 1 else 's'}, policy {policy.policy.version}"


class Reloading:
    """Reads the policy again and makes the servers those of it. One task, owned by ``watching``.

    Args:
        path: of the policy's file.
        seen: ``stamp`` of what was read at the start.
    """

    def __init__(
        self, path: Path, policy: PolicyHolder, servers: Servers, pool: SyscallPool, seen: Stamp | None
    ) -> None:
        self._path = path
        self._policy = policy
        self._servers = servers
        self._pool = pool
        self._seen = seen
        self._asked = asyncio.Event()
        self._said: str | None = None

    def ask(self) -> None:
        """Read the file again soon, changed or not: users and groups of the host may have changed."""
        self._asked.set()

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Follow the file inside the block."""
        # No TaskGroup: it would wrap what is raised in the block into a group, which nobody looks into.
        task = asyncio.create_task(self._watch(), name="policy reload")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self) -> None:
        while True:
            asked = await self._wait()
            try:
                now = await self._pool.run(Lane.SLOW, "policy", lambda: stamp(self._path))
                if asked or now != self._seen:
                    await self._reload(now, asked=asked)
            except Exception:
                # Tried again in a second: this task must not end before the daemon does.
                _log.exception("the policy could not be read again", in_force=self._policy.policy.version)

    async def _wait(self) -> bool:
        """Whether it was asked for."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _reload(self, now: Stamp | None, *, asked: bool) -> None:
        """What is wrong with the file is logged, and what was in force stays so."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")
        before = self._policy.policy
        try:
            if now is not None or before is not NOBODY_ELSE:
                await self._pool.run(Lane.SLOW, "policy", self._policy.reload)
            if self._policy.last_error is not None:
                raise PolicyError(self._policy.last_error)
            policy = self._policy.policy
            found = await self._pool.run(Lane.SLOW, "policy", lambda: resolve(policy))
            await self._servers.apply(policy, found)
            _log.info(
                "policy read again, unchanged" if policy is before else "policy reloaded",
                version=policy.version,
                principals=len(self._servers.sockets),
                because="asked" if asked else "the file changed",
            )
            self._said = None
        except PolicyError as error:
            self._complain(str(error))
        finally:
            notify("READY=1", status(self._servers, self._policy))
        self._seen = now

    def _complain(self, message: str) -> None:
        """Once per fault."""
        if message != self._said:
            self._said = message
            _log.error(
                "the policy cannot be used; the last good one stays in force",
                message=message,
                in_force=self._policy.policy.version,
            )

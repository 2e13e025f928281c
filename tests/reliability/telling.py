"""Programs beside a test that say what they have done, in lines of JSON, and go on when they are let."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import SOURCE, environment

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Told:
    """One such program."""

    process: asyncio.subprocess.Process

    async def line(self) -> dict[str, int]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "it ended without a word"
        found: dict[str, int] = json.loads(line)
        return found

    def go_on(self) -> None:
        """End its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()


@asynccontextmanager
async def telling(module: str, *arguments: str, prefix: tuple[str, ...] = ()) -> AsyncGenerator[Told]:
    """A module that runs in a process of its own; ended with the block, and killed where it does not end."""
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": f"{SOURCE}:{ROOT}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told = Told(process)
    try:
        yield told
        told.go_on()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

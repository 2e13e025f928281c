"""Starting a hostile peer, a process of its own, from a test."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.daemon import environment

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def peer(address: str, task: str, count: int) -> AsyncGenerator[list[dict[str, int]]]:
    """A hostile peer that has begun, and what it has told; behind the block it has ended, and told everything."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.reliability.hostile", address, task, str(count)),
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        assert line, f"{task}: the peer ended without a word"
        told: list[dict[str, int]] = [json.loads(line)]
        yield told
        process.stdin.close()
        told += [json.loads(line) async for line in process.stdout]
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

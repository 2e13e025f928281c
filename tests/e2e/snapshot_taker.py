"""Takes snapshots until it is killed: a process that forks one taker for each line of its input.

A line is a JSON object: ``address``, ``map``, ``path``, ``lives_s`` (how long a taker lives, by a timer whose signal
ends it as SIGKILL does: nothing of Python runs after it), ``in_place`` (write to the path itself, as it must not be
done). The answer is the number of the signal that ended it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from mapd_client import connect
from mapd_client.snapshots import take, writing


async def taking(asked: dict[str, Any]) -> None:
    async with connect(asked["address"]) as client:
        await client.server_info()
        signal.setitimer(signal.ITIMER_REAL, asked["lives_s"])
        while True:
            await take(client, [asked["map"]], asked["path"])


def in_place(path: Path) -> Any:
    """The file itself, where a writer should make one beside it."""
    return path.open("w+b"), path


def child(asked: dict[str, Any]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if asked["in_place"]:
        with mock.patch.object(writing, "_made_beside", in_place):
            asyncio.run(taking(asked))
    else:
        asyncio.run(taking(asked))


def main() -> None:
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            child(asked)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.WTERMSIG(status))


if __name__ == "__main__":
    main()

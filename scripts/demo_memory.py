"""The demo where bpf(2) is refused: a daemon with maps in memory, and what makes sense there.

It shows the client and the daemon at work. What it cannot show is said first: no map of a kernel is made, no
program and no other process is involved, and its speeds are those of Python dictionaries.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import mapd_client
from mapd_client import U32, U64, Bytes, Client, MapFrozen, MapFull, Unsupported
from scripts.demo_client import check, six_types

ENTRIES: Final = 100_000
START_S: Final = 20.0


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


async def show(why: str) -> None:
    """The whole demo; raises where something is not as it should be."""
    say("mapd demo, IN MEMORY: no map of the kernel is made here, and no BPF program runs")
    say(f"  why      {why}")
    say(
        "  shown    the daemon, the client, eight types of data, refusals, a dump: the same code as over the kernel"
    )
    say(
        "  missing  shared maps, BPF programs, bpftool's opinion, the kernel's speed: sudo ./dev demo, on a host that"
    )
    say("           lets root use bpf(2)")
    with tempfile.TemporaryDirectory(prefix="mapd-demo-") as folder:
        async with daemon(Path(folder)) as target, mapd_client.connect(target) as client:
            info = await client.server_info()
            check("backend", info.backend, "memory")
            say(
                f"\n2  The client: pid {os.getpid()}, uid {os.geteuid()}; ServerInfo.backend is {info.backend!r}"
            )
            await six_types(client)
            await queue(client)
            await refusals(client)
            await dump(client)
    say(
        f"\nShown: eight map types, refusals and {ENTRIES:,} entries over gRPC, from maps in memory.\n"
        "Left behind: nothing. What is other in the kernel: docs/reference/memory.md;\n"
        "for tests of your own: docs/how-to/testing.md"
    )


@asynccontextmanager
async def daemon(folder: Path) -> AsyncGenerator[str]:
    """``mapd serve --backend memory``, and its banner."""
    config = folder / "mapd.toml"
    (folder / "policy.toml").touch()
    config.write_text(f"[daemon]\nlog_format = 'console'\npolicy = '{folder}/policy.toml'\n")
    arguments = [
        "--backend",
        "memory",
        "--runtime-dir",
        str(folder),
        "--config",
        str(config),
        "--until-stdin-ends",
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mapd", "serve", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        say(
            f"\n1  The daemon: mapd serve --backend memory, pid {process.pid}, uid {os.geteuid()}; its banner"
        )
        async with asyncio.timeout(START_S):
            async for line in process.stderr:
                if b"ready" in line and b"socket=" in line:
                    break
                say(f"     {line.decode().rstrip()}")
            else:
                raise SystemExit("the daemon did not start")
        yield f"{folder}/admin/mapd.sock"
    finally:
        process.stdin.close()
        await process.stderr.read()
        await process.wait()


async def queue(client: Client) -> None:
    """A type without keys."""
    say("\n4  A queue, and a stack")
    for kind in ("queue", "stack"):
        async with client.create_map(kind, kind, key=Bytes(0), value=U64, max_entries=3):
            pass
        async with client.open_queue(kind, value=U64) as jobs:
            await jobs.push_many([1, 2, 3])
            await jobs.push(4, exist=True)  # the oldest makes room
            taken = [await jobs.pop() for _ in range(4)]
            check("values", taken, [2, 3, 4, None] if kind == "queue" else [4, 3, 2, None])
            say(f"     {kind}: 1, 2, 3 and 4 into three places, and out come {taken}")


async def refusals(client: Client) -> None:
    """The kernel's limits hold here too."""
    say("\n5  Refusals")
    async with client.create_map("tiny", "hash", key=U32, value=U64, max_entries=2) as tiny:
        await tiny.update_many({1: 1, 2: 2})
        try:
            await tiny.update(3, 3)
        except MapFull as error:
            say(f"     {error}")
        await tiny.freeze()
        try:
            await tiny.update(1, 9)
        except MapFrozen as error:
            say(f"     {error}")
    try:
        await client.create_map("ring", "ringbuf", key=Bytes(0), value=Bytes(0), max_entries=4_096)
    except Unsupported as error:
        say(f"     {error}")


async def dump(client: Client) -> None:
    """Many entries, there and back."""
    say(f"\n6  {ENTRIES:,} entries")
    async with client.create_map("big", "hash", key=U64, value=U64, max_entries=ENTRIES) as big:
        began = time.monotonic()
        check("load", await big.load((number, number * number) for number in range(ENTRIES)), ENTRIES)
        say(f"     load()    {ENTRIES:>9,} entries in {time.monotonic() - began:5.2f} s")
        began, right = time.monotonic(), 0
        async for key, value in big.items():
            right += value == key * key
        check("items", right, ENTRIES)
        say(
            f"     items()   {right:>9,} Python pairs in {time.monotonic() - began:5.2f} s, each as it was written"
        )


def run(why: str) -> int:
    """Exit status: 0 if everything was shown."""
    asyncio.run(show(why))
    return 0

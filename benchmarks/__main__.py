"""``./dev bench``: dumps and lookups through mapd beside local peers, as ratios."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import mapd_client
from mapd.bpf import Buffer, Columns, LinuxKernel, OpenPin
from mapd_api.limits import BATCH_ELEMENTS
from mapd_api.ops import Op
from mapd_client import U64, Map

ROUNDS: Final = 3
LOOKUPS: Final = 100_000
CONCURRENT: Final = 64

Measured = Callable[[], Awaitable[int]]


@contextmanager
def private_bpffs() -> Generator[Path]:
    """A folder with a bpffs of its own in it."""
    with tempfile.TemporaryDirectory(prefix="mapd-bench-") as name:
        bpffs = Path(name, "bpffs")
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "mapd-bench", bpffs], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", bpffs], check=True)


@asynccontextmanager
async def filled(folder: Path, entries: int) -> AsyncGenerator[Map[int, int]]:
    """A hash map of ``entries`` (8, 8) bytes, behind a daemon in a process of its own."""
    config = folder / "mapd.toml"
    config.write_text(
        f"[daemon]\nruntime_dir='{folder}/run'\nbpffs='{folder}/bpffs'\npin_roots=['{folder}/bpffs']\nlog_format='json'\n"
    )
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mapd", "serve", "--config", str(config)), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert daemon.stderr is not None
        if b'"ready"' not in await daemon.stderr.readline():
            raise SystemExit("the daemon did not start")
        async with (
            mapd_client.connect(f"{folder}/run/admin/mapd.sock") as client,
            client.create_map("bench", "hash", key=U64, value=U64, max_entries=entries) as big,
        ):
            await big.load((number, number) for number in range(entries))
            yield big
    finally:
        daemon.terminate()
        await daemon.wait()


def local_dump(path: Path, *, batch: bool) -> int:
    """Read the whole map in this process; how many entries."""
    kernel, rows = LinuxKernel(), 0
    keys, values, cursor = (
        Buffer.allocate(8 * BATCH_ELEMENTS),
        Buffer.allocate(8 * BATCH_ELEMENTS),
        Buffer.allocate(8),
    )
    with kernel.control(OpenPin(root=str(path.parent), path=str(path))) as owned, owned.lease() as map_fd:
        if not batch:
            key = kernel.next_key(map_fd, None, 8)
            while key is not None:
                column = Columns(count=1, keys=Buffer.of(key), key_stride=8, values=values, value_stride=8)
                rows += kernel.each(map_fd, Op.LOOKUP, column) == [0]
                key = kernel.next_key(map_fd, key, 8)
            return rows
        first, number = True, 0
        while number == 0:
            column = Columns(count=BATCH_ELEMENTS, keys=keys, key_stride=8, values=values, value_stride=8)
            done = kernel.lookup_batch(map_fd, cursor, first, column)
            rows, number, first = rows + done.count, done.errno, False
    return rows


def local_lookups(path: Path) -> int:
    """A lookup syscall per key in this process."""
    kernel, values = LinuxKernel(), Buffer.allocate(8 * LOOKUPS)
    keys = b"".join(number.to_bytes(8, sys.byteorder) for number in range(LOOKUPS))
    column = Columns(count=LOOKUPS, keys=Buffer.of(keys), key_stride=8, values=values, value_stride=8)
    with kernel.control(OpenPin(root=str(path.parent), path=str(path))) as owned, owned.lease() as map_fd:
        return len(kernel.each(map_fd, Op.LOOKUP, column))


async def best(measured: Measured, expected: int) -> float:
    """Seconds of the fastest of some rounds, each of which must have done all."""
    seconds: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        done = await measured()
        seconds.append(time.perf_counter() - began)
        if done != expected:
            raise SystemExit(f"{done} of {expected} entries")
    return min(seconds)


async def table(title: str, count: int, base: str, rows: dict[str, Measured]) -> None:
    """Measure and print; ratios are to the row ``base``."""
    print(f"\n{title}")
    taken = {name: await best(measured, count) for name, measured in rows.items()}
    for name, seconds in taken.items():
        ratio = taken[base] / seconds
        print(f"  {name:<22} {seconds:8.3f} s  {count / seconds / 1e6:8.3f} M/s  {ratio:7.2f} x {base}")


async def measure(big: Map[int, int], entries: int) -> None:
    """All tables."""
    path = Path(big.info.pin_path)
    lookups = min(LOOKUPS, entries)

    async def bpftool() -> int:
        command = ["bpftool", "-j", "map", "dump", "pinned", str(path)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        return entries if await process.wait() == 0 else 0

    async def walk() -> int:
        return await asyncio.to_thread(local_dump, path, batch=False)

    async def batch() -> int:
        return await asyncio.to_thread(local_dump, path, batch=True)

    async def chunks() -> int:
        return sum([chunk.count async for chunk in big.chunks()])

    async def items() -> int:
        return len([key async for key, _ in big.items()])

    async def each() -> int:
        return await asyncio.to_thread(local_lookups, path)

    async def many() -> int:
        return len(await big.lookup_many(range(lookups)))

    async def single() -> int:
        keys = iter(range(lookups // 10))

        async def worker() -> int:
            return len([await big.lookup(key) for key in keys])

        return sum(await asyncio.gather(*(worker() for _ in range(CONCURRENT))))

    dumps: dict[str, Measured] = {"walk": walk, "batch": batch, "chunks()": chunks, "items()": items}
    base = "walk"
    if shutil.which("bpftool"):
        dumps, base = {"bpftool -j": bpftool, **dumps}, "bpftool -j"
    await table(f"dump of {entries:,} entries of (8, 8) bytes", entries, base, dumps)
    await table(f"lookups of {lookups:,} keys", lookups, "each", {"each": each, "lookup_many()": many})
    await table(
        f"lookups of {lookups // 10:,} keys, one call each",
        lookups // 10,
        "lookup(), 64 at once",
        {"lookup(), 64 at once": single},
    )


async def main() -> None:
    """Set up, measure, remove."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with private_bpffs() as folder:
        async with filled(folder, entries) as big:
            await measure(big, entries)


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("benchmarks create real kernel maps, which only root may: sudo ./dev bench")
    asyncio.run(main())

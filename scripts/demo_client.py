"""The client of the demo: runs as uid 65534 without capabilities, and uses mapd_client only.

Lines that begin with '@' ask the demo for what takes another process; it answers on standard input.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import mapd_client
from mapd_client import U32, U64, Cidr4, Client, Codec, Map, MapdError, MapFlag, PerCpu
from scripts.demo_typed import typed_map

PROGRESS_EVERY: Final = 100_000


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


def ask(request: str) -> str:
    """Have the demo do something; its answer."""
    say(f"@{request}")
    return sys.stdin.readline().strip()


def check(what: str, got: object, wanted: object) -> None:
    """End the demo where the kernel or mapd did not do what they should."""
    if got != wanted:
        raise SystemExit(f"{what}: got {got!r}, wanted {wanted!r}")


def introduce() -> None:
    """Who this is, from the kernel's own mouth."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    check("effective capabilities", int(effective, 16), 0)
    say(
        f"\n2  The client: pid {os.getpid()}, uid {os.geteuid()}, CapEff {effective}: it may do nothing by itself"
    )


async def six_types(client: Client) -> None:
    """Create, update, look up, iterate, batch and delete on every type served."""
    say("\n3  Six map types, over gRPC")
    say("     type           id   update lookup iterate batch delete   pinned at")
    lpm = {IPv4Network("10.0.0.0/8"): 1, IPv4Network("10.1.0.0/16"): 2, IPv4Network("192.168.0.0/24"): 3}
    plain = {1: 10, 2: 20, 3: 30}
    per_cpu = {key: [value] * (await client.server_info()).possible_cpus for key, value in plain.items()}
    await one_type(client, "hash", U32, U64, plain)
    await one_type(client, "lru_hash", U32, U64, plain)
    await one_type(client, "percpu_hash", U32, PerCpu(U64), per_cpu)
    await one_type(client, "lpm_trie", Cidr4, U64, lpm, flags=MapFlag.NO_PREALLOC)
    await one_type(client, "array", U32, U64, plain)
    await one_type(client, "percpu_array", U32, PerCpu(U64), per_cpu)


async def one_type(
    client: Client, kind: str, key: Codec[Any], value: Codec[Any], items: dict[Any, Any], flags: int = 0
) -> None:
    """The same work on one type, each answer checked."""
    name = kind.replace("_", "-")
    async with client.create_map(name, kind, key=key, value=value, max_entries=100, flags=flags) as created:
        first, *_ = items
        await created.update(first, items[first])
        check("lookup", await created.lookup(first), items[first])
        check("update_many", await created.update_many(items), len(items))
        found = {k: v async for k, v in created.items()}
        check("iterate", {k: found[k] for k in items}, items)
        deleted = "-"  # an array's elements are always there
        if "delete" in created.info.supported_operations:
            check("delete", await created.delete(first), True)
            check("delete_many", await created.delete_many(items), len(items) - 1)
            deleted = "yes"
        say(
            f"     {kind:<13} {created.info.id:>4}   yes    yes    {len(found):>3}     {len(items)}     {deleted:<6}   "
            f"{created.info.pin_path}"
        )


async def shared_maps(client: Client, bpffs: str) -> None:
    """Maps in the hands of others, both ways."""
    say("\n4  A map that another process created and pinned, while a BPF program writes it")
    async with client.open_map(f"pin:{bpffs}/packets", key=U32, value=U64, read_only=True) as packets:
        runs: list[int] = []
        for _ in range(2):
            before = int(ask("count"))
            counted = sum([value async for value in packets.values()])
            after = int(ask("count"))
            check(f"{before} <= {counted} <= {after}", before <= counted <= after, True)
            runs.append(counted)
            say(
                f"     the program had run {before:>9,} times; the map holds {counted:>9,}; then it had {after:>8,}"
            )
        check("it is being written", runs[1] > runs[0], True)
        try:
            await packets.update(0, 0)
        except MapdError as error:
            say(f"     opened read-only, so a write is refused: {error}")
    say("\n5  A map of mapd in another process' hands, by MapInfo.pin_path")
    async with client.open_map("hash", key=U32, value=U64) as ours:
        check(
            "bpftool",
            ask(f"open hash {(7).to_bytes(4, sys.byteorder).hex()} {(77).to_bytes(8, sys.byteorder).hex()}"),
            "written",
        )
        check("what bpftool wrote", await ours.lookup(7), 77)
        say(
            f"     bpftool wrote 7 -> 77 through {ours.info.pin_path}, and the client reads {await ours.lookup(7)}"
        )


async def big_dump(client: Client, entries: int) -> None:
    """A million entries, there and back, and bpftool's opinion of them."""
    say(f"\n7  {entries:,} entries")
    async with client.create_map("big", "hash", key=U64, value=U64, max_entries=entries) as big:
        began = time.monotonic()
        check("load", await big.load((number, number * number) for number in range(entries)), entries)
        seconds = time.monotonic() - began
        say(f"     load()    {entries:>9,} entries in {seconds:5.2f} s, {entries / seconds / 1e6:.2f} M/s")
        rows, ours = await dumped_chunks(big, entries)
        began = time.monotonic()
        total = 0
        async for key, value in big.items():
            total += value == key * key
        seconds = time.monotonic() - began
        check("items", total, entries)
        say(f"     items()   {total:>9,} Python pairs in {seconds:5.2f} s, {entries / seconds / 1e6:.2f} M/s")
    count, taken, digest = ask("bpftool big").split()
    check("bpftool's entries", int(count), rows)
    check("bpftool's bytes", digest, ours)
    say(
        f"     bpftool   {rows:>9,} entries in {float(taken):5.2f} s (-j map dump), {rows / float(taken) / 1e6:.2f} M/s"
    )
    say(f"     the same {rows:,} keys and values, sha256 {digest[:16]}...")


async def dumped_chunks(big: Map[int, int], entries: int) -> tuple[int, str]:
    """Stream columns with a progress line; how many rows, and the digest of them sorted."""
    began, rows, shown, parts = time.monotonic(), 0, 0, list[tuple[bytes, bytes]]()
    dump = big.chunks()
    async for chunk in dump:
        rows += chunk.count
        parts.append((bytes(chunk.keys), bytes(chunk.values)))
        if rows - shown >= PROGRESS_EVERY:
            shown = rows
            say(f"@progress chunks()  {rows:>9,} of {entries:,} ({100 * rows // entries:>3} %)")
    seconds = time.monotonic() - began
    say("@progress " + " " * 60 + "\r")
    say(f"     chunks()  {rows:>9,} entries in {seconds:5.2f} s, {rows / seconds / 1e6:.2f} M/s")
    assert dump.trailer is not None
    say(
        f"               complete={dump.trailer.complete} method={dump.trailer.method} restarts={dump.trailer.restarts}"
    )
    pairs = sorted(
        keys[at : at + 8] + values[at : at + 8] for keys, values in parts for at in range(0, len(keys), 8)
    )
    return rows, hashlib.sha256(b"".join(pairs)).hexdigest()


async def main(socket: str, bpffs: str, entries: int) -> None:
    """Everything in turn."""
    introduce()
    async with mapd_client.connect(socket) as client:
        await six_types(client)
        await shared_maps(client, bpffs)
        await typed_map(client, say, ask)
        await big_dump(client, entries)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

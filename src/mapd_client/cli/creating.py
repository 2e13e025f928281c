"""``create``: a map by its type and sizes, or the maps of an object file."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType
from mapd_client import requests
from mapd_client.cli import outcomes
from mapd_client.cli.listing import MAP, map_row, of_one
from mapd_client.cli.options import Given
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.running import with_client
from mapd_client.client import Client
from mapd_client.codec import I8, I16, I32, I64, U8, U16, U32, U64, Bytes, Codec
from mapd_client.errors import Misuse
from mapd_client.objectmaps import ObjectMap
from mapd_client.percpu import PerCpu
from mapd_client.structcodec import Struct
from mapd_client.typed.hints import known

Format = Annotated[Output, Parameter(name=["--output", "-o"])]

_INTEGERS: Final = {
    "u8": U8,
    "u16": U16,
    "u32": U32,
    "u64": U64,
    "i8": I8,
    "i16": I16,
    "i32": I32,
    "i64": I64,
}

_NEEDED: Final[Mapping[MapType, int]] = {MapType.LPM_TRIE: MapFlag.NO_PREALLOC}
"""Flags without which the kernel creates no map of a type: trie_alloc(), kernel/bpf/lpm_trie.c."""

_OBJECT: Final = (
    Field("index", int, "INDEX"),
    Field("declared", str, "DECLARED"),
    Field("name", str, "NAME"),
    Field("pin", str, "PIN"),
    Field("created", bool, "CREATED"),
    Field("btf_refused"),
)


def create(
    name: str | None = None,
    type: str | None = None,
    *,
    key: str = "0",
    value: str = "0",
    max_entries: Annotated[int, Parameter(name=["--max-entries", "--entries"])] = 0,
    flags: str = "",
    inner: str | None = None,
    kernel_name: str | None = None,
    map_extra: int = 0,
    numa_node: int | None = None,
    lease: float | None = None,
    exist_ok: bool = False,
    elf: Path | None = None,
    convention: str = "auto",
    output: Format = "table",
    options: Given,
) -> int:
    """Create a map, or all maps that an object file declares.

    mapctl create flows lru_hash --key ipv4 --value u64 --max-entries 10000

    Args:
        name: "flows" or "ns/flows"; none with --lease or --elf.
        type: hash, lru_hash, lpm_trie, array, percpu_hash ...
        key: bytes, or what they are: u8 to u64, i8 to i64, ipv4, ipv6, cidr4, cidr6, mac, struct:<IHH. What is said
            here bpftool and mapctl show later. 0 for queues, stacks and Bloom filters.
        value: likewise; of one CPU where the map is per CPU.
        max_entries: elements that fit; bytes of a ring buffer.
        flags: BPF_F_ flags as bpftool numbers them (0x1), or by name: no_prealloc,rdonly_prog. An lpm_trie gets the
            no_prealloc that it needs.
        inner: template of the maps in a map of maps: a map reference.
        kernel_name: at most 15 characters; made from the name otherwise.
        map_extra: hash functions of a Bloom filter.
        numa_node: where its memory is to be.
        lease: seconds that the map outlives this command, for a map without a name, unless something keeps its lease
            alive; it is opened by its pin.
        exist_ok: be content with the map of that name, if every field agrees.
        elf: the object file; creates its maps with their pins, and prints what became of each.
        convention: how the object declares them: auto, libbpf, samples or tc.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """
    found = elf is not None and elf.is_file()

    async def work(client: Client) -> int:
        if elf is not None:
            if name is not None or type is not None:
                raise Misuse(
                    f"create --elf {elf}: the object says the names and types of its maps: leave {name!r} out"
                )
            if not found:
                raise Misuse(f"create --elf {elf}: no such file")
            return await _from_object(client, elf, convention, exist_ok=exist_ok, output=output)
        if type is None or (name is None) == (lease is None):
            raise Misuse(
                "create: a name and a type are needed, as in 'mapctl create flows hash --key u32 --value u64'"
            )
        kind = requests.map_type(type)
        keys, values = codec("--key", key), codec("--value", value)
        described = not isinstance(keys, Bytes) or not isinstance(values, Bytes)
        async with client.create_map(
            name,
            kind,
            key=keys,
            value=PerCpu(values) if kind in PER_CPU_TYPES else values,
            max_entries=max_entries,
            flags=flag_bits(flags) | _NEEDED.get(kind, 0),
            kernel_name=kernel_name,
            map_extra=map_extra,
            numa_node=numa_node,
            inner=inner,
            btf=described,
            lease=lease,
            exist_ok=exist_ok,
        ) as made:
            rows, table = [map_row(made.info)], output == "table"
            columns = of_one(made.info) if table else MAP
            records(rows, columns=columns, output=output, file=sys.stdout, one=not table)
        return outcomes.OK

    return with_client(options, work)


async def _from_object(client: Client, path: Path, convention: str, *, exist_ok: bool, output: Output) -> int:
    async with client.create_from_object(str(path), convention=convention, exist_ok=exist_ok) as made:
        rows = [_object_row(one) for one in made.declared]
        records(rows, columns=_OBJECT, output=output, file=sys.stdout)
        sys.stderr.write(f"mapctl: read as {made.convention}: {made.rule}\n")
        sys.stderr.writelines(f"mapctl: left out: {one}\n" for one in made.left_out)
    return outcomes.OK


def _object_row(one: ObjectMap) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in _OBJECT}


def codec(option: str, text: str) -> Codec[Any]:
    """What ``--key`` or ``--value`` says: a number of bytes, a name, a struct's format.

    Raises:
        Misuse: none of these.
    """
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return Bytes(int(text))
    if text.startswith("struct:"):
        return Struct(text.removeprefix("struct:"))
    names = {**_INTEGERS, **known()}
    if text in names:
        return names[text]
    raise Misuse(
        f"{option} {text!r}: a number of bytes, struct:FORMAT as in Python's struct, or one of {', '.join(names)}"
    )


def flag_bits(text: str) -> int:
    """``--flags``: a number as bpftool takes it, or names of BPF_F_ flags; raises Misuse."""
    if not text:
        return 0
    try:
        return int(text, 0)
    except ValueError:
        pass
    bits = MapFlag(0)
    for name in text.split(","):
        word = name.strip().upper().removeprefix("BPF_F_")
        if word not in MapFlag.__members__:
            there = ", ".join(flag.lower() for flag in MapFlag.__members__)
            raise Misuse(f"--flags {name!r}: one of {there}, or a number")
        bits |= MapFlag[word]
    return int(bits)

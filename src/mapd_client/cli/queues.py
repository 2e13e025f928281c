"""Queues and stacks: ``push``, ``pop``, ``peek``."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from cyclopts import Parameter

from mapd_client.cli import outcomes
from mapd_client.cli.complaints import complain
from mapd_client.cli.options import Given, Options
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying, shown_by
from mapd_client.client import Client
from mapd_client.codec import Bytes
from mapd_client.keyless import FILTERS, QUEUES, Queue
from mapd_client.map import Map

Format = Annotated[Output, Parameter(name=["--output", "-o"])]


def push(map: Ref, value: str, /, *, exist: bool = False, types: Source | None = None, options: Given) -> int:
    """Put a value into a queue, a stack or a Bloom filter.

    Args:
        map: name, pin:PATH or id:NUMBER.
        value: as 'mapctl update' takes it.
        exist: where it is full, drop the oldest value (BPF_EXIST).
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(queue: Queue[bytes], shown: Shown) -> int:
        await queue.push(_typed(map, value, shown), exist=exist)
        return outcomes.OK

    async def opened(found: Map[bytes, bytes], client: Client) -> int:
        if found.info.type not in FILTERS:
            return await _in_queue("push", found, client, map, types, work)
        data = _typed(map, value, await shown_by(found, client, types or Source()))
        async with client.open_bloom(map, value=Bytes(found.info.value_size)) as bloom:
            await bloom.add(data)
        return outcomes.OK

    return with_map(options, map, opened)


def _typed(ref: str, value: str, shown: Shown) -> bytes:
    with saying("push", ref):
        return shown.value(value)


def pop(map: Ref, /, *, output: Format = "table", types: Source | None = None, options: Given) -> int:
    """Take the next value out of a queue or stack and print it; exit code 3 if there is none.

    Args:
        map: name, pin:PATH or id:NUMBER.
        output: table, json, ndjson, csv, arrow or parquet.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(queue: Queue[bytes], shown: Shown) -> int:
        return _print("pop", map, await queue.pop(), shown, output)

    return _with_queue("pop", options, map, types, work)


def peek(map: Ref, /, *, output: Format = "table", types: Source | None = None, options: Given) -> int:
    """Print the next value of a queue or stack and leave it there; exit code 3 if there is none.

    Args:
        map: name, pin:PATH or id:NUMBER.
        output: table, json, ndjson, csv, arrow or parquet.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(queue: Queue[bytes], shown: Shown) -> int:
        return _print("peek", map, await queue.peek(), shown, output)

    return _with_queue("peek", options, map, types, work)


def _print(verb: str, ref: str, value: bytes | None, shown: Shown, output: Output) -> int:
    if value is None:
        return complain(f"{verb} {ref}: it is empty", "nothing was taken", outcomes.NOT_FOUND)
    text = next(iter(shown.records.texts(b"", value, 1)["value"]))
    found: Any = json.loads(text)
    if output == "table":
        sys.stdout.write(next(iter(shown.rows(b"", value, 1))).lstrip())
        return outcomes.OK
    columns = (Field("value", _kind(found)),)
    records([{"value": found}], columns=columns, output=output, file=sys.stdout, one=True)
    return outcomes.OK


def _kind(value: object) -> type:
    """The column's type; what JSON has, a record's."""
    return next((kind for kind in (bool, int, float, list, dict) if isinstance(value, kind)), str)


Work = Callable[[Queue[bytes], Shown], Awaitable[int]]


def _with_queue(verb: str, options: Options, ref: str, types: Source | None, work: Work) -> int:
    async def opened(found: Map[bytes, bytes], client: Client) -> int:
        return await _in_queue(verb, found, client, ref, types, work)

    return with_map(options, ref, opened)


async def _in_queue(
    verb: str, found: Map[bytes, bytes], client: Client, ref: str, types: Source | None, work: Work
) -> int:
    if found.info.type not in QUEUES:
        return complain(
            f"{verb} {ref}: it is of type {found.info.type_name}, and {verb} is for queues and stacks",
            f"see 'mapctl show {ref}' for what it supports",
            outcomes.FAILURE,
        )
    async with client.open_queue(ref, value=Bytes(found.info.value_size)) as queue:
        return await work(queue, await shown_by(found, client, types or Source()))

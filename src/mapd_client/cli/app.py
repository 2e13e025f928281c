"""The verbs of mapctl. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from typing import Annotated, Any, Literal, cast

from cyclopts import App, CycloptsError, Parameter

import mapd_api
from mapd_client.cli import interrupts, literals, outcomes, render
from mapd_client.cli.render import Output
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying, shown_by
from mapd_client.client import Client, connect
from mapd_client.errors import MapdError
from mapd_client.info import UpdateFlag
from mapd_client.map import Map


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before or after any verb."""

    address: str | None
    timeout: float


Given = Annotated[Options, Parameter(parse=False)]
Format = Annotated[Output, Parameter(name=["--output", "-o"])]
Dumped = Annotated[Literal["table", "ndjson", "bpftool"], Parameter(name=["--output", "-o"])]

_HELP = """eBPF maps through mapd.

MAP is a name ("flows", "ns/flows"), "pin:/sys/fs/bpf/x" or "id:42".
KEY and VALUE are hex:0a00 or 0x0a00 (bytes as in memory), u32:7 (u8 to u64, i8 to i64),
7 (an integer of the map's size), 10.0.0.1, 10.0.0.0/8 (keys of LPM tries; a host is 10.0.0.1/32)
or 02:00:5e:10:00:01; and, where the map's types are known, fields as JSON: {"saddr": 7, "dport": 443}.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 permission, 5 unavailable or too late,
6 conflict, 130 interrupted.
"""

app = App(
    name="mapctl",
    help=_HELP,
    version=mapd_api.__version__,
    result_action="return_value",
    console=render.QuietConsole(),
)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    address: str | None = None,
    timeout: float = 30.0,
) -> int:
    """Run one verb.

    Args:
        tokens: the verb and its arguments.
        address: the daemon's socket, or host:port with $MAPD_TLS_CA, $MAPD_TLS_CERT and $MAPD_TLS_KEY; default:
            $MAPD_ADDRESS, then /run/mapd.
        timeout: seconds that any one call may take.
    """
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=True)
    given = {name: Options(address, timeout) for name in ignored}
    result: Any = command(*bound.args, **bound.kwargs, **given)
    return result if isinstance(result, int) else outcomes.OK


@app.command(name="list")
def list_(
    glob: str = "*",
    /,
    *,
    pins: bool = False,
    ids: bool = False,
    holders: bool = False,
    output: Format = "table",
    options: Given,
) -> int:
    """The maps that you may see.

    Args:
        glob: shell pattern over "namespace/name"; over pins and kernel name of maps without a name.
        pins: also maps that other programs have pinned.
        ids: also all others of the host.
        holders: which processes and programs hold each.
        output: table or ndjson.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        listing = client.list_maps(glob, pins=pins, ids=ids, holders=holders)
        found = [info async for info in listing]
        if output == "table":
            render.write_maps(found, sys.stdout, holders=holders)
        else:
            for info in found:
                render.write_record(render.map_record(info), sys.stdout)
        for place in listing.not_looked_at:
            sys.stderr.write(f"not looked at: {place}\n")
        return outcomes.OK

    return with_client(options, work)


@app.command
def rename(name: str, new_name: str, /, *, options: Given) -> int:
    """Give a map another name; what has the new name already stays.

    Args:
        name: "flows" or "ns/flows".
        new_name: the same.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        sys.stdout.write(await client.rename_map(name, new_name) + "\n")
        return outcomes.OK

    return with_client(options, work)


@app.command
def show(map: str, /, *, output: Format = "table", options: Given) -> int:
    """One map: its type, sizes, flags, and what it supports.

    Args:
        map: name, pin:PATH or id:NUMBER.
        output: table or ndjson.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        del client
        if output == "table":
            render.write_map(opened.info, sys.stdout)
        else:
            render.write_record(render.map_record(opened.info), sys.stdout)
        return outcomes.OK

    return _with_map(options, map, work)


@app.command
def lookup(
    map: str, key: str, /, *, output: Format = "table", types: Source | None = None, options: Given
) -> int:
    """The value of one key; exit code 3 if it is not there.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01.
        output: table or ndjson.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("lookup", map):
            shown = await shown_by(opened, client, types or Source())
            data = shown.key(key)
        _write(shown, output, data, await opened[data], 1)
        sys.stderr.write(shown.note if output == "table" else "")
        return outcomes.OK

    return _with_map(options, map, work)


@app.command
def update(
    map: str,
    key: str,
    value: str,
    flags: UpdateFlag = "any",
    /,
    *,
    types: Source | None = None,
    options: Given,
) -> int:
    """Create or replace one element; in a per-CPU map every CPU gets the value.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01.
        value: in the same forms.
        flags: any; noexist (only create); exist (only replace).
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("update", map):
            shown = await shown_by(opened, client, types or Source())
            element = shown.key(key), shown.value(value)
        await opened.update(*element, flags=flags)
        return outcomes.OK

    return _with_map(options, map, work)


@app.command
def delete(map: str, key: str, /, *, types: Source | None = None, options: Given) -> int:
    """Remove one element; exit code 3 if it was not there.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("delete", map):
            data = (await shown_by(opened, client, types or Source())).key(key)
        if await opened.delete(data):
            return outcomes.OK
        return _complain(f"delete {map}: no such key {data.hex()}", "nothing was removed", outcomes.NOT_FOUND)

    return _with_map(options, map, work)


@app.command
def dump(
    map: str,
    /,
    *,
    prefix: str = "",
    limit: int | None = None,
    partial_ok: bool = False,
    output: Dumped = "table",
    types: Source | None = None,
    options: Given,
) -> int:
    """Every element.

    Args:
        map: name, pin:PATH or id:NUMBER.
        prefix: hex digits that the keys begin with.
        limit: at most so many elements.
        partial_ok: exit code 0 even if the daemon calls the dump incomplete.
        output: table; ndjson; bpftool, as bpftool -j map dump prints it.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("dump", map):
            shown = await shown_by(opened, client, types or Source())
            begins = literals.parse_hex(prefix)
        write = shown.bpftool(sys.stdout) if output == "bpftool" else partial(_write, shown, output)
        if limit is None:
            async with opened.chunks(prefix=begins, partial_ok=partial_ok) as chunks:
                async for chunk in chunks:
                    write(chunk.keys, chunk.values, chunk.count)
            trailer = chunks.trailer
        else:
            async with opened.items(prefix=begins, limit=limit, partial_ok=partial_ok) as elements:
                async for key, value in elements:
                    write(key, value, 1)
            trailer = elements.trailer
        if output == "bpftool":
            sys.stdout.write("]\n")
        sys.stderr.write(shown.note if output == "table" else "")
        if trailer is not None and not trailer.complete:
            sys.stderr.write(f"incomplete: {trailer.incomplete_reason}\n")
        return outcomes.OK

    return _with_map(options, map, work)


def _write(
    shown: Shown, output: str, keys: bytes | memoryview, values: bytes | memoryview, count: int
) -> None:
    if output == "table":
        sys.stdout.writelines(shown.rows(keys, values, count))
    else:
        sys.stdout.write(shown.records.lines(keys, values, count))


def with_client(options: Options, work: Callable[[Client], Awaitable[int]]) -> int:
    """Connect, work, disconnect; the exit code."""

    async def connected() -> int:
        async with connect(options.address, timeout=options.timeout) as client:
            return await work(client)

    return interrupts.run(connected())


def _with_map(options: Options, ref: str, work: Callable[[Map[bytes, bytes], Client], Awaitable[int]]) -> int:
    async def opened(client: Client) -> int:
        async with client.open_map(ref) as found:
            return await work(found, client)

    return with_client(options, opened)


def _complain(what: str, advice: str, code: int) -> int:
    sys.stderr.write(f"mapctl: {what}\n{advice}\n")
    return code


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    # A path that the locale cannot write is no reason to fail.
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    try:
        code: int = app.meta(list(arguments), exit_on_error=False, print_error=True) or outcomes.OK
        sys.stdout.flush()
    except CycloptsError:
        return outcomes.USAGE  # said already
    except MapdError as error:
        code, advice = outcomes.of_error(error)
        return _complain(str(error), advice, code)
    except BrokenPipeError:
        _drop_output()
        return outcomes.BROKEN_PIPE
    except OSError as error:  # behind MapdError, of which some are OSErrors too
        _drop_output()
        sys.stderr.write(f"mapctl: cannot write: {error.strerror or error}\n")
        return outcomes.FAILURE
    except KeyboardInterrupt:
        return outcomes.INTERRUPTED
    return code


def _drop_output() -> None:
    """Let what Python still wants to flush at its end go nowhere, in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

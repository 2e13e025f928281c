"""Single elements written: ``update``, ``delete``."""

from __future__ import annotations

import re
from typing import Any

from mapd_api.uapi import MapType
from mapd_client.cli import outcomes
from mapd_client.cli.care import DryRun, would
from mapd_client.cli.complaints import complain
from mapd_client.cli.options import Given
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import saying, shown_by
from mapd_client.client import Client
from mapd_client.errors import Misuse
from mapd_client.info import MapInfo, UpdateFlag
from mapd_client.keyless import QUEUES
from mapd_client.map import Map


def update(
    map: Ref,
    key: str,
    value: str,
    flags: UpdateFlag = "any",
    /,
    *,
    dry_run: DryRun = False,
    types: Source | None = None,
    options: Given,
) -> int:
    """Create or replace one element; in a per-CPU map every CPU gets the value.

    In a map of kernel objects the value is one of these: a map (name, pin:PATH, id:NUMBER) in a map of maps, a program
    (pin:PATH, id:NUMBER) in a prog_array, a network device (eth0, 2) in a devmap, the length of its queue in a cpumap.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, saddr=10.0.0.1,dport=443, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or
            02:00:5e:10:00:01.
        value: in the same forms.
        flags: any; noexist (only create); exist (only replace).
        dry_run: say what would be written, and whether the policy lets you.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        info = opened.info
        if info.type in QUEUES:
            raise Misuse(
                f"update {map}: a {info.type_name} has no keys: 'mapctl push {map} {value}' puts a value in"
            )
        with saying("update", map):
            shown = await shown_by(opened, client, types or Source())
            at = shown.key(key)
            stands_for = _object(info, value)
            data = b"" if stands_for else shown.value(value)
        if dry_run:
            line = shown.records.line(at, data) if data else f"{key}: {value}"
            return await _would(client, "write", map, at, f"write to {map}: {line.rstrip()}")
        if stands_for:
            await opened.update_reference(at, flags=flags, **stands_for)
        else:
            await opened.update(at, data, flags=flags)
        return outcomes.OK

    return with_map(options, map, work, everywhere=True)


def _object(info: MapInfo, value: str) -> dict[str, Any]:
    """The kernel object that a value stands for, as ``update_reference`` takes it; {} in a map of bytes."""
    number = re.fullmatch(r"(?:id:)?([0-9]{1,10})", value, re.ASCII)
    match info.type:
        case MapType.ARRAY_OF_MAPS | MapType.HASH_OF_MAPS:
            return {"inner": value}
        case MapType.PROG_ARRAY:
            return {"program": int(number[1]) if number else value}
        case MapType.DEVMAP | MapType.DEVMAP_HASH:
            return {"device": int(value) if value.isdecimal() else value}
        case MapType.CPUMAP:
            if not value.isdecimal():
                raise Misuse(
                    f"{value!r}: the value of a cpumap is the length of the CPU's queue, a number of frames"
                )
            return {"queue": int(value)}
        case _:
            return {}


def delete(
    map: Ref,
    key: str | None = None,
    /,
    *,
    dry_run: DryRun = False,
    types: Source | None = None,
    options: Given,
) -> int:
    """Remove one element; exit code 3 if it was not there. 'mapctl unpin' removes a map.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, saddr=10.0.0.1,dport=443, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or
            02:00:5e:10:00:01.
        dry_run: say whether it is there, and whether the policy lets you.
        types: where the map's types are from.
        options: of every verb.
    """
    if key is None:
        return complain(
            f"delete {map}: this removes one element, and needs its key: 'mapctl delete {map} KEY'",
            f"to remove the map, take its name away: 'mapctl unpin {map}'; to empty it: 'mapctl sync {map} --from "
            "/dev/null --max-removals 100%'",
            outcomes.USAGE,
        )

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        if opened.info.type in QUEUES:
            raise Misuse(
                f"delete {map}: a {opened.info.type_name} has no keys: 'mapctl pop {map}' takes a value out"
            )
        with saying("delete", map):
            shown = await shown_by(opened, client, types or Source())
            data = shown.key(key)
        if dry_run:
            value = await opened.lookup(data)
            if value is not None:
                line = shown.records.line(data, value)
                return await _would(client, "delete", map, data, f"remove from {map}: {line.rstrip()}")
        elif await opened.delete(data):
            return outcomes.OK
        return complain(f"delete {map}: no such key {data.hex()}", "nothing was removed", outcomes.NOT_FOUND)

    return with_map(options, map, work, everywhere=True)


async def _would(client: Client, verb: str, ref: str, key: bytes, what: str) -> int:
    """Say what is not done, or that it could not be done."""
    decision = await client.explain(verb, ref, key=key)
    if decision:
        would(what)
        return outcomes.OK
    return complain(
        f"would {what}: {decision.text}",
        f"'mapctl whoami' says who you are here, 'mapctl can {verb} {ref}' why",
        outcomes.PERMISSION,
    )

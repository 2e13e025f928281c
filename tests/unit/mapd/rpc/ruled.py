"""A server under a policy, for one caller whom it concerns, and maps beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from mapd.access.principal import Principal
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.unit.mapd.access.policies import policy
from tests.unit.mapd.access.reference import RuleDict
from tests.unit.mapd.dictkernel import ROOT, DictMap, raw_info
from tests.unit.mapd.rpc.wire import WAIT_S, Wire, serving

WEB = Principal(name="web", namespace="web")
FLOWS = MapRef(name="web/flows")
FIRST = "0a"
OWNER: RuleDict = {"who": ["web"], "role": "owner", "owners": ["self"]}
SOME_KEYS: RuleDict = {
    "who": ["web"],
    "verbs": ["list", "read", "write", "delete"],
    "names": ["web/*"],
    "key_prefixes": [FIRST],
}
SECRET: RuleDict = {"effect": "deny", "who": ["*"], "role": "admin", "names": ["*/secret-*"]}
ANYTHING: RuleDict = {"who": ["web"], "role": "admin", "every_map": True}


@asynccontextmanager
async def ruled(*rules: RuleDict, **more: Any) -> AsyncGenerator[Wire]:
    async with serving(
        principal=WEB, policy=policy(*rules, head='contact = "ops@example.org"'), **more
    ) as wire:
        yield wire


def add(wire: Wire, *pins: str, count: int = 0, **info: Any) -> DictMap:
    """A map with these names or pins."""
    made = wire.kernel.add(DictMap(raw_info(**info)))
    made.fill(count)
    for pin in pins:
        wire.kernel.pins[pin if pin.startswith("/") else f"{ROOT}/{pin}"] = made
    return made


async def dumped(wire: Wire, **request: Any) -> list[elements.DumpResponse]:
    asked = elements.DumpRequest(map=FLOWS, **request)
    return [message async for message in wire.callable("Dump")(asked, timeout=WAIT_S)]


def keys_of(messages: list[elements.DumpResponse]) -> set[bytes]:
    column = b"".join(message.chunk.columns.keys for message in messages)
    return {column[at : at + 4] for at in range(0, len(column), 4)}


def creation(name: str, **more: Any) -> maps.CreateMapRequest:
    return maps.CreateMapRequest(
        type=MapType.HASH,  # type: ignore[arg-type]
        key_size=4,
        value_size=4,
        max_entries=8,
        named=maps.Named(name=name),
        **more,
    )

"""Listed maps as messages, and the tokens by which a listing goes on. Pure."""

from __future__ import annotations

from typing import cast

from mapd.maps.listing import PINS, ListedMap, ProcessHolder, ProgramHolder, SortKey
from mapd.rpc import convert
from mapd.runtime.statistics import Watched
from mapd.runtime.traffic import Flow
from mapd_api.v1 import maps_pb2, types_pb2


def info(found: ListedMap) -> types_pb2.MapInfo:
    """What a client is told of a map in a listing."""
    message = convert.map_info(found)
    message.pins.extend(found.pins[:PINS])
    message.holders.extend(map(holder, found.holders))
    return message


def stats(watched: Watched, flow: Flow) -> maps_pb2.MapStats:
    """What a client is told of a map that it watches."""
    one = watched.listed
    raw = one.facts.info
    message = maps_pb2.MapStats(
        id=raw.id,
        name=one.name,
        pin_path=one.pin_path,
        kernel_name=raw.name,
        type=cast("types_pb2.MapType", raw.map_type),
        max_entries=raw.max_entries,
        memlock_bytes=raw.memlock,
    )
    if watched.readable:
        message.read_elements, message.written_elements = flow.read, flow.written
    if watched.counted is not None:
        message.entries, message.exact = watched.counted.entries, watched.counted.exact
        message.method = watched.counted.method
    return message


def holder(one: ProcessHolder | ProgramHolder) -> types_pb2.Holder:
    """Who keeps a map alive."""
    if isinstance(one, ProcessHolder):
        return types_pb2.Holder(process=types_pb2.Holder.Process(pid=one.pid, comm=one.comm))
    return types_pb2.Holder(program=types_pb2.Holder.Program(id=one.id, name=one.name))


def token(last: ListedMap) -> str:
    """What names the place behind a map: maps that come and go do not move it."""
    rank, text, number = last.order
    return f"{rank}:{text or number}"


def after(page_token: str) -> SortKey | None:
    """The place that a token names; None for the beginning.

    Raises:
        MapError: BAD_SPEC, it is none of ours.
    """
    if not page_token:
        return None
    rank, colon, rest = page_token.partition(":")
    if colon and rank in ("0", "1") and rest:
        return (int(rank), rest, 0)
    if colon and rank == "2" and rest.isascii() and rest.isdecimal():
        return (2, "", int(rest))
    raise convert.bad_spec(f"{page_token!r} is no page token; give back next_page_token as it came", "list")

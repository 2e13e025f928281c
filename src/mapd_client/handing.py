"""Between an answer that has a handle and the map that holds it: the session is alive, the codecs fit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES, MapType
from mapd_api.v1 import maps_pb2
from mapd_client import methods
from mapd_client.codec import Codec
from mapd_client.errors import MapdError, MapExists, SizeMismatch, Unreachable
from mapd_client.failures import Asked
from mapd_client.handle import MapHandle
from mapd_client.held import Tenure
from mapd_client.info import MapInfo
from mapd_client.link import Link
from mapd_client.percpu import PerCpu, is_per_cpu

H = TypeVar("H", bound=MapHandle)


async def in_session(link: Link, ask: Callable[[Tenure], Coroutine[Any, Any, H]]) -> H:
    """Open under the session; once more under a new one if the daemon has forgotten it.

    The daemon refuses an unknown session before it does anything, so nothing is done twice. A create
    is never made an ``exist_ok`` for that: if the second finds the map, the message says why it may.
    """
    session, tenure = await link.tenure()
    try:
        return await link.finished(ask(tenure), _closed)
    except MapdError as error:
        if error.reason not in (Reason.STALE_HANDLE, Reason.EPOCH_CHANGED):
            raise
        first = error
    session.forgotten(tenure)
    _, tenure = await link.tenure()
    try:
        return await link.finished(ask(tenure), _closed)
    except MapExists as error:
        raise MapExists(
            f"{error}; this was the second try, and the first may have made it (it ended with: {first})",
            reason=error.reason,
            errno=error.errno,
            operation=error.operation,
            map=error.map,
            metadata=error.metadata,
        ) from first


async def _closed(opened: MapHandle) -> None:
    await opened.aclose()


async def give_back(link: Link, handle: int, asked: Asked) -> None:
    """Close a handle that nobody will hold."""
    with suppress(Unreachable):  # the session's end closes it then
        await link.call(methods.CLOSE_MAP, maps_pb2.CloseMapRequest(handle=handle), asked, impatient=True)


def check_per_cpu(type: MapType | int, value: Codec[Any], asked: Asked) -> None:
    """Raises SizeMismatch unless exactly a per-CPU map has a per-CPU codec."""
    if (type in PER_CPU_TYPES) == is_per_cpu(value):
        return
    if is_per_cpu(value):
        what = f"{value!r} is for per-CPU maps, this one has one value per key"
    else:
        what = f"a per-CPU map has a value for each CPU: use PerCpu({value!r}), or its .sum() to read"
    raise SizeMismatch(f"{asked}: {what}", operation=asked.operation, map=asked.map)


def check_codecs(info: MapInfo, key: Codec[Any], value: Codec[Any], asked: Asked) -> None:
    """Raises SizeMismatch, with both numbers, unless the codecs describe the map's elements."""
    check_per_cpu(info.type, value, asked)
    for what, codec, size in (("key", key, info.key_size), ("value", value, info.value_size)):
        if codec.size != size:
            raise SizeMismatch(
                f"{asked}: {codec!r} has {codec.size} bytes, the map's {what}_size is {size}",
                operation=asked.operation,
                map=asked.map,
                metadata={"codec": str(codec.size), f"{what}_size": str(size)},
            )
    if isinstance(value, PerCpu) and value.stride != info.value_stride:
        raise SizeMismatch(
            f"{asked}: {value!r} has {value.stride} bytes for all CPUs, the map {info.value_stride}"
        )

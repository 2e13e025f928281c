"""Asking the daemon for facts of its host, and keeping a connection's ``HostFacts``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mapd_api.v1 import host_pb2
from mapd_client import hostinfo, methods
from mapd_client.codec import Codec
from mapd_client.errors import MapdError, PermissionDenied, Unsupported
from mapd_client.facts_codecs import needs_facts, with_facts
from mapd_client.failures import Asked
from mapd_client.hostinfo import HostInfo

if TYPE_CHECKING:
    from mapd_client.link import Link

_LOG: Final = logging.getLogger("mapd_client")
_ASKED: Final = Asked("host_info")


async def ask(link: Link, request: host_pb2.GetHostInfoRequest) -> HostInfo:
    """One question. Cancelling costs nothing.

    Raises:
        PermissionDenied: without the right ``host``.
        Unsupported: the daemon is older.
    """
    hostinfo.check(await link.server())
    return hostinfo.host_info((await link.call(methods.GET_HOST_INFO, request, _ASKED)).host)


async def renew(link: Link) -> None:
    """Facts as they are now; that there are none to be had is kept as well."""
    facts = link.facts
    ifindexes, cgroup_ids = asked = facts.begin()
    try:
        info = await ask(link, hostinfo.request(ifindexes=ifindexes, cgroup_ids=cgroup_ids))
    except (PermissionDenied, Unsupported) as error:
        facts.refuse(str(error))
    else:
        facts.take(info, asked)


async def renew_behind(link: Link) -> None:
    """The same, for who cannot wait: what is known stays where the daemon is not reached."""
    try:
        await renew(link)
    except MapdError as error:
        _LOG.debug("facts of the host were not renewed: %s", error)


async def known(link: Link, codec: Codec[Any]) -> Codec[Any]:
    """A codec with the facts of the daemon's host, where it needs any; they are asked for where none are fresh.

    Raises:
        Unreachable: the daemon.
    """
    if not needs_facts((codec,)):
        return codec
    if link.facts.stale:
        await renew(link)
    return with_facts(codec, link.facts)


async def known_hints(link: Link, hints: Mapping[str, Codec[Any]]) -> Mapping[str, Codec[Any]]:
    """``known`` for the codecs of fields."""
    return {path: await known(link, codec) for path, codec in hints.items()}

"""Metrics while the daemon runs: everything put together, and the port that they are told on."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager

import structlog

from mapd.access.authorize import Authorizer
from mapd.access.principal import ADMIN, Principal
from mapd.metrics.collect import sources
from mapd.metrics.contents import Contents
from mapd.metrics.http import Page, serving
from mapd.metrics.maps import Fill, Look, Looking
from mapd.metrics.parts import Parts
from mapd.metrics.settings import MetricsConfig, address_of
from mapd.start import StartError

_log = structlog.stdlib.get_logger("mapd.metrics")


@asynccontextmanager
async def exposed(config: MetricsConfig, parts: Parts) -> AsyncGenerator[str]:
    """Where the metrics are, inside the block. Enter it before, and leave it after, the block in which calls drain.

    Raises:
        StartError: the address cannot be listened on.
    """
    guard, policy, own = parts.guard, parts.policy, sources(parts)
    with _listening(config.listen) as sock, ThreadPoolExecutor(1, "mapd-metrics") as thread:
        admin = Principal(name=ADMIN, namespace=policy.policy.members[ADMIN].namespace)
        looks: list[Look] = []
        if config.maps:
            looks.append(Fill(parts.host, config.maps))
        if config.contents:
            looks.append(Contents(parts.host, Authorizer(policy), admin, config.contents, thread))
        async with aclosing(Looking(looks, config.every_s)) as looking:

            async def page(*, families: bool) -> Page:
                lacking = [f"{what}: {why}" for what, why in guard.services.lost.items()]
                if guard.draining.is_set():
                    lacking.append("the daemon is stopping")
                if not families:
                    return Page((), "; ".join(lacking))
                seen = await looking.families()
                return Page([*(one for source in own for one in source()), *seen], "; ".join(lacking))

            async with serving(sock, page, thread):
                host, port = sock.getsockname()[:2]
                address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                _log.info("metrics", address=address, maps=config.maps, contents=len(config.contents))
                yield address


def _listening(listen: str) -> socket.socket:
    host, port = address_of(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise StartError(f"[metrics] listen: {listen}: cannot listen there ({error.strerror})") from error

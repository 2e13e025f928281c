"""TCP, where it is switched on: nothing of it is loaded otherwise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import msgspec

from mapd import TLS_1_3_ALONE
from mapd.access.policy.holder import PolicyHolder
from mapd.config import TcpConfig
from mapd.rpc.guard import Guard, Handler
from mapd.start import StartError


@asynccontextmanager
async def tcp(
    config: TcpConfig, policy: PolicyHolder, guard: Guard, handlers: Mapping[str, Handler]
) -> AsyncGenerator[tuple[str, ...]]:
    """Where clients may connect inside the block; nowhere unless the configuration names addresses.

    Enter it before, and leave it after, the block at whose end the daemon drains.

    Raises:
        StartError: certificates, key or an address cannot be used; says what to do.
    """
    if not config.listen:
        yield ()
        return
    from mapd.rpc.tcp import TcpSettings, listening
    from mapd.rpc.tls_files import TlsError

    settings = TcpSettings(**msgspec.structs.asdict(config))
    serving = listening(settings, lambda: policy.policy, guard, handlers, only_1_3=TLS_1_3_ALONE)
    try:
        server = await serving.__aenter__()
    except TlsError as error:
        raise StartError(f"[tcp] {error}") from error
    try:
        yield server.addresses
    finally:
        await serving.__aexit__(None, None, None)

"""What has counted something, and whether it is told: all that the daemon needs to know of metrics.

Nothing of prometheus-client is loaded unless an address is configured.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module

from mapd.access.policy.holder import PolicyHolder
from mapd.bpf import Kernel
from mapd.maps.store import MapStore
from mapd.metrics.settings import MetricsConfig
from mapd.metrics.syscalls import CountingKernel
from mapd.rpc.guard import Guard
from mapd.rpc.server_info import Facts
from mapd.runtime.adopting import Adopting
from mapd.runtime.audit_log import AuditLog
from mapd.runtime.budget import ByteBudget
from mapd.runtime.host import MapHost
from mapd.runtime.leases import Leases
from mapd.runtime.pool import SyscallPool
from mapd.runtime.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one daemon. ``audit``: None where there is no trail."""

    facts: Facts
    guard: Guard
    host: MapHost
    pool: SyscallPool
    budget: ByteBudget
    sessions: Sessions
    store: MapStore
    policy: PolicyHolder
    leases: Leases
    adopting: Adopting
    audit: AuditLog | None


def prepare(config: MetricsConfig) -> None:
    """Import what ``telling`` needs, where it tells anything: before all that is imported is frozen.

    Behind that, each full collection of garbage looked through it: 3 to 6% of the daemon's CPU.
    """
    if config.listen:
        import_module("mapd.metrics.expose")


def counting(kernel: Kernel, config: MetricsConfig) -> Kernel:
    """The kernel itself, or one that counts what is asked of it, where that is told."""
    return CountingKernel(kernel) if config.listen else kernel


@asynccontextmanager
async def telling(config: MetricsConfig, parts: Parts) -> AsyncGenerator[str]:
    """Where Prometheus may ask, inside the block; "" where metrics are off.

    Enter it before, and leave it after, the block in which calls drain: that the daemon stops is told too.

    Raises:
        StartError: the address cannot be listened on.
    """
    if not config.listen:
        yield ""
        return
    from mapd.metrics.expose import exposed

    async with exposed(config, parts) as address:
        yield address

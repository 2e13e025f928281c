"""The daemon put together: what is made in which order, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from mapd import listen
from mapd.access.authorize import Authorizer
from mapd.access.policy.holder import NOBODY_ELSE, PolicyHolder
from mapd.access.principal import ADMIN
from mapd.access.quotas import in_force, owners_in_force
from mapd.banner import banner
from mapd.bpf import Kernel, LinuxKernel, effective_capabilities
from mapd.config import Config
from mapd.health import dependencies
from mapd.isolation import SINGLE_PROCESS, TWO_PROCESSES, Isolation
from mapd.maps import trials
from mapd.maps.program_trials import try_programs
from mapd.maps.programs import Programs
from mapd.maps.store import MapStore
from mapd.metrics.parts import Parts, counting, telling
from mapd.notify import notify
from mapd.openerwatch import watching_opener
from mapd.reload import Reloading, stamp, status
from mapd.rpc import health
from mapd.rpc.access import AccessHandlers
from mapd.rpc.apply import Applier
from mapd.rpc.auditing import Auditor
from mapd.rpc.elements import ElementHandlers
from mapd.rpc.guard import Guard, Handler
from mapd.rpc.host import HostHandlers
from mapd.rpc.leases import LeaseHandlers
from mapd.rpc.maps import MapHandlers
from mapd.rpc.server_info import Facts
from mapd.rpc.servers import Servers
from mapd.rpc.session import Age, SessionHandlers
from mapd.rpc.socket_trials import Others
from mapd.rpc.sockets import InstanceLock, clean_staging
from mapd.runtime.adopting import Adopting
from mapd.runtime.audit_file import AuditError
from mapd.runtime.audit_log import AuditLog
from mapd.runtime.budget import ByteBudget
from mapd.runtime.handles import HandleTable
from mapd.runtime.host import MapHost
from mapd.runtime.leases import Leases
from mapd.runtime.pool import Lane, LaneSize, SyscallPool
from mapd.runtime.sessions import Sessions
from mapd.runtime.shares import Shares
from mapd.runtime.watch import PINS_CHECK_S, watching_pins
from mapd.start import (
    BY_PROGRAM,
    StartError,
    check_bpffs,
    make_facts,
    memory_kernel,
    names_locked,
    open_blobs,
    resolve,
    start_policy,
)
from mapd_api import contract, limits

_log = structlog.stdlib.get_logger("mapd")

BE_OTHERS: Final = frozenset({"CAP_SETUID", "CAP_SETGID"})
"""With these a process of its own can try who may connect."""

FAREWELL_S: Final = 0.1
"""Once nothing runs any more, sessions have so long to end by themselves: what a client sent before it read the
goodbye is refused as not executed, instead of being cut off."""

EXIT_MARGIN_S: Final = 0.5
"""After the grace, and this, the process ends even if a thread is stuck in a syscall."""


class OpenerGone(Exception):
    """The process that held the capabilities ended, and this one with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A running daemon, for the banner and for tests.

    Attributes:
        socket: the admin's.
        tcp: addresses with ports, where TCP is switched on.
        metrics: the address with its port, where metrics are told, else "".
    """

    config: Config
    facts: Facts
    socket: Path
    capabilities: frozenset[str]
    host: MapHost
    leases: Leases
    adopting: Adopting
    guard: Guard
    sessions: Sessions
    policy: PolicyHolder
    servers: Servers
    reloading: Reloading
    tcp: tuple[str, ...]
    metrics: str
    audit: AuditLog | None


@asynccontextmanager
async def running(
    config: Config,
    kernel: Kernel | None = None,
    isolation: Isolation | None = None,
    *,
    pins_check_s: float = PINS_CHECK_S,
) -> AsyncGenerator[Ready]:
    """A daemon that serves inside the block and has ended, all of it, after it.

    ``kernel`` stands in for the configured backend's (a faulty one, in tests). ``isolation``: what this process was
    given before it locked itself in; without, it does everything itself. ``pins_check_s``: how often the pins are
    looked at, in seconds.

    Raises:
        PolicyError, StartError, SocketError, ContractError: before anything can be connected to.
    """
    seen = stamp(Path(config.daemon.policy))
    policy = start_policy(config)
    backend = config.daemon.backend
    if backend == "memory":
        in_memory, names_root = memory_kernel(config)
        kernel = kernel or in_memory
    elif isolation is not None:
        kernel, names_root = kernel or isolation.kernel, isolation.names_root
    else:
        names_root = check_bpffs(config)
    runtime_dir = Path(config.daemon.runtime_dir)
    lock = InstanceLock.acquire(runtime_dir)
    try:
        clean_staging(runtime_dir)
        capabilities = effective_capabilities() if isolation is None else isolation.capabilities
        facts = make_facts(names_root, capabilities, backend)
        facts = replace(facts, features=(*facts.features, *_apart(isolation)))
        store = MapStore(
            kernel=counting(kernel or LinuxKernel(), config.metrics),
            possible_cpus=facts.possible_cpus,
            boot_id=facts.boot_id,
            names_root=names_root,
            owner=os.geteuid() if isolation is None else isolation.names_owner,
            pin_roots=config.daemon.pin_roots,
            blobs=None if facts.backend == "memory" else open_blobs(config, facts.boot_id),
        )
        alone = backend == "kernel" and isolation is None
        async with names_locked(names_root, alone=alone), _pool(config) as pool:
            trial = partial(trials.try_types, store.kernel, facts.possible_cpus)
            facts = replace(facts, trials=await pool.run(Lane.SLOW, "trials", trial))
            store.types = trials.served(facts.trials)
            host = MapHost(
                store,
                pool,
                HandleTable(shares=Shares(in_force(policy))),
                budget := ByteBudget(reserve=limits.DUMP_RESERVE_BYTES),
                owners=owners_in_force(policy),
                inline_elements=config.pool.inline_elements,
                memory=None if isolation is None else isolation.memory,
            )
            async with _audit(config, facts.epoch) as log, _programs(config, store, pool):
                audit = Auditor(log, reads=config.audit.reads, handles=host.handles)
                guard = Guard(Authorizer(policy), host.rates, audit)
                adopting = Adopting(store.adoption, pool)
                await adopting.adopt()
                leases = Leases(store, host.reach, pool, ended=audit.expired)
                await leases.adopt()
                names = store.programs.names
                more = [feature for feature, program in BY_PROGRAM.items() if program in names]
                facts = replace(facts, programs=names, features=(*facts.features, *more))
                # Handles last: what runs while the server drains needs them.
                sessions = Sessions(host.handles, facts.epoch)
                conversations = SessionHandlers(Applier(host), sessions, guard, _age(config))
                handlers = _handlers(host, facts, guard, conversations, leases)
                others = _others(isolation, capabilities)
                servers = Servers(runtime_dir, guard, handlers, pool, sessions.close_of, others=others)
                reloading = Reloading(Path(config.daemon.policy), policy, servers, pool, seen)
                parts = Parts(
                    facts=facts,
                    guard=guard,
                    host=host,
                    pool=pool,
                    budget=budget,
                    sessions=sessions,
                    store=store,
                    policy=policy,
                    leases=leases,
                    adopting=adopting,
                    audit=log,
                )
                async with (
                    _idle_handles(host.handles),
                    watching_pins(host, adopting, pins_check_s),
                    aclosing(conversations),
                    telling(config.metrics, parts) as metrics,
                    listen.tcp(config.tcp, policy, guard, handlers) as tcp,
                    _serving(config, policy, servers, guard),
                    reloading.watching(),
                    health.watching(guard.services, dependencies(isolation, _denying(config, log))),
                    leases.kept(),
                ):
                    yield Ready(
                        config=config,
                        facts=facts,
                        socket=servers.sockets[ADMIN],
                        capabilities=capabilities,
                        host=host,
                        leases=leases,
                        adopting=adopting,
                        guard=guard,
                        sessions=sessions,
                        policy=policy,
                        servers=servers,
                        reloading=reloading,
                        tcp=tcp,
                        metrics=metrics,
                        audit=log,
                    )
    finally:
        lock.release()


@asynccontextmanager
async def _audit(config: Config, epoch: str) -> AsyncGenerator[AuditLog | None]:
    """The audit trail, if there is one; its last line is written behind everything else."""
    settings = config.audit
    if not settings.path:
        yield None
        return
    try:
        log = AuditLog(settings.path, epoch=epoch, on_full=settings.on_full, queue=settings.queue)
    except AuditError as error:
        raise StartError(str(error)) from error
    try:
        yield log
    finally:
        await asyncio.to_thread(log.close, EXIT_MARGIN_S / 2)


def _denying(config: Config, log: AuditLog | None) -> AuditLog | None:
    """The trail without which nothing is changed."""
    return log if config.audit.on_full == "deny" else None


@asynccontextmanager
async def _pool(config: Config) -> AsyncGenerator[SyscallPool]:
    size = config.pool
    usable = os.sched_getaffinity(0)
    cpu = None if size.cpu < 0 else size.cpu
    if cpu is not None and cpu not in usable:
        raise StartError(
            f"[pool] cpu = {cpu}: mapd may not run there; it may use "
            f"{', '.join(map(str, sorted(usable)))}; name one of these, or -1 for none"
        )
    pool = SyscallPool(
        {
            Lane.POINT: LaneSize(threads=size.point_threads, queue=size.queue),
            Lane.BULK: LaneSize(threads=size.bulk_threads, queue=size.queue),
            Lane.SLOW: LaneSize(threads=size.slow_threads, queue=size.queue),
        },
        cpu=cpu,
    )
    try:
        if cpu is not None:
            # The loop's own thread, and those that gRPC makes from now on; the pool's are there already.
            os.sched_setaffinity(0, {cpu})
        yield pool
    finally:
        os.sched_setaffinity(0, usable)
        if not await pool.close(EXIT_MARGIN_S / 2):
            _log.warning("a thread is still inside a syscall; leaving it behind")


def _age(config: Config) -> Age:
    return Age(limit=config.server.max_connection_age_s, grace=config.server.max_connection_age_grace_s)


@asynccontextmanager
async def _programs(config: Config, store: MapStore, pool: SyscallPool) -> AsyncGenerator[None]:
    """The store's programs and their scratch: what this kernel loads is used, and closed at the end."""
    size, kernel = config.pool, store.kernel
    # The loop's own turn is a thread too.
    slots = size.point_threads + size.bulk_threads + size.slow_threads + 1
    trial = partial(try_programs, kernel, slots, store.possible_cpus)
    store.programs = await pool.run(Lane.SLOW, "programs", trial, discard=Programs.close)
    try:
        yield
    finally:
        store.programs.close()


@asynccontextmanager
async def _idle_handles(handles: HandleTable) -> AsyncGenerator[None]:
    """Close what nobody uses, and at the end everything."""

    async def expire() -> None:
        while True:
            await asyncio.sleep(limits.HANDLE_IDLE_S / 10)
            handles.close_idle()

    # No TaskGroup: it would wrap a reason not to start into a group, which nobody looks into.
    expiry = asyncio.create_task(expire(), name="handle expiry")
    try:
        yield
    finally:
        expiry.cancel()
        await asyncio.wait({expiry})
        handles.close_all()


def _apart(isolation: Isolation | None) -> tuple[str, ...]:
    """Of maps in memory neither: one process, which is locked in."""
    if isolation is None:
        return (SINGLE_PROCESS,)
    return () if isolation.kernel is None else (TWO_PROCESSES,)


def _others(isolation: Isolation | None, capabilities: frozenset[str]) -> Callable[[], Others | None]:
    """What tries who may connect: locked in, the one process that was started before, and none after that."""
    if isolation is None:
        return Others.start if capabilities >= BE_OTHERS else lambda: None
    waiting = [isolation.others] if isolation.others is not None else []
    return lambda: waiting.pop() if waiting else None


@asynccontextmanager
async def _serving(
    config: Config, policy: PolicyHolder, servers: Servers, guard: Guard
) -> AsyncGenerator[None]:
    """Every principal's server inside the block, drained at its end."""
    try:
        await servers.start(policy.policy, resolve(policy.policy))
        yield
        _log.info("draining", calls=guard.running, grace_s=config.daemon.grace_s)
        notify("STOPPING=1")
        await servers.drain()
        if await guard.wait_idle(config.daemon.grace_s):
            await guard.wait_ended(min(FAREWELL_S, config.daemon.grace_s))
        else:
            _log.warning("grace is over, ending calls", calls=guard.running)
    finally:
        await servers.stop()
        await guard.wait_ended(EXIT_MARGIN_S / 2)


def _handlers(
    host: MapHost, facts: Facts, guard: Guard, conversations: SessionHandlers, leases: Leases
) -> Mapping[str, Handler]:
    """Every method's handler by full name."""
    maps = MapHandlers(host, facts, leases)
    elements = {**ElementHandlers(host, facts.epoch, guard.draining).methods(), **conversations.methods()}
    return {
        contract.full_name(method): methods[method.name]
        for service, methods in (
            (contract.MAP_SERVICE, maps.methods()),
            (contract.ELEMENT_SERVICE, elements),
            (contract.ACCESS_SERVICE, AccessHandlers(host).methods()),
            (contract.HOST_SERVICE, HostHandlers(host).methods()),
            (contract.LEASE_SERVICE, LeaseHandlers(leases, maps).methods()),
        )
        for method in service.methods
    }


async def serve(
    config: Config, *, until_stdin_ends: bool = False, isolation: Isolation | None = None
) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends at once. SIGHUP: the policy is read again.

    ``until_stdin_ends``: the end of standard input is such a signal too. What is written to it is not looked at.

    Raises:
        OpenerGone: it ended, so this process drained and ended too.
    """
    gone = False
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = time.monotonic()

    def begin_to_stop() -> None:
        if not stop.is_set():
            stop.set()
            _end_in_time(config.daemon.grace_s + EXIT_MARGIN_S)

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        begin_to_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    asked_early = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, asked_early.set)  # until the policy is followed
    if until_stdin_ends:
        _at_end_of_stdin(loop, begin_to_stop)
    opener = isolation.ended if isolation is not None else None

    def on_opener_end() -> None:
        nonlocal gone
        gone = True
        begin_to_stop()

    async with watching_opener(isolation, on_opener_end), running(config, isolation=isolation) as ready:
        banner(ready.config, ready.facts, ready.policy.policy, ready.capabilities, isolation, ready.tcp)
        for line in isolation.missing if isolation is not None else ("--single-process: no sandbox",):
            _log.warning("not locked in as it could be", missing=line)
        if isolation is not None and isolation.one_user:
            _log.warning("both processes run as one user", why=isolation.one_user)
        _log.info(
            "ready",
            socket=str(ready.socket),
            tcp=ready.tcp,
            principals=len(ready.servers.sockets),
            policy="none" if ready.policy.policy is NOBODY_ELSE else ready.policy.policy.version,
            epoch=ready.facts.epoch,
            backend=ready.facts.backend,
            profile=ready.facts.profile,
            processes=1 if opener is None else 2,
            seconds=round(time.monotonic() - began, 3),
        )
        loop.add_signal_handler(signal.SIGHUP, _hangup, ready)
        if asked_early.is_set():
            _hangup(ready)
        notify("READY=1", status(ready.servers, ready.policy))
        await stop.wait()
    if gone:
        raise OpenerGone
    _log.info("stopped")


def _hangup(ready: Ready) -> None:
    """SIGHUP: the policy is read again, and the audit trail goes on in the file that is at its path now."""
    ready.reloading.ask()
    if ready.audit is not None:
        ready.audit.reopen()


def _at_end_of_stdin(loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
    """Call ``ended`` when whoever holds the other end of the pipe has gone.

    Raises:
        StartError: standard input is a file, whose end is nobody's.
    """
    stdin = sys.stdin.fileno()

    def on_readable() -> None:
        if not os.read(stdin, 4_096):
            loop.remove_reader(stdin)
            ended()

    try:
        loop.add_reader(stdin, on_readable)
    except PermissionError as error:
        raise StartError("--until-stdin-ends: standard input is no pipe, and would never end") from error


def _end_in_time(seconds: float) -> None:
    """End the process when the drain has not: a thread in a syscall cannot be cancelled."""

    def end() -> None:
        _log.error("did not stop in time, ending the process", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()

"""The daemon in its process, locked in or not: the first module that imports grpc and numpy."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator

from mapd import logs
from mapd.access.policy.file import PolicyError
from mapd.config import Config
from mapd.daemon import OpenerGone, serve
from mapd.isolation import Isolation
from mapd.launch import cgroup
from mapd.launch.link import OpenerLink
from mapd.launch.people import People
from mapd.launch.renewing import Renewing
from mapd.launch.supervisor import OPENER_GONE
from mapd.metrics.parts import prepare
from mapd.opener.renewed import RenewedKernel
from mapd.rpc.socket_trials import Others
from mapd.rpc.sockets import SocketError
from mapd.sandbox import Locked
from mapd.start import StartError
from mapd_api.contract import ContractError


def run_locked(
    config: Config,
    link: OpenerLink | None,
    locked: Locked,
    chosen: People,
    others: Others | None,
    *,
    until_stdin_ends: bool,
) -> int:
    """Serve with what the lock left; the exit status.

    Raises:
        LaunchError: the opener could not be locked in.
    """
    if link is None:
        alone = Isolation(
            kernel=None,
            capabilities=frozenset(),
            names_root="",
            names_owner=locked.uid,
            lines=(_of("this process", locked.uid, locked.landlock, ()),),
            missing=locked.missing,
            others=others,
        )
        return run(config, alone, until_stdin_ends=until_stdin_ends)
    greeting = link.greeting()
    kernel = RenewedKernel(link.sock)
    try:
        with link.watch() as ended:
            path = config.opener.socket
            apart = Isolation(
                kernel=kernel,
                capabilities=frozenset(greeting.capabilities),
                names_root=greeting.names_root,
                names_owner=greeting.uid,
                lines=(
                    _of("this process", locked.uid, locked.landlock, ()),
                    _of("opener", greeting.uid, greeting.landlock, greeting.capabilities),
                ),
                one_user=tuple(_one_user(locked, chosen)),
                missing=(*locked.missing, *(f"opener: {line}" for line in greeting.missing)),
                others=others,
                memory=greeting.memory - cgroup.RESERVE if greeting.memory else None,
                ended=ended,
                renewing=Renewing(path=path, kernel=kernel, ended=ended, sock=link.sock, first=greeting)
                if path
                else None,
            )
            return run(config, apart, until_stdin_ends=until_stdin_ends)
    finally:
        kernel.close()


def run(config: Config, isolation: Isolation | None, *, until_stdin_ends: bool) -> int:
    """Serve until a signal; the exit status."""
    # What is imported stays: a full collection, in which nobody is served, took 20 to 40 ms to look through it.
    prepare(config.metrics)
    gc.freeze()
    gc.enable()
    logs.configure(config.daemon.log_format, config.daemon.log_level)
    try:
        asyncio.run(serve(config, until_stdin_ends=until_stdin_ends, isolation=isolation))
    except PolicyError as error:
        for line in error.faults:
            sys.stderr.write(f"mapd: {line}\n")
        return 2
    except (StartError, SocketError, ContractError) as error:
        return _cannot_start(error)
    except BaseExceptionGroup as group:
        # What a task group of the daemon's wraps: the reason itself is what a person needs.
        reasons, others = group.split((StartError, SocketError, ContractError))
        if reasons is None or others is not None:
            raise
        return _cannot_start(*_leaves(reasons))
    except OpenerGone:
        return OPENER_GONE
    return 0


def _cannot_start(*reasons: BaseException) -> int:
    for reason in reasons:
        sys.stderr.write(f"mapd: cannot start: {reason}\n")
    return 1


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


def _one_user(locked: Locked, chosen: People) -> Iterator[str]:
    if chosen.together:
        yield "ONE USER: capabilities alone keep the two apart"
        if not locked.uid:
            # landlock judges neither chmod(2) nor setxattr(2), and an owner needs no capability for them.
            yield "It is root, whose files' modes and access lists the front can change: for trying out"
        yield from chosen.together


def _of(name: str, uid: int, landlock: int, capabilities: tuple[str, ...]) -> str:
    walls = f"seccomp, landlock {landlock}" if landlock else "seccomp, no landlock"
    return f"{name}: uid {uid}, {' '.join(capabilities) or 'no capability'}; {walls}"

"""R2: histories of many clients, recorded while the daemon is killed, stopped and lied to by its kernel."""

from __future__ import annotations

import asyncio

from tests.reliability.figures import Figures, Size
from tests.reliability.kit.load import Load, loading, now
from tests.reliability.kit.nemesis import Nemesis, unleashed
from tests.reliability.kit.outcome import NAME, Outcome, make, sweep
from tests.reliability.kit.points import Rules
from tests.reliability.kit.worker import Settings
from tests.support.daemon import Place

CLIENTS = 8
UNARY = 3
SERVED_S = 30.0
ERRNOS = 0.05

REASONS = ("KERNEL_MEMORY", "BUSY")
"""What a client is told where the kernel had no memory, or was busy three times in a row."""


def disturb(nemesis: Nemesis, load: Load, rounds: int, operations: int, stopped_s: float) -> None:
    """Kill the front, stop it, kill the opener, stop it; and again. Every syscall on elements may fail meanwhile."""
    since = now()
    for number in range(rounds):
        assert load.wait_served(since, operations, timeout=SERVED_S), f"not served again: {load.said}"
        nemesis.pause(0.0, 0.3)
        what = "opener" if number % 4 >= 2 else "front"
        if number % 2:
            nemesis.stop(what, stopped_s)
            since = now()
        else:
            nemesis.kill(what)
            since = nemesis.strikes[-1].at
            nemesis.start(Rules(errnos=ERRNOS, seed=number))
            nemesis.wait_ready()
    assert load.wait_served(since, operations, timeout=SERVED_S), f"not served again: {load.said}"


def test_histories_under_kills_stops_and_failing_syscalls_are_linearizable(
    place: Place, size: Size, figure: Figures
) -> None:
    rounds = size.pick(quick=4, full=32)
    with unleashed(place, seed=2) as nemesis:
        nemesis.start(Rules(errnos=ERRNOS, seed=99))
        nemesis.wait_ready()
        asyncio.run(make(place.socket))
        settings = Settings(
            socket=str(place.socket),
            name=NAME,
            clients=CLIENTS,
            unary=UNARY,
            seed=2,
            began=now(),
            keys=20,
        )
        with loading(settings) as load:
            disturb(nemesis, load, rounds, size.pick(quick=250, full=1_500), 0.2 if size.quick else 1.0)
            assert load.end() == 0
            # Without faults: what is there now is what the map is asked for.
            nemesis.kill("front")
            nemesis.start()
            nemesis.wait_ready()
            asyncio.run(sweep(place.socket, load.history))
            outcome = Outcome.of(load.history)
            keys = len(load.history.by_key())
            failed = sum(
                count for why, count in outcome.reasons.items() if any(each in why for each in REASONS)
            )
            total = len(load.history.operations)
            figure("R2", "kills and stops", len(nemesis.strikes) - 1, at_least=rounds)
            figure("R2", "operations refused for a planted errno", failed, at_least=1, of=total)
            figure("R2", "outcomes unknown, and said so", outcome.unknown)
            violations = [*outcome.lost, *outcome.ghosts]
            assert not violations, "\n".join(map(str, violations))
            figure("R2", "keys of histories that cannot be", len(violations), at_most=0, of=keys)

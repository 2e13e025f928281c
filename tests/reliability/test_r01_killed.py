"""R1: the front and the opener killed under load, again and again: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio

from tests.reliability.figures import Figures, Size
from tests.reliability.kit.load import Load, loading, now
from tests.reliability.kit.nemesis import Nemesis, unleashed
from tests.reliability.kit.outcome import NAME, Outcome, make, outages, percentile, sweep
from tests.reliability.kit.worker import Settings
from tests.support.daemon import Place

CLIENTS = 6
UNARY = 2
SERVED_S = 20.0


def kill_and_start(nemesis: Nemesis, load: Load, rounds: int, operations: int) -> None:
    """Every second time at a point, else at a random moment; two times in three the front.

    Each round begins when every client has been served again, and so many operations have been acknowledged.
    """
    since = now()
    point = None
    for number in range(rounds):
        assert load.wait_served(since, operations, timeout=SERVED_S), f"not served again: {load.said}"
        what = "opener" if number % 3 == 2 else "front"
        if point is None:
            nemesis.pause(0.005, 0.15)
            nemesis.kill(what)
            point = nemesis.any_point()
        else:
            nemesis.kill_at_point(point.point, what)
            point = None
        since = nemesis.strikes[-1].at
        nemesis.start(point)
        nemesis.wait_ready()
    assert load.wait_served(since, operations, timeout=SERVED_S), f"not served again: {load.said}"


def things(place: Place) -> set[str]:
    """Every file, socket, folder and pin of a daemon."""
    folders = (place.runtime_dir, place.bpffs, place.root / "state")
    return {str(path) for folder in folders for path in folder.rglob("*")}


def test_no_acknowledged_write_is_lost_and_no_result_made_up_when_front_and_opener_are_killed(
    place: Place, size: Size, figure: Figures
) -> None:
    rounds = size.pick(quick=6, full=150)
    with unleashed(place, seed=1) as nemesis:
        nemesis.start()
        nemesis.wait_ready()
        asyncio.run(make(place.socket))
        before = things(place)
        settings = Settings(
            socket=str(place.socket), name=NAME, clients=CLIENTS, unary=UNARY, seed=1, began=now()
        )
        with loading(settings) as load:
            kill_and_start(nemesis, load, rounds, size.pick(quick=60, full=500))
            assert load.end() == 0
            asyncio.run(sweep(place.socket, load.history))
            outcome = Outcome.of(load.history)
            seconds = outages(load.history, [strike.at for strike in nemesis.strikes])
            at_points = sum(strike.what.count(" ") > 1 for strike in nemesis.strikes)
            figure("R1", "kill -9 of front and opener", len(nemesis.strikes), at_least=rounds)
            figure("R1", "of them standing at a failpoint", at_points, at_least=rounds // 4)
            figure("R1", "acknowledged writes lost", len(outcome.lost), at_most=0, of=outcome.acknowledged)
            figure("R1", "ghost results", len(outcome.ghosts), at_most=0, of=outcome.answers)
            figure("R1", "outcomes unknown, and said so", outcome.unknown)
            left = things(place) ^ before
            assert not left, left
            figure("R1", "files, sockets and pins left behind", len(left), at_most=0)
            # In quick other tests run beside it, and only what hangs is caught.
            bar = 10.0 if size.quick else 1.0
            figure("R1", "recovery p50", percentile(seconds, 0.5), unit="s")
            figure("R1", "recovery p99", percentile(seconds, 0.99), at_most=bar, unit="s")

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
    rounds = size.pick(quick=5, full=150)
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
            at_points = sum(strike.what.count(" ") > 1 for strike in nemesis.strikes)
            figure("R1", "kill -9 of front and opener", len(nemesis.strikes), at_least=rounds)
            figure("R1", "of them standing at a failpoint", at_points, at_least=size.pick(quick=1, full=60))
            tell(figure, "", outcome)
            left = things(place) ^ before
            assert not left, left
            figure("R1", "files, sockets and pins left behind", len(left), at_most=0)
            served(figure, "", size, outages(load.history, [strike.at for strike in nemesis.strikes]))


def tell(figure: Figures, how: str, outcome: Outcome) -> None:
    """The figures of what was recorded."""
    assert not outcome.lost, "\n".join(map(str, outcome.lost))
    assert not outcome.ghosts, "\n".join(map(str, outcome.ghosts))
    figure("R1", f"{how}acknowledged writes lost", len(outcome.lost), at_most=0, of=outcome.acknowledged)
    figure("R1", f"{how}ghost results", len(outcome.ghosts), at_most=0, of=outcome.answers)
    figure("R1", f"{how}outcomes unknown, and said so", outcome.unknown)


def served(figure: Figures, how: str, size: Size, seconds: list[float]) -> None:
    """The figures of how long a client was not served, behind each kill."""
    # In quick other tests run beside it, and only what hangs is caught.
    bar = 10.0 if size.quick else 1.0
    figure("R1", f"{how}recovery p50", percentile(seconds, 0.5), unit="s")
    figure("R1", f"{how}recovery p99", percentile(seconds, 0.99), at_most=bar, unit="s")


def test_the_daemons_own_supervisor_brings_back_both_when_one_is_killed(
    place: Place, size: Size, figure: Figures
) -> None:
    with unleashed(place, seed=3) as nemesis:
        nemesis.start_supervised()
        nemesis.wait_ready()
        asyncio.run(make(place.socket))
        settings = Settings(
            socket=str(place.socket), name=NAME, clients=CLIENTS, unary=UNARY, seed=3, began=now()
        )
        with loading(settings) as load:
            since = now()
            for number in range(size.pick(quick=2, full=20)):
                assert load.wait_served(since, 100, timeout=SERVED_S), f"not served again: {load.said}"
                if not size.quick:
                    nemesis.pause(2.0, 2.5)  # more than five starts in ten seconds are held up
                nemesis.kill("opener" if number % 2 else "front")
                since = nemesis.strikes[-1].at
            assert load.wait_served(since, 100, timeout=SERVED_S), f"not served again: {load.said}"
            assert load.end() == 0
            asyncio.run(sweep(place.socket, load.history))
            tell(figure, "supervised: ", Outcome.of(load.history))
            served(figure, "supervised: ", size, outages(load.history, [each.at for each in nemesis.strikes]))

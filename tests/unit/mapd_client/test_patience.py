"""Which calls are asked again, for how long, and what is said when that was in vain."""

from __future__ import annotations

import pytest

from mapd_api.reasons import Reason
from mapd_client import patience
from mapd_client.errors import (
    DeadlineExceeded,
    MapdError,
    MapNotFound,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
)
from mapd_client.failures import Asked
from mapd_client.patience import TRIES, Patience, may_ask_again

READ = Asked("count", "flows")
WRITE = Asked("pin", "flows", mutates=True)
TWICE = Asked("freeze", "flows", mutates=True, repeatable=True)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


@pytest.mark.parametrize(
    ("error", "asked", "again"),
    [
        (Unavailable("nobody"), READ, True),
        (NotSent("nobody"), WRITE, True),
        (Unavailable("going", reason=Reason.DRAINING), WRITE, True),
        (OutcomeUnknown("broke"), WRITE, False),
        (OutcomeUnknown("broke"), TWICE, True),
        (OutcomeUnknown("its reply is not kept", reason=Reason.OUTCOME_UNKNOWN), TWICE, False),
        (DeadlineExceeded("late"), READ, False),
        (Unavailable("full", reason=Reason.BUSY), READ, False),
        (Unavailable("stale", reason=Reason.STALE_HANDLE), READ, False),
        (QuotaExceeded("too many", reason=Reason.QUOTA), READ, False),
        (MapNotFound("none", reason=Reason.MAP_NOT_FOUND), READ, False),
        (PermissionDenied("who"), READ, False),
        (MapdError("a fault"), READ, False),
    ],
    ids=str,
)
def test_only_what_was_not_executed_or_may_be_twice_is_asked_again(
    error: MapdError, asked: Asked, again: bool
) -> None:
    assert may_ask_again(error, asked) is again


def test_pauses_grow_to_a_twentieth_of_a_second(clock: Clock) -> None:
    del clock
    waits = Patience(READ, 30)
    error = Unavailable("nobody")
    error.connected = False
    pauses = [waits.pause(error) for _ in range(40)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.01, 0.05)


def test_the_last_try_leaves_time_for_itself_and_the_last_words_say_how_long_it_was_tried(
    clock: Clock,
) -> None:
    waits = Patience(WRITE, 2)
    error = NotSent("pin flows: no daemon there", operation="pin", map="flows")
    error.connected = False
    while clock.now < 101.8:
        clock.now += waits.pause(error)
        assert waits.left() >= 0.1
    clock.now = 101.95
    in_vain = r"^pin flows: no daemon there; asked again for 2 s$"
    with pytest.raises(NotSent, match=in_vain) as caught:
        waits.pause(error)
    assert (caught.value.connected, caught.value.map) == (False, "flows")
    with pytest.raises(NotSent, match=in_vain):
        waits.left()


def test_a_first_failure_is_told_as_it_is(clock: Clock) -> None:
    waits = Patience(READ, 2)
    clock.now += 5
    error = Unavailable("broke")
    with pytest.raises(Unavailable) as caught:
        waits.pause(error)
    assert caught.value is error


def test_a_call_that_breaks_its_connection_each_time_is_given_up(clock: Clock) -> None:
    del clock
    waits = Patience(READ, 30)
    for _ in range(TRIES - 1):
        waits.pause(Unavailable("broke"))
    with pytest.raises(Unavailable, match=f"^broke; given up after {TRIES} tries$"):
        waits.pause(Unavailable("broke"))


def test_a_late_answer_behind_failures_says_what_came_before(clock: Clock) -> None:
    waits = Patience(READ, 3)
    clock.now += waits.pause(Unavailable("count flows: nobody there"))
    with pytest.raises(
        DeadlineExceeded, match=r"^count flows: no answer within 3 s; before: count flows: nobody"
    ):
        waits.pause(DeadlineExceeded("count flows: no answer within 0.2 s"))


def test_what_must_not_be_executed_twice_keeps_away_from_a_daemon_that_is_going(clock: Clock) -> None:
    del clock
    going = Unavailable("stopping", reason=Reason.DRAINING, retry_after=0.5)
    assert Patience(WRITE, 30).pause(going) == 0.5
    assert Patience(READ, 30).pause(going) == 0.01
    assert Patience(WRITE, 0.4).pause(going) == pytest.approx(0.3)


def test_who_is_impatient_is_told_at_once() -> None:
    error = Unavailable("nobody")
    with pytest.raises(Unavailable) as caught:
        Patience(READ, 30, impatient=True).pause(error)
    assert caught.value is error


LATER = [
    NotSent("nobody there"),
    PermissionDenied("the policy has changed", reason=Reason.POLICY),
    Unavailable("another daemon", reason=Reason.STALE_HANDLE),
    DeadlineExceeded("late"),
]


@pytest.mark.parametrize("later", LATER, ids=lambda error: type(error).__name__)
def test_once_a_try_was_lost_no_later_one_says_that_nothing_was_executed(
    clock: Clock, later: MapdError
) -> None:
    waits = Patience(TWICE, 1.0)
    waits.pause(OutcomeUnknown("freeze flows: the connection broke; it may have been executed"))
    clock.now += 0.95  # too little for one more
    with pytest.raises(OutcomeUnknown, match=r"the connection broke.*asked again: ") as caught:
        waits.pause(later)
    assert caught.value.reason is later.reason
    assert isinstance(later, DeadlineExceeded) or str(later) in str(caught.value)

"""How long nobody was served, and how histories travel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reliability.kit.history import OK, REFUSED, UNKNOWN, End, History, Operation, Recorder
from tests.reliability.kit.outcome import Outcome, outages, percentile


def answered(client: int, *times: float) -> list[Operation]:
    return [Operation(client, 0, "lookup", 1, (), at - 0.01, at, OK) for at in times]


def test_an_outage_is_the_longest_time_between_two_answers_behind_a_strike() -> None:
    history = History(answered(0, 0.9, 1.1, 1.2, 3.2, 3.3))
    assert outages(history, [1.0]) == [pytest.approx(2.0)]


def test_an_outage_begins_with_the_strike() -> None:
    history = History(answered(0, 0.2, 1.5))
    assert outages(history, [1.0]) == [pytest.approx(0.5)]


def test_a_client_that_is_not_served_between_two_strikes_counts_from_the_first() -> None:
    history = History(answered(0, 0.2, 9.0) + answered(1, 1.5, 2.5))
    assert sorted(outages(history, [1.0, 2.0])) == pytest.approx([0.5, 0.5, 8.0])


def test_what_was_refused_serves_nobody() -> None:
    history = History(answered(0, 3.0))
    history.operations.append(Operation(0, 0, "update", 1, (1,), 1.1, 1.2, REFUSED))
    assert outages(history, [1.0]) == [pytest.approx(2.0)]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([3, 1, 2], 0.99) == 3


def test_calls_travel_as_lines_with_each_element_of_its_own() -> None:
    lines: list[bytes] = []
    told = Recorder(4, lines.append)
    call = told.invoke(["update", "lookup"], [1, 2], [(7,), ()])
    other = told.invoke("delete", [3], [()])
    told.returned(call, [End(OK), End(REFUSED, why="MapFull")])
    told.returned(other, [End(UNKNOWN)])
    history = History()
    for line in lines:
        history.event(json.loads(line))
    found = [(each.op, each.key, each.args, each.outcome, each.why) for each in history.operations]
    assert found == [
        ("update", 1, (7,), OK, ""),
        ("lookup", 2, (), REFUSED, "MapFull"),
        ("delete", 3, (), UNKNOWN, ""),
    ]
    assert [each.returned is None for each in history.operations] == [False, False, True]


def test_a_failure_leaves_the_history_in_a_file() -> None:
    history = History(answered(0, 1.0))
    with pytest.raises(ZeroDivisionError) as caught, history.kept():
        raise ZeroDivisionError
    (note,) = caught.value.__notes__
    left = Path(note.rpartition(" ")[2])
    assert json.loads(left.read_text())["op"] == "lookup"
    left.unlink()


def test_an_outcome_tells_what_was_lost_from_what_nobody_wrote() -> None:
    history = History(answered(0, 1.0))
    history.operations[0].result = 9
    history.operations += [
        Operation(0, 1, "update", 2, (5,), 2.0, 2.1, OK),
        Operation(0, 2, "lookup", 2, (), 3.0, 3.1, OK, None),
        Operation(0, 3, "update", 3, (6,), 4.0, None, UNKNOWN),
    ]
    outcome = Outcome.of(history)
    assert [each.key for each in outcome.ghosts] == [1]
    assert [each.key for each in outcome.lost] == [2]
    assert (outcome.acknowledged, outcome.answers, outcome.unknown) == (1, 2, 1)

"""What top shows, from samples alone."""

from __future__ import annotations

import pytest

from mapd_api.uapi import MapType
from mapd_client.top.model import WINDOW_S, Level, Model, Row, Sort, sparkline
from tests.unit.mapd_client.top.samples import sample, stats


def row_of(model: Model, name: str) -> Row:
    (found,) = [row for row in model.rows() if row.stats.name == f"web/{name}"]
    return found


def names(model: Model) -> list[str]:
    return [row.stats.kernel_name for row in model.rows()]


# ---- rates -------------------------------------------------------------------------------------


def test_of_one_sample_nothing_is_known_about_time() -> None:
    model = Model()
    model.feed(sample(stats("a", 5)), 1.0)
    assert (row_of(model, "a").rate, row_of(model, "a").ops) == (None, None)


def test_rates_go_by_the_daemons_clock_however_late_an_answer_comes() -> None:
    model = Model()
    model.feed(sample(stats("a", 50, read_elements=10, written_elements=5), uptime=10.0), 1.0)
    model.feed(sample(stats("a", 30, read_elements=12, written_elements=9), uptime=12.0), 90.0)
    assert row_of(model, "a").rate == -10.0
    assert row_of(model, "a").ops == 3.0


def test_across_a_restart_entries_go_on_by_our_clock_and_operations_begin_anew() -> None:
    model = Model()
    model.feed(sample(stats("a", 50, read_elements=1000)), 1.0)
    model.feed(sample(stats("a", 60, read_elements=3), uptime=0.5, epoch="b"), 6.0)
    assert row_of(model, "a").rate == 2.0
    assert row_of(model, "a").ops is None
    model.feed(sample(stats("a", 60, read_elements=5), uptime=1.5, epoch="b"), 7.0)
    assert row_of(model, "a").ops == 2.0


def test_a_counter_that_began_again_is_no_negative_rate() -> None:
    model = Model()
    model.feed(sample(stats("a", 1, read_elements=1000)), 1.0)
    model.feed(sample(stats("a", 1, read_elements=3), uptime=11.0), 2.0)
    assert row_of(model, "a").ops is None


def test_what_is_not_told_has_no_rate() -> None:
    model = Model()
    for at in (1.0, 2.0):
        unread = stats("a", None, read_elements=None, written_elements=None)
        model.feed(sample(unread, uptime=at), at)
    row = row_of(model, "a")
    assert (row.fill, row.rate, row.ops, row.level) == (None, None, None, Level.UNKNOWN)


def test_another_map_of_the_same_name_begins_anew_and_one_that_has_gone_is_gone() -> None:
    model = Model()
    model.feed(sample(stats("a", 50), stats("b", 1)), 1.0)
    model.feed(sample(stats("a", 0, id=9999), uptime=11.0), 2.0)
    assert row_of(model, "a").rate is None
    assert [entries for _, entries in row_of(model, "a").line] == [0]
    assert model.total == 1


def test_two_answers_of_the_same_moment_have_no_rate() -> None:
    model = Model()
    model.feed(sample(stats("a", 1)), 1.0)
    model.feed(sample(stats("a", 2)), 1.0)
    assert row_of(model, "a").rate is None


# ---- how full ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "level"),
    [
        (0, Level.CALM),
        (79, Level.CALM),
        (80, Level.AMBER),
        (94, Level.AMBER),
        (95, Level.RED),
        (100, Level.RED),
    ],
)
def test_amber_from_80_percent_on_and_red_from_95(entries: int, level: Level) -> None:
    model = Model()
    model.feed(sample(stats("a", entries)), 1.0)
    assert row_of(model, "a").level is level


def test_an_array_is_never_full_for_all_its_elements_are_always_there() -> None:
    model = Model()
    model.feed(sample(stats("a", 100, method="max_entries")), 1.0)
    assert row_of(model, "a").fill is None


# ---- the last minute ---------------------------------------------------------------------------


def test_the_line_has_the_last_minute_and_no_more() -> None:
    model = Model()
    for at in range(100):
        model.feed(sample(stats("a", at), uptime=float(at)), float(at))
    line = row_of(model, "a").line
    assert line[0] == (99.0 - WINDOW_S, 39)
    assert line[-1] == (99.0, 99)


def test_the_line_has_a_bound_however_often_samples_come() -> None:
    model = Model()
    for step in range(1000):
        model.feed(sample(stats("a", step), uptime=step / 100), step / 100)
    assert len(row_of(model, "a").line) == 240


def test_a_line_goes_from_its_least_to_its_most_and_is_blank_before_it_began() -> None:
    assert sparkline([(40.0, 0), (50.0, 35), (60.0, 70)], 60.0, 6) == "   ▁▅█"


def test_what_does_not_change_lies_at_the_bottom() -> None:
    assert sparkline([(at, 7) for at in range(61)], 60.0, 8) == "▁" * 8


def test_of_nothing_there_is_no_line() -> None:
    assert sparkline([], 60.0, 8) == " " * 8
    assert sparkline([(1.0, 5)], 100.0, 8) == " " * 8


# ---- order -------------------------------------------------------------------------------------


def filled() -> Model:
    model = Model()
    model.feed(sample(stats("b", 10, memlock_bytes=1), stats("a", 90), stats("c", None)), 1.0)
    return model


def test_names_go_from_a_to_z_and_numbers_from_the_most_to_the_least() -> None:
    model = filled()
    assert names(model) == ["a", "b", "c"]
    model.sort_by(Sort.FILL)
    assert names(model) == ["a", "b", "c"]
    model.sort_by(Sort.MEMORY)
    assert names(model) == ["a", "c", "b"]


@pytest.mark.parametrize("sort", [Sort.ENTRIES, Sort.FILL])
def test_once_more_turns_round_and_what_is_not_known_stays_last(sort: Sort) -> None:
    model = filled()
    model.sort_by(sort)
    model.sort_by(sort)
    assert names(model) == ["b", "a", "c"]
    model.sort_by(sort)
    assert names(model) == ["a", "b", "c"]


def test_names_turn_round_too() -> None:
    model = filled()
    model.sort_by(Sort.NAME)
    assert names(model) == ["c", "b", "a"]


@pytest.mark.parametrize("sort", list(Sort))
def test_equals_stand_by_name(sort: Sort) -> None:
    model = Model()
    model.feed(sample(stats("y", 1), stats("x", 1), stats("z", 1)), 1.0)
    model.sort = sort
    assert names(model) == ["x", "y", "z"]


# ---- filter ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["flows", "seen"]),
        ("FLO", ["flows"]),
        ("web/", ["flows", "seen"]),
        ("lru", ["seen"]),
        ("web/s*", ["seen"]),
        ("s*", ["seen"]),
        ("[fs]?*", ["flows", "seen"]),
        ("none", []),
    ],
)
def test_a_pattern_is_part_of_a_name_or_type_or_a_shell_pattern(pattern: str, found: list[str]) -> None:
    model = Model()
    model.feed(sample(stats("flows"), stats("seen", type=MapType.LRU_HASH)), 1.0)
    model.pattern = pattern
    assert names(model) == found
    assert model.total == 2


# ---- a daemon that is away ---------------------------------------------------------------------


def test_what_was_told_last_stays_while_the_daemon_is_away() -> None:
    model = filled()
    model.lost("no daemon")
    assert model.away == "no daemon"
    assert len(model.rows()) == 3
    model.feed(sample(stats("a"), uptime=1.0, epoch="b"), 9.0)
    assert model.away == ""

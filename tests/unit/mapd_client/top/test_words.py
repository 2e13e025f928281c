"""Numbers and bars as they stand in columns."""

from __future__ import annotations

import pytest

from mapd_client.top import words


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (1234, "1,234"), (9_999_999, "9,999,999"), (12_345_678, "12.3M")],
)
def test_a_count_is_exact_as_long_as_it_fits(number: int | None, text: str) -> None:
    assert words.count(number) == text


def test_an_estimate_says_that_it_is_one() -> None:
    assert words.count(30, exact=False) == "~30"
    assert words.percent(0.3, exact=False) == "~30%"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.4, "0.4"),
        (9.96, "10"),
        (999.6, "1.0k"),
        (123_456.0, "123k"),
        (0.01, "0.0"),
    ],
)
def test_a_rate_is_short(number: float | None, text: str) -> None:
    assert words.rate(number) == text


def test_a_rate_that_goes_both_ways_has_its_sign() -> None:
    assert [words.rate(number, signed=True) for number in (3.0, -3.0, 0.0)] == ["+3.0", "-3.0", "0"]


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999B"), (1024, "1.0K"), (84_960, "83.0K"), (1 << 30, "1.0G")]
)
def test_memory_is_binary(number: int, text: str) -> None:
    assert words.memory(number) == text


@pytest.mark.parametrize(
    ("fill", "text"), [(0.0, "░░░░"), (0.001, "▏░░░"), (0.5, "██░░"), (1.0, "████"), (1.7, "████")]
)
def test_a_bar_shows_eighths_and_never_nothing_where_something_is(fill: float, text: str) -> None:
    assert words.bar(fill, 4) == text


@pytest.mark.parametrize(("fill", "text"), [(0.999, "99%"), (1.0, "100%"), (0.29, "29%"), (1.2, "120%")])
def test_only_what_is_full_is_100_percent(fill: float, text: str) -> None:
    assert words.percent(fill) == text


def test_a_long_name_keeps_its_end() -> None:
    assert words.cut("namespace/flows", 8) == "…e/flows"
    assert words.cut("flows", 8) == "flows"

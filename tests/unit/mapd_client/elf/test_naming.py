"""C's identifiers as mapd's names, by one rule; what the rule cannot settle is refused."""

from __future__ import annotations

import pytest

from mapd_client import Misuse
from mapd_client.elf.naming import is_unfinished, kernel_name, mapd_names, unfinished


def named(*declared: str, prefix: str = "", **names: str) -> list[str]:
    return mapd_names(declared, prefix, names, "prog.o")


def test_capitals_dots_and_leading_underscores_follow_the_rule() -> None:
    assert named("Flows", "_seen", "prog.rodata", ".data.apart", "a_b") == [
        "flows",
        "seen",
        "prog_rodata",
        "data_apart",
        "a_b",
    ]


def test_a_prefix_is_put_before_names_that_are_not_given() -> None:
    assert named("Flows", "other", prefix="ns/prog-", other="mine") == ["ns/prog-flows", "mine"]


def test_two_maps_of_one_name_are_refused_with_both() -> None:
    with pytest.raises(
        Misuse, match=r"prog.o: maps 'Flows' and 'flows' would both be 'flows': name one by names="
    ):
        named("Flows", "flows")
    assert named("Flows", "flows", flows="small") == ["flows", "small"]


@pytest.mark.parametrize("declared", ["___", "x" * 64, "naïve"])
def test_what_is_no_name_by_the_rule_is_named_by_hand(declared: str) -> None:
    with pytest.raises(Misuse, match="name it by names="):
        named(declared)
    assert mapd_names([declared], "", {declared: "it"}, "prog.o") == ["it"]


def test_names_for_what_is_not_declared_are_refused_with_what_is() -> None:
    with pytest.raises(Misuse, match=r"names= speaks of 'flow', which it does not declare; it has 'flows'"):
        named("flows", flow="x")


def test_the_kernel_gets_fifteen_characters() -> None:
    assert kernel_name("a_long_name_of_a_map") == "a_long_name_of_"


@pytest.mark.parametrize("name", ["flows", "ns/flows", "x" * 63, f"ns/{'x' * 63}"])
def test_an_unfinished_map_has_a_name_of_its_own_that_is_known_as_such(name: str) -> None:
    one, other = unfinished(name), unfinished(name)
    assert one != other
    assert mapd_names(["x"], "", {"x": one}, "prog.o") == [one]
    assert is_unfinished(one)
    assert one.rpartition("/")[0] == name.rpartition("/")[0]
    assert not is_unfinished(name)

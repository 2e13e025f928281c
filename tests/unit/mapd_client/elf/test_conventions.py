"""Two conventions in one section: which one is taken, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mapd_client.elf import BadObject, read_object
from mapd_client.errors import Misuse
from tests.support.elfwriter import structs
from tests.unit.mapd_client.elf.fixtures.make import made

HASH = (1, 4, 8, 16)


def rule(*words: int, programs: Sequence[str] = ()) -> tuple[str, str]:
    found = read_object(structs({"one": (*HASH, *words)}, programs=programs).build())
    return found.convention, found.rule


@pytest.mark.parametrize(("words", "convention"), [(0, "samples"), (2, "tc"), (4, "tc"), (5, "tc")])
def test_sizes_that_one_convention_has_decide(words: int, convention: str) -> None:
    found, said = rule(*(0,) * words)
    assert found == convention
    assert f"structs of {16 + 4 * words} bytes" in said


def test_20_bytes_are_flags_and_the_other_reading_is_told() -> None:
    assert rule(2) == (
        "samples",
        (
            "samples, because structs have 20 bytes and word 4 is made of map flags everywhere; "
            "convention='tc' would have read id 2 of 'one'"
        ),
    )


def test_20_bytes_are_tcs_where_word_4_is_no_flag() -> None:
    assert rule(1 << 20) == (
        "tc",
        (
            "tc, because structs have 20 bytes and word 4 of 'one' is 0x100000, which is no map flag; "
            "convention='samples' would have read map_flags 1048576 of 'one'"
        ),
    )


@pytest.mark.parametrize("pinning", [1, 2])
def test_28_bytes_are_tcs_where_word_6_is_a_pinning(pinning: int) -> None:
    convention, said = rule(0, 7, pinning)
    assert convention == "tc"
    assert f"word 6 of 'one' is {pinning}, a pinning" in said
    assert said.endswith(
        f"convention='samples' would have read inner_map_idx 7, numa_node {pinning} of 'one'"
    )


@pytest.mark.parametrize("program", ["classifier", "action", "prog", "3/0"])
def test_28_bytes_are_tcs_where_a_program_is(program: str) -> None:
    convention, said = rule(0, 0, 0, programs=["socket", program])
    assert convention == "tc"
    assert f"the program section {program!r} is one of tc's" in said


@pytest.mark.parametrize("program", ["socket", "kprobe/x", "3/", "/3", "classifier/x", "01/2"])
def test_28_bytes_are_else_those_of_samples(program: str) -> None:
    convention, said = rule(0, 1, 3, programs=[program])
    assert convention == "samples"
    assert said.endswith("convention='tc' would have read id 1, pinning 3 of 'one'")


def test_what_the_caller_says_wins_over_every_rule() -> None:
    data = structs({"one": (*HASH, 1 << 20)}).build()
    found = read_object(data, "samples")
    assert (found.convention, found.maps[0].flags) == ("samples", 1 << 20)
    assert found.rule == (
        "samples, because the caller said so; structs have 20 bytes; "
        "convention='tc' would have read id 1048576 of 'one'"
    )
    data = structs({"one": (*HASH, 0, 7, 1)}).build()
    assert read_object(data, "samples").maps[0].pin == ""
    assert read_object(structs({"one": (*HASH, 2)}).build(), "tc").maps[0].flags == 0


def test_a_size_that_nobody_has_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BadObject, match="structs of 40 bytes; samples/bpf has 16, 20 and 28") as caught:
        read_object(structs({"one": (*HASH, *range(6))}).build())
    assert (caught.value.section, caught.value.number) == ("maps", 40)
    with pytest.raises(BadObject, match="of a version to come"):
        read_object(structs({"one": (*HASH, *range(6))}).build(), "tc")


def test_a_longer_struct_whose_rest_is_not_zero_is_refused() -> None:
    with pytest.raises(BadObject, match="'one': word 8 of 9 is 5"):
        read_object(structs({"one": (*HASH, 0, 0, 0, 0, 5)}).build(), "samples")


def test_an_object_with_both_sections_is_not_guessed_at() -> None:
    made_of_both = structs({"one": (*HASH, 0)})
    made_of_both.section(".maps", bytes(8))
    with pytest.raises(BadObject, match="say which by convention="):
        read_object(made_of_both.build())
    assert read_object(made_of_both.build(), "samples").maps[0].name == "one"


def test_a_convention_that_the_object_does_not_follow_is_refused() -> None:
    with pytest.raises(BadObject, match=r"convention 'tc' wants it, and it is not there; there is \.maps"):
        read_object(made()["libbpf.little.o"], "tc")
    with pytest.raises(BadObject, match=r"libbpf 1\.0 and later refuse it too"):
        read_object(made()["tc36.little.o"], "libbpf")
    with pytest.raises(Misuse, match="one of 'samples', 'tc', 'libbpf', 'auto'"):
        read_object(b"", "bcc")

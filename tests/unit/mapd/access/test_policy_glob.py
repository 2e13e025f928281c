"""Patterns: what they match, which texts are none, and that no pattern takes for ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.access.policy.glob import CHARACTERS, BadGlob, Glob
from tests.unit.mapd.access.reference import match


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("web/flows", "web/flows", True),
        ("web/flows", "web/flow", False),
        ("web/*", "web/flows", True),
        ("web/*", "web/a/b", False),
        ("*/flows", "web/flows", True),
        ("web/f*s", "web/fs", True),
        ("web/*a*b*", "web/xbya", False),
        ("web/*a*b*", "web/xayb", True),
        ("web/*ab", "web/aab", True),
        ("web/aa*aa", "web/aaa", False),
        ("web/?", "web/x", True),
        ("web/?", "web/", False),
        ("web/[a-c]x", "web/bx", True),
        ("web/[!a-c]x", "web/bx", False),
        ("web/[]]", "web/]", True),
        ("web/[!]]", "web/]", False),
        ("web/[a-]", "web/-", True),
        ("web/[*]", "web/*", True),
        ("web/[*]", "web/x", False),
        ("web/[[]", "web/[", True),
        ("web/[^a]", "web/^", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/a", False),
        ("/a/**/c", "/a/c", True),
        ("/a/**/c", "/a/b/b/c", True),
        ("/a/**/c", "/a/b/b/cc", False),
        ("/**/b/**/c", "/b/x/c", True),
        ("/**/b/**/c", "/c/x/b", False),
        ("/**/x/*", "/x/a/x/b", True),
        ("/a/**/**", "/a/b", True),
        ("/a/**/**", "/a", False),
        ("/a/*.o", "/a/b.o", True),
        ("/a/*.o", "/a/b\n.o", True),
        ("/a/?", "/a/\n", True),
    ],
)
def test_a_pattern_matches_the_whole_path_part_by_part(glob: str, path: str, matches: bool) -> None:
    assert Glob.compile(glob).matches(path) is matches
    assert match(glob, path) is matches


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("/a/b**", r"'\*\*' stands for whole parts"),
        ("/a/***", r"'\*\*' stands for whole parts"),
        ("/a/[b", r"'\[' without its '\]'; a '\[' itself is written '\[\[\]'"),
        ("/a/[]", "without its"),
        ("/a/[!]", "without its"),
        ("/a/[z-a]", "the range 'z-a' is empty; write 'a-z'"),
        ("/a/b\0", "NUL"),
        ("a" * (CHARACTERS + 1), f"{CHARACTERS + 1} characters; at most {CHARACTERS}"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_reason(glob: str, words: str) -> None:
    with pytest.raises(BadGlob, match=words):
        Glob.compile(glob)


_LETTERS = st.text("ab", max_size=4)
_PART = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "[a-b]"]), max_size=5).map("".join)
_GLOBS = st.lists(
    st.one_of(_PART.filter(lambda part: "**" not in part), st.just("**")), min_size=1, max_size=5
)


@settings(max_examples=1_000, deadline=None)
@given(_GLOBS.map("/".join), st.lists(_LETTERS, min_size=1, max_size=6).map("/".join))
def test_a_pattern_matches_what_the_letter_by_letter_reference_matches(glob: str, path: str) -> None:
    assert Glob.compile(glob).matches(path) is match(glob, path)


@settings(deadline=None)
@given(_GLOBS.map("/".join), _GLOBS.map("/".join), st.lists(_LETTERS, min_size=1, max_size=5).map("/".join))
def test_what_covers_another_matches_all_that_the_other_does(wide: str, narrow: str, path: str) -> None:
    one, other = Glob.compile(wide), Glob.compile(narrow)
    if one.covers(other) and other.matches(path):
        assert one.matches(path)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("web/*", "web/*", True),
        ("web/*", "web/flows", True),
        ("web/flows", "web/*", False),
        ("/a/**", "/a/b/*", True),
        ("/a/**", "/ab/*", False),
        ("/a/**", "/a/**", True),
    ],
)
def test_covering_is_seen_where_it_is_plain(wide: str, narrow: str, covers: bool) -> None:
    assert Glob.compile(wide).covers(Glob.compile(narrow)) is covers


@pytest.mark.parametrize(
    "glob",
    [
        "*a" * (CHARACTERS // 2),
        "*" + "a*" * ((CHARACTERS - 2) // 2),
        "**/" * ((CHARACTERS - 1) // 3) + "b",
        "**/a/" * ((CHARACTERS - 1) // 5) + "b",
        "*[ab]" * (CHARACTERS // 5),
        "?*" * (CHARACTERS // 2),
    ],
    ids=lambda glob: glob[:9],
)
@pytest.mark.parametrize(
    "text", ["a" * 4_096, "a/" * 2_048, "ab" * 2_048], ids=["one part", "many parts", "mixed"]
)
def test_no_pattern_takes_for_ever(glob: str, text: str) -> None:
    """A matcher that tries every way would not come to an end with these; the test's own limit ends it then."""
    Glob.compile(glob).matches(text + "c")

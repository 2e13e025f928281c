"""docs/reference/types.md against the running kernel, and the table of types against its answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mapd.maps.traits import REFERENCES, Cursor, Value
from mapd.maps.types import TYPES, type_name
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from scripts import type_matrix
from scripts.type_trial import UNTRIED, Answers, matrix

UNSUPPORTED = frozenset({"ENOTSUPP", "EOPNOTSUPP", "EINVAL"})
UPDATES = frozenset({Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})


@pytest.fixture(scope="module")
def known() -> dict[MapType, Answers]:
    return type_matrix.read(type_matrix.PAGE.read_text())


@pytest.fixture(scope="module")
def tried() -> dict[MapType, Answers]:
    return dict(matrix(type_matrix.kinds()))


def differences(tried: dict[MapType, Answers], known: dict[MapType, Answers]) -> Iterator[str]:
    for kind, answers in tried.items():
        for cell, answer in answers.items():
            if answer not in (UNTRIED, known[kind].get(cell)):
                yield f"{type_name(kind)}, {cell}: {known[kind].get(cell)} on the page, {answer} here"


def test_the_page_says_what_this_kernel_answers(
    tried: dict[MapType, Answers], known: dict[MapType, Answers]
) -> None:
    """Mend it: python -m scripts.type_matrix, and see what changed."""
    assert list(differences(tried, known)) == []
    assert type_matrix.PAGE.read_text() == type_matrix.page(type_matrix.merged(tried, known))


def test_a_planted_difference_is_found(tried: dict[MapType, Answers]) -> None:
    planted = {kind: dict(answers) for kind, answers in tried.items()}
    planted[MapType.ARRAY]["delete"] = "ok"
    assert list(differences(tried, planted)) == ["array, delete: ok on the page, EINVAL here"]


def has(answers: Answers, cells: tuple[str, ...]) -> bool | None:
    """Whether the kernel has the operation behind the cells; None where none was tried."""
    said = {answers[cell] for cell in cells} - {UNTRIED}
    return None if not said else bool(said - UNSUPPORTED)


@pytest.mark.parametrize("kind", type_matrix.kinds(), ids=type_name)
def test_the_operations_of_the_table_are_those_of_the_kernel(
    kind: MapType, tried: dict[MapType, Answers]
) -> None:
    """What the table offers works; what it does not the kernel refuses, or the table has a reason."""
    traits = TYPES[kind]
    for op, cells in type_matrix.cells_of(traits).items():
        there = has(tried[kind], cells)
        by_reference = op in UPDATES and traits.value in REFERENCES
        if op in traits.ops:
            assert there, op
        elif there:
            assert traits.refused or by_reference, op


@pytest.mark.parametrize("kind", type_matrix.kinds(), ids=type_name)
def test_walks_batches_and_freezing_are_those_of_the_kernel(
    kind: MapType, tried: dict[MapType, Answers]
) -> None:
    traits, answers = TYPES[kind], tried[kind]
    batch_lookup = answers["LOOKUP_BATCH"] == "ok"
    match traits.cursor:
        case Cursor.BUCKET | Cursor.INDEX | Cursor.KEY:
            assert batch_lookup
        case Cursor.NEXT_KEY:
            assert not batch_lookup
            assert answers["next_key"] in ("ok", "ENOENT")
        case Cursor.INDEXES:
            assert not batch_lookup
            assert answers["lookup"] == "ok"
        case Cursor.NONE:
            assert answers["next_key"] in UNSUPPORTED or traits.refused
    for column, has_batch in (("UPDATE_BATCH", traits.batch_update), ("DELETE_BATCH", traits.batch_delete)):
        if has_batch:
            assert answers[column] == "ok", column
        elif traits.value is not Value.MAP:  # their values are references, which go one by one
            assert answers[column] in ("ENOTSUPP", UNTRIED), column
    assert traits.freezes == (answers["freeze"] == "ok")
    if traits.freezes:
        assert answers["update, frozen"] == answers["delete, frozen"] == "EPERM"

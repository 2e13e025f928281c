"""docs/: generated pages are current, links lead somewhere, pictures are well formed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import errors_page, memory_page, type_matrix
from tests.repo.sources import ROOT

DECISIONS = ROOT / "docs" / "decisions"


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]


def dead_links(text: str, folder: Path) -> Iterator[str]:
    """Links within the repository whose target is missing."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target) and not (folder / target.partition("#")[0]).exists():
            yield target


def test_the_page_of_errors_is_current() -> None:
    """A reason without an entry sends its reader nowhere. Mend it: python -m scripts.errors_page."""
    assert errors_page.PAGE.read_text() == errors_page.page(errors_page.PROTO.read_text())


def test_the_page_of_types_has_the_table_that_the_daemon_has() -> None:
    """Its errnos are tried in tests/kernel. Mend it: python -m scripts.type_matrix, as root."""
    text = type_matrix.PAGE.read_text()
    assert text == type_matrix.page(type_matrix.read(text))


def test_the_page_of_the_memory_backend_is_current() -> None:
    """A difference that is allowed for and not told would surprise a user. Mend it: python -m scripts.memory_page."""
    assert memory_page.PAGE.read_text() == memory_page.page()


def test_a_reason_without_a_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match="NEW_ONE has no comment"):
        errors_page.meanings("enum Reason {\n  // Fine.\n  REASON_OLD = 1;\n  REASON_NEW_ONE = 2;\n}\n")


def test_every_link_leads_somewhere() -> None:
    """A reader who follows a link and finds nothing stops reading."""
    found = {str(page.relative_to(ROOT)): list(dead_links(page.read_text(), page.parent)) for page in pages()}
    assert {page: links for page, links in found.items() if links} == {}


def test_a_planted_dead_link_is_found(tmp_path: Path) -> None:
    text = "[a](nowhere.md) [b](https://example.org) [c](#here) [d](there.md#x)"
    (tmp_path / "there.md").touch()
    assert list(dead_links(text, tmp_path)) == ["nowhere.md"]


def test_decisions_are_numbered_and_listed() -> None:
    """A record that the index does not name is found by nobody; a number must mean one record."""
    records = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    assert [name[:4] for name in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    index = (DECISIONS / "index.md").read_text()
    assert [name for name in records if f"({name})" not in index] == []


def test_pictures_are_well_formed_and_described() -> None:
    """Who cannot see the picture reads its title and description."""
    pictures = list((ROOT / "docs").rglob("*.svg"))
    assert pictures
    for picture in pictures:
        root = ET.parse(picture).getroot()  # noqa: S314 # our own file
        tags = {child.tag.rpartition("}")[2] for child in root}
        assert {"title", "desc"} <= tags, picture.name


def test_the_program_of_the_readme_is_the_example() -> None:
    """What people paste first is a file that runs in the tests, to the letter."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = (ROOT / "examples" / "first_steps.py").read_text()
    assert example[example.index("import asyncio") :] == program

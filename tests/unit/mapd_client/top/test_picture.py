"""The picture of the README is what the app draws today."""

from __future__ import annotations

from scripts import top_picture


async def test_the_picture_of_top_is_current() -> None:
    """Word for word; where they stand is textual's. Mend it: python -m scripts.top_picture."""
    assert top_picture.words(top_picture.PICTURE.read_text()) == top_picture.words(await top_picture.draw())


async def test_the_picture_shows_what_top_is_for() -> None:
    told = " ".join(top_picture.words(top_picture.PICTURE.read_text()))
    for word in ("~134,420", "96%!", "80%", "12.4k", "▁", "█", "quit"):
        assert word in told

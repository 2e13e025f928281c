"""A textual app without a terminal: keys pressed, and what is on the screen read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

WAIT_S = 20.0


def text_of(pilot: Pilot[Any]) -> str:
    """The screen's lines as a user reads them."""
    screen = pilot.app.screen
    strips = screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage] - nothing else has the text
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def until(pilot: Pilot[Any], there: Callable[[str], bool]) -> str:
    """Let the app run until its screen is so; the screen then."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not there(text := text_of(pilot)):
                await pilot.pause()
    except TimeoutError:
        raise AssertionError(f"it never came to that:\n{text_of(pilot)}") from None
    return text


async def until_shows(pilot: Pilot[Any], *words: str) -> str:
    """Until all these words are on the screen."""
    return await until(pilot, lambda text: all(word in text for word in words))


def line_with(text: str, word: str) -> str:
    """The only line that has the word."""
    (found,) = [line for line in text.splitlines() if word in line]
    return found

"""Writes docs/reference/memory.md: what is other in memory than in the kernel.

The rows are ``mapd.memory.DIFFERENCES``, which is also what the tests that compare the two allow for.
``python -m scripts.memory_page`` writes the page.
"""

from __future__ import annotations

from pathlib import Path

from mapd.memory import DIFFERENCES
from mapd.memory.creation import TYPES

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "memory.md"

INTRODUCTION = """\
# The memory backend

<!-- Written by scripts/memory_page.py. Change src/mapd/memory/differences.py and run it again. -->

`mapd serve --backend memory` serves maps of its own, that end with it: for tests of programs
([how](../how-to/testing.md)), and to try the client where bpf(2) is refused. Everything above the kernel is the
same code, and what stands in for the kernel answers as Linux 6.18 does, errno by errno: creation, flags, NOEXIST and
EXIST, full maps, frozen maps, read-only handles, batches, cursors, pins.

A state machine makes the same calls, good and bad, on both and compares every answer (`tests/suite`): 200 runs of 50
steps for each type. It allows for these differences and for no other:

| what | in the kernel | in memory |
|---|---|---|
"""

TYPES_LINE = """
Types in memory: {types}. Any other is refused as `OPERATION_UNSUPPORTED`, as a kernel without it would.
"""


def page() -> str:
    """The whole page."""
    rows = [f"| {row.name} | {row.kernel} | {row.memory} |" for row in DIFFERENCES]
    types = ", ".join(f"`{kind.name.lower()}`" for kind in sorted(TYPES))
    return INTRODUCTION + "\n".join(rows) + "\n" + TYPES_LINE.format(types=types)


if __name__ == "__main__":
    PAGE.write_text(page())

"""rich's console as mapctl needs it; whoever imports this pays for rich."""

from __future__ import annotations

from rich.console import Console


class QuietConsole(Console):
    """A console that says nothing of its own when its reader has gone away; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Raise what rich caught, for ``run`` to end as every verb does."""
        raise BrokenPipeError

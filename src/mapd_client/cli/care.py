"""Care for what cannot be undone: a question before it, and a way to see what would be done."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from mapd_client.cli.options import Options
from mapd_client.errors import Misuse

DryRun = Annotated[bool, Parameter(name=["--dry-run", "-n"])]
"""Say what would be done, and do nothing."""


def agreed(options: Options, what: str, consequence: str) -> bool:
    """Whether to go on with what cannot be undone.

    Args:
        options: ``--yes`` answers beforehand.
        what: the verb and what it is done to, "freeze flows".
        consequence: what is lost, a sentence.

    Raises:
        Misuse: nobody is there to be asked.
    """
    if options.yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Misuse(
            f"{what}: {consequence}; nobody can be asked here: say --yes, or --dry-run to see what it would do"
        )
    sys.stderr.write(f"{what}: {consequence}. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    sys.stderr.write("mapctl: nothing was done\n")
    return False


def would(what: str) -> None:
    """Say what ``--dry-run`` does not do."""
    sys.stderr.write(f"mapctl: would {what}; nothing was done\n")

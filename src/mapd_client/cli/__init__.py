"""mapctl: maps from the command line. ``app`` has the verbs; this only finds out whether it can run."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec

_NEEDS = ("cyclopts", "rich")


def main() -> None:
    """The command ``mapctl``; ends the process with one of the exit codes of ``outcomes``."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"mapctl needs {' and '.join(missing)}\n"
            "pip install 'bpf-mapd[cli]' (or, in a checkout, pip install '.[cli]')\n"
        )
        sys.exit(2)
    from mapd_client.cli.app import run

    code = run(sys.argv[1:])
    with suppress(OSError):  # of a command that has failed already, and said why
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take the interpreter apart costs 50 to 80 ms, and nothing is left to be done

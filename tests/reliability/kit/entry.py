"""``mapd serve`` that fails where a test wants it to: ``entry.py serve --config FILE``, rules in MAPD_TEST_RULES.

The rules (``injection.Rules``) are JSON. What is wrapped is wrapped behind the lock, in the front, where nothing may
be imported before; so this file needs the standard library and the launcher alone.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[3]))

from mapd import cli
from mapd.launch import front
from mapd.sandbox import lock_front

VARIABLE = "MAPD_TEST_RULES"
GATE = "MAPD_TEST_GATE"


def main() -> int:
    """The daemon's exit status."""
    text, path = os.environ.get(VARIABLE, "{}"), os.environ.get(GATE)
    gate = None
    if path is not None:
        gate = socket.socket(socket.AF_UNIX)
        gate.connect(path)

    def install() -> None:
        from tests.reliability.kit import injection

        injection.install(injection.Rules.from_json(text), gate)

    if "--single-process" in sys.argv:
        install()
        return cli.run(sys.argv[1:])

    def locked(*args: Any, **kwargs: Any) -> Any:
        found = lock_front(*args, **kwargs)
        install()
        return found

    setattr(front, "lock_front", locked)  # noqa: B010 - of a module's function
    return cli.run(sys.argv[1:])


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)

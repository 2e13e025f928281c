"""``mapd serve`` that fails where a test wants it to: ``entry.py serve --config FILE``, rules in MAPD_TEST_RULES.

The rules (``points.Rules``) are JSON. What is wrapped is wrapped behind the lock, in the front, where nothing may
be imported before; so this file needs the standard library and the launcher alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[3]))

from mapd import cli
from mapd.launch import front, link, settings
from mapd.sandbox import lock_front
from tests.reliability.kit.points import Rules, connect

ROOT = str(Path(__file__).parents[3])
VARIABLE = "MAPD_TEST_RULES"
GATE = "MAPD_TEST_GATE"


def main() -> int:
    """The daemon's exit status."""
    rules, path = Rules.from_json(os.environ.get(VARIABLE, "{}")), os.environ.get(GATE, "")
    gate = connect(path) if path and not rules.in_opener else None
    if rules.in_opener:

        def command(given: settings.OpenerSettings) -> list[str]:
            words = settings.command(given)
            words[words.index("-c") + 1] = (
                f"import sys; sys.path += [*sys.argv[2:], {ROOT!r}]; "
                "from tests.reliability.kit.openerpoints import main; "
                f"main(sys.argv[1], {rules.to_json()!r}, {path!r})"
            )
            return words

        setattr(link, "command", command)  # noqa: B010 - of a module's function

    def install() -> None:
        from tests.reliability.kit import injection

        injection.install(rules, gate)

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

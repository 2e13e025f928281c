"""``python -m mapd`` and the command ``mapd``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line; without the daemon's packages, say which line installs them."""
    try:
        from mapd.cli import run

        status = run()  # the packages that start threads are imported in it, behind the lock
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in {"mapd", "mapd_api", "mapd_client"}:
            raise
        sys.stderr.write(
            f"mapd: this Python ({sys.executable}) has no package {error.name}, which the daemon needs:\n"
            f"    {sys.executable} -m pip install 'bpf-mapd[daemon]'    (or, in a checkout, '.[daemon]')\n"
        )
        sys.exit(2)
    if sys.argv[1:2] == ["serve"]:
        # All is stopped and written. Taking grpc and numpy apart took 0.1 to 0.3 s more.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()

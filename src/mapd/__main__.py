"""``python -m mapd`` and the command ``mapd``."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line; without the daemon's packages, say which line installs them."""
    serving = sys.argv[1:2] == ["serve"]
    if serving:
        _close_inherited()
        gc.disable()  # until all is imported, none of which is garbage
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
    if serving:
        # All is stopped and written. Taking grpc and numpy apart took 0.1 to 0.3 s more.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _close_inherited() -> None:
    """Close what the starter left open beside standard input, output and error: the lock judges opening alone."""
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        with suppress(OSError):  # EBADF: the listing's own
            if int(number) > 2:
                os.close(int(number))


if __name__ == "__main__":
    main()

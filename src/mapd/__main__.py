"""``python -m mapd`` and the command ``mapd``."""

from __future__ import annotations

import sys


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
    sys.exit(status)


if __name__ == "__main__":
    main()

"""``mapd serve --single-process``, for the canary: ``one.py serve --config FILE``."""

from __future__ import annotations

import sys

from mapd import cli

if __name__ == "__main__":
    sys.exit(cli.run([*sys.argv[1:], "--single-process"]))

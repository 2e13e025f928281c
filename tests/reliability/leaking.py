"""``mapd serve`` that keeps a copy of each N-th descriptor that it closes: ``python -m ... N serve --config FILE``.

0: of none.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

from mapd import cli
from mapd.bpf.fd import OwnedFd

KEPT: list[int] = []


def leak(every: int) -> None:
    """Have a copy of each so many-th descriptor kept for ever."""
    numbers = itertools.count(1)
    made: Any = OwnedFd
    end = made._end

    def kept(self: Any) -> None:
        if next(numbers) % every == 0:
            KEPT.append(os.dup(self._fd))
        end(self)

    made._end = kept


if __name__ == "__main__":
    if int(sys.argv[1]):
        leak(int(sys.argv[1]))
    os._exit(cli.run(sys.argv[2:]))

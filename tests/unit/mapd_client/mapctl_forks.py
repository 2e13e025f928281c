"""mapctl as a process, without importing it each time: ``mapctl_forks.py`` forks one for each line of its input.

A line is a JSON object with ``arguments``, ``environ`` and the names of the files ``out`` and ``err``; the answer is
the exit code.
Of the 0.2 s that a mapctl takes, 0.18 are imports. What is forked ends as a process does: through ``sys.exit`` and
the end of the interpreter.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import import_module

from mapd_client.cli import main


def become(out: str, err: str) -> None:
    """Standard output and error of this process are files from now on."""
    for number, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)


def serve() -> bool:
    """Answer until the input ends; True in a process that is to be mapctl."""
    # Read by the system call: a fork would inherit what Python reads ahead.
    while line := _line():
        asked = json.loads(line)
        child = os.fork()
        if not child:
            become(asked["out"], asked["err"])
            os.environ.update(asked["environ"])
            sys.argv = ["mapctl", *asked["arguments"]]
            return True
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    return False


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            return b""
        line += part
    return line


if __name__ == "__main__":
    import_module("mapd_client.cli.app")
    gc.freeze()  # an end of the interpreter that goes through all imports costs 20 ms more
    if serve():
        main()

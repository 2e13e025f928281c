"""What somebody who broke into the front would try, tried from inside it.

Imported by every Python that has this folder on its path, which is the daemon of a test and nothing else.

SIGUSR1 starts a thread that reads ``ask.json`` in the folder MAPD_TEST_PROBES and writes ``told.json`` beside it. Until
then there is no thread: the lock would refuse.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def probe(folder: Path) -> None:
    run = runpy.run_path(str(Path(__file__).with_name("probes.py")))["run"]  # read behind the lock
    told = run(json.loads((folder / "ask.json").read_text()))
    unfinished = folder / "told.unfinished"
    unfinished.write_text(json.dumps(told))
    unfinished.rename(folder / "told.json")


def begin(_number: int, _frame: object) -> None:
    folder = Path(os.environ["MAPD_TEST_PROBES"])
    threading.Thread(target=probe, args=(folder,), daemon=True).start()


if "MAPD_TEST_PROBES" in os.environ and "-I" not in sys.orig_argv:
    signal.signal(signal.SIGUSR1, begin)

"""The one connection of a blocking client, which all of its threads share."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from mapd_client import MapdError, blocking

THREADS = 8
TIMEOUT_S = 1.0


def test_threads_that_wait_for_a_daemon_each_wait_for_their_own_time(short_folder: Path) -> None:
    """One after the other, the last would wait eight times as long as it was told to."""
    ends: list[tuple[type[Exception], bool]] = []

    def opened(client: blocking.Client) -> None:
        began = time.monotonic()
        try:
            client.open_map("flows")
        except MapdError as error:
            ends.append((type(error), time.monotonic() - began < THREADS * TIMEOUT_S / 2))

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_folder / "silent.sock"))
        silent.listen(THREADS)
        with blocking.Client(f"unix:{short_folder}/silent.sock", timeout=TIMEOUT_S) as client:
            threads = [threading.Thread(target=opened, args=(client,)) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert [in_time for _, in_time in ends] == [True] * THREADS, ends

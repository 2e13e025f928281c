"""The look at names and pins goes on for as long as the daemon does, whatever becomes of one look."""

from __future__ import annotations

import threading

import structlog
from structlog.testing import capture_logs

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.kernel import StampFolders
from mapd.daemon import running
from mapd_client import U32, U64
from tests.e2e.settling import until
from tests.support.daemon import Place


def broken() -> None:
    raise RuntimeError("nobody thought of this")


async def test_a_look_that_fails_is_logged_and_the_next_one_is_made(place: Place) -> None:
    structlog.reset_defaults()
    kernel, again = FaultyKernel(LinuxKernel()), threading.Event()
    async with running(place.config(), kernel) as ready, mapd_client.connect(str(ready.socket)) as client:
        await client.create_map("flows", "hash", key=U32, value=U64, max_entries=8)
        with capture_logs() as said:
            kernel.add(Fault(target=StampFolders, nth=1, failpoint=broken))
            kernel.add(Fault(target=StampFolders, nth=2, reached=again))
            assert await until(again.is_set)
        (fault,) = (line for line in said if line["event"] == "pins were not checked")
        assert fault["log_level"] == "error"

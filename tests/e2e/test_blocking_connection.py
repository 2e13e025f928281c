"""The connection of a blocking client: certificates that change, streams that break, a daemon that starts again."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextlib import ExitStack
from typing import Any

from mapd.rpc.tcp import TlsCaller
from mapd_client import blocking
from mapd_client.blocking import U32, U64, Map
from tests.e2e.settling import until
from tests.e2e.test_tls_rotation import serial
from tests.e2e.tls_place import WEB, TlsPlace, renew
from tests.support.daemon import DaemonProcess, Place, daemon_process
from tests.support.pki import Issued, uri


class Busy(threading.Thread):
    """Writes and reads one element without a pause, until it is told to end, or to its first error."""

    def __init__(self, flows: Map[int, int]) -> None:
        super().__init__(name="busy", daemon=True)
        self._flows = flows
        self.over = False
        self.answered = 0
        self.error: Exception | None = None

    def run(self) -> None:
        while not self.over:
            try:
                self._flows.update(1, self.answered)
                assert self._flows.lookup(1) == self.answered
                assert len(list(self._flows.items())) == 1
                assert self._flows.load([(1, 0)]) == 1
            except Exception as error:
                self.error = error
                return
            self.answered += 1


async def test_certificates_are_renewed_under_calls_and_none_fails(place: Place) -> None:
    tcp = TlsPlace(place)
    async with tcp.daemon() as ready:
        tls = tcp.tls()
        client = await asyncio.to_thread(blocking.connect, ready.tcp[0], tls=tls, timeout=20)
        flows = await asyncio.to_thread(
            lambda: client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
        )
        shown: set[int] = set()

        def shows(issued: Issued) -> bool:
            shown.update(
                one.identity.certificate.serial_number
                for one in ready.guard.callers
                if isinstance(one, TlsCaller)
            )
            return busy.error is not None or serial(issued) in shown

        def went_on(before: int) -> bool:
            return busy.error is not None or busy.answered > before + 5

        busy = Busy(flows)
        busy.start()
        try:
            for _ in range(2):
                # A pair that does not fit is not taken, one that fits is.
                renew(tls, Issued(tcp.ca.issue(uri(WEB)).certificate, tcp.ca.issue(uri(WEB)).key))
                new = tcp.ca.issue(uri(WEB))
                renew(tls, new)
                assert await until(functools.partial(shows, new), 20)
                assert await until(functools.partial(went_on, busy.answered), 20)
        finally:
            busy.over = True
            await asyncio.to_thread(busy.join)
            await asyncio.to_thread(client.close)
        assert busy.error is None


def maps_of(daemon: DaemonProcess) -> list[str]:
    """Its descriptors of maps."""
    return [one for one in daemon.fds() if "bpf-map" in one]


def _break_stream(client: blocking.Client) -> None:
    """As a proxy would, that ends what is idle for long."""
    around: Any = client
    stream = around._inner._links._one._stream
    assert stream.going
    stream.cancel()


def test_a_stream_that_breaks_costs_no_handle_and_after_a_restart_maps_are_opened_again(place: Place) -> None:
    with ExitStack() as stack:
        with daemon_process(place) as first:
            client = stack.enter_context(blocking.connect(str(place.socket), timeout=10))
            flows = client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
            other = client.create_map("other", "hash", key=U32, value=U64, max_entries=4)
            flows.update(1, 1)
            other.update(1, 1)
            held, threads = maps_of(first), threading.active_count()
            for number in range(20):
                _break_stream(client)
                flows.update(1, number)
                assert other.lookup(1) == 1
            assert maps_of(first) == held, "the same handles, in one session"
            assert threading.active_count() <= threads + 1
        with daemon_process(place) as second:
            idle = maps_of(second)
            assert flows.lookup(1) == 19
            assert maps_of(second) == sorted([*idle, maps_of(second)[0]]), "one map was opened again, once"
            assert list(other.items()) == [(1, 1)]
            flows.close()
            other.close()
            client.unpin_map("flows")
            client.unpin_map("other")
            client.close()
            assert maps_of(second) == idle

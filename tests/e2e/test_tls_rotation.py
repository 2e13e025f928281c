"""Certificates, keys and authorities change while calls are under way, on either side, and no call fails."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

import mapd_client
from mapd.daemon import Ready
from mapd.rpc.tcp import TlsCaller
from mapd_client import U64, Client, Map, MapdError, PermissionDenied, Reason, Tls, channel
from tests.e2e.settling import until
from tests.e2e.tls_place import POLICY, WEB, TlsPlace, renew, tcp_address
from tests.support.daemon import Place, daemon_process
from tests.support.pki import LOCALHOST, Authority, Issued, put, uri


@pytest.fixture
def tcp(place: Place) -> TlsPlace:
    return TlsPlace(place)


class Load:
    """Calls of every kind, without a pause. Every answer is checked; a call that fails, fails the test."""

    def __init__(self, client: Client, words: Map[int, int]) -> None:
        self._client = client
        self._words = words
        self.answered: Counter[str] = Counter()
        self.over = False

    async def updates(self) -> None:
        number = 0
        while not self.over:
            number += 1
            await self._words.update(1, number)
            assert await self._words.lookup(1) == number, "an update that was answered is there"
            self.answered["updates"] += 1

    async def calls(self) -> None:
        while not self.over:
            await self._client.server_info()
            self.answered["calls"] += 1

    async def dumps(self) -> None:
        while not self.over:
            assert len([item async for item in self._words.items()]) >= 100
            self.answered["dumps"] += 1

    async def loads(self) -> None:
        while not self.over:
            await self._words.load((key, 0) for key in range(1_000, 1_100))
            self.answered["loads"] += 1

    async def opens(self) -> None:
        while not self.over:
            async with self._client.open_map("words", key=U64, value=U64) as opened:
                assert await opened.lookup(2) == 2
            self.answered["opens"] += 1

    async def some(self) -> None:
        """Let some of each be answered."""
        before = self.answered.copy()
        assert await until(lambda: all(self.answered[kind] >= before[kind] + 5 for kind in KINDS), 30)


KINDS = ("updates", "calls", "dumps", "loads", "opens")


@asynccontextmanager
async def loaded(ready: Ready, tls: Tls) -> AsyncGenerator[Load]:
    """Load by one client; none of its calls may fail."""
    async with (
        mapd_client.connect(ready.tcp[0], tls=tls, timeout=20) as client,
        client.create_map("words", "hash", key=U64, value=U64, max_entries=10_000) as words,
    ):
        await words.update_many((key, key) for key in range(2, 200))
        load = Load(client, words)
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(getattr(load, kind)(), name=kind)
            await load.some()
            yield load
            await load.some()
            load.over = True


def serial(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate).serial_number


def session_shows(ready: Ready, issued: Issued) -> Callable[[], bool]:
    """Whether a stream runs for this certificate, and none for another."""

    def shows() -> bool:
        callers = [one for one in ready.guard.callers if isinstance(one, TlsCaller)]
        return {one.identity.certificate.serial_number for one in callers} == {serial(issued)}

    return shows


async def shown_by(address: str, tls: Tls) -> int:
    """The serial number of the daemon's certificate, as a new connection sees it."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)
    port = int(address.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number
    finally:
        writer.transport.abort()


async def test_the_daemons_certificate_is_renewed_under_load(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls()
        async with loaded(ready, tls) as load:
            for _ in range(5):
                new = tcp.ca.issue(*LOCALHOST)
                tcp.write_server(new)
                assert await shown_by(ready.tcp[0], tls) == serial(new)
                await load.some()


async def test_a_daemon_that_is_locked_in_reads_its_certificate_again(tcp: TlsPlace) -> None:
    tcp.write_server()
    with daemon_process(tcp.place, extra=tcp.extra(), policy=tcp.policy) as daemon:
        address, tls = tcp_address(daemon), tcp.tls()
        for _ in range(3):
            new = tcp.ca.issue(*LOCALHOST)
            tcp.write_server(new)
            assert await shown_by(address, tls) == serial(new)


async def test_a_key_that_becomes_readable_for_others_leaves_the_last_good_one_in_use(tcp: TlsPlace) -> None:
    first = tcp.ca.issue(*LOCALHOST)
    tcp.write_server(first)
    async with tcp.daemon() as ready:
        tls, second = tcp.tls(), tcp.ca.issue(*LOCALHOST)
        second.write(tcp.server.key.parent, tcp.ca.pem, key_mode=0o644)
        assert await shown_by(ready.tcp[0], tls) == serial(first)
        tcp.server.key.chmod(0o600)
        assert await shown_by(ready.tcp[0], tls) == serial(second)


async def test_a_clients_certificate_is_renewed_under_load(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls()
        async with loaded(ready, tls) as load:
            for _ in range(3):
                new = tcp.ca.issue(uri(WEB))
                renew(tls, new)
                assert await until(session_shows(ready, new), 20)
                await load.some()


async def test_a_renewal_that_cannot_be_used_leaves_the_old_certificate_in_use(
    tcp: TlsPlace, caplog: pytest.LogCaptureFixture
) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls()
        async with loaded(ready, tls) as load:
            renew(tls, Issued(tcp.ca.issue(uri(WEB)).certificate, tcp.ca.issue(uri(WEB)).key))
            assert await until(lambda: "cannot be used, the old ones stay" in caplog.text)
            await load.some()
            new = tcp.ca.issue(uri(WEB))
            renew(tls, new)
            assert await until(session_shows(ready, new), 20)


async def test_both_sides_go_over_to_another_authority_under_load_and_the_old_one_is_worth_nothing(
    tcp: TlsPlace,
) -> None:
    old, new = tcp.ca, Authority("new root")
    both = old.pem + new.pem
    async with tcp.daemon() as ready:
        tls, stale = tcp.tls(), tcp.tls()
        async with loaded(ready, tls) as load:
            async with mapd_client.connect(ready.tcp[0], tls=stale, timeout=10) as left_behind:
                put(tcp.server.ca, both)
                mine = new.issue(uri(WEB))
                renew(tls, mine, both)
                assert await until(session_shows(ready, mine), 20)
                tcp.write_server(new.issue(*LOCALHOST), new.pem)
                await load.some()
                refused = await refusal(left_behind)
                assert refused.reason is Reason.UNAUTHENTICATED
                assert "is not among those of" in str(refused)
            with pytest.raises(MapdError, match=r"signed its certificate|signed the client's certificate"):
                await mapd_client.connect(ready.tcp[0], tls=stale, timeout=10)
            put(Path(stale.ca), both)
            with pytest.raises(MapdError, match="signed the client's certificate"):
                await mapd_client.connect(ready.tcp[0], tls=stale, timeout=10)
            renew(tls, mine, new.pem)
            await load.some()


async def refusal(client: Client) -> MapdError:
    """How a call is refused, once the daemon has looked at its files."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.server_info()
            except MapdError as error:
                return error


async def test_a_certificate_that_is_renewed_before_its_end_is_no_end_for_its_client(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls(uri(WEB), lasts=datetime.timedelta(seconds=4))
        async with loaded(ready, tls) as load:
            first = {one.identity for one in ready.guard.callers if isinstance(one, TlsCaller)}
            new = tcp.ca.issue(uri(WEB))
            renew(tls, new)
            assert await until(session_shows(ready, new), 20)
            (end,) = {one.expires for one in first}
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            now = datetime.datetime.now(datetime.UTC).timestamp()
            loop.call_later(max(end - now, 0) + 0.5, ended.set_result, None)
            await ended
            await load.some()


async def test_connections_grow_old_and_sessions_go_on_over_others(
    tcp: TlsPlace, caplog: pytest.LogCaptureFixture
) -> None:
    tcp.options = "max_connection_age_s = 1\nmax_connection_age_grace_s = 5"
    caplog.set_level(logging.INFO, "mapd_client")
    async with tcp.daemon() as ready, loaded(ready, tcp.tls()):
        assert await until(lambda: caplog.text.count("goodbye: this stream is old") >= 3, 30)


async def test_a_call_that_is_refused_for_the_old_certificate_is_asked_again_with_the_new_one(
    tcp: TlsPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks at the files too: the refusal itself is a reason to look."""
    monkeypatch.setattr(channel, "LOOK_S", 1e9)
    async with tcp.daemon() as ready:
        tls = tcp.tls()
        async with mapd_client.connect(ready.tcp[0], tls=tls, timeout=10) as client:
            await client.server_info()
            tcp.place.policy.write_text(POLICY.replace(f'"{WEB}", ', ""))
            assert ready.policy.reload()
            with pytest.raises(PermissionDenied):
                await client.server_info()
            renew(tls, tcp.ca.issue(uri(f"{WEB}2")))
            await client.server_info()


async def test_idle_clients_sessions_go_on_with_a_new_certificate_when_the_old_one_ends(
    tcp: TlsPlace,
) -> None:
    """Nobody calls, so nobody looks at the files before the daemon ends the stream."""
    async with tcp.daemon() as ready:
        tls = tcp.tls(uri(WEB), lasts=datetime.timedelta(seconds=3))
        async with (
            mapd_client.connect(ready.tcp[0], tls=tls, timeout=10) as client,
            client.create_map("words", "hash", key=U64, value=U64, max_entries=10) as words,
        ):
            await words.update(1, 1)
            new = tcp.ca.issue(uri(WEB))
            renew(tls, new)
            assert await until(session_shows(ready, new), 20)
            assert await words.lookup(1) == 1

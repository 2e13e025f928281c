"""TCP: who a client is, its certificate alone says; who is nobody gets no call through and is told what to do."""

from __future__ import annotations

import asyncio
import datetime
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

import mapd_client
from mapd_api.v1 import maps_pb2, maps_pb2_grpc
from mapd_client import (
    U32,
    U64,
    Map,
    MapdError,
    Misuse,
    NotSent,
    PermissionDenied,
    Reason,
    Tls,
    Unavailable,
)
from tests.e2e.settling import until
from tests.e2e.tls_place import POLICY, WEB, TlsPlace, tcp_address
from tests.support.daemon import Place, daemon_process, environment
from tests.support.pki import HOUR, LOCALHOST, Authority, dns, put, uri


@pytest.fixture
def tcp(place: Place) -> TlsPlace:
    return TlsPlace(place)


async def refusal(address: str, tls: Tls) -> MapdError:
    with pytest.raises(MapdError) as caught:
        await mapd_client.connect(address, tls=tls, timeout=10)
    return caught.value


# Who it is


@pytest.mark.parametrize(
    ("names", "namespace"),
    [
        ([uri(WEB)], "web"),
        ([uri(WEB), dns("edge.example.org")], "web"),
        ([uri("https://example.org/site")], "site"),
        ([dns("edge.example.org")], "edge"),
    ],
)
async def test_a_certificate_makes_its_client_the_principal_that_lists_its_identity(
    tcp: TlsPlace, names: list[x509.GeneralName], namespace: str
) -> None:
    async with (
        tcp.daemon() as ready,
        mapd_client.connect(ready.tcp[0], tls=tcp.tls(*names)) as client,
        client.create_map("flows", "hash", key=U64, value=U64, max_entries=8) as flows,
    ):
        assert flows.info.name == f"{namespace}/flows"
        await flows.update(1, 2)
        assert await flows.lookup(1) == 2
        assert [item async for item in flows.items()] == [(1, 2)]


async def test_a_certificate_below_an_intermediate_authority_is_taken(tcp: TlsPlace) -> None:
    below = Authority("below", tcp.ca)
    async with (
        tcp.daemon() as ready,
        mapd_client.connect(ready.tcp[0], tls=tcp.tls(uri(WEB), signed_by=below)) as client,
    ):
        assert (await client.server_info()).version


async def test_the_environment_names_address_and_certificates(
    tcp: TlsPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls()
        monkeypatch.setenv("MAPD_ADDRESS", ready.tcp[0])
        for variable, path in (("CA", tls.ca), ("CERT", tls.certificate), ("KEY", tls.key)):
            monkeypatch.setenv(f"MAPD_TLS_{variable}", str(path))
        async with mapd_client.connect() as client:
            assert (await client.server_info()).version


# Who is nobody


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([uri(WEB), uri("spiffe://example.org/other")], "has 2 URIs"),
        ([x509.RFC822Name("web@example.org")], "has no URI and no DNS name"),  # and a CN, as all here
        (
            [uri("spiffe://example.org/unknown")],
            'add tls = ["spiffe://example.org/unknown"] to its [principals.NAME]',
        ),
        ([uri("https://example.org/si%74e")], "whose spelling is not the usual one"),
        ([uri("SPIFFE://example.org/web")], "which is no SPIFFE id"),
        ([dns("EDGE.example.org")], "the DNS name 'EDGE.example.org'"),
        ([dns(WEB)], f"the DNS name {WEB!r}"),
    ],
)
async def test_a_certificate_that_names_nobody_gets_no_call_through_and_is_told_why(
    tcp: TlsPlace, names: list[x509.GeneralName], words: str
) -> None:
    async with tcp.daemon() as ready:
        error = await refusal(ready.tcp[0], tcp.tls(*names))
    assert isinstance(error, PermissionDenied)
    assert error.reason is Reason.UNAUTHENTICATED
    assert words in str(error)


async def test_health_and_reflection_answer_only_who_is_somebody(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        for name, code in ((WEB, grpc.StatusCode.OK), ("spiffe://a/b", grpc.StatusCode.UNAUTHENTICATED)):
            async with raw(ready.tcp[0], tcp, tcp.tls(uri(name))) as channel:
                stub: Any = health_pb2_grpc.HealthStub
                call = stub(channel).Check(health_pb2.HealthCheckRequest())
                assert await call.code() is code


def raw(address: str, tcp: TlsPlace, tls: Tls | None) -> grpc.aio.Channel:
    """What is no mapd client."""
    own = (None, None) if tls is None else (Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes())
    return grpc.aio.secure_channel(
        address,
        grpc.ssl_channel_credentials(tcp.ca.pem, *own),
        options=[("grpc.use_local_subchannel_pool", 1)],
    )


async def ask(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
    stub: Any = maps_pb2_grpc.MapServiceStub
    call = stub(channel).GetServerInfo(maps_pb2.GetServerInfoRequest(), timeout=10)
    return await call.code(), await call.details()


async def test_without_a_certificate_there_is_no_connection(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready, raw(ready.tcp[0], tcp, None) as channel:
        code, details = await ask(channel)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "failed to connect" in details


async def test_a_certificate_of_an_unknown_authority_is_shown_in_the_error(tcp: TlsPlace) -> None:
    tls = tcp.tls(uri(WEB), signed_by=Authority("another"))
    async with tcp.daemon() as ready:
        error = await refusal(ready.tcp[0], tls)
    assert isinstance(error, Unavailable)
    assert "no authority in its [tcp] client_ca signed the client's certificate" in str(error)
    assert f"This client shows the certificate in {tls.certificate} (URI {WEB}; from " in str(error)


async def test_a_certificate_that_has_ended_is_named_as_the_cause(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        error = await refusal(ready.tcp[0], tcp.tls(uri(WEB), lasts=-HOUR))
    assert isinstance(error, Unavailable)
    assert str(error).endswith("WHICH HAS ENDED: get a new one")


async def test_a_daemon_of_an_unknown_authority_is_not_spoken_to(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        error = await refusal(ready.tcp[0], tcp.tls(uri(WEB), trusts=Authority("another")))
    assert "none of the authorities in Tls(ca=...) signed its certificate" in str(error)


async def test_a_daemon_whose_certificate_has_ended_is_not_spoken_to(tcp: TlsPlace) -> None:
    tcp.write_server(tcp.ca.issue(*LOCALHOST, lasts=-HOUR))
    async with tcp.daemon() as ready:
        error = await refusal(ready.tcp[0], tcp.tls())
    assert "its certificate has ended: renew the one that [tcp] certificate names" in str(error)


async def test_a_daemon_of_another_name_is_not_spoken_to_unless_that_is_said(tcp: TlsPlace) -> None:
    tcp.write_server(tcp.ca.issue(dns("maps.example.org")))
    async with tcp.daemon() as ready:
        error = await refusal(ready.tcp[0], tcp.tls())
        assert "its certificate is for other names" in str(error)
        named = tcp.tls(server_name="maps.example.org")
        async with mapd_client.connect(ready.tcp[0], tls=named) as client:
            assert (await client.server_info()).version


async def test_where_nobody_listens_a_mutation_is_not_sent(tcp: TlsPlace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with aclosing(mapd_client.Client(address, tls=tcp.tls(), timeout=5)) as client:
        with pytest.raises(NotSent, match="nobody listens there"):
            await client.unpin_map("flows")


async def test_a_host_that_does_not_exist_is_not_sent_to(tcp: TlsPlace) -> None:
    async with aclosing(mapd_client.Client("nowhere.invalid:7433", tls=tcp.tls(), timeout=5)) as client:
        with pytest.raises(NotSent, match="there is no such host"):
            await client.unpin_map("flows")


@pytest.mark.parametrize(
    ("which", "content", "words"),
    [
        ("ca", b"nothing", "tls: ca .*: no certificates in PEM form"),
        ("key", Authority().issue().key, "is not the key of the certificate in"),
        ("key", b"", "tls: certificate .* cannot be used"),
        ("certificate", b"", "tls: certificate .* cannot be used"),
    ],
)
async def test_files_that_cannot_be_used_are_misuse(
    tcp: TlsPlace, which: str, content: bytes, words: str
) -> None:
    tls = tcp.tls()
    put(Path(getattr(tls, which)), content)
    with pytest.raises(Misuse, match=words):
        await mapd_client.connect("127.0.0.1:1", tls=tls)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
async def test_files_that_are_not_there_are_misuse(tcp: TlsPlace, which: str) -> None:
    tls = tcp.tls()
    remove(Path(getattr(tls, which)))
    with pytest.raises(Misuse, match=f"tls: {which} .*: No such file"):
        await mapd_client.connect("127.0.0.1:1", tls=tls)


# As documented


async def test_the_certificates_of_the_documented_lines_are_taken_by_both_sides(tcp: TlsPlace) -> None:
    folder = tcp.place.root / "tls"
    folder.mkdir()
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "tcp.md").read_text()
    (lines, *_) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    made = await asyncio.create_subprocess_exec("sh", "-e", cwd=folder, stdin=-1, stdout=-1, stderr=-1)
    _, said = await made.communicate(lines.encode())
    assert made.returncode == 0, said
    for made_as, wanted in (("edge1.pem", "cert.pem"), ("edge1.key", "key.pem")):
        (folder / made_as).rename(folder / wanted)
    tls = Tls(ca=folder / "ca.pem", certificate=folder / "web.pem", key=folder / "web.key")
    async with tcp.daemon() as ready:
        for host in ("127.0.0.1", "localhost"):
            address = f"{host}:{ready.tcp[0].rpartition(':')[2]}"
            async with (
                mapd_client.connect(address, tls=tls) as client,
                client.create_map("flows", "hash", key=U64, value=U64, max_entries=8, exist_ok=True) as flows,
            ):
                assert flows.info.name == "web/flows"


# TLS 1.3, and files that others may read: a daemon in a process of its own


def handshake(address: str, tls: Tls, version: ssl.TLSVersion) -> str:
    """What comes of a handshake of one version: the version, or how it failed."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                return secured.version() or ""
        except OSError as error:
            return type(error).__name__


def test_tls_1_2_ends_in_the_handshake(tcp: TlsPlace) -> None:
    tcp.write_server()
    with daemon_process(tcp.place, extra=tcp.extra(), policy=tcp.policy) as daemon:
        address, tls = tcp_address(daemon), tcp.tls()
        assert handshake(address, tls, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert handshake(address, tls, ssl.TLSVersion.TLSv1_2) in {
            "SSLZeroReturnError",
            "SSLError",
            "SSLEOFError",
        }


async def test_connections_are_counted_in_a_daemon_that_is_locked_in(tcp: TlsPlace) -> None:
    tcp.policy = POLICY_OF_TWO
    tcp.write_server()
    with daemon_process(tcp.place, extra=tcp.extra(), policy=tcp.policy) as daemon:
        await three_of_two(tcp_address(daemon), tcp)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_daemon_whose_key_others_may_read_does_not_start(tcp: TlsPlace, mode: int) -> None:
    files = tcp.write_server()
    files.key.chmod(mode)
    config = tcp.place.root / "mapd.toml"
    config.write_text(tcp.place.toml(extra=tcp.extra(), policy=tcp.policy))
    done = subprocess.run(
        [sys.executable, "-m", "mapd", "serve", "--config", config],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"others than its owner may use the key (mode {mode:04o}); chmod 600 {files.key}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not tcp.place.socket.exists()


# Expired while connected


async def updated(flows: Map[int, int]) -> tuple[int, MapdError]:
    """How many updates were answered until one was refused, and how that was."""
    answered = 0
    while True:
        try:
            await flows.update(1, answered)
        except MapdError as error:
            return answered, error
        answered += 1


async def test_a_certificate_that_ends_while_it_is_connected_ends_the_session_and_every_further_call(
    tcp: TlsPlace,
) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls(uri(WEB), lasts=datetime.timedelta(seconds=3))
        async with mapd_client.connect(ready.tcp[0], tls=tls, timeout=10) as client:
            async with client.create_map("flows", "hash", key=U64, value=U64, max_entries=8) as flows:
                answered, error = await updated(flows)
                with pytest.raises(MapdError) as unary:
                    await client.server_info()
            assert answered
        for each in (error, unary.value):
            assert "ended" in str(each) or "HAS ENDED" in str(each)
        assert await until(lambda: not ready.guard.callers)


async def test_a_dump_that_stands_still_is_ended_with_its_certificate(tcp: TlsPlace) -> None:
    async with tcp.daemon() as ready:
        tls = tcp.tls(uri(WEB), lasts=datetime.timedelta(seconds=3))
        async with (
            mapd_client.connect(ready.tcp[0], tls=tls, timeout=20) as client,
            client.create_map("many", "array", key=U32, value=U64, max_entries=2_000_000) as many,
            aclosing(many.chunks()) as chunks,
        ):
            await anext(chunks)
            expires = [caller.expires or 0.0 for caller in ready.guard.callers]
            assert len(expires) == 2, "the session and the dump"
            assert await until(lambda: time.time() > max(expires), 20)
            error = await read_to_its_end(chunks)  # what was on its way is still read
    assert "has ended; what was done stays" in str(error)


async def read_to_its_end(chunks: AsyncIterator[object]) -> MapdError:
    try:
        async for _ in chunks:
            pass
    except MapdError as error:
        return error
    raise AssertionError("it had an end")


# Connections


POLICY_OF_TWO = POLICY.replace(
    "[principals.site]", "[principals.web.quotas]\nconnections = 2\n[principals.site]"
)


async def test_a_principal_has_as_many_connections_as_its_quota_and_a_closed_one_makes_room(
    tcp: TlsPlace,
) -> None:
    tcp.policy = POLICY_OF_TWO
    async with tcp.daemon() as ready:
        await three_of_two(ready.tcp[0], tcp)


async def three_of_two(address: str, tcp: TlsPlace) -> None:
    first, second, third = (raw(address, tcp, tcp.tls()) for _ in range(3))
    other = raw(address, tcp, tcp.tls(dns("edge.example.org")))
    assert (await ask(first))[0] is grpc.StatusCode.OK
    assert (await ask(second))[0] is grpc.StatusCode.OK
    code, details = await ask(third)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "web has 2 of 2" in details
    assert (await ask(other))[0] is grpc.StatusCode.OK
    assert (await ask(first))[0] is grpc.StatusCode.OK
    await second.close()
    async with asyncio.timeout(30):
        while (await ask(third))[0] is not grpc.StatusCode.OK:
            pass
    for channel in (first, third, other):
        await channel.close()


async def silent(port: int, sends: bytes, secured: ssl.SSLContext | None) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=secured, server_hostname=None if secured is None else "localhost"
    )
    writer.write(sends)
    KEPT.append(writer)
    return reader


KEPT: list[asyncio.StreamWriter] = []


def hello(context: ssl.SSLContext) -> bytes:
    """The first message of a handshake."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(inward, outward, server_hostname="localhost").do_handshake()
    return outward.read()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        while await reader.read(1 << 16):
            pass
    except OSError:
        pass
    return True


async def test_connections_that_stop_talking_are_closed_and_others_are_served_meanwhile(
    tcp: TlsPlace,
) -> None:
    tcp.options = "handshake_timeout_s = 1\nmax_connection_idle_s = 1\nmax_connections = 64"
    async with tcp.daemon() as ready:
        port, tls = int(ready.tcp[0].rpartition(":")[2]), tcp.tls()
        context = ssl.create_default_context(cafile=tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
        context.set_alpn_protocols(["h2"])
        kinds = [
            (b"", None),
            (hello(context), None),
            (b"", context),
            (PREFACE, context),
            (PREFACE + SETTINGS, context),
        ]
        readers = [await silent(port, sends, secured) for sends, secured in kinds for _ in range(8)]
        async with (
            mapd_client.connect(ready.tcp[0], tls=tls) as client,
            client.create_map("flows", "hash", key=U64, value=U64, max_entries=8) as flows,
        ):
            waiting = asyncio.gather(*map(ended, readers))
            served = 0
            while not waiting.done():
                await flows.update(1, served)
                served += 1
            assert await waiting == [True] * 40
            assert served
        for writer in KEPT:
            writer.transport.abort()
        KEPT.clear()


async def test_beyond_the_most_connections_there_are_none_and_the_silent_ones_make_room(
    tcp: TlsPlace,
) -> None:
    tcp.options = "handshake_timeout_s = 1\nmax_connections = 4"
    async with tcp.daemon() as ready:
        port = int(ready.tcp[0].rpartition(":")[2])
        held = [await silent(port, b"", None) for _ in range(4)]
        assert await ended(await silent(port, b"", None))
        assert not any(reader.at_eof() for reader in held), "the one too many was closed at once"
        await asyncio.gather(*map(ended, held))
        async with mapd_client.connect(ready.tcp[0], tls=tcp.tls()) as client:
            assert (await client.server_info()).version
        for writer in KEPT:
            writer.transport.abort()
        KEPT.clear()


# The policy changes


async def test_who_is_taken_out_of_the_policy_has_its_session_ended_and_its_calls_refused(
    tcp: TlsPlace,
) -> None:
    async with (
        tcp.daemon() as ready,
        mapd_client.connect(ready.tcp[0], tls=tcp.tls(), timeout=10) as client,
        client.create_map("flows", "hash", key=U64, value=U64, max_entries=8) as flows,
    ):
        await flows.update(1, 1)
        tcp.place.policy.write_text(POLICY.replace('"spiffe://example.org/web", ', ""))
        assert ready.policy.reload()
        with pytest.raises(PermissionDenied, match="no principal of the policy has this identity"):
            await client.server_info()
        _, error = await updated(flows)
        assert "no principal of the policy has this identity" in str(error)

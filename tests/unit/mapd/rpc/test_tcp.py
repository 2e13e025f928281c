"""Who calls over TCP: told by what gRPC says of the connection, asked again when policy or files change."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from mapd.access.policy.file import parse
from mapd.access.policy.model import Policy
from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.rpc import expiry
from mapd.rpc.caller import Caller, Context
from mapd.rpc.expiry import while_attested
from mapd.rpc.tcp import Callers, TcpSettings, TlsCaller
from mapd.rpc.tls_files import TlsFiles
from mapd_api.reasons import Reason, Refusal
from tests.support.pki import HOUR, LOCALHOST, Authority, put, uri

WEB = "spiffe://example.org/web"
POLICY = """
[principals.web]
namespace = "w"
tls = ["spiffe://example.org/web"]
[principals.web.quotas]
connections = 1
"""

SETTINGS = TcpSettings(
    listen=(),
    certificate="/c/server.pem",
    key="/c/key.pem",
    client_ca="/c/ca.pem",
    max_connections=8,
    handshake_timeout_s=5,
    max_connection_idle_s=300,
    max_connection_age_s=1_800,
    max_connection_age_grace_s=60,
)


class Connection:
    """What gRPC tells of one, in its own words (1.85; 1.78 has no ssl_tls_version)."""

    def __init__(self, pem: bytes | None, version: bytes | None = b"TLSv1.3", port: int = 1) -> None:
        self._told: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}
        if pem is not None:
            self._told["x509_pem_cert"] = [pem]
        if version is not None:
            self._told["ssl_tls_version"] = [version]
        self._port = port

    def auth_context(self) -> Mapping[str, list[bytes]]:
        return self._told

    def peer(self) -> str:
        return f"ipv4:192.0.2.1:{self._port}"

    @property
    def context(self) -> Context:
        return cast("Context", self)


class Daemon:
    """Callers, with files and a policy that change."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority()
        self.paths = self.ca.issue(*LOCALHOST).write(folder, self.ca.pem)
        self.files = TlsFiles(self.paths.certificate, self.paths.key, self.paths.ca)
        self.policy: Policy = parse(POLICY.encode(), "policy.toml")
        self.callers = self.who(only_1_3=True)

    def who(self, *, only_1_3: bool) -> Callers:
        return Callers(self.files, lambda: self.policy, SETTINGS, only_1_3=only_1_3)

    def pem(self, name: str = WEB, lasts: datetime.timedelta = HOUR) -> bytes:
        return self.ca.issue(uri(name), lasts=lasts).certificate

    def refusal(self, connection: Connection) -> MapError:
        with pytest.raises(MapError) as caught:
            self.callers.identify(connection.context)
        return caught.value


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "tls")


def test_a_caller_is_the_principal_of_its_certificate_until_that_ends(daemon: Daemon) -> None:
    found = daemon.callers.identify(Connection(daemon.pem()).context)
    assert found.principal == Principal(name="web", namespace="w")
    assert found.attested_by == f"tls:{WEB}"
    ends = datetime.datetime.now(datetime.UTC) + HOUR
    assert found.expires == pytest.approx(ends.timestamp(), abs=60)


@pytest.mark.parametrize("version", [b"TLSv1.2", b"TLSv1", b"TLSv1.30"])
@pytest.mark.parametrize("only_1_3", [False, True])
def test_a_connection_that_is_told_to_be_older_than_tls_1_3_gets_no_call_through(
    daemon: Daemon, version: bytes, only_1_3: bool
) -> None:
    daemon.callers = daemon.who(only_1_3=only_1_3)
    refused = daemon.refusal(Connection(daemon.pem(), version))
    assert refused.reason is Reason.UNAUTHENTICATED
    assert "mapd takes TLS 1.3 only" in str(refused)


def test_where_grpc_does_not_tell_the_version_the_handshake_must_be_known_to_refuse_older_ones(
    daemon: Daemon,
) -> None:
    untold = Connection(daemon.pem(), None)
    assert daemon.callers.identify(untold.context).principal.name == "web"
    daemon.callers = daemon.who(only_1_3=False)
    assert "that this daemon's gRPC does not tell" in str(daemon.refusal(untold))


def test_without_a_certificate_a_caller_is_nobody(daemon: Daemon) -> None:
    assert "showed no certificate" in str(daemon.refusal(Connection(None)))


def test_a_certificate_that_has_ended_is_told_with_its_day(daemon: Daemon) -> None:
    refused = daemon.refusal(Connection(daemon.pem(lasts=-HOUR)))
    day = (datetime.datetime.now(datetime.UTC) - HOUR).strftime("%Y-%m-%d")
    assert refused.reason is Reason.UNAUTHENTICATED
    assert f"the certificate of {WEB} ended on {day}" in str(refused)


def test_an_authority_that_is_taken_out_ends_the_callers_that_it_signed(daemon: Daemon) -> None:
    connection = Connection(daemon.pem())
    caller = daemon.callers.identify(connection.context)
    assert isinstance(caller, TlsCaller)
    assert daemon.callers.why_not(caller) == ""
    put(daemon.paths.ca, Authority("another").pem)
    daemon.files.current()
    assert "is not among those of /c/ca.pem any more" in str(daemon.refusal(connection))
    assert "is not among those of" in daemon.callers.why_not(caller)


def test_a_policy_that_gives_an_identity_to_somebody_else_ends_its_callers(daemon: Daemon) -> None:
    connection = Connection(daemon.pem())
    caller = daemon.callers.identify(connection.context)
    assert isinstance(caller, TlsCaller)
    daemon.policy = parse(POLICY.replace("principals.web", "principals.other").encode(), "policy.toml")
    assert daemon.callers.why_not(caller) == f"{WEB} is other now, in namespace w; connect again"
    assert daemon.callers.identify(connection.context).principal.name == "other"
    daemon.policy = parse(b"", "policy.toml")
    assert "no principal of the policy has this identity" in daemon.callers.why_not(caller)


def test_a_connection_is_old_from_its_first_call_on(daemon: Daemon) -> None:
    pem = daemon.pem()
    first, second = (daemon.callers.identify(Connection(pem).context) for _ in range(2))
    assert first.aged is not None
    assert first.aged == second.aged


def test_grpcs_limits_leave_sessions_the_grace_after_the_goodbye() -> None:
    options = dict(SETTINGS.options())
    latest_s = options["grpc.max_connection_age_ms"] * 1.1 / 1_000
    cut_s = (
        options["grpc.max_connection_age_ms"] * 0.9 + options["grpc.max_connection_age_grace_ms"]
    ) / 1_000
    assert latest_s <= SETTINGS.max_connection_age_s
    assert cut_s >= SETTINGS.max_connection_age_s + SETTINGS.max_connection_age_grace_s
    assert latest_s + options["grpc.max_connection_age_grace_ms"] / 1_000 <= SETTINGS.longest_s


# Streams


async def test_a_stream_is_ended_when_the_clock_on_the_wall_passes_the_certificates_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1_000.0]
    monkeypatch.setattr("mapd.rpc.expiry.time.time", lambda: clock[0])
    monkeypatch.setattr(expiry, "LOOK_S", 0.001)
    caller = Caller(principal=Principal(name="web", namespace="w"), attested_by="tls:x", expires=5_000.0)
    told: asyncio.Queue[tuple[Caller, Refusal]] = asyncio.Queue()

    with while_attested(caller, lambda who, why: told.put_nowait((who, why))):
        clock[0] = 4_999.0  # set forward while the stream runs
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await told.get()
        clock[0] = 5_001.0
        who, refusal = await told.get()
    assert who is caller
    assert refusal.reason is Reason.UNAUTHENTICATED


async def test_a_stream_that_ends_before_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LOOK_S", 0.001)
    told: list[Caller] = []
    caller = Caller(principal=Principal(name="web", namespace="w"), attested_by="tls:x", expires=0.0)
    with while_attested(caller, lambda who, _: told.append(who)):
        pass
    for _ in range(10):
        await asyncio.sleep(0)
    assert told == []

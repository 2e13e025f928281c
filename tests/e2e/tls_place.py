"""A daemon on TCP, and certificates for it and its clients."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from mapd.config import Config
from mapd.daemon import Ready, running
from mapd_client import Tls
from tests.support.daemon import DaemonProcess, Place
from tests.support.pki import HOUR, LOCALHOST, Authority, Files, Issued, put, uri

WEB = "spiffe://example.org/web"

POLICY = """
[principals.web]
tls = ["spiffe://example.org/web", "spiffe://example.org/web2"]
[principals.site]
tls = ["https://example.org/site"]
[principals.edge]
tls = ["edge.example.org"]
[[rules]]
who = ["*"]
role = "owner"
owners = ["self"]
"""


@dataclass
class TlsPlace:
    """Folders of one daemon, with its authority."""

    place: Place
    ca: Authority = field(default_factory=Authority)
    options: str = ""
    policy: str = POLICY
    _clients: int = 0

    @property
    def server(self) -> Files:
        folder = self.place.root / "tls"
        return Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")

    def write_server(self, issued: Issued | None = None, client_ca: bytes | None = None) -> Files:
        """The daemon's files; of the authority unless others are given."""
        new = issued or self.ca.issue(*LOCALHOST)
        return new.write(self.place.root / "tls", client_ca or self.ca.pem)

    def extra(self) -> str:
        """The table [tcp]."""
        files = self.server
        return (
            f"[tcp]\nlisten = ['127.0.0.1:0']\ncertificate = '{files.certificate}'\nkey = '{files.key}'\n"
            f"client_ca = '{files.ca}'\n{self.options}\n"
        )

    def config(self) -> Config:
        return self.place.config(extra=self.extra(), policy=self.policy)

    @asynccontextmanager
    async def daemon(self) -> AsyncGenerator[Ready]:
        """In this loop and process."""
        if not self.server.key.exists():
            self.write_server()
        async with running(self.config()) as ready:
            yield ready

    def tls(
        self,
        *names: x509.GeneralName,
        signed_by: Authority | None = None,
        trusts: Authority | None = None,
        lasts: datetime.timedelta = HOUR,
        server_name: str | None = None,
    ) -> Tls:
        """Files of a new client; by default web's."""
        self._clients += 1
        issued = (signed_by or self.ca).issue(*(names or (uri(WEB),)), lasts=lasts)
        files = issued.write(self.place.root / f"client{self._clients}", (trusts or self.ca).pem)
        return Tls(ca=files.ca, certificate=files.certificate, key=files.key, server_name=server_name)


def tcp_address(daemon: DaemonProcess) -> str:
    """Where a daemon of a process of its own says that it listens."""
    for line in daemon.log.read_bytes()[daemon.log_begin :].decode().splitlines():
        if '"event": "ready"' in line:
            (address,) = json.loads(line)["tcp"]
            return str(address)
    raise AssertionError("the daemon does not tell where it listens")


def renew(tls: Tls, issued: Issued, ca: bytes | None = None) -> None:
    """Replace a client's files, one after the other."""
    if ca is not None:
        put(Path(tls.ca), ca)
    put(Path(tls.key), issued.key, 0o600)
    put(Path(tls.certificate), issued.certificate)

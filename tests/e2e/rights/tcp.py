"""Certificates of all kinds, and where the daemon listens for them."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.rights.world import NO_CERTIFICATE, REMOTE, World
from tests.support.daemon import DaemonProcess
from tests.support.pki import LOCALHOST, Authority, Issued, dns, uri

READABLE: Final = 0o644
ENDED: Final = datetime.timedelta(minutes=-1)


@dataclass(frozen=True, slots=True)
class Tcp:
    """What a client needs: an address, and the files of each certificate by its label."""

    folder: Path
    authority: Authority
    target: str = ""

    @classmethod
    def make(cls, world: World) -> Tcp:
        """All of them, and the daemon's own."""
        folder = world.place.root / "tls"
        folder.mkdir()
        ours, foreign = Authority(), Authority("another root")
        made = cls(folder, ours)
        ours.issue(*LOCALHOST).write(folder / "daemon", ours.pem)
        made.put("good", ours.issue(uri(REMOTE)))
        made.put("foreign", foreign.issue(uri(REMOTE)))
        made.put("expired", ours.issue(uri(REMOTE), lasts=ENDED))
        made.put("two", ours.issue(uri(REMOTE), uri("spiffe://example.org/ns/net/sa/other")))
        made.put("short", ours.issue(uri(REMOTE)))
        made.put("cn", ours.issue(common_name=REMOTE))
        made.put("stranger", ours.issue(uri("spiffe://example.org/ns/net/sa/stranger"), dns("localhost")))
        return made

    def put(self, label: str, issued: Issued) -> None:
        """Write one where every uid can read it."""
        issued.write(self.folder / label, self.authority.pem, READABLE)

    @property
    def config(self) -> str:
        """The daemon's table."""
        own = self.folder / "daemon"
        return (
            f"[tcp]\nlisten = ['127.0.0.1:0']\ncertificate = '{own}/cert.pem'\nkey = '{own}/key.pem'\n"
            f"client_ca = '{own}/ca.pem'\n"
        )

    def at(self, daemon: DaemonProcess) -> Tcp:
        """The same with the address that the daemon says it has."""
        for line in daemon.log.read_text().splitlines():
            if '"event": "ready"' in line:
                (address,) = json.loads(line)["tcp"]
                return Tcp(self.folder, self.authority, f"ipv4:{address}")
        raise AssertionError("the daemon is not ready")

    def shown(self, label: str) -> dict[str, str]:
        """The files that a client with this certificate uses."""
        own = self.folder / label
        if label == NO_CERTIFICATE:
            return {"ca": str(self.folder / "good" / "ca.pem")}
        return {"ca": f"{own}/ca.pem", "certificate": f"{own}/cert.pem", "key": f"{own}/key.pem"}

"""Hosts of a test: network namespaces on a bridge, with addresses of their own; nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator, Sequence
from dataclasses import dataclass


def ip(*words: str, check: bool = True) -> None:
    """Run a command of iproute2."""
    subprocess.run(["ip", *words], check=check, capture_output=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """One host.

    Attributes:
        name: of the namespace.
        address: IPv4, in 10.77.0.0/24.
    """

    name: str
    address: str

    @property
    def prefix(self) -> Sequence[str]:
        """A command's beginning: run it there."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def cut(self) -> None:
        """Take its cable out: nothing that is sent to it arrives, and nothing comes back."""
        ip("-n", self.name, "link", "set", "eth0", "down")


@contextlib.contextmanager
def hosts(count: int) -> Generator[tuple[Namespace, Sequence[Namespace]]]:
    """A namespace for the client, which has the bridge, and ``count`` for hosts."""
    unique = f"mapdtest{os.getpid()}"
    client = Namespace(f"{unique}c", "10.77.0.254")
    found = [Namespace(f"{unique}h{at}", f"10.77.0.{at + 1}") for at in range(count)]
    try:
        ip("netns", "add", client.name)
        ip("-n", client.name, "link", "set", "lo", "up")
        ip("-n", client.name, "link", "add", "br0", "type", "bridge")
        ip("-n", client.name, "address", "add", f"{client.address}/24", "dev", "br0")
        ip("-n", client.name, "link", "set", "br0", "up")
        for at, one in enumerate(found):
            ip("netns", "add", one.name)
            ip("-n", one.name, "link", "set", "lo", "up")
            cable = f"veth{at}"
            ip(
                "-n",
                client.name,
                "link",
                "add",
                cable,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                one.name,
            )
            ip("-n", client.name, "link", "set", cable, "master", "br0", "up")
            ip("-n", one.name, "address", "add", f"{one.address}/24", "dev", "eth0")
            ip("-n", one.name, "link", "set", "eth0", "up")
        yield client, found
    finally:
        for one in (*found, client):
            ip("netns", "delete", one.name, check=False)

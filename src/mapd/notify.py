"""sd_notify(3): telling systemd how far we are. One datagram, no library."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> None:
    """Send state lines ("READY=1") to the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(address)
        channel.sendall("\n".join(lines).encode())

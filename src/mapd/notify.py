"""sd_notify(3): telling systemd how far we are. One datagram, no library."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send state lines ("READY=1") to the service manager, if there is one.

    One that cannot be reached is its own trouble: it sees that nothing comes, and serving goes on.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        contextlib.suppress(OSError),
    ):
        channel.connect(address)
        channel.sendall("\n".join(lines).encode())

"""What is done to the packets of a namespace, for the length of a block: nftables and tc, in that namespace alone."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator

from tests.support.netns import Namespace, ip

TABLE = "mapdfaults"


def _nft(there: Namespace, *commands: str) -> None:
    subprocess.run([*there.prefix, "nft", "; ".join(commands)], check=True, capture_output=True)


@contextlib.contextmanager
def _rule(there: Namespace, rule: str) -> Generator[None]:
    _nft(
        there,
        f"add table inet {TABLE}",
        f"add chain inet {TABLE} in {{ type filter hook input priority 0; }}",
        f"add rule inet {TABLE} in {rule}",
    )
    try:
        yield
    finally:
        _nft(there, f"delete table inet {TABLE}")


def lossy(there: Namespace, per_mille: int) -> contextlib.AbstractContextManager[None]:
    """So many of a thousand packets that arrive there are lost."""
    return _rule(there, f"numgen random mod 1000 < {per_mille} drop")


def deaf(there: Namespace, port: int) -> contextlib.AbstractContextManager[None]:
    """What comes from that port is lost: questions arrive, and no answer comes back."""
    return _rule(there, f"tcp sport {port} drop")


def resetting(there: Namespace, port: int, per_mille: int) -> contextlib.AbstractContextManager[None]:
    """So many of a thousand packets to that port are answered by a reset, as by a firewall that forgot a connection."""
    return _rule(there, f"tcp dport {port} numgen random mod 1000 < {per_mille} reject with tcp reset")


@contextlib.contextmanager
def narrow(there: Namespace) -> Generator[None]:
    """2 Mbit/s, and what waits longer than 200 ms is lost."""
    words = (
        "tc",
        "qdisc",
        "add",
        "dev",
        "eth0",
        "root",
        "tbf",
        "rate",
        "2mbit",
        "burst",
        "4kb",
        "latency",
        "200ms",
    )
    subprocess.run([*there.prefix, *words], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(
            [*there.prefix, "tc", "qdisc", "delete", "dev", "eth0", "root"], check=True, capture_output=True
        )


@contextlib.contextmanager
def unplugged(there: Namespace) -> Generator[None]:
    """Its cable is out."""
    there.cut()
    try:
        yield
    finally:
        ip("-n", there.name, "link", "set", "eth0", "up")

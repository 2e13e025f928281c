"""``socket``: the daemon's address, for other clients."""

from __future__ import annotations

import sys
from pathlib import Path

from mapd_client import discovery
from mapd_client.cli import outcomes
from mapd_client.cli.options import Given
from mapd_client.cli.running import reached
from mapd_client.errors import Unavailable


def socket(*, options: Given) -> int:
    """Print the daemon's address as any gRPC client takes it: unix:/run/mapd/.../mapd.sock, or dns:///host:port.

    A socket is looked at, and nothing is asked: exit code 5 if nobody listens there.

    Args:
        options: of every verb.
    """
    address = reached(options).address
    target = discovery.discover() if address is None else discovery.parse_target(address)
    path = target.removeprefix("unix:")
    if path != target and (problem := discovery.examine(Path(path))) is not None:
        raise Unavailable(f"socket: {path}: {problem}")
    sys.stdout.write(discovery.uri(target) + "\n")
    return outcomes.OK

"""``python -m mapd.opener``: the opener without a sandbox around it, on a descriptor or at a path."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from mapd.opener.limits import BadLimits, Limits
from mapd.opener.listening import serve_at
from mapd.opener.server import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one front until it is gone. 2: the command line is wrong."""
    parser = argparse.ArgumentParser(prog="python -m mapd.opener", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="of a connected SOCK_SEQPACKET socket")
    where.add_argument("--listen", metavar="PATH", help="where to make a socket and wait for the front")
    parser.add_argument("--front-uid", type=int, help="with --listen: the only user who is served")
    parser.add_argument("--front-gid", type=int, help="with --listen: the group of the socket")
    parser.add_argument("--limits", required=True, metavar="JSON", help="as mapd.opener.Limits.to_json()")
    given = parser.parse_args(arguments)
    try:
        limits = Limits.from_json(given.limits)
    except BadLimits as error:
        parser.error(f"--limits: {error}")
    if given.fd is not None:
        serve(socket.socket(fileno=given.fd), limits)
    elif given.front_uid is None:
        parser.error("--listen needs --front-uid")
    else:
        serve_at(given.listen, given.front_uid, limits, gid=given.front_gid)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a request that hangs in the kernel does not keep this process

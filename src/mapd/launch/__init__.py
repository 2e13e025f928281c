"""Starting ``mapd serve``: two processes, each locked in before it has a thread or reads a byte from anybody.

The calling process becomes the *front*: no capability, speaks gRPC. It starts the *opener* first, which keeps the
profile's capabilities and understands ``mapd.opener``'s requests on one socket. ``front`` and ``link`` are the front's
side, ``openerprocess`` is what the other interpreter runs; ``inside`` is what comes after the lock.
"""

from __future__ import annotations


class LaunchError(Exception):
    """The processes cannot be started so; the message says why, and what to do."""

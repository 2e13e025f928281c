"""The opener: the process that has the rights, and does for a front without any what needs them.

It knows the requests of ``mapd.bpf.kernel`` and nothing else: no gRPC, no network, no instructions from anybody. Each
is checked against limits that were fixed at its start, whatever the front says. Imports the standard library,
``mapd_api``'s plain modules and ``mapd.bpf`` alone. Blocks: no event loop.
"""

from __future__ import annotations

from mapd.bpf.kernel import LimitRefused
from mapd.opener.client import OpenerEnded, OpenerKernel
from mapd.opener.forms import OpenerFailed
from mapd.opener.limits import BadLimits, Limits
from mapd.opener.server import serve

__all__ = ["BadLimits", "LimitRefused", "Limits", "OpenerEnded", "OpenerFailed", "OpenerKernel", "serve"]

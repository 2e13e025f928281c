"""The real kernel: both halves together."""

from __future__ import annotations

from mapd.bpf.control import LinuxControl
from mapd.bpf.elements import LinuxElements


class LinuxKernel(LinuxElements, LinuxControl):
    """``mapd.bpf.kernel.Kernel`` on the running Linux. Has no state; one serves all threads."""

    __slots__ = ()

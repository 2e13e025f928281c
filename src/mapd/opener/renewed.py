"""A ``Kernel`` by one opener after the other."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from mapd.bpf.elements import LinuxElements
from mapd.bpf.kernel import ControlRequest, R
from mapd.opener.client import OpenerKernel


class RenewedKernel(LinuxElements):
    """``Kernel`` by the opener at the other end of ``sock``, and after ``renew`` by another. Serves all threads.

    The descriptors that an opener gave are this process' own: what is open stays so when it ends.
    """

    __slots__ = ("_now",)

    def __init__(self, sock: socket.socket) -> None:
        self._now = OpenerKernel(sock)

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """See ``OpenerKernel.control``: between two openers, OpenerEnded."""
        return self._now.control(request, fds)

    def renew(self, sock: socket.socket) -> None:
        """Ask the opener at the other end of ``sock`` from now on. What the last one was asked fails, as it would."""
        last, self._now = self._now, OpenerKernel(sock)
        last.close()

    def close(self) -> None:
        """See ``OpenerKernel.close``."""
        self._now.close()

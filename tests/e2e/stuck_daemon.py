"""``mapd serve`` whose first update of a map never returns from the kernel: ``stuck_daemon.py serve --config FILE``."""

from __future__ import annotations

import sys
import threading

from mapd import cli, daemon
from mapd.bpf import Fault, FaultyKernel, LinuxKernel, Pin
from mapd.bpf.abi import Command

WORD = "stuck in the kernel"


class Never(threading.Event):
    """An event that does not come; says so once somebody waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        sys.stdout.write(f"{WORD}\n")
        sys.stdout.flush()
        return super().wait(timeout)


def stuck_kernel() -> FaultyKernel:
    """Stuck from the first map on: what the daemon tries at its start goes through."""
    kernel = FaultyKernel(LinuxKernel())
    stuck = Fault(target=Command.MAP_UPDATE_ELEM, wait=Never())
    kernel.add(Fault(target=Pin, failpoint=lambda: kernel.add(stuck)))
    return kernel


if __name__ == "__main__":
    setattr(daemon, "LinuxKernel", stuck_kernel)  # noqa: B010 - the type of the module says that it is a class
    # One process: the kernel that stands still is this one's, and locking in refuses a process that has imported grpc.
    sys.exit(cli.run([*sys.argv[1:], "--single-process"]))

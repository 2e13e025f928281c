"""``mapd serve`` that is at fault whenever an element is deleted: ``faulty_daemon.py serve --config FILE``."""

from __future__ import annotations

import sys

from mapd import cli, daemon
from mapd.bpf import Fault, FaultyKernel, LinuxKernel, Pin
from mapd.bpf.abi import Command


def at_fault() -> None:
    raise RuntimeError("nobody has thought of this")


def faulty_kernel() -> FaultyKernel:
    """From the first map on: what the daemon tries at its start goes through."""
    kernel = FaultyKernel(LinuxKernel())
    fault = Fault(target=Command.MAP_DELETE_ELEM, failpoint=at_fault)
    kernel.add(Fault(target=Pin, failpoint=lambda: kernel.add(fault)))
    return kernel


if __name__ == "__main__":
    setattr(daemon, "LinuxKernel", faulty_kernel)  # noqa: B010 - the type of the module says that it is a class
    # One process: the kernel that is broken is this one's, and locking in refuses a process that has imported grpc.
    sys.exit(cli.run([*sys.argv[1:], "--single-process"]))

"""Maps without a kernel: a ``Kernel`` in this process' memory, for tests of programs that use mapd.

It answers as Linux 6.18 was found to answer, errno by errno, so that everything above it is the same code
as over the kernel. It proves that code, and never Linux: what is true of the kernel is in tests/kernel,
and a state machine compares the two (tests/suite). ``DIFFERENCES`` are the known ones.

Nothing here reaches a kernel map, a bpffs or a program, and it needs no rights. It imports ``mapd.bpf``
(the protocol, file descriptors, buffers) and must not import ctypes, asyncio or grpc. Everything blocks.
"""

from __future__ import annotations

from mapd.memory.differences import DIFFERENCES, Difference
from mapd.memory.kernel import MemoryKernel

__all__ = ["DIFFERENCES", "Difference", "MemoryKernel"]

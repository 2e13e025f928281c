"""Maps in this process' memory, through mapd.maps as those of the kernel are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mapd.bpf import possible_cpus
from mapd.memory import MemoryKernel
from tests.suite.backend import Backend
from tests.suite.kernel_backend import KernelBackend
from tests.support.daemon import Place


@asynccontextmanager
async def memory_backend(place: Place) -> AsyncGenerator[Backend]:
    backend = KernelBackend(place, MemoryKernel(possible_cpus(), [str(place.bpffs), str(place.names)]))
    try:
        yield backend
    finally:
        backend.close()

"""What a test must leave as it found it: file descriptors, threads, the kernel's maps."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from mapd.bpf import LinuxKernel, NextMapId, OpenId, SyscallError
from mapd.maps.lingering import Lingering


def open_fds() -> Counter[str]:
    """What this process' file descriptors point to, and how many at each."""
    targets: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the fd of this listing itself
            targets[str(link.readlink())] += 1
    return targets


def map_fds() -> int:
    """How many of this process' file descriptors are maps."""
    return open_fds()["anon_inode:bpf-map"]


def thread_names() -> Counter[str]:
    """The running Python threads by name."""
    return Counter(thread.name for thread in threading.enumerate())


def kernel_maps() -> dict[int, str]:
    """Every map that the kernel has, in any process: its name by its id. Needs CAP_SYS_ADMIN."""
    kernel = LinuxKernel()
    names: dict[int, str] = {}
    map_id = kernel.control(NextMapId(map_id=0))
    with Lingering() as lingering:
        while map_id is not None:
            with contextlib.suppress(SyscallError):  # ENOENT: gone since
                owned = kernel.control(OpenId(map_id=map_id, read_only=True))
                with owned.lease() as map_fd:
                    info = kernel.info(map_fd)
                lingering.close(owned, info.map_type)
                names[map_id] = info.name
            map_id = kernel.control(NextMapId(map_id=map_id))
    return names


@contextlib.contextmanager
def nothing_left_behind() -> Generator[None]:
    """Fail if file descriptors or threads of this process are more afterwards, naming them."""
    gc.collect()
    fds, threads = open_fds(), thread_names()
    yield
    gc.collect()
    more_fds, more_threads = open_fds() - fds, thread_names() - threads
    assert not more_fds, f"file descriptors left open: {dict(more_fds)}"
    assert not more_threads, f"threads left running: {dict(more_threads)}"


@contextlib.contextmanager
def no_map_left_behind(kernel_name: str = "", within_s: float = 5.0) -> Generator[None]:
    """Fail if the kernel has a map afterwards that it had not before, and whose name begins so.

    The kernel frees a map some time after its last reference, so those left are looked at again until
    they are gone, or ``within_s`` is over. Without a name, other programs' maps count too.
    """
    before = kernel_maps()
    yield
    deadline = time.monotonic() + within_s
    while left := {
        map_id: name
        for map_id, name in kernel_maps().items()
        if map_id not in before and name.startswith(kernel_name)
    }:
        assert time.monotonic() < deadline, f"maps left in the kernel: {left}"
        os.sched_yield()

"""The counting kernel: every call is counted once, whatever thread makes it and however it ends."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mapd.bpf import Buffer, FaultyKernel, Kernel, SyscallError
from mapd.bpf.abi import Command
from mapd.bpf.faulty import Fault
from mapd.bpf.kernel import Columns, OpenPin
from mapd.metrics.syscalls import REQUESTS, CountingKernel
from mapd_api.ops import Op
from tests.unit.mapd.dictkernel import ROOT, DictKernel, DictMap, n, raw_info

PIN = f"{ROOT}/web/flows"


def kernels() -> tuple[FaultyKernel, CountingKernel]:
    inner = DictKernel()
    inner.add(DictMap(raw_info(), {n(1): n(10), n(2): n(20)}), pin=PIN)
    faulty = FaultyKernel(inner)
    return faulty, CountingKernel(faulty)


def lookups(kernel: Kernel, map_fd: int, *keys: int) -> list[int]:
    count = len(keys)
    column = Buffer.allocate(4 * count)
    column.view[:] = b"".join(map(n, keys))
    return kernel.each(map_fd, Op.LOOKUP, Columns(count, column, 4, Buffer.allocate(4 * count), 4))


def test_elements_are_counted_one_by_one_by_how_each_ended() -> None:
    _, kernel = kernels()
    with kernel.control(OpenPin(root=ROOT, path=PIN)) as owned, owned.lease() as map_fd:
        lookups(kernel, map_fd, 1, 2, 3)
        lookups(kernel, map_fd, 1)
        kernel.info(map_fd)
        kernel.next_key(map_fd, None, 4)
    assert kernel.counts() == {
        ("BPF_OBJ_GET", "OK"): 1,
        ("BPF_MAP_LOOKUP_ELEM", "OK"): 3,
        ("BPF_MAP_LOOKUP_ELEM", "ENOENT"): 1,
        ("BPF_OBJ_GET_INFO_BY_FD", "OK"): 1,
        ("BPF_MAP_GET_NEXT_KEY", "OK"): 1,
    }


def test_a_call_that_fails_is_counted_by_its_errno_and_raises_what_it_raised() -> None:
    faulty, kernel = kernels()
    faulty.add(Fault(target=OpenPin, nth=1, errno=errno.EMFILE))
    with pytest.raises(SyscallError) as caught:
        kernel.control(OpenPin(root=ROOT, path=PIN))
    assert caught.value.errno == errno.EMFILE
    with kernel.control(OpenPin(root=ROOT, path=PIN)) as owned, owned.lease() as map_fd:
        faulty.add(Fault(target=Command.MAP_GET_NEXT_KEY, errno=errno.EPERM))
        with pytest.raises(SyscallError):
            kernel.next_key(map_fd, None, 4)
    assert kernel.counts() == {
        ("BPF_OBJ_GET", "EMFILE"): 1,
        ("BPF_OBJ_GET", "OK"): 1,
        ("BPF_MAP_GET_NEXT_KEY", "EPERM"): 1,
    }


def test_no_call_of_many_threads_is_lost() -> None:
    _, kernel = kernels()
    threads, rounds = 8, 300
    begin = threading.Barrier(threads)
    with kernel.control(OpenPin(root=ROOT, path=PIN)) as owned, owned.lease() as map_fd:

        def work(_: int) -> None:
            begin.wait()
            for _ in range(rounds):
                lookups(kernel, map_fd, 1, 3)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    assert kernel.counts()["BPF_MAP_LOOKUP_ELEM", "OK"] == threads * rounds
    assert kernel.counts()["BPF_MAP_LOOKUP_ELEM", "ENOENT"] == threads * rounds


def test_requests_that_are_one_command_have_its_name() -> None:
    commands = {command.uapi_name for command in Command}
    assert set(REQUESTS.values()) <= commands

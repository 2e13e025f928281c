"""Closing under a running call. The canary shows that the test would notice the unsafe way."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from mapd.bpf import CreateMap, Fault, FaultyKernel, OwnedFd
from mapd.bpf.abi import Command
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL, TestMap


def a_map() -> OwnedFd:
    return KERNEL.control(CreateMap(map_type=MapType.HASH, key_size=8, value_size=8, max_entries=8))


class HeldCall:
    """An update in another thread, stopped right before its syscall until ``finish``."""

    def __init__(self, target: TestMap, after: threading.Event) -> None:
        self._reached, self._go = threading.Event(), after
        fault = Fault(target=Command.MAP_UPDATE_ELEM, reached=self._reached, wait=self._go)
        self._kernel = FaultyKernel(KERNEL, fault)
        self._map = target
        self.errnos: list[int] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        columns = self._map.columns([self._map.key(1)], [self._map.value(1)])
        self.errnos = self._kernel.each(self._map.fd, Op.UPDATE, columns)

    def begin(self) -> None:
        self._thread.start()
        assert self._reached.wait(30)

    def finish(self) -> None:
        self._go.set()
        self._thread.join()


def test_a_call_on_a_lease_meets_its_own_map_though_it_was_closed() -> None:
    owned = a_map()
    lease = owned.lease()
    made = TestMap(lease.fd, MapType.HASH, 8, 8, 8)
    call = HeldCall(made, threading.Event())
    call.begin()
    owned.close()
    with pytest.raises(OSError, match="closed"):
        owned.lease()
    with a_map() as stranger, stranger.lease() as strange_fd:
        assert strange_fd != made.fd
        call.finish()
        assert call.errnos == [0]
        assert TestMap(strange_fd, MapType.HASH, 8, 8, 8).walk() == []
    assert made.walk() == [made.key(1)]
    lease.release()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
        os.fstat(made.fd)
    assert caught.value.errno == errno.EBADF


def test_canary_a_bare_number_that_is_closed_meets_a_stranger() -> None:
    with a_map() as owned, owned.lease() as map_fd:
        bare = os.dup(map_fd)
        call = HeldCall(TestMap(bare, MapType.HASH, 8, 8, 8), threading.Event())
        call.begin()
        os.close(bare)
        with a_map() as stranger, stranger.lease() as strange_fd:
            assert strange_fd == bare
            call.finish()
            assert call.errnos == [0]
            assert TestMap(strange_fd, MapType.HASH, 8, 8, 8).walk() == [(1).to_bytes(8, "little")]

"""Program arrays that are opened by id while their last holder lets go.

Without ``Lingering`` Linux keeps nearly every one of them for ever (297 of 300 on 6.18). That is not shown here:
each showing would leave maps in the kernel until it reboots.
"""

from __future__ import annotations

import contextlib
import time

import pytest

from mapd.bpf import CreateMap, NextMapId, OpenId, OwnedFd, SyscallError
from mapd.maps.lingering import Lingering
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL


def ids() -> set[int]:
    """Every map there is, without opening any."""
    found: set[int] = set()
    map_id = KERNEL.control(NextMapId(map_id=0))
    while map_id is not None:
        found.add(map_id)
        map_id = KERNEL.control(NextMapId(map_id=map_id))
    return found


def created(map_type: MapType) -> OwnedFd:
    return KERNEL.control(CreateMap(map_type=map_type, key_size=4, value_size=4, max_entries=1))


def closed(owned: OwnedFd) -> int:
    """The id of a map whose last descriptor was closed just now."""
    with owned, owned.lease() as map_fd:
        return KERNEL.info(map_fd).id


@pytest.mark.alone
def test_program_arrays_opened_by_id_go_after_all() -> None:
    """Alone: the kernel's queue may stand still for a second beside many who make and close maps."""
    made: set[int] = set()
    for _ in range(20):
        with Lingering() as lingering, contextlib.suppress(SyscallError):  # ENOENT: gone already
            made.add(map_id := closed(created(MapType.PROG_ARRAY)))
            owned = KERNEL.control(OpenId(map_id=map_id))
            lingering.close(owned, MapType.PROG_ARRAY)
            assert not owned.closed
    deadline = time.monotonic() + 20  # the kernel frees them in a worker, which a busy host keeps waiting
    while left := made & ids():
        assert time.monotonic() < deadline, f"{len(left)} of {len(made)} program arrays are left"


def test_descriptors_are_closed_at_the_end_and_those_of_others_at_once() -> None:
    program_array, array = created(MapType.PROG_ARRAY), created(MapType.ARRAY)
    with Lingering() as lingering:
        lingering.close(program_array, MapType.PROG_ARRAY)
        lingering.close(array, MapType.ARRAY)
        assert (program_array.closed, array.closed) == (False, True)
    assert program_array.closed

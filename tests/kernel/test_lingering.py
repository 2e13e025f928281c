"""Program arrays that are opened by id while their last holder lets go.

Without ``Lingering`` Linux keeps nearly every one of them for ever (297 of 300 on 6.18). That is not shown here:
each showing would leave maps in the kernel until it reboots.
"""

from __future__ import annotations

import time

from mapd.bpf import CreateMap, NextMapId, OpenId, OwnedFd
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


def opened_again(map_type: MapType) -> tuple[int, OwnedFd]:
    """A map whose last descriptor has just been closed, opened by its id."""
    request = CreateMap(map_type=map_type, key_size=4, value_size=4, max_entries=1)
    owned = KERNEL.control(request)
    with owned.lease() as map_fd:
        map_id = KERNEL.info(map_fd).id
    owned.close()
    return map_id, KERNEL.control(OpenId(map_id=map_id))


def test_program_arrays_opened_by_id_go_after_all() -> None:
    made: set[int] = set()
    for _ in range(20):
        with Lingering() as lingering:
            map_id, owned = opened_again(MapType.PROG_ARRAY)
            lingering.close(owned, MapType.PROG_ARRAY)
            assert not owned.closed
        assert owned.closed
        made.add(map_id)
    deadline = time.monotonic() + 5
    while left := made & ids():
        assert time.monotonic() < deadline, f"{len(left)} of {len(made)} program arrays are left"


def test_others_are_closed_at_once() -> None:
    with Lingering() as lingering:
        _, owned = opened_again(MapType.ARRAY)
        lingering.close(owned, MapType.ARRAY)
        assert owned.closed

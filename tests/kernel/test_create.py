from __future__ import annotations

import errno
import struct
from typing import Final

import pytest

from mapd.bpf import ControlRequest, CreateMap, GetBtf, LoadBtf, SyscallError
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL, Maps

INT_TYPE: Final = struct.pack("<IIII", 1, 1 << 24, 4, 32)  # "u32", kind INT, 4 bytes, 32 bits
BLOB: Final = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5) + INT_TYPE + b"\0u32\0"


def test_a_map_with_btf_names_its_types_and_gives_the_blob_back(maps: Maps) -> None:
    with KERNEL.control(LoadBtf(blob=BLOB)) as btf, btf.lease() as btf_fd:
        request = CreateMap(
            map_type=MapType.HASH,
            key_size=4,
            value_size=4,
            max_entries=1,
            with_btf=True,
            btf_key_type_id=1,
            btf_value_type_id=1,
        )
        made = maps.adopt(KERNEL.control(request, [btf_fd]))
    info = KERNEL.info(made.fd)
    assert (info.btf_key_type_id, info.btf_value_type_id) == (1, 1)
    assert KERNEL.control(GetBtf(btf_id=info.btf_id)) == BLOB


def test_malformed_btf_is_refused() -> None:
    with pytest.raises(SyscallError, match="BPF_BTF_LOAD: EINVAL"):
        KERNEL.control(LoadBtf(blob=BLOB[:-1]))


def test_btf_that_is_not_there_is_enoent() -> None:
    with pytest.raises(SyscallError, match="BPF_BTF_GET_FD_BY_ID: ENOENT"):
        KERNEL.control(GetBtf(btf_id=2**31 - 1))


def test_a_map_of_maps_takes_the_inner_map_first(maps: Maps) -> None:
    inner = maps.create(MapType.ARRAY)
    request = CreateMap(
        map_type=MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=2, with_inner=True
    )
    outer = maps.adopt(KERNEL.control(request, [inner.fd]))
    assert outer.each(Op.UPDATE, [outer.key(1)], [outer.value(inner.fd)]) == [0]
    assert outer.lookup([outer.key(0), outer.key(1)]) == [
        errno.ENOENT,
        outer.value(KERNEL.info(inner.fd).id),
    ]


def test_a_numa_node_is_asked_for_by_its_flag(maps: Maps) -> None:
    request = CreateMap(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=1, numa_node=0)
    assert KERNEL.info(maps.adopt(KERNEL.control(request)).fd).map_flags == 4
    nowhere = CreateMap(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=1, numa_node=1000)
    with pytest.raises(SyscallError, match="BPF_MAP_CREATE: EINVAL"):
        KERNEL.control(nowhere)


def test_wrong_fds_are_refused() -> None:
    request = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1, with_btf=True)
    with pytest.raises(ValueError, match="btf=True"):
        KERNEL.control(request)


def test_what_is_no_request_is_a_type_error() -> None:
    class Unheard(ControlRequest[None]):
        pass

    with pytest.raises(TypeError, match="Unheard"):
        KERNEL.control(Unheard())


@pytest.mark.parametrize(
    ("max_entries", "value_size", "expected"),
    [(0, 8, errno.EINVAL), (1 << 31, 8, errno.E2BIG), (1, 0, errno.EINVAL)],
)
def test_a_size_that_the_kernel_refuses_keeps_its_errno(
    max_entries: int, value_size: int, expected: int
) -> None:
    request = CreateMap(map_type=MapType.HASH, key_size=8, value_size=value_size, max_entries=max_entries)
    with pytest.raises(SyscallError) as caught:
        KERNEL.control(request)
    assert (caught.value.errno, caught.value.command) == (expected, "BPF_MAP_CREATE")

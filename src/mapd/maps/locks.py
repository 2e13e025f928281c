"""Whether a map's values have a bpf_spin_lock, which the kernel takes for whoever passes BPF_F_LOCK."""

from __future__ import annotations

import errno
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import BatchCommand, Columns, Elements, RawMapInfo
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.uapi import ElementFlag, MapType

MAY_LOCK: Final = frozenset({MapType.HASH, MapType.ARRAY})
"""The types that may: others are EOPNOTSUPP at creation (kernel/bpf/syscall.c, map_check_btf())."""


def has_lock(elements: Elements, map_fd: int, info: RawMapInfo) -> bool:
    """Ask the kernel: BPF_F_LOCK on a map without a lock is EINVAL, and nothing else here is.

    Costs a syscall for maps whose values have type information, nothing for others. Nothing is written.

    Source: kernel/bpf/syscall.c, map_lookup_elem(), generic_map_update_batch(). Linux 5.1.
    """
    if info.map_type not in MAY_LOCK or not info.btf_value_type_id:
        return False
    if info.key_size + info.value_size > limits.COLUMN_BYTES:
        return False
    columns = Columns(
        count=1,
        keys=Buffer.allocate(info.key_size),
        key_stride=info.key_size,
        values=Buffer.allocate(info.value_size),
        value_stride=info.value_size,
    )
    (number,) = elements.each(map_fd, Op.LOOKUP, columns, ElementFlag.LOCK)
    if number == errno.EPERM:  # a descriptor that only writes: a batch of no elements asks the same
        none = Columns(0, columns.keys, info.key_size, columns.values, info.value_size)
        number = elements.batch(map_fd, BatchCommand.UPDATE, none, ElementFlag.LOCK).errno
    return number in (0, errno.ENOENT)

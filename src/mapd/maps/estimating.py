"""How many elements a map has by the memory that they take, where the kernel keeps a count and tells nobody."""

from __future__ import annotations

import struct
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Columns, CreateMap, Kernel, SyscallError
from mapd.maps.counting import Counted
from mapd.maps.lpm import LENGTH_BYTES
from mapd.maps.opened import MapFacts
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType

_KEY: Final = 8
_VALUE: Final = 8
_TRIE: Final = CreateMap(
    map_type=MapType.LPM_TRIE,
    key_size=_KEY,
    value_size=_VALUE,
    max_entries=2,
    flags=MapFlag.NO_PREALLOC,
    kernel_name="mapd_trial",
)


def node_head(kernel: Kernel) -> int:
    """Bytes of a trie's node beside prefix and value, as this kernel accounts for it; 0 where it tells nothing.

    Two elements are written into a trie of our own: a map that tells its memory otherwise than as a multiple of
    them, as kernels before 6.4 do, has no head. Blocks, for about 0.2 ms; nothing is left.

    Source: kernel/bpf/lpm_trie.c, trie_mem_usage(): n_entries times the size of a node, in which the nodes between
    elements are not counted.
    """
    told: list[int] = []
    try:
        with kernel.control(_TRIE) as owned, owned.lease() as map_fd:
            for octet in (1, 200):
                key = Buffer.of(struct.pack("=I", 8) + bytes([octet, 0, 0, 0]))
                column = Columns(1, key, _KEY, Buffer.of(bytes(_VALUE)), _VALUE)
                if any(kernel.each(map_fd, Op.UPDATE, column)):
                    return 0
                told.append(kernel.info(map_fd).memlock)
    except SyscallError:
        return 0
    head = told[0] - (_KEY - LENGTH_BYTES) - _VALUE
    return head if head > 0 and told[1] == 2 * told[0] else 0


def by_memory(facts: MapFacts, head: int) -> Counted | None:
    """The count that a trie's memory comes to; None of other types. No syscall: the memory is of ``facts``."""
    if facts.info.map_type != MapType.LPM_TRIE or not head:
        return None
    node = head + facts.info.key_size - LENGTH_BYTES + facts.info.value_size
    return Counted(facts.info.memlock // node, False, "memory")

"""What the kernel's answers to element operations mean: an errno for a type and an operation, as a Reason."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from typing import Final

from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import Elements
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.opened import MapFacts, operation_of
from mapd_api.ops import MUTATES, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag, MapType


@dataclass(frozen=True, slots=True)
class ElementFailure:
    """What the kernel said about one element; ``index`` counts from 0 in its group."""

    index: int
    reason: Reason
    errno: int


_ELEMENT_REASONS: Final = {
    errno.EEXIST: Reason.KEY_EXISTS,
    errno.E2BIG: Reason.MAP_FULL,
    errno.ENOSPC: Reason.MAP_FULL,
    errno.ENOMEM: Reason.KERNEL_MEMORY,
    **dict.fromkeys(PASSING, Reason.BUSY),
    errno.EINVAL: Reason.BAD_COLUMNS,
}


_COOKIES: Final = frozenset({MapType.SOCKMAP, MapType.SOCKHASH, MapType.REUSEPORT_SOCKARRAY})
"""Values are sockets, read as their cookies of 8 bytes: values of 4 bytes cannot be read at all (ENOSPC)."""


def element_reason(facts: MapFacts, op: Op, number: int, key: bytes = b"", flags: int = 0) -> Reason:
    """What an errno of an operation with ``flags`` means for this type, and for this key where it is an index."""
    if number == errno.EINVAL and flags & ElementFlag.LOCK:
        return Reason.BAD_FLAGS  # no bpf_spin_lock to hold (kernel/bpf/syscall.c, bpf_map_check_op_flags())
    indexed = facts.traits is not None and facts.traits.indexed
    if facts.traits is not None and facts.traits.sparse and _outside(key, facts.info.max_entries):
        return Reason.INDEX_OUT_OF_RANGE
    if number == errno.EINVAL and op is Op.DELETE and facts.info.map_type == MapType.SOCKMAP:
        return Reason.KEY_ABSENT  # what others call ENOENT (net/core/sock_map.c, __sock_map_delete())
    if number == errno.ENOSPC and facts.info.map_type in _COOKIES:
        return Reason.OPERATION_UNSUPPORTED
    if number == errno.ENOENT:
        if indexed:
            return Reason.INDEX_OUT_OF_RANGE
        if op in (Op.UPDATE, Op.UPDATE_NOEXIST):
            return Reason.INTERNAL  # these make what is missing, and "absent" is no refusal
        return Reason.KEY_MISSING if op is Op.UPDATE_EXIST else Reason.KEY_ABSENT
    if number == errno.E2BIG and indexed:
        return Reason.INDEX_OUT_OF_RANGE
    return _ELEMENT_REASONS.get(number, Reason.INTERNAL)


def _outside(key: bytes, max_entries: int) -> bool:
    """Whether a key is an index that the map does not have; each type has another errno for it."""
    return len(key) == 4 and int.from_bytes(key, sys.byteorder) >= max_entries


def map_refusal(
    elements: Elements, map_fd: int, facts: MapFacts, op: Op, number: int, operation: str
) -> MapError:
    """Why the map as a whole refuses an operation, told apart by asking the kernel."""
    what = f"{operation} {facts.label}"
    about = {**facts.about(operation), "errno": errno_name(number)}
    if number in UNSUPPORTED:
        return MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"{what}: this kernel has no such operation for {facts.type_name} maps [{errno_name(number)}]",
            **about,
        )
    passing = _ELEMENT_REASONS.get(number, Reason.INTERNAL)
    if passing in (Reason.BUSY, Reason.KERNEL_MEMORY):
        return MapError(passing, element_message(facts, op, passing, number), **about)
    if op in MUTATES and elements.info(map_fd).frozen:
        return MapError(
            Reason.MAP_FROZEN,
            f"{what}: the map is frozen; user space can never write it again, only programs can: "
            "use another map [EPERM]",
            **about,
        )
    return facts.access_refusal(operation, writes=op in MUTATES)


def element_error(facts: MapFacts, op: Op, failure: ElementFailure) -> MapError:
    """The refusal of a call that had one element."""
    operation = operation_of(op)
    return MapError(
        failure.reason,
        element_message(facts, op, failure.reason, failure.errno),
        **facts.about(operation),
        errno=errno_name(failure.errno),
        max_entries=facts.info.max_entries,
    )


def element_message(facts: MapFacts, op: Op, reason: Reason, number: int) -> str:
    """One sentence about one element that was refused."""
    what = f"{operation_of(op)} {facts.label}"
    size = f"max_entries={facts.info.max_entries}"
    said = f" [{errno_name(number)}]"
    match reason:
        case Reason.MAP_FULL:
            return f"{what}: full, {facts.info.max_entries} of {size}; remove elements or create a larger map{said}"
        case Reason.INDEX_OUT_OF_RANGE:
            return f"{what}: index out of range; {size}, so indexes go from 0 to {facts.info.max_entries - 1}{said}"
        case Reason.KEY_EXISTS if facts.traits is not None and facts.traits.indexed:
            return f"{what}: an array's elements all exist from the start; update without NOEXIST{said}"
        case Reason.KEY_EXISTS:
            return f"{what}: the key is there already and NOEXIST was asked for{said}"
        case Reason.KEY_MISSING:
            return f"{what}: the key is not there and EXIST was asked for{said}"
        case Reason.KERNEL_MEMORY:
            return (
                f"{what}: the kernel has no memory for another element; free some, or give the daemon's "
                f"cgroup more{said}"
            )
        case Reason.BUSY:
            return f"{what}: the kernel was busy three times; nothing was changed, try again{said}"
        case Reason.BAD_COLUMNS if facts.info.map_type == MapType.LPM_TRIE:
            bits = (facts.info.key_size - 4) * 8
            return f"{what}: refused; a prefix length above {bits} bits?{said}"
        case Reason.BAD_COLUMNS:
            return f"{what}: the kernel refuses this key or value{said}"
        case Reason.BAD_FLAGS:
            return f"{what}: BPF_F_LOCK needs a bpf_spin_lock in the value, and its BTF{said}"
        case _:
            return f"{what}: unexpected answer of the kernel{said}"

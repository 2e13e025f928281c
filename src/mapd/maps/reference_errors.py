"""Why an element that stands for a kernel object could not be written: the kernel's errno, made plain."""

from __future__ import annotations

import errno
import struct
import sys
from types import MappingProxyType
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import Columns, OpenId, SyscallError
from mapd.maps.answers import ElementFailure, element_error, element_reason
from mapd.maps.errors import MapError, capability, not_now
from mapd.maps.opened import MapFacts, OpenMap
from mapd.maps.store import MapStore
from mapd.maps.targets import CpuQueue, Device, Inner, ProgramId, ProgramPin, ProgramRef, Target
from mapd.maps.types import type_name
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType

OPERATION: Final = "update_reference"

_OUT_OF_RANGE: Final = frozenset({MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.DEVMAP, MapType.CPUMAP})
"""E2BIG is an index past the end, not a full map."""

XDP: Final = 6
"""BPF_PROG_TYPE_XDP."""

PROGRAM_TYPES: Final = MappingProxyType(
    {
        1: "socket_filter",
        2: "kprobe",
        3: "sched_cls",
        4: "sched_act",
        5: "tracepoint",
        XDP: "xdp",
        7: "perf_event",
    }
    | {8: "cgroup_skb", 9: "cgroup_sock", 13: "sock_ops", 17: "raw_tracepoint", 26: "tracing", 31: "syscall"}
)
"""Names of program types, those that are common in maps."""


def program_refusal(store: MapStore, facts: MapFacts, ref: ProgramRef, error: OSError) -> MapError:
    """A program that could not be opened."""
    number = error.errno or 0
    what = f"{OPERATION} {facts.label}: {ref}"
    if (passing := not_now(error, what, **facts.about(OPERATION))) is not None:
        return passing
    if isinstance(ref, ProgramId):
        if number == errno.EPERM:
            return capability("CAP_SYS_ADMIN", what, **facts.about(OPERATION))
        if number == errno.ENOENT:
            return bad(facts, f"no program has id {ref.id} now", number)
        return bad(facts, f"{ref}: {error.strerror}", number)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return no_program(facts, ref.path)
    if number == errno.EINVAL:
        return bad(facts, f"what is pinned at {ref.path} is not a program", number)
    return store.pin_refusal(error, OPERATION, facts.label, ref.path)


def no_program(facts: MapFacts, path: str) -> MapError:
    """What is said where no program is pinned."""
    return bad(facts, f"nothing is pinned at {path}", errno.ENOENT)


def refusal(
    store: MapStore, opened: OpenMap, map_fd: int, key: bytes, op: Op, target: Target, number: int
) -> MapError:
    """What the kernel's errno means, by what was to be written."""
    facts = opened.facts
    map_type = facts.info.map_type
    if number == errno.E2BIG and map_type in _OUT_OF_RANGE:
        return element_error(facts, op, ElementFailure(0, Reason.INDEX_OUT_OF_RANGE, number))
    match target:
        case Inner(inner) if number == errno.EINVAL:
            return _incompatible(store, facts, map_fd, inner.facts)
        case ProgramId() | ProgramPin() if number == errno.EINVAL:
            wanted = store.kernel.info(map_fd).owner_prog_type
            return wrong_program(facts, str(target), wanted, number)
        # A CPUMAP says ENOMEM of a program of another attach type (kernel/bpf/cpumap.c, __cpu_map_entry_alloc()).
        case Device() | CpuQueue() if target.program is not None and number in (errno.EINVAL, errno.ENOMEM):
            return wrong_program(facts, str(target.program), XDP, number)
        case Device() if number == errno.EINVAL:
            return bad(facts, f"the kernel takes no device {target.name or target.ifindex}", number)
        case CpuQueue() if number == errno.ENODEV:
            cpu = int.from_bytes(key, sys.byteorder)
            return bad(
                facts,
                f"CPU {cpu} is not possible on this host; it has 0 to {store.possible_cpus - 1}",
                number,
            )
        case _:
            return element_error(facts, op, ElementFailure(0, element_reason(facts, op, number), number))


def wrong_program(facts: MapFacts, what: str, wanted: int, number: int) -> MapError:
    """A program that this map does not take; ``wanted`` is the type that it takes, 0 for not known."""
    match facts.info.map_type:
        case MapType.PROG_ARRAY if wanted:
            takes = f"{program_type(wanted)} programs, as its first one, not offloaded to a device"
        case MapType.PROG_ARRAY:
            takes = "programs of the type that its first one has, which no program extends or offloads"
        case MapType.CPUMAP:
            takes = "xdp programs loaded with expected_attach_type BPF_XDP_CPUMAP (35)"
        case _:
            takes = "xdp programs loaded with expected_attach_type BPF_XDP_DEVMAP (33)"
    return bad(facts, f"{what}: this map takes {takes}", number)


def program_type(number: int) -> str:
    """``xdp`` for 6."""
    return PROGRAM_TYPES.get(number, f"type {number}")


def _incompatible(store: MapStore, facts: MapFacts, map_fd: int, inner: MapFacts) -> MapError:
    """The kernel keeps the template to itself, but what is in the map already was like it."""
    present = _present(store, facts, map_fd)
    if present is None:
        rule = (
            "type, key_size, value_size and flags must be those of the template it was created with, and of an array "
            "without BPF_F_INNER_MAP max_entries too; no other inner map is present to compare with"
        )
        lines = [rule]
        fields = ""
    else:
        different = _differences(inner, present)
        lines = [f"{name}: {there} in {present.label}, {given} here" for name, there, given in different]
        fields = ", ".join(name for name, _, _ in different)
        lines = lines or [
            f"it is shaped as {present.label}, which is present: does its BTF differ (locks, timers)?"
        ]
    return MapError(
        Reason.INCOMPATIBLE,
        f"{OPERATION} {facts.label}: {inner.label} is not like the other inner maps: {'; '.join(lines)} [EINVAL]",
        **facts.about(OPERATION),
        errno="EINVAL",
        fields=fields,
    )


def _present(store: MapStore, facts: MapFacts, map_fd: int) -> MapFacts | None:
    """Some inner map that is in the map now; None where there is none, or none can be looked at."""
    try:
        return _first_present(store, facts, map_fd)
    except SyscallError:  # a descriptor that only writes: the verdict is the same, it names less
        return None


def _first_present(store: MapStore, facts: MapFacts, map_fd: int) -> MapFacts | None:
    kernel = store.kernel
    key = kernel.next_key(map_fd, None, facts.key_stride)
    for _ in range(min(facts.info.max_entries, 1_024)):
        if key is None:
            return None
        columns = Columns(1, Buffer.of(key), len(key), Buffer.allocate(4), 4)
        if kernel.each(map_fd, Op.LOOKUP, columns) == [0] and columns.values is not None:
            (map_id,) = struct.unpack("=I", columns.values.take(4))
            try:
                with (
                    kernel.control(OpenId(map_id=map_id, read_only=True)) as owned,
                    owned.lease() as inner_fd,
                ):
                    return store.facts_at(inner_fd)
            except SyscallError as error:
                if error.errno != errno.ENOENT:  # replaced meanwhile
                    return None
        key = kernel.next_key(map_fd, key, facts.key_stride)
    return None


def _differences(inner: MapFacts, present: MapFacts) -> list[tuple[str, str, str]]:
    """(field, the present map's, the given one's) of what bpf_map_meta_equal() compares."""
    mine, theirs = inner.info, present.info
    pairs = [
        ("type", type_name(theirs.map_type), type_name(mine.map_type)),
        ("key_size", str(theirs.key_size), str(mine.key_size)),
        ("value_size", str(theirs.value_size), str(mine.value_size)),
        ("flags", hex(theirs.map_flags), hex(mine.map_flags)),
    ]
    if mine.map_type == MapType.ARRAY and not mine.map_flags & MapFlag.INNER_MAP:
        pairs.append(("max_entries", str(theirs.max_entries), str(mine.max_entries)))
    return [pair for pair in pairs if pair[1] != pair[2]]


def bad(facts: MapFacts, what: str, number: int = 0) -> MapError:
    """BAD_SPEC, with the errno where it came from the kernel."""
    said = f" [{errno_name(number)}]" if number else ""
    about = {**facts.about(OPERATION), **({"errno": errno_name(number)} if number else {})}
    return MapError(Reason.BAD_SPEC, f"{OPERATION} {facts.label}: {what}{said}", **about)

"""Elements whose values are kernel objects: inner maps, programs, network devices, CPU queues.

The kernel takes such an object as a descriptor of the calling process and gives back its id. Here the
object is named; it is opened for the one call, written, and closed: the map keeps it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Columns, OpenProgramId, OpenProgramPin, ProgramInfo
from mapd.maps.answers import map_refusal
from mapd.maps.errors import UNSUPPORTED, MapError
from mapd.maps.opened import MapFacts, OpenMap
from mapd.maps.reference_errors import (
    OPERATION,
    XDP,
    bad,
    program_refusal,
    program_type,
    refusal,
    wrong_program,
)
from mapd.maps.store import MapStore
from mapd.maps.targets import CpuQueue, Device, Inner, ProgramId, ProgramPin, ProgramRef, Target
from mapd.maps.traits import REFERENCES, Value
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType

QUEUE_FRAMES: Final = 16_384
"""Frames of a CPU's queue at most: more are EOVERFLOW (kernel/bpf/cpumap.c, cpu_map_update_elem())."""

FLAGS: Final[Mapping[int, frozenset[Op]]] = MappingProxyType(
    {
        MapType.HASH_OF_MAPS: frozenset({Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST}),
        MapType.DEVMAP_HASH: frozenset({Op.UPDATE, Op.UPDATE_NOEXIST}),
    }
)
"""What is offered beyond BPF_ANY. PROG_ARRAY and ARRAY_OF_MAPS answer EINVAL to anything else; DEVMAP and CPUMAP
answer EEXIST to NOEXIST even where nothing is there, and DEVMAP, DEVMAP_HASH and CPUMAP create on EXIST."""

_TAKES: Final[Mapping[Value, tuple[type | tuple[type, ...], str]]] = MappingProxyType(
    {
        Value.MAP: (Inner, "an inner map"),
        Value.PROGRAM: ((ProgramId, ProgramPin), "a program"),
        Value.DEVICE: (Device, "a device"),
        Value.CPU: (CpuQueue, "a cpu queue"),
    }
)


def check(opened: OpenMap, key: bytes, op: Op, target: Target) -> None:
    """Refuse what cannot be written, before any syscall.

    Raises:
        MapError: OPERATION_UNSUPPORTED, with the table's reason; READ_ONLY, KEY_SIZE_MISMATCH, BAD_FLAGS, BAD_SPEC.
    """
    facts = opened.facts
    kind = facts.traits.value if facts.traits else Value.PLAIN
    if kind not in REFERENCES:
        why = facts.traits.refused if facts.traits else ""
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"{OPERATION} {facts.label}: {facts.type_name} maps "
            + (f"take no references: {why}" if why else "hold bytes, not references: use update"),
            **facts.about(OPERATION),
        )
    opened.check_writable(op, OPERATION)
    if len(key) != facts.key_stride:
        raise MapError(
            Reason.KEY_SIZE_MISMATCH,
            f"{OPERATION} {facts.label}: a key of {len(key)} bytes; this {facts.type_name} map's keys have "
            f"{facts.key_stride} bytes",
            **facts.about(OPERATION),
            given=len(key),
            expected=facts.key_stride,
        )
    accepted, word = _TAKES[kind]
    if not isinstance(target, accepted):
        raise bad(facts, f"{facts.type_name} maps take {word}")
    offered = FLAGS.get(facts.info.map_type, frozenset({Op.UPDATE}))
    if op not in offered:
        words = ", ".join(
            one.name.removeprefix("UPDATE").removeprefix("_") or "ANY" for one in sorted(offered)
        )
        raise MapError(
            Reason.BAD_FLAGS,
            f"{OPERATION} {facts.label}: {facts.type_name} maps do not heed {op.name.removeprefix('UPDATE_')}; "
            f"they take {words}",
            **facts.about(OPERATION),
        )
    if isinstance(target, CpuQueue) and target.frames > QUEUE_FRAMES:
        raise bad(facts, f"a queue of {target.frames} frames; the kernel takes at most {QUEUE_FRAMES}")
    if isinstance(target, Device | CpuQueue) and target.program is not None and facts.info.value_size < 8:
        raise bad(
            facts,
            f"its values have {facts.info.value_size} bytes, which leaves no room for a program: create the map with "
            "value_size 8",
        )


def update_reference(
    store: MapStore, opened: OpenMap, map_fd: int, key: bytes, op: Op, target: Target
) -> None:
    """Write one element. Blocks: map-in-map 8 to 16 ms (an RCU grace period), CPUMAP 2 ms (a kernel thread).

    Raises:
        MapError: as ``check``; BAD_SPEC, the object is not there or not of the kind that the map takes;
            INCOMPATIBLE, an inner map that differs from the template; DAEMON_CAPABILITY; INDEX_OUT_OF_RANGE,
            MAP_FULL, KEY_EXISTS, KEY_MISSING, MAP_FROZEN. The map is as it was then.
    """
    facts = opened.facts
    check(opened, key, op, target)
    with _value(store, facts, target) as value:
        columns = Columns(1, Buffer.of(key), len(key), Buffer.of(value), len(value))
        (number,) = store.kernel.each(map_fd, op, columns)
        if number == errno.EPERM or number in UNSUPPORTED:
            raise map_refusal(store.kernel, map_fd, facts, op, number, OPERATION)
        if number:
            raise refusal(store, opened, map_fd, key, op, target, number)


@contextmanager
def _value(store: MapStore, facts: MapFacts, target: Target) -> Generator[bytes]:
    """The bytes that the kernel takes for an object; its descriptor is open inside the block."""
    match target:
        case Inner(inner):
            with inner.lease() as inner_fd:
                yield struct.pack("=i", inner_fd)
        case Device():
            ifindex = _ifindex(facts, target)
            with _program(store, facts, target.program) as prog_fd:
                yield struct.pack("=Ii", ifindex, prog_fd)[: facts.info.value_size]
        case CpuQueue():
            with _program(store, facts, target.program) as prog_fd:
                yield struct.pack("=Ii", target.frames, prog_fd)[: facts.info.value_size]
        case _:
            with _program(store, facts, target) as prog_fd:
                yield struct.pack("=i", prog_fd)


def _ifindex(facts: MapFacts, device: Device) -> int:
    """The index of a device of the daemon's network namespace."""
    try:
        if device.name:
            return socket.if_nametoindex(device.name)
        socket.if_indextoname(device.ifindex)
    except (OSError, OverflowError, ValueError):
        what = f"device {device.name!r}" if device.name else f"device with index {device.ifindex}"
        raise bad(
            facts, f"no {what} in the daemon's network namespace (ip link shows those of the host)"
        ) from None
    return device.ifindex


@contextmanager
def _program(store: MapStore, facts: MapFacts, ref: ProgramRef | None) -> Generator[int]:
    """A descriptor of a program that may be put into this map; -1 for none."""
    if ref is None:
        yield -1
        return
    if isinstance(ref, ProgramId):
        request: OpenProgramId | OpenProgramPin = OpenProgramId(prog_id=ref.id)
    else:
        request = OpenProgramPin(root=store.root_of(ref.path, OPERATION), path=ref.path)
    try:
        owned = store.kernel.control(request)
    except OSError as error:
        raise program_refusal(store, facts, ref, error) from error
    with owned, owned.lease() as prog_fd:
        info = store.kernel.control(ProgramInfo(), [prog_fd])
        wanted = facts.info.owner_prog_type if facts.info.map_type == MapType.PROG_ARRAY else XDP
        if wanted not in (0, info.prog_type):
            raise wrong_program(facts, f"{ref} is a {program_type(info.prog_type)} program", wanted, 0)
        yield prog_fd

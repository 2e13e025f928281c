"""The programs of atomics and of compare-and-update, had for a run: loaded where they are not, or refused by name."""

from __future__ import annotations

import errno
from dataclasses import replace
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeVar

from mapd.bpf.atomic import AtomicLayout, atomic_layout
from mapd.bpf.compare import MAX_VALUE_BYTES, CompareLayout, compare_layout
from mapd.bpf.errnos import errno_name
from mapd.bpf.fd import FdLease
from mapd.bpf.kernel import Kernel, LoadTemplate, SyscallError
from mapd.bpf.scratch import Scratch
from mapd.bpf.templates import Template
from mapd.maps.answers import map_refusal
from mapd.maps.errors import MapError, not_now
from mapd.maps.groups import FieldSpec, Group
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd.maps.programs import WritesRefused
from mapd_api.ops import Op
from mapd_api.reasons import Reason

L = TypeVar("L", AtomicLayout, CompareLayout)

_TRIES: Final = 3
"""How often a program is asked for that is closed to make room for others meanwhile."""


class Program(NamedTuple, Generic[L]):
    """A loaded program: its lease, which ends its use, and where its columns lie."""

    lease: FdLease
    layout: L
    scratch: Scratch


@lru_cache(maxsize=256)
def _request(
    template: Template, key_size: int, value_size: int, slot_bytes: int, field_size: int
) -> LoadTemplate:
    return LoadTemplate(
        template=template,
        key_size=key_size,
        value_size=value_size,
        slot_bytes=slot_bytes,
        field_size=field_size,
    )


def atomic_program(
    kernel: Kernel, map_fd: int, opened: OpenMap, group: Group, op: Op
) -> Program[AtomicLayout]:
    """For the atomics of a group; ``op`` is one of them.

    Raises:
        MapError: OPERATION_UNSUPPORTED, it cannot be loaded, or the elements are too large for it; BUSY, programs
            come and go too fast.
    """
    facts, info, field = opened.facts, opened.facts.info, group.field
    assert field is not None  # plan() has seen to it
    scratch = _scratch(opened, op)
    layout = atomic_layout(info.key_size, info.value_size, field.size, scratch.slot_bytes)
    if layout is None or (group.create and layout.blank is None):
        raise _too_large(facts, op, scratch, creating=layout is not None)
    request = _request(Template.ATOMIC, info.key_size, info.value_size, scratch.slot_bytes, field.size)
    try:
        return Program(_lease(kernel, map_fd, opened, request, op), layout, scratch)
    except SyscallError as error:
        if error.errno != errno.EACCES or not info.btf_value_type_id:
            raise _refused(facts, op, error) from error
    return Program(_at_one_place(kernel, map_fd, opened, request, field, op), layout, scratch)


def _at_one_place(
    kernel: Kernel, map_fd: int, opened: OpenMap, request: LoadTemplate, field: FieldSpec, op: Op
) -> FdLease:
    """Parts of the value may be the kernel's own: then a program works at one place, which the verifier looks at."""
    fixed = replace(request, template=Template.ATOMIC_AT, field_offset=field.offset)
    try:
        return _lease(kernel, map_fd, opened, fixed, op)
    except SyscallError as error:
        more = f"; or {field} is not the caller's: a bpf_spin_lock, a timer"
        raise _refused(opened.facts, op, error, more) from error


def compare_program(kernel: Kernel, map_fd: int, opened: OpenMap) -> Program[CompareLayout]:
    """For compare-and-update; raises as ``atomic_program``."""
    facts, info, op = opened.facts, opened.facts.info, Op.COMPARE_UPDATE
    scratch = _scratch(opened, op)
    layout = compare_layout(info.key_size, info.value_size, scratch.slot_bytes)
    if layout is None:
        raise _unsupported(
            facts,
            op,
            f"key_size={info.key_size} value_size={info.value_size}: values of up to {MAX_VALUE_BYTES} bytes are "
            "compared while their lock is held",
        )
    request = _request(Template.COMPARE_UPDATE, info.key_size, info.value_size, scratch.slot_bytes, 0)
    try:
        return Program(_lease(kernel, map_fd, opened, request, op), layout, scratch)
    except SyscallError as error:
        raise _refused(facts, op, error, "; or a value has more of the kernel's own than its lock") from error


def _scratch(opened: OpenMap, op: Op) -> Scratch:
    scratch = opened.programs.owner.scratch
    if scratch is None:
        raise _unsupported(
            opened.facts,
            op,
            "it is done by a BPF program, and this daemon can run none (it needs CAP_BPF, and the kernel Linux 5.17)",
        )
    return scratch


def _lease(kernel: Kernel, map_fd: int, opened: OpenMap, request: LoadTemplate, op: Op) -> FdLease:
    """A program for a run; loaded where it is not.

    Raises:
        SyscallError: the kernel refuses it.
        MapError: BUSY; MAP_FROZEN, READ_ONLY.
    """
    for _ in range(_TRIES):
        try:
            loaded = opened.programs.load(kernel, request, map_fd, scratch=True)
        except WritesRefused as error:
            raise map_refusal(
                kernel, map_fd, opened.facts, op, error.errno or errno.EPERM, operation_of(op)
            ) from error
        try:
            return loaded.lease()
        except OSError:  # closed to make room for others
            continue
    operation = operation_of(op)
    raise MapError(
        Reason.BUSY,
        f"{operation} {opened.facts.label}: its program was closed for others' {_TRIES} times; try again",
        **opened.facts.about(operation),
    )


def _too_large(facts: MapFacts, op: Op, scratch: Scratch, *, creating: bool) -> MapError:
    sizes = f"key_size={facts.info.key_size} value_size={facts.info.value_size}"
    if not creating:
        why = f"{sizes}: too large for a program, which has {scratch.slot_bytes} bytes for its columns"
    else:
        why = (
            f"create, and {sizes}: a new value does not fit the {scratch.slot_bytes} bytes that a program has; create "
            "the element with an update"
        )
    return _unsupported(facts, op, why)


def _refused(facts: MapFacts, op: Op, error: SyscallError, more: str = "") -> MapError:
    number = errno_name(error.errno or 0)
    passing = not_now(error, f"{operation_of(op)} {facts.label}", **facts.about(operation_of(op)))
    return passing or _unsupported(
        facts,
        op,
        "it is done by a BPF program, and the kernel refuses to load it (the daemon needs CAP_BPF, the kernel Linux "
        "5.17, and the map must not be BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG or another program's alone"
        f"{more}) [{number}]",
        errno=number,
    )


def _unsupported(facts: MapFacts, op: Op, why: str, **metadata: object) -> MapError:
    operation = operation_of(op)
    return MapError(
        Reason.OPERATION_UNSUPPORTED,
        f"{operation} {facts.label}: {why}",
        **facts.about(operation),
        **metadata,
    )

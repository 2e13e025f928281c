"""Which programs this kernel really loads: each over a smallest map, and the vector programs run there once.

As with map types, version numbers say little. What is refused here is served without, or refused by name; what the
kernel refuses later, over one map for a reason of that map, is noted there (``programs``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Columns, CreateMap, Kernel, LoadBtf, LoadTemplate, SyscallError
from mapd.bpf.scratch import Scratch
from mapd.bpf.templates import Template
from mapd.maps.opened import facts
from mapd.maps.programs import Programs, open_scratch
from mapd.maps.trials import KERNEL_NAME
from mapd.maps.vector import LPM_NAME, Vector
from mapd.maps.vector_run import LOOKUPS, Program, Work, run
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType

_NAMES: Final = b"\0u32\0bpf_spin_lock\0val\0value\0lock\0"
_TYPES: Final = b"".join(
    struct.pack("=" + "I" * len(words), *words)
    for words in (
        (1, 1 << 24, 4, 32),  # 1: u32
        (5, 4 << 24 | 1, 4, 19, 1, 0),  # 2: struct bpf_spin_lock {u32 val}
        (23, 4 << 24 | 2, 8, 29, 2, 0, 19, 1, 32),  # 3: struct value {struct bpf_spin_lock lock; u32 val}
    )
)
LOCK_BTF: Final = (
    struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_NAMES)) + _TYPES + _NAMES
)
"""Types of a value of 8 bytes that begins with a lock; the key is type 1, the value type 3."""

_HASH: Final = CreateMap(
    map_type=MapType.HASH, key_size=4, value_size=8, max_entries=1, kernel_name=KERNEL_NAME
)
_ONE_CPU: Final = CreateMap(
    map_type=MapType.PERCPU_ARRAY, key_size=4, value_size=8, max_entries=1, kernel_name=KERNEL_NAME
)
_LOCKED: Final = CreateMap(
    map_type=MapType.HASH,
    key_size=4,
    value_size=8,
    max_entries=1,
    kernel_name=KERNEL_NAME,
    with_btf=True,
    btf_key_type_id=1,
    btf_value_type_id=3,
)
_TRIE: Final = CreateMap(
    map_type=MapType.LPM_TRIE,
    key_size=8,
    value_size=8,
    max_entries=1,
    flags=MapFlag.NO_PREALLOC,
    kernel_name=KERNEL_NAME,
)
_LOADED: Final[Mapping[Template, tuple[CreateMap, int]]] = MappingProxyType(
    {
        Template.WRITE_ONE_CPU: (_ONE_CPU, 0),
        Template.COUNT_ENTRIES: (_HASH, 0),
        Template.ATOMIC: (_HASH, 8),
        Template.COMPARE_UPDATE: (_LOCKED, 0),
    }
)
"""Programs that are loaded only, over which map, and the size of the field that they are for."""

_IN_SCRATCH: Final = frozenset({Template.ATOMIC, Template.COMPARE_UPDATE})

_VECTORS: Final = (
    (_HASH, str(Template.VECTOR_READ), str(Template.VECTOR_WRITE)),
    (_TRIE, LPM_NAME, LPM_NAME),
)
"""A map, and the names of what reads and what writes it."""


def try_programs(kernel: Kernel, slots: int, possible_cpus: int) -> Programs:
    """A place for programs, with a scratch of so many slots, and the names of those that can be used.

    Whoever calls closes it. Blocks, for about 60 ms; nothing else is left.
    """
    scratch = open_scratch(kernel, slots)
    try:
        return Programs(scratch, names_of(kernel, scratch, possible_cpus))
    except BaseException:
        if scratch is not None:
            scratch.close()
        raise


def names_of(kernel: Kernel, scratch: Scratch | None, possible_cpus: int) -> frozenset[str]:
    """The names of programs that can be used, as ServerInfo.programs has them."""
    found = {
        str(template)
        for template, (create, field_size) in _LOADED.items()
        if _loads(kernel, scratch, template, create, field_size)
    }
    if scratch is not None:
        for create, reads, writes in _VECTORS:
            found |= _vectors(kernel, scratch, create, reads, writes, possible_cpus)
    return frozenset(found)


def _loads(
    kernel: Kernel, scratch: Scratch | None, template: Template, create: CreateMap, field_size: int
) -> bool:
    with ExitStack() as stack:
        try:
            btf = [kernel.control(LoadBtf(blob=LOCK_BTF))] if create.with_btf else []
            fds = [stack.enter_context(stack.enter_context(owned).lease()) for owned in btf]
            over = kernel.control(create, fds)
            stack.enter_context(over)
            with_map = [stack.enter_context(over.lease())]
            if template in _IN_SCRATCH:
                if scratch is None:
                    return False
                with_map.append(stack.enter_context(scratch.fd.lease()))
            request = LoadTemplate(
                template=template,
                key_size=create.key_size,
                value_size=create.value_size,
                slot_bytes=scratch.slot_bytes if scratch is not None else 0,
                field_size=field_size,
            )
            kernel.control(request, with_map).close()
        except SyscallError:
            return False
    return True


def _vectors(
    kernel: Kernel, scratch: Scratch, create: CreateMap, reads: str, writes: str, possible_cpus: int
) -> set[str]:
    """The names of a type's two vector programs, of those that do what they are for; of one name both must."""
    with ExitStack() as stack:
        try:
            owned = kernel.control(create)
            stack.enter_context(owned)
            map_fd = stack.enter_context(owned.lease())
            known = facts(kernel.info(map_fd), possible_cpus)
        except SyscallError:
            return set()
        programs = Programs(scratch, (reads, writes)).enter(known.id, owned)
        vector = Vector.of(programs, known, map_fd)
        if vector is None:
            return set()
        key = struct.pack("=I", 32).ljust(create.key_size, b"\x01")
        value = bytes(range(1, 1 + create.value_size))
        column = Columns(1, Buffer.of(key), create.key_size, Buffer.of(value), create.value_size)
        if any(kernel.each(map_fd, Op.UPDATE, column)):
            return set()
        found = {reads} if _read(kernel, map_fd, vector, key) == value else set[str]()
        wrote = _written(kernel, map_fd, vector, key, value[::-1]) == value[::-1]
        return found | {writes} if wrote and (found or reads != writes) else found - {writes}


def _read(kernel: Kernel, map_fd: int, vector: Vector, key: bytes) -> bytes:
    """What the program that reads answers; nothing where it does not load."""
    lease = vector.load(kernel, map_fd, writes=False)
    if lease is None:
        return b""
    with lease as prog_fd:
        program = Program(vector, prog_fd, False, LOOKUPS)
        return run(kernel, map_fd, program, Work(bytes([Op.LOOKUP]), key, b"", 1)).answers


def _written(kernel: Kernel, map_fd: int, vector: Vector, key: bytes, value: bytes) -> bytes:
    """What the program that writes answers after it has written that, before it removes it again."""
    lease = vector.load(kernel, map_fd, writes=True)
    if lease is None:
        return b""
    ops = bytes([Op.UPDATE, Op.LOOKUP, Op.DELETE])
    with lease as prog_fd:
        ran = run(kernel, map_fd, Program(vector, prog_fd, True, frozenset()), Work(ops, key * 3, value, 3))
    return ran.answers if ran.errnos == bytes(3) else b""

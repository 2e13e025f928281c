"""What this kernel really takes: a smallest map of each type, made and closed again.

Version numbers say little: distributions carry patches back and leave features out. A trial may take
away from what the table says, and never adds. EPERM is no answer about the kernel: who may not create
maps can still read those of others.
"""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import Columns, ControlRequest, CreateMap, Kernel, LoadBtf, SyscallError
from mapd.maps import lpm
from mapd.maps.errors import UNSUPPORTED
from mapd.maps.traits import Btf, Entries, TypeTraits
from mapd.maps.types import TYPES
from mapd_api.layout import value_stride
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.uapi import ENOTSUPP, MapType

KERNEL_NAME: Final = "mapd_trial"

U32_BTF: Final = (
    struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5)
    + struct.pack("=IIII", 1, 1 << 24, 4, 32)
    + b"\0u32\0"
)
"""BTF with one type, a u32: the smallest that describes a key and a value."""

_TRIED: Final = (Op.LOOKUP, Op.DELETE, Op.LOOKUP_AND_DELETE, Op.PEEK, Op.POP, Op.CONTAINS)
"""Operations that do nothing to an empty map, so that they can be asked for."""

_STAND_INS: Final = {MapType.PROG_ARRAY: MapType.ARRAY}
"""Types that are not tried, and those whose answer is theirs: both are kernel/bpf/arraymap.c, which every kernel
with bpf(2) has. A program array that is closed while somebody looks through all ids may stay for ever (lingering)."""

_ENTRIES: Final = {Entries.ZERO: 0, Entries.POWER_OF_TWO_PAGES: mmap.PAGESIZE}

_REFUSALS: Final = frozenset({errno.EINVAL, errno.E2BIG, *UNSUPPORTED})
"""What a kernel says of a type that it does not have, or not so."""


class Answer(StrEnum):
    """What came of creating a map of a type."""

    OK = "ok"
    REFUSED = "refused"  # this kernel has no such maps
    UNKNOWN = "unknown"  # the daemon may not, or the host had no room: nothing is known of the kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One type.

    Attributes:
        errno: of the refusal ("EINVAL"), "" where it was created.
        lacks: operations of the table that this kernel does not have for the type.
    """

    answer: Answer
    errno: str = ""
    lacks: frozenset[Op] = frozenset()


def try_types(kernel: Kernel, possible_cpus: int) -> Mapping[int, Trial]:
    """Try every type of the table. Blocks, for about 5 ms; nothing is left."""
    with ExitStack() as stack:
        btf = _made(stack, kernel, LoadBtf(blob=U32_BTF))
        template = _made(
            stack, kernel, CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
        )
        trials = {
            number: _try(kernel, traits, possible_cpus, btf, template)
            for number, traits in TYPES.items()
            if number not in _STAND_INS
        }
    for number, other in _STAND_INS.items():
        trials[number] = replace(trials[other], lacks=frozenset())
    return MappingProxyType(trials)


def served(trials: Mapping[int, Trial]) -> Mapping[int, TypeTraits]:
    """The table, less the operations that this kernel was found to lack."""
    return MappingProxyType(
        {number: replace(traits, ops=traits.ops - trials[number].lacks) for number, traits in TYPES.items()}
    )


def minimal(traits: TypeTraits) -> CreateMap:
    """The smallest map of a type; the fds that it asks for go beside it."""
    typed = traits.btf is Btf.REQUIRED
    struct_ops = traits.type is MapType.STRUCT_OPS
    return CreateMap(
        map_type=traits.type,
        key_size=traits.key_sizes.start,
        value_size=4 if typed else traits.value_sizes.start,
        max_entries=_ENTRIES.get(traits.entries, 1),
        flags=traits.required_flags,
        kernel_name=KERNEL_NAME,
        with_inner=traits.template,
        with_btf=typed,
        btf_key_type_id=0 if struct_ops or not typed else 1,
        btf_value_type_id=0 if struct_ops or not typed else 1,
        # No structure of the kernel's: it answers ENOTSUPP where it has the type, EINVAL where it has not.
        btf_vmlinux_value_type_id=1 if struct_ops else 0,
    )


def _made(stack: ExitStack, kernel: Kernel, request: ControlRequest[OwnedFd]) -> int | SyscallError:
    """The number of an fd that is open until the stack is closed; or why there is none."""
    try:
        owned = kernel.control(request)
    except SyscallError as error:
        return error
    stack.callback(owned.close)
    return stack.enter_context(owned.lease())


def _try(
    kernel: Kernel,
    traits: TypeTraits,
    possible_cpus: int,
    btf: int | SyscallError,
    template: int | SyscallError,
) -> Trial:
    request = minimal(traits)
    needs = [template] * request.with_inner + [btf] * request.with_btf
    fds: list[int] = []
    for need in needs:
        if isinstance(need, SyscallError):
            return Trial(answer=Answer.UNKNOWN, errno=errno_name(need.errno or 0))
        fds.append(need)
    try:
        owned = kernel.control(request, fds)
    except SyscallError as error:
        number = error.errno or 0
        if traits.type is MapType.STRUCT_OPS and number == ENOTSUPP:
            return Trial(answer=Answer.OK)
        return Trial(
            answer=Answer.REFUSED if number in _REFUSALS else Answer.UNKNOWN, errno=errno_name(number)
        )
    with owned:
        return Trial(answer=Answer.OK, lacks=_lacks(kernel, traits, request, owned, possible_cpus))


def _lacks(
    kernel: Kernel, traits: TypeTraits, request: CreateMap, owned: OwnedFd, possible_cpus: int
) -> frozenset[Op]:
    """Operations that an empty map of the type answers with "not supported"."""
    stride = value_stride(request.map_type, request.value_size, possible_cpus)
    lacking: set[Op] = set()
    with owned.lease() as map_fd:
        for op in _TRIED:
            if op not in traits.ops:
                continue
            values = Buffer.allocate(stride) if op in ANSWERS_VALUE | TAKES_VALUE else None
            columns = Columns(1, Buffer.allocate(request.key_size), request.key_size, values, stride)
            if UNSUPPORTED.intersection(kernel.each(map_fd, op, columns)):
                lacking.add(op)
        if Op.LOOKUP_EXACT in traits.ops and not lpm.tells_prefixes_apart(
            kernel, map_fd, request.key_size, request.value_size
        ):
            lacking.add(Op.LOOKUP_EXACT)
    return frozenset(lacking)

"""Making a map in the kernel as its spec says: BTF, template, attributes. Naming it is ``store``'s."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from mapd.bpf.errnos import errno_name
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import CreateMap, Kernel, LoadBtf, SyscallError
from mapd.maps.errors import UNSUPPORTED, MapError, capability, from_create, not_now
from mapd.maps.opened import OpenMap
from mapd.maps.spec import BtfSpec, MapSpec
from mapd.maps.traits import Btf
from mapd.maps.types import TYPES
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP

_FOR_BTF: Final = frozenset({*UNSUPPORTED, errno.EINVAL})
"""What the kernel says where it does not like the BTF; EINVAL says it of everything else too."""


def create(
    kernel: Kernel, name: str, spec: MapSpec, kernel_name: str, template: OpenMap | None = None
) -> OwnedFd:
    """Create a map that has been checked (``spec.check``); whoever gets the fd closes it.

    A type that refuses BTF is created without, as libbpf's loaders do: the map's btf_id is 0 then. Nobody's
    BTF is dropped otherwise: a type that takes BTF, and not this one, is a refusal that says so.

    Args:
        name: for messages, "namespace/name".
        template: an open map of the shape that the inner maps have; its shape alone is used.

    Raises:
        MapError: BAD_SPEC, KERNEL_MEMORY, DAEMON_CAPABILITY, OPERATION_UNSUPPORTED, QUOTA; STALE_HANDLE where
            the template was closed meanwhile. Nothing was created then.
    """
    btf, traits = spec.btf, TYPES[spec.map_type]
    what = f"{name} ({spec})"
    if template is not None:
        what = f"{what[:-1]}, of maps like {template.facts.type_name} {template.facts.label})"
    request = CreateMap(
        map_type=spec.map_type,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=spec.flags,
        kernel_name=kernel_name,
        map_extra=spec.map_extra,
        numa_node=spec.numa_node,
        with_inner=template is not None,
        with_btf=btf is not None,
        btf_key_type_id=btf.key_type_id if btf else 0,
        btf_value_type_id=btf.value_type_id if btf else 0,
        btf_vmlinux_value_type_id=spec.btf_vmlinux_value_type_id,
        exclusive_program_hash=spec.exclusive_program_hash,
    )
    with ExitStack() as stack:
        fds = [] if template is None else [stack.enter_context(template.lease())]
        try:
            if btf is None:
                return kernel.control(request, fds)
            loaded = stack.enter_context(_load(kernel, btf, what))
            return kernel.control(request, [*fds, stack.enter_context(loaded.lease())])
        except SyscallError as error:
            refusal = from_create(error, what, needs=traits.capability, map=name)
            if btf is None or traits.btf is Btf.REQUIRED or error.errno not in _FOR_BTF:
                raise refusal from error
            try:
                without = kernel.control(_without_btf(request), fds)
            except SyscallError:
                raise refusal from error  # not because of the BTF
            if traits.btf is Btf.REFUSED or error.errno == ENOTSUPP:
                return without
            without.close()
            raise _wrong_btf(spec, btf, error, what) from error


def _without_btf(request: CreateMap) -> CreateMap:
    return replace(request, with_btf=False, btf_key_type_id=0, btf_value_type_id=0)


def _load(kernel: Kernel, btf: BtfSpec, what: str) -> OwnedFd:
    try:
        return kernel.control(LoadBtf(blob=btf.blob))
    except SyscallError as error:
        if error.errno == errno.EPERM:
            raise capability("CAP_BPF", "load BTF", operation="create") from error
        refused = not_now(error, f"create {what}: its BTF", operation="create", field="btf")
        if refused is not None:
            raise refused from error
        raise MapError(
            Reason.BAD_SPEC,
            f"create {what}: the kernel refuses this BTF of {len(btf.blob)} bytes: {error.strerror}",
            operation="create",
            field="btf",
            errno=errno_name(error.errno or 0),
        ) from error


def _wrong_btf(spec: MapSpec, btf: BtfSpec, error: SyscallError, what: str) -> MapError:
    """The map could be made without; BTF that the type would take was wrong."""
    number = errno_name(error.errno or 0)
    if error.errno == errno.EOPNOTSUPP:
        why = "the value has a field (bpf_spin_lock, bpf_timer, ...) that this map type cannot hold"
    else:
        why = (
            f"in it key type {btf.key_type_id} must have {spec.key_size} bytes and value type {btf.value_type_id} "
            f"{spec.value_size} bytes, of a kind that this map type takes"
        )
    return MapError(
        Reason.BAD_SPEC,
        f"create {what}: btf does not describe it: {why}; or create it without BTF [{number}]",
        operation="create",
        field="btf",
        errno=number,
    )

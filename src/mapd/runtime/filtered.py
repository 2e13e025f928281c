"""Groups of whoever may use some keys of a map alone: what he may not do is not done, and has its own status.

All of it on columns, in the thread that runs the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mapd.access.policy.decide import Grants
from mapd.access.policy.elements import permitted
from mapd.access.policy.keys import Mask
from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Kernel
from mapd.maps.answers import ElementFailure
from mapd.maps.execute import execute
from mapd.maps.groups import Group, Plan, plan
from mapd.maps.job import Outcome
from mapd.maps.opened import OpenMap
from mapd.maps.widths import OPS
from mapd_api import limits
from mapd_api.reasons import Reason

Bytes: TypeAlias = npt.NDArray[np.uint8]


def execute_permitted(
    kernel: Kernel,
    map_fd: int,
    opened: OpenMap,
    checked: Plan,
    grants: Grants | None,
    expires: float | None = None,
) -> Outcome:
    """Run a group, in order, without the elements that ``grants`` does not permit; those are POLICY. Blocks.

    Args:
        grants: None where everything is permitted.
        expires: as for ``execute``.

    Raises:
        MapError: as ``execute``.
    """
    if grants is None:
        return execute(kernel, map_fd, opened, checked, expires)
    group = checked.group
    ops = np.frombuffer(group.ops, np.uint8)
    if len(ops) == 1:
        ops = np.repeat(ops, group.count)
    keys = np.frombuffer(group.keys, np.uint8).reshape(group.count, opened.facts.key_stride)
    mask = permitted(grants, opened.facts.info.map_type, ops.tobytes(), keys)
    if mask is None or mask.all():
        return execute(kernel, map_fd, opened, checked, expires)
    statuses = np.full(group.count, Reason.POLICY, np.uint8)
    values: Bytes = np.zeros(checked.answer_bytes, np.uint8)
    errors = _refused(mask)
    if mask.any():
        done = execute(kernel, map_fd, opened, plan(_part(group, checked, ops, keys, mask), opened), expires)
        places = np.flatnonzero(mask)
        statuses[mask] = np.frombuffer(done.statuses, np.uint8)
        values[_bytes_of(ops, checked.widths.answered, mask)] = np.frombuffer(done.values.view, np.uint8)
        errors += [replace(error, index=int(places[error.index])) for error in done.errors]
        errors.sort(key=lambda error: error.index)
    return Outcome(bytearray(statuses.tobytes()), Buffer.of(values.tobytes()), errors[: limits.ERROR_DETAILS])


def _refused(mask: Mask) -> list[ElementFailure]:
    places = np.flatnonzero(~mask)[: limits.ERROR_DETAILS]
    return [ElementFailure(int(at), Reason.POLICY, 0) for at in places]


def _part(group: Group, checked: Plan, ops: Bytes, keys: Bytes, mask: Mask) -> Group:
    """The elements of a group that are permitted."""
    taken = np.frombuffer(group.values, np.uint8)[_bytes_of(ops, checked.widths.taken, mask)]
    return replace(
        group,
        count=int(mask.sum()),
        ops=group.ops if len(group.ops) == 1 else ops[mask].tobytes(),
        keys=keys[mask].tobytes(),
        values=taken.tobytes(),
    )


def _bytes_of(ops: Bytes, width: Callable[[int], int], mask: Mask) -> Mask:
    """Which bytes of a value column belong to the elements of a mask."""
    table = np.array([width(byte) if byte in OPS else 0 for byte in range(256)], np.int64)
    return np.repeat(mask, table[ops])

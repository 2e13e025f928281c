"""Rights element by element: which of a group's operations a key-filtered principal may do."""

from __future__ import annotations

from typing import Final

import numpy as np

from mapd.access.policy.decide import Grants
from mapd.access.policy.keys import KeyFilter, Mask, Rows
from mapd.access.policy.roles import filtered_ops
from mapd_api import contract

_OP_VERBS: Final = {int(op): verbs for op, verbs in contract.op_verbs().items()}


def permitted(grants: Grants, map_type: int, ops: bytes | bytearray | memoryview, keys: Rows) -> Mask | None:
    """Which elements may be executed; None where all may.

    Args:
        ops: a byte each (``Op``); one that is none is not permitted.
        keys: as many rows; without columns for a map without keys.
    """
    column = np.frombuffer(ops, np.uint8)
    masks: dict[KeyFilter, Mask] = {}  # the same for reading and writing, as a rule
    decided = {
        int(op): _of_op(grants, map_type, int(op), keys, masks) for op in np.bincount(column).nonzero()[0]
    }
    if all(one is None for one in decided.values()):
        return None
    found = np.zeros(len(column), np.bool_)
    for op, mask in decided.items():
        here = column == op
        found |= here if mask is None else here & mask
    return found


def _of_op(grants: Grants, map_type: int, op: int, keys: Rows, masks: dict[KeyFilter, Mask]) -> Mask | None:
    """The keys on which one operation is permitted; None: all."""
    verbs = _OP_VERBS.get(op)
    if verbs is None:
        return np.zeros(len(keys), np.bool_)
    if verbs <= grants.whole:
        return None
    found = np.ones(len(keys), np.bool_)
    for verb in verbs - grants.whole:
        keys_of = grants.filters.get(verb)
        if keys_of is None or op not in filtered_ops(map_type):
            return np.zeros(len(keys), np.bool_)
        if keys_of not in masks:
            masks[keys_of] = keys_of.mask(keys)
        found &= masks[keys_of]
    return found

"""A column of errnos, a byte for each element, as a column of Reasons: by table, without a step per element."""

from __future__ import annotations

from typing import Final

import numpy as np

from mapd.maps.answers import ElementFailure, element_reason
from mapd.maps.opened import MapFacts
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason

ERRNOS: Final = 256

_HARMLESS: Final = bytes(byte in (Reason.DONE, Reason.KEY_ABSENT) for byte in range(ERRNOS))
"""1 for each Reason that is an answer, and no failure."""

_tables: Final[dict[int, dict[int, bytes]]] = {}


def _table(facts: MapFacts, op: int) -> bytes:
    """The Reason of each errno of an operation on maps of a type, as ``answers`` says of one element; made once."""
    of_type = _tables.setdefault(facts.info.map_type, {})
    found = of_type.get(op)
    if found is None:
        found = of_type[op] = bytes(
            element_reason(facts, Op(op), number) if number else Reason.DONE for number in range(ERRNOS)
        )
    return found


def reasons(facts: MapFacts, ops: bytes, errnos: bytes) -> bytes:
    """The Reason of each element. ``ops`` has a byte for each, or one for all.

    Only for types whose errnos mean the same for every key: not for sparse ones.
    """
    if errnos.count(0) == len(errnos):
        return errnos
    if len(ops) == 1:
        return errnos.translate(_table(facts, ops[0]))
    present = sorted(set(ops))
    tables = np.zeros((max(present) + 1, ERRNOS), np.uint8)
    for op in present:
        tables[op] = np.frombuffer(_table(facts, op), np.uint8)
    return tables[np.frombuffer(ops, np.uint8), np.frombuffer(errnos, np.uint8)].tobytes()


def failures(
    found: bytes, errnos: bytes, start: int, room: int = limits.ERROR_DETAILS
) -> list[ElementFailure]:
    """The first ``room`` failures among these Reasons; their indexes count from ``start``. A miss is none."""
    if room <= 0 or found.count(0) == len(found):
        return []
    harmless = found.translate(_HARMLESS)
    at, listed = harmless.find(0), list[ElementFailure]()
    while at >= 0 and len(listed) < room:
        listed.append(ElementFailure(start + at, Reason(found[at]), errnos[at]))
        at = harmless.find(0, at + 1)
    return listed

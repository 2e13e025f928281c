"""Columns of errnos as columns of Reasons: the same as one element at a time says."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.bpf.kernel import RawMapInfo
from mapd.bpf.vector_columns import TYPES, write_ops
from mapd.maps.answers import ElementFailure, element_reason
from mapd.maps.opened import MapFacts, facts
from mapd.maps.statuses import ERRNOS, failures, reasons
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason


def of_type(map_type: int) -> MapFacts:
    info = RawMapInfo(
        map_type=map_type,
        id=1,
        key_size=8,
        value_size=8,
        max_entries=8,
        map_flags=0,
        name="",
        btf_id=0,
        btf_key_type_id=0,
        btf_value_type_id=0,
        map_extra=0,
        frozen=False,
        memlock=0,
    )
    return facts(info, 2)


@pytest.mark.parametrize("map_type", sorted(TYPES))
def test_every_errno_of_every_operation_is_told_as_for_one_element(map_type: int) -> None:
    found, errnos = of_type(map_type), bytes(range(ERRNOS))
    for op in sorted(write_ops(map_type)):
        wanted = [Reason.DONE, *(element_reason(found, op, number) for number in range(1, ERRNOS))]
        assert list(reasons(found, bytes([op]), errnos)) == wanted
        assert list(reasons(found, bytes([op]) * ERRNOS, errnos)) == wanted


@given(
    elements=st.lists(
        st.tuples(
            st.sampled_from(sorted(write_ops(1))),
            st.sampled_from([0, 0, errno.ENOENT, errno.EEXIST, errno.E2BIG, errno.EBUSY]),
        ),
        min_size=1,
        max_size=60,
    ),
    start=st.integers(0, 9),
    room=st.integers(0, limits.ERROR_DETAILS),
)
def test_mixed_operations_have_their_own_reasons_and_the_first_failures_are_told(
    elements: list[tuple[Op, int]], start: int, room: int
) -> None:
    of = of_type(1)
    ops, errnos = bytes(op for op, _ in elements), bytes(number for _, number in elements)
    wanted = [element_reason(of, op, number) if number else Reason.DONE for op, number in elements]
    found = reasons(of, ops, errnos)
    assert list(found) == wanted
    told = [
        ElementFailure(start + at, reason, errnos[at])
        for at, reason in enumerate(wanted)
        if reason not in (Reason.DONE, Reason.KEY_ABSENT)
    ]
    assert failures(found, errnos, start, room) == told[:room]

"""A run of a program that fails in the middle of a group: what was executed is told, and the rest has a status."""

from __future__ import annotations

import errno

import pytest

from mapd.bpf import Fault, FaultyKernel, SyscallError
from mapd.bpf.abi import Command
from mapd.maps.groups import FieldSpec, Group
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL
from tests.kernel.vectors import Kind, served, vectors

KIND = Kind(MapType.HASH)
COUNT = 10_000
GROUPS = {
    "update": KIND.group([(Op.UPDATE, 1, 1)] * COUNT),
    "lookup": KIND.group([(Op.LOOKUP, 1, 1)] * COUNT),
    "fetch_add": Group(
        count=COUNT,
        ops=bytes([Op.FETCH_ADD]),
        keys=KIND.key(1) * COUNT,
        values=(1).to_bytes(8, "little") * COUNT,
        field=FieldSpec(0, 8),
    ),
}
groups = pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))


@groups
@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOMEM, Reason.KERNEL_MEMORY), (errno.EINTR, Reason.OUTCOME_UNKNOWN)],
)
def test_the_second_run_fails_and_what_the_first_did_is_told(
    group: Group, number: int, reason: Reason
) -> None:
    faulty = FaultyKernel(KERNEL)
    with vectors(faulty) as programs, served(KIND.create, programs, kernel=faulty) as one:
        one.run(KIND.group([(Op.UPDATE, 1, 0)]))
        faulty.add(Fault(target=Command.PROG_TEST_RUN, nth=2, errno=number))
        outcome = one.run(group)
        done = outcome.statuses.count(Reason.DONE)
        assert 0 < done < COUNT
        assert outcome.statuses == bytes(done) + bytes([reason]) * (COUNT - done)
        assert (outcome.errors[0].index, outcome.errors[0].errno) == (done, number)
        if group is GROUPS["fetch_add"]:
            before = int.from_bytes(KIND.value(0), "little")
            assert one.content() == {KIND.key(1): (before + done).to_bytes(8, "little")}


@groups
def test_the_first_run_fails_and_the_group_is_refused_as_a_whole(group: Group) -> None:
    faulty = FaultyKernel(KERNEL)
    with vectors(faulty) as programs, served(KIND.create, programs, kernel=faulty) as one:
        one.run(KIND.group([(Op.UPDATE, 1, 0)]))
        before = one.content()
        faulty.add(Fault(target=Command.PROG_TEST_RUN, nth=1, errno=errno.ENOMEM))
        with pytest.raises(SyscallError):
            one.run(group)
        assert one.content() == before

"""The trials of the start: every type that this kernel has, and what EPERM does and does not mean."""

from __future__ import annotations

import errno
import time

import pytest

from mapd.bpf import CreateMap, Fault, FaultyKernel, LoadBtf, possible_cpus
from mapd.bpf.abi import Command
from mapd.maps.trials import KERNEL_NAME, Answer, served, try_types
from mapd.maps.types import TYPES
from mapd_api.ops import Op
from mapd_api.uapi import ENOTSUPP, MapType
from tests.kernel.maps import KERNEL
from tests.support.counts import no_map_left_behind

pytestmark = pytest.mark.alone  # counts maps by a name that each daemon gives at its start

SINCE_5_15 = frozenset(MapType) - {
    MapType.UNSPEC,
    MapType.BLOOM_FILTER,
    MapType.USER_RINGBUF,
    MapType.CGRP_STORAGE,
    MapType.ARENA,
}
"""Types that every kernel on which the tests run has (configuration permitting)."""


def test_every_type_has_an_answer_and_none_is_left_behind() -> None:
    with no_map_left_behind(KERNEL_NAME):
        trials = try_types(KERNEL, possible_cpus())
    assert trials.keys() == TYPES.keys()
    refused = {MapType(number).name for number, trial in trials.items() if trial.answer is not Answer.OK}
    assert not refused & {kind.name for kind in SINCE_5_15}, refused
    assert all((trial.errno == "") == (trial.answer is Answer.OK) for trial in trials.values())


def test_the_trials_take_less_than_50_ms() -> None:
    """They stand between the start and the first client; the best of three is not the machine's mood."""
    times: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        try_types(KERNEL, possible_cpus())
        times.append(time.perf_counter() - began)
    assert min(times) < 0.05


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.EMFILE])
def test_want_of_rights_or_room_says_nothing_of_the_kernel(number: int) -> None:
    """A daemon without CAP_BPF must still read the maps of others with all that their type has."""
    trials = try_types(FaultyKernel(KERNEL, Fault(target=CreateMap, errno=number)), possible_cpus())
    assert {trial.answer for trial in trials.values()} == {Answer.UNKNOWN}
    assert served(trials) == TYPES


@pytest.mark.parametrize("number", [errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP, errno.E2BIG])
def test_a_type_that_the_kernel_does_not_take_is_refused_and_keeps_its_row(number: int) -> None:
    # The first creation is the template's.
    trials = try_types(FaultyKernel(KERNEL, Fault(target=CreateMap, nth=2, errno=number)), possible_cpus())
    refused = [kind for kind, trial in trials.items() if trial.answer is Answer.REFUSED]
    assert refused == [next(iter(TYPES))]
    assert served(trials).keys() == TYPES.keys()


def test_types_that_need_btf_or_a_template_are_unknown_without() -> None:
    trials = try_types(FaultyKernel(KERNEL, Fault(target=LoadBtf, errno=errno.EPERM)), possible_cpus())
    unknown = {kind for kind, trial in trials.items() if trial.answer is Answer.UNKNOWN}
    storages = {MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE}
    assert unknown == storages | {MapType.STRUCT_OPS}


@pytest.mark.parametrize("number", [ENOTSUPP, errno.EOPNOTSUPP])
def test_an_operation_that_the_kernel_lacks_is_taken_from_the_type(number: int) -> None:
    """Kernels before 5.14 have no lookup-and-delete for hash maps, and say so by either errno."""
    faulty = FaultyKernel(KERNEL, Fault(target=Command.MAP_LOOKUP_AND_DELETE_ELEM, nth=1, errno=number))
    trials = try_types(faulty, possible_cpus())
    (lacking,) = [kind for kind, trial in trials.items() if trial.lacks]
    assert lacking == MapType.HASH
    assert Op.LOOKUP_AND_DELETE not in served(trials)[lacking].ops
    assert "lookup_and_delete" not in served(trials)[lacking].operations
    assert Op.LOOKUP_AND_DELETE in served(trials)[MapType.LRU_HASH].ops

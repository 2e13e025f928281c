"""BTF at creation: left out where the type refuses it, never silently elsewhere, and no fd stays open.

The kernel here is a dict whose creations fail as told: it proves what we do with Linux's answers.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mapd.bpf import ControlEnded, CreateMap, Fault, FaultyKernel, LimitRefused, LoadBtf, OwnedFd
from mapd.maps import creation
from mapd.maps.errors import MapError
from mapd.maps.spec import BtfSpec, MapSpec
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP, MapFlag, MapType
from tests.support.counts import nothing_left_behind
from tests.unit.mapd.dictkernel import DictKernel, DictMap, raw_info

BTF = BtfSpec(blob=b"btf", key_type_id=1, value_type_id=2)
HASH = MapSpec(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=4, btf=BTF)
DEVMAP = replace(HASH, map_type=MapType.DEVMAP)
STORAGE = replace(HASH, map_type=MapType.SK_STORAGE, max_entries=0, flags=int(MapFlag.NO_PREALLOC))
OUTER = replace(HASH, map_type=MapType.HASH_OF_MAPS, value_size=4, inner=True, btf=None)


class Bench:
    """A dict kernel whose creations fail in their order."""

    def __init__(self) -> None:
        self.kernel = DictKernel()
        self.faulty = FaultyKernel(self.kernel)

    def fails(self, *numbers: int) -> None:
        for nth, number in enumerate(numbers, 1):
            self.faulty.add(Fault(target=CreateMap, errno=number, nth=nth))

    def create(self, spec: MapSpec) -> OwnedFd:
        return creation.create(self.faulty, "ns/it", spec, "it")

    def tried(self) -> int:
        return sum(seen.target is CreateMap for seen in self.faulty.seen)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with nothing_left_behind():
        made = Bench()
        yield made
        assert made.kernel.open_fds == 0


@pytest.mark.parametrize(
    ("spec", "number"),
    [(DEVMAP, ENOTSUPP), (DEVMAP, errno.EINVAL), (DEVMAP, errno.EOPNOTSUPP), (HASH, ENOTSUPP)],
    ids=str,
)
def test_a_map_whose_type_refuses_btf_is_made_without(bench: Bench, spec: MapSpec, number: int) -> None:
    bench.fails(number)
    bench.create(spec).close()
    (request,) = bench.kernel.created
    assert not request.with_btf
    assert (request.btf_key_type_id, request.btf_value_type_id) == (0, 0)


def test_a_type_said_to_refuse_btf_is_asked_first(bench: Bench) -> None:
    """A newer kernel may take it."""
    bench.create(DEVMAP).close()
    assert bench.kernel.created[0].with_btf


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EINVAL, "key type 1 must have 4 bytes and value type 2 8 bytes"),
        (errno.EOPNOTSUPP, "bpf_spin_lock"),
    ],
)
def test_btf_that_a_type_would_take_is_not_left_out(bench: Bench, number: int, says: str) -> None:
    bench.fails(number)
    with pytest.raises(MapError, match=says) as caught:
        bench.create(HASH)
    assert caught.value.reason is Reason.BAD_SPEC
    assert caught.value.refusal.metadata["field"] == "btf"


@pytest.mark.parametrize("number", [errno.EINVAL, ENOTSUPP])
def test_what_fails_without_btf_too_has_another_reason(bench: Bench, number: int) -> None:
    bench.fails(number, errno.ENOMEM)
    with pytest.raises(MapError, match=r"ns/it \(hash map of 4") as caught:
        bench.create(HASH)
    assert "btf" not in str(caught.value)
    assert caught.value.refusal.metadata["operation"] == "create"


def test_btf_that_is_needed_is_never_left_out(bench: Bench) -> None:
    bench.fails(errno.EINVAL)
    with pytest.raises(MapError) as caught:
        bench.create(STORAGE)
    assert caught.value.reason is Reason.BAD_SPEC
    assert bench.tried() == 1


def test_no_memory_is_not_blamed_on_btf(bench: Bench) -> None:
    bench.fails(errno.ENOMEM)
    with pytest.raises(MapError) as caught:
        bench.create(HASH)
    assert caught.value.reason is Reason.KERNEL_MEMORY
    assert bench.tried() == 1


def test_the_capability_is_the_types_own(bench: Bench) -> None:
    for spec, name in ((DEVMAP, "CAP_NET_ADMIN"), (HASH, "CAP_BPF")):
        bench.faulty.add(Fault(target=CreateMap, errno=errno.EPERM))
        with pytest.raises(MapError, match=f"give mapd {name}") as caught:
            bench.create(spec)
        assert caught.value.refusal.metadata["capability"] == name


def test_a_template_that_was_closed_meanwhile_is_stale_and_nothing_is_made(bench: Bench) -> None:
    template = bench.kernel.open(DictMap(raw_info(MapType.ARRAY)))
    creation.create(bench.faulty, "ns/it", OUTER, "it", template).close()
    template.fd.close()
    with pytest.raises(MapError) as caught:
        creation.create(bench.faulty, "ns/it", OUTER, "it", template)
    assert caught.value.reason is Reason.STALE_HANDLE
    assert len(bench.kernel.created) == 1


def test_types_beyond_a_limit_of_the_opener_are_not_called_malformed(bench: Bench) -> None:
    def limit() -> None:
        raise LimitRefused(errno.E2BIG, "BPF_BTF_LOAD", "a blob of 3 bytes; btf_bytes is 2")

    bench.faulty.add(Fault(target=LoadBtf, failpoint=limit))
    with pytest.raises(MapError, match="btf_bytes is 2") as refused:
        bench.create(HASH)
    assert refused.value.reason is Reason.QUOTA


@pytest.mark.parametrize("target", [LoadBtf, CreateMap])
def test_without_an_opener_nothing_was_made_and_coming_again_may_help(
    bench: Bench, target: type[LoadBtf | CreateMap]
) -> None:
    def gone() -> None:
        raise ControlEnded(target.__name__, "the opener has ended", unknown=False)

    bench.faulty.add(Fault(target=target, failpoint=gone))
    with pytest.raises(MapError, match="nothing was done") as refused:
        bench.create(HASH)
    assert refused.value.reason is Reason.DRAINING

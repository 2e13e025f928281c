"""Freezing a map that is held, and its type information."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mapd.bpf import Fault, FreezeMap, GetBtf
from mapd.maps.blobs import BtfBlobs
from mapd.maps.errors import MapError
from mapd.maps.spec import BtfSpec
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP
from tests.support.rawbtf import Raw
from tests.unit.mapd.dictkernel import DictMap, raw_info
from tests.unit.mapd.maps.test_store import FLOWS, TYPED, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Every test ends with every fd closed that the kernel handed out."""
    made = Bench()
    yield made
    assert made.kernel.open_fds == 0


def test_a_map_is_frozen_once_and_again_is_fine(bench: Bench) -> None:
    opened = bench.kernel.open(made := DictMap(raw_info()))
    bench.store.freeze(opened)
    assert made.info.frozen
    bench.store.freeze(opened)
    opened.fd.close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EBUSY, Reason.BUSY),
        (errno.EPERM, Reason.READ_ONLY),
        (ENOTSUPP, Reason.OPERATION_UNSUPPORTED),
    ],
)
def test_a_map_that_cannot_be_frozen_says_why(bench: Bench, number: int, reason: Reason) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    bench.faulty.add(Fault(target=FreezeMap, errno=number))
    with pytest.raises(MapError, match=r"freeze map 41 \(flows\)") as caught:
        bench.store.freeze(opened)
    assert caught.value.reason is reason
    opened.fd.close()


def test_a_write_that_is_under_way_makes_a_freeze_wait_a_try(bench: Bench) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    bench.faulty.add(Fault(target=FreezeMap, errno=errno.EBUSY, nth=1))
    bench.store.freeze(opened)
    assert [seen.target for seen in bench.faulty.seen].count(FreezeMap) == 2
    opened.fd.close()


def test_a_read_only_opening_freezes_nothing(bench: Bench) -> None:
    opened = bench.kernel.open(DictMap(raw_info()), read_only=True)
    with pytest.raises(MapError, match="opened read-only") as caught:
        bench.store.freeze(opened)
    assert caught.value.reason is Reason.READ_ONLY
    assert bench.faulty.seen == ()
    opened.fd.close()


def test_type_information_comes_with_the_ids_of_key_and_value(bench: Bench) -> None:
    info = replace(raw_info(), btf_id=5, btf_key_type_id=1, btf_value_type_id=2)
    opened = bench.kernel.open(DictMap(info))
    found = bench.store.btf(opened)
    assert (found.blob, found.key_type_id, found.value_type_id) == (b"blob", 1, 2)
    opened.fd.close()


def test_types_of_a_map_made_here_need_no_right(bench: Bench, tmp_path: Path) -> None:
    bench.store.blobs = BtfBlobs(tmp_path, bench.store.boot_id)
    bench.fails(GetBtf, errno.EPERM)
    blob = Raw().blob()
    spec = replace(TYPED, btf=BtfSpec(blob=blob, key_type_id=1, value_type_id=2))
    opened, _ = bench.store.create(FLOWS, spec, exist_ok=False)
    typed = replace(opened, facts=replace(opened.facts, info=replace(opened.facts.info, btf_id=5)))
    assert bench.store.btf(typed).blob == blob
    others = replace(typed, facts=replace(typed.facts, info=replace(typed.facts.info, id=9)))
    with pytest.raises(MapError, match="CAP_SYS_ADMIN"):
        bench.store.btf(others)
    opened.fd.close()


def test_a_map_without_btf_and_a_daemon_without_the_right_are_told_apart(bench: Bench) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    with pytest.raises(MapError, match="without BTF") as without:
        bench.store.btf(opened)
    assert without.value.reason is Reason.OPERATION_UNSUPPORTED
    typed = replace(opened, facts=replace(opened.facts, info=replace(opened.facts.info, btf_id=5)))
    bench.fails(GetBtf, errno.EPERM)
    with pytest.raises(MapError, match="CAP_SYS_ADMIN") as rights:
        bench.store.btf(typed)
    assert rights.value.reason is Reason.DAEMON_CAPABILITY
    opened.fd.close()


def test_a_closed_map_is_stale_for_whoever_still_holds_it(bench: Bench) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    opened.fd.close()
    with pytest.raises(MapError, match="was closed; open it again") as caught:
        bench.store.freeze(opened)
    assert caught.value.reason is Reason.STALE_HANDLE

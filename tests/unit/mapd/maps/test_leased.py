"""Where leased maps are, and what is found and removed there."""

from __future__ import annotations

import errno
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.bpf import Fault, FaultyKernel, ListFolder, MakeFolder, Pin, RemoveFolder, SyscallError, Unpin
from mapd.bpf.kernel import OpenPin
from mapd.maps import leased, leases
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef, LeaseId
from mapd.maps.spec import MapSpec
from mapd.maps.store import MapStore, NameRef
from mapd.memory import MemoryKernel
from mapd_api import limits
from mapd_api.names import PART
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType

ROOT = "/bpf/mapd"
JOB = LeaseId("team", "job")
PARTS = st.from_regex(PART, fullmatch=True)
TTLS = st.integers(int(limits.LEASE_MIN_S * 1_000), int(limits.LEASE_MAX_S * 1_000))
SPEC = MapSpec(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=4)


@pytest.fixture
def kernel() -> MemoryKernel:
    return MemoryKernel(2, [ROOT])


@pytest.fixture
def store(kernel: MemoryKernel) -> MapStore:
    return MapStore(kernel=kernel, possible_cpus=2, boot_id=uuid.UUID(int=1), names_root=ROOT)


def make(store: MapStore, lease: LeaseId = JOB, ttl_ms: int = 5_000, name: str = "map") -> int:
    opened, created = store.create(LeasedRef(lease, ttl_ms, name), SPEC, exist_ok=False)
    assert created
    opened.fd.close()
    return opened.facts.id


def folders(kernel: MemoryKernel, path: str) -> list[str]:
    return sorted(kernel.control(ListFolder(root=ROOT, path=path)).folders)


# ---- places ------------------------------------------------------------------------------------


@given(PARTS, PARTS, TTLS, PARTS)
def test_a_place_is_read_from_its_path_as_it_was_written(
    namespace: str, lease: str, ttl: int, name: str
) -> None:
    place = LeasedRef(LeaseId(namespace, lease), ttl, name)
    path = leased.path_of(ROOT, place)
    assert leased.parse(ROOT, path) == place
    assert leased.owner_of(ROOT, path) == namespace
    assert leased.parse("/bpf/other", path) is None


@pytest.mark.parametrize(
    "path",
    [
        "team/job",
        "_leases/team/job/map",
        "_leases/team/job-5s/map",
        "_leases/team/job-999ms/map",
        "_leases/team/job-86400001ms/map",
        "_leases/team/job-05000ms/map",
        "_leases/team/-5000ms/map",
        "_leases/_team/job-5000ms/map",
        "_leases/team/job-5000ms/_map",
        "_leases/team/job-5000ms/a/b",
        "_leases/team/job-5000ms",
        "_leases/../job-5000ms/map",
        "_leases/team/job-\u0665000ms/map",
    ],
)
def test_what_is_no_place_in_a_lease_is_taken_for_none(path: str) -> None:
    assert leased.parse(ROOT, f"{ROOT}/{path}") is None
    assert leased.owner_of(ROOT, f"{ROOT}/{path}") == ""


def test_the_folder_of_leases_is_no_namespace() -> None:
    assert PART.fullmatch(leased.FOLDER) is None


# ---- making and finding ------------------------------------------------------------------------


def test_the_folders_of_a_lease_are_made_with_its_first_map(kernel: MemoryKernel, store: MapStore) -> None:
    first, second = make(store, name="a"), make(store, name="b")
    assert folders(kernel, f"{ROOT}/_leases/team") == ["job-5000ms"]
    (found,) = leases.find(store).leases
    assert (found.id, found.ttl_ms) == (JOB, 5_000)
    assert {one.place.name: one.facts.id for one in found.maps} == {"a": first, "b": second}


def test_a_leased_map_is_told_of_as_such_and_has_no_name(store: MapStore) -> None:
    opened, _ = store.create(LeasedRef(JOB, 5_000, "map"), SPEC, exist_ok=False)
    opened.fd.close()
    assert (opened.name, opened.leased) == ("", LeasedRef(JOB, 5_000, "map"))
    assert opened.described.leased == opened.leased


def test_a_taken_place_is_refused_or_opened(store: MapStore) -> None:
    made = make(store)
    with pytest.raises(MapError) as caught:
        make(store)
    assert caught.value.reason is Reason.MAP_EXISTS
    opened, created = store.create(LeasedRef(JOB, 5_000, "map"), SPEC, exist_ok=True)
    opened.fd.close()
    assert (opened.facts.id, created) == (made, False)


def test_nothing_is_found_where_there_never_was_a_lease(store: MapStore) -> None:
    store.create(NameRef("team", "flows"), SPEC, exist_ok=False)[0].fd.close()
    found = leases.find(store)
    assert (found.leases, found.notes) == ((), [])


def test_what_is_no_lease_is_named_and_left(kernel: MemoryKernel, store: MapStore) -> None:
    make(store)
    make(store, ttl_ms=6_000, name="other")  # the same lease with another ttl: by hand, or by a fault of ours
    kernel.make_folder(f"{ROOT}/_leases/team/stray")
    found = leases.find(store)
    assert [(one.id, one.ttl_ms) for one in found.leases] == [(JOB, 5_000)]
    lines = sorted(note.removeprefix(f"{ROOT}/_leases/team/") for note in found.notes)
    assert [line.partition(":")[0] for line in lines] == ["job-6000ms", "stray"]


def test_a_map_that_cannot_be_made_leaves_a_lease_without_maps_that_can_be_ended(store: MapStore) -> None:
    faulty = FaultyKernel(store.kernel)
    faulty.add(Fault(target=Pin, nth=2, errno=errno.ENOMEM))
    store.kernel = faulty
    with pytest.raises(MapError) as caught:
        make(store)
    assert caught.value.reason is Reason.KERNEL_MEMORY
    assert leases.find(store).leases == ()  # the pin that failed had made no folder here
    ended = leases.end(store, JOB, 5_000)
    assert (ended.pins, ended.left) == ([], [])


# ---- ending ------------------------------------------------------------------------------------


def test_a_lease_ends_with_all_its_maps_and_its_folder(kernel: MemoryKernel, store: MapStore) -> None:
    ids = {make(store, name=name) for name in ("a", "b", "c")}
    make(store, LeaseId("team", "other"))
    ended = leases.end(store, JOB, 5_000)
    assert {map_id for _, map_id in ended.pins} == ids
    assert ended.left == []
    assert folders(kernel, f"{ROOT}/_leases/team") == ["other-5000ms"]
    again = leases.end(store, JOB, 5_000)
    assert (again.pins, again.left) == ([], [])


def test_what_cannot_be_removed_is_named_and_stays(kernel: MemoryKernel, store: MapStore) -> None:
    make(store)
    kernel.control(MakeFolder(root=ROOT, path=f"{ROOT}/_leases/team/job-5000ms/mine"))
    ended = leases.end(store, JOB, 5_000)
    assert len(ended.pins) == 1
    assert [line.rpartition("[")[2] for line in ended.left] == ["ENOTEMPTY]"]
    assert folders(kernel, f"{ROOT}/_leases/team/job-5000ms") == ["mine"]


@pytest.mark.parametrize("target", [ListFolder, OpenPin, Unpin, RemoveFolder])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_daemon_that_has_run_out_of_something_says_so_and_tries_again(
    store: MapStore, target: type, number: int
) -> None:
    made = make(store)
    faulty = FaultyKernel(store.kernel)
    faulty.add(Fault(target=target, nth=1, errno=number))
    store.kernel = faulty
    with pytest.raises(MapError) as caught:
        leases.end(store, JOB, 5_000)
    assert caught.value.reason in (Reason.QUOTA, Reason.KERNEL_MEMORY)
    again = leases.end(store, JOB, 5_000)
    assert target is RemoveFolder or [map_id for _, map_id in again.pins] == [made]
    with pytest.raises(SyscallError):
        store.kernel.control(ListFolder(root=ROOT, path=f"{ROOT}/_leases/team/job-5000ms"))

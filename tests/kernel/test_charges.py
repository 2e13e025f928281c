"""Maps and their memory per principal, counted from real pins: before a map is made, and never beyond."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.bpf import CreateMap, FaultyKernel, LinuxKernel, OpenPin, Pin, possible_cpus
from mapd.bpf.memory import MapShape, map_bytes
from mapd.maps.errors import MapError
from mapd.maps.spec import MapSpec
from mapd.maps.store import MapStore, NameRef
from mapd.runtime.charges import Account, Charges
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.kernel import stores

EDGE = Principal(name="edge", namespace="edge")
WEB = Principal(name="web", namespace="web")
SPEC = MapSpec(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=64)
LARGE = MapSpec(map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1 << 17)


def size_of(spec: MapSpec) -> int:
    shape = MapShape(
        map_type=spec.map_type,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=spec.flags,
    )
    return map_bytes(shape, possible_cpus())


class Bench:
    """A store and its charges; what is opened is closed at once unless it is kept."""

    def __init__(self, store: MapStore) -> None:
        self.store = store
        self.charges = Charges(store)
        self.held: set[int] = set()
        self.quotas = Quotas()

    def create(
        self,
        name: str,
        spec: MapSpec = SPEC,
        who: Principal = EDGE,
        *,
        exist_ok: bool = False,
        others: tuple[Account, ...] = (),
        begun: Callable[[], None] = lambda: None,
    ) -> int:
        """As the host does it; the map's id."""
        ref = NameRef(*name.split("/")) if "/" in name else NameRef(who.namespace, name)
        accounts = (Account(principal=who, quotas=self.quotas), *others)
        with self.charges.reserve(ref, spec, accounts, self.holds) as bill:
            begun()
            opened, created = self.store.create(ref, spec, exist_ok=exist_ok)
            opened.fd.close()
            try:
                if created:
                    bill.made(opened.facts.id)
            except MapError:
                self.store.uncreate(ref, opened.facts.id)
                raise
        return opened.facts.id

    def used(self, who: Principal = EDGE) -> tuple[int, int]:
        return self.charges.used(who, self.holds)

    def holds(self, map_id: int) -> bool:
        return map_id in self.held


@pytest.fixture
def bench(bpffs: Path) -> Bench:
    (bpffs / "names").mkdir(mode=0o700)
    return Bench(stores.store(bpffs))


def test_the_last_map_of_a_share_is_made_and_the_next_is_not(bench: Bench) -> None:
    bench.quotas = Quotas(maps=2)
    bench.create("a")
    bench.create("b")
    with pytest.raises(
        MapError, match=r"create edge/c \(hash map .*: edge has 2 maps, its limit is 2"
    ) as caught:
        bench.create("c")
    assert caught.value.reason is Reason.QUOTA
    assert bench.used()[0] == 2
    bench.store.unpin(NameRef("edge", "a"))
    bench.create("c")


def test_memory_is_counted_before_the_map_is_made(bench: Bench) -> None:
    bench.quotas = Quotas(map_bytes=size_of(LARGE) + size_of(SPEC))
    bench.create("small")
    bench.create("large", LARGE)
    with pytest.raises(MapError, match=rf"and {size_of(SPEC)} more are asked for, its limit is") as caught:
        bench.create("next")
    assert caught.value.refusal.metadata["quota"] == "map_bytes"
    assert bench.used() == (2, size_of(LARGE) + size_of(SPEC))


def test_a_map_without_preallocation_counts_full_from_the_beginning(bench: Bench) -> None:
    spec = MapSpec(
        map_type=MapType.HASH, key_size=4, value_size=8, max_entries=4_096, flags=int(MapFlag.NO_PREALLOC)
    )
    bench.quotas = Quotas(map_bytes=size_of(spec) + size_of(spec) // 2)
    bench.create("a", spec)
    with pytest.raises(MapError, match="its limit is"):
        bench.create("b", spec)


def test_maps_of_others_count_for_nobody_else(bench: Bench) -> None:
    bench.quotas = Quotas(maps=1)
    bench.create("a")
    bench.create("a", who=WEB)
    assert bench.used() == bench.used(WEB) == (1, size_of(SPEC))


def test_what_is_there_can_be_asked_for_again_at_the_limit(bench: Bench) -> None:
    bench.quotas = Quotas(maps=1, map_bytes=size_of(SPEC))
    first = bench.create("a")
    assert bench.create("a", exist_ok=True) == first


def test_a_larger_map_under_a_name_that_goes_meanwhile_does_not_slip_through(bench: Bench) -> None:
    bench.quotas = Quotas(map_bytes=size_of(SPEC))
    bench.create("a")
    with pytest.raises(MapError, match="its limit is"):
        bench.create("a", LARGE, exist_ok=True)


def test_two_names_of_one_map_are_one_map(bench: Bench) -> None:
    bench.quotas = Quotas(maps=2)
    bench.create("a")
    with bench.store.open(NameRef("edge", "a")).fd as fd:
        del fd
    opened = bench.store.open(NameRef("edge", "a"))
    with opened.fd:
        bench.store.pin(opened, f"{bench.store.names_root}/edge/b")
    assert bench.used()[0] == 1
    bench.create("c")


def test_a_map_that_lost_its_name_counts_while_a_handle_or_another_pin_keeps_it(bench: Bench) -> None:
    bench.quotas = Quotas(maps=1)
    made = bench.create("a")
    opened = bench.store.open(NameRef("edge", "a"))
    elsewhere = f"{bench.store.pin_roots[0]}/elsewhere"
    with opened.fd:
        bench.store.pin(opened, elsewhere)
        bench.charges.pinned(made, elsewhere)
    bench.store.unpin(NameRef("edge", "a"))
    with pytest.raises(MapError, match="has 1 maps"):
        bench.create("b")
    Path(elsewhere).unlink()
    bench.held = {made}
    with pytest.raises(MapError, match="has 1 maps"):
        bench.create("b")
    bench.held = set()
    bench.create("b")


def test_a_name_that_goes_while_it_is_asked_for_again_is_no_way_past_the_limit(bench: Bench) -> None:
    bench.quotas = Quotas(maps=1)
    bench.held = {bench.create("a")}
    for exist_ok in (False, True):
        with pytest.raises(MapError, match="has 1 maps"):
            bench.create("a", exist_ok=exist_ok, begun=lambda: bench.store.unpin(NameRef("edge", "a")))
        assert not Path(bench.store.names_root, "edge", "a").exists()
        assert bench.used()[0] == 1
        bench.held = set()
        bench.held = {bench.create("a")}


def test_a_map_that_is_held_again_counts_again(bench: Bench) -> None:
    """Whoever is opening it while its name goes holds it only when it has been counted as gone."""
    bench.quotas = Quotas(maps=1)
    made = bench.create("a")
    bench.store.unpin(NameRef("edge", "a"))
    assert bench.used()[0] == 0
    bench.held = {made}
    assert bench.used()[0] == 1
    with pytest.raises(MapError, match="has 1 maps"):
        bench.create("b")


def test_what_is_being_made_hides_no_map_that_had_its_name_before(bench: Bench) -> None:
    bench.quotas = Quotas(maps=2)
    bench.held = {bench.create("a")}
    bench.store.unpin(NameRef("edge", "a"))
    bench.create("a")
    refused: list[str] = []

    def another() -> None:
        with pytest.raises(MapError, match="has 2 maps") as caught:
            bench.create("b")
        refused.append(caught.value.reason.name)

    bench.create("a", exist_ok=True, begun=another)
    assert refused == ["QUOTA"]


def test_a_map_renamed_out_of_the_namespace_still_counts_for_its_maker(bench: Bench) -> None:
    bench.quotas = Quotas(maps=1)
    bench.create("a")
    new = bench.store.rename(NameRef("edge", "a"), NameRef("web", "a"))
    bench.charges.renamed(f"{bench.store.names_root}/edge/a", new)
    with pytest.raises(MapError, match="has 1 maps"):
        bench.create("b")
    assert bench.used(WEB)[0] == 1


def test_a_map_in_the_namespace_of_another_counts_for_both(bench: Bench) -> None:
    bench.quotas = Quotas(maps=5)
    owner = Account(principal=WEB, quotas=Quotas(maps=1))
    bench.create("web/a", others=(owner,))
    with pytest.raises(MapError, match="web has 1 maps, its limit is 1"):
        bench.create("web/b", others=(owner,))
    assert bench.used() == bench.used(WEB) == (1, size_of(SPEC))


def assert_waited(event: threading.Event) -> None:
    assert event.wait(20)


def test_creations_at_the_same_time_do_not_overshoot_together(bench: Bench) -> None:
    """Eight begin before any has ended; without the reservation all would find room for one."""
    bench.quotas = Quotas(maps=3)
    decided = threading.Event()
    results: list[str] = []

    def one(number: int) -> None:
        try:
            bench.create(f"m{number}", begun=lambda: assert_waited(decided))
        except MapError as error:
            results.append(error.reason.name)
            if len(results) == 5:
                decided.set()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert results == ["QUOTA"] * 5
    assert bench.used()[0] == 3


def test_a_creation_that_fails_counts_no_more(bench: Bench) -> None:
    bench.quotas = Quotas(maps=1)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.create("a", begun=fail)
    bench.create("a")


def test_without_quotas_no_pin_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(_root: str) -> None:
        raise AssertionError("a walk")

    monkeypatch.setattr(bench.charges, "_listed", walk)
    bench.create("a")


def test_only_a_pin_that_is_another_one_is_opened_again(bench: Bench, bpffs: Path) -> None:
    """Whoever asks beyond its quota again and again costs a listing each time, however many maps it has."""
    kernel = FaultyKernel(LinuxKernel())
    store = replace(bench.store, kernel=kernel)
    asked = Bench(store)
    asked.quotas = Quotas(maps=2)
    first = asked.create("a")
    asked.create("b")
    for expected in (1, 0, 0):  # the first was looked at when the second was made
        kernel.forget()
        with pytest.raises(MapError, match="its limit is 2"):
            asked.create("c")
        assert sum(seen.target is OpenPin for seen in kernel.seen) == expected
    # Another map in the place of one of them, made past the daemon.
    path = bpffs / "names" / "edge" / "a"
    path.unlink()
    request = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1 << 10)
    with LinuxKernel().control(request) as owned, owned.lease() as map_fd:
        assert LinuxKernel().info(map_fd).id != first
        LinuxKernel().control(Pin(root=str(path.parent), path=str(path)), [map_fd])
    # Once for what is there now, and once to see that the one that was made leads there no more.
    for expected in (2, 0):
        kernel.forget()
        assert asked.used() == (2, size_of(replace(LARGE, max_entries=1 << 10)) + size_of(SPEC))
        assert sum(seen.target is OpenPin for seen in kernel.seen) == expected

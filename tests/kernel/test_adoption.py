"""What is known of the pins of names on a real bpffs: looked at once, and again as they change."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mapd.bpf import Fault, FaultyKernel, ListFolder, OpenPin, Pin, StampFolders, Unpin
from mapd.maps.adoption import Adoption, differences
from mapd.maps.errors import MapError
from mapd.maps.pinindex import PinIndex
from mapd_api.reasons import Reason
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.test_folders import next_tick


class Bench:
    """An adoption over a bpffs, and what others do there."""

    def __init__(self, root: Path, most: int = 100) -> None:
        self.root = root
        self.kernel = FaultyKernel(KERNEL)
        self.adoption = Adoption(self.kernel, str(root), owner=os.geteuid(), most=most)

    def pin(self, made: TestMap, *names: str) -> None:
        for name in names:
            KERNEL.control(Pin(root=str(self.root), path=f"{self.root}/{name}", mkdir=True), [made.fd])

    def unpin(self, name: str) -> None:
        KERNEL.control(Unpin(root=str(self.root), path=f"{self.root}/{name}"))

    def known(self, name: str) -> int | None:
        """The map of a name as it was looked at, if it is the one that is there now."""
        found = (self.root / name).stat()
        return self.adoption.map_of(f"{self.root}/{name}", found.st_ino, found.st_ctime_ns)

    def count(self, kind: type) -> int:
        return sum(seen.target is kind for seen in self.kernel.seen)

    def misfits(self) -> set[str]:
        return {one.path.removeprefix(f"{self.root}/") for one in self.adoption.misfits}


@pytest.fixture
def bench(bpffs: Path) -> Bench:
    return Bench(bpffs)


def test_what_was_looked_at_is_known_and_what_has_changed_since_is_not(bench: Bench, maps: Maps) -> None:
    made, other = maps.create(), maps.create()
    bench.pin(made, "web/flows", "db/flows")
    bench.adoption.look()
    assert bench.adoption.served == 2
    assert bench.known("web/flows") == bench.known("db/flows") == KERNEL.info(made.fd).id
    bench.unpin("web/flows")
    bench.pin(other, "web/flows", "web/new")
    assert bench.known("web/flows") is None, "another map by now, and nobody has looked"
    assert bench.known("web/new") is None
    bench.adoption.look()
    assert bench.known("web/flows") == bench.known("web/new") == KERNEL.info(other.fd).id
    assert bench.adoption.served == 3


def test_what_has_not_changed_is_neither_listed_nor_opened_again(bench: Bench, maps: Maps) -> None:
    bench.pin(maps.create(), *(f"web/m{number}" for number in range(10)))
    bench.adoption.look()
    next_tick()
    bench.adoption.look()  # now all is older than any tick
    assert bench.count(OpenPin) == 10
    bench.kernel.forget()
    bench.adoption.look()
    assert (bench.count(ListFolder), bench.count(OpenPin), bench.count(StampFolders)) == (0, 0, 1)


def test_the_index_of_names_opens_no_pin_that_was_looked_at(bench: Bench, maps: Maps) -> None:
    made, other = maps.create(), maps.create()
    bench.pin(made, "web/flows", "db/flows")
    bench.adoption.look()
    bench.unpin("web/flows")
    bench.pin(other, "web/flows")
    bench.kernel.forget()
    index = PinIndex(bench.kernel, str(bench.root), [], known=bench.adoption.map_of)
    assert index.of(KERNEL.info(made.fd).id).names == {"db/flows"}
    assert index.of(KERNEL.info(other.fd).id).names == {"web/flows"}
    assert bench.count(OpenPin) == 1, "the one that is another map by now"


def test_a_look_that_ran_out_of_descriptors_is_gone_on_with(bench: Bench, maps: Maps) -> None:
    bench.pin(maps.create(), *(f"web/m{number}" for number in range(5)))
    bench.kernel.add(Fault(target=OpenPin, nth=3, errno=errno.EMFILE))
    with pytest.raises(MapError) as refused:
        bench.adoption.look()
    assert refused.value.reason is Reason.QUOTA
    assert bench.adoption.served == 2
    next_tick()
    bench.adoption.look()
    assert bench.adoption.served == 5
    assert bench.adoption.misfits == []


def test_a_mode_that_was_mended_is_seen_though_its_folder_has_not_changed(bench: Bench, maps: Maps) -> None:
    bench.pin(maps.create(), "web/flows")
    closed = Fault(target=OpenPin, errno=errno.EACCES)
    bench.kernel.add(closed)
    bench.adoption.look()
    assert bench.misfits() == {"web/flows"}
    next_tick()
    bench.adoption.look()
    bench.kernel.remove(closed)
    (bench.root / "web" / "flows").chmod(0o640)
    bench.adoption.look()
    assert bench.misfits() == set()
    assert bench.adoption.served == 1


def test_pins_beyond_the_bound_are_served_though_nobody_has_looked(bpffs: Path, maps: Maps) -> None:
    bench = Bench(bpffs, most=3)
    bench.pin(maps.create(), *(f"web/m{number}" for number in range(5)))
    bench.adoption.look()
    assert bench.adoption.served == 3
    assert bench.adoption.misfits == []
    assert [bench.adoption.misfit_of(f"{bpffs}/web/m{number}") for number in range(5)] == [None] * 5


def test_a_namespace_that_goes_takes_what_was_said_of_it_along(bench: Bench, maps: Maps) -> None:
    bench.pin(maps.create(), "web/flows", "db/flows")
    (bench.root / "web").chmod(0o777)
    bench.adoption.look()
    assert bench.misfits() == {"web"}
    before = bench.adoption.misfits
    bench.unpin("web/flows")
    (bench.root / "web").rmdir()
    bench.adoption.look()
    assert bench.misfits() == set()
    assert bench.adoption.served == 1
    new, mended = differences(before, bench.adoption.misfits)
    assert (list(new), [one.path for one in mended]) == ([], [f"{bench.root}/web"])


def test_without_a_folder_for_names_there_is_nothing_and_later_there_is(bpffs: Path, maps: Maps) -> None:
    root = bpffs / "later"
    adoption = Adoption(KERNEL, str(root), owner=os.geteuid())
    adoption.look()
    assert adoption.served == 0
    root.mkdir(mode=0o700)
    made = maps.create()
    KERNEL.control(Pin(root=str(root), path=f"{root}/web/flows", mkdir=True), [made.fd])
    adoption.look()
    assert adoption.misfits == []
    assert adoption.served == 1

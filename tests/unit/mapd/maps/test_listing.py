"""What a listing finds, what it says that it did not look at, and that it leaves nothing open."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator

import pytest

from mapd.bpf import Fault, FaultyKernel, ListHolders, ListPins, NextMapId, OpenId, OpenPin
from mapd.bpf.abi import Command
from mapd.bpf.faulty import Target
from mapd.maps import listing
from mapd.maps.errors import MapError
from mapd.maps.listing import Listing, Wanted, list_maps
from mapd.maps.store import MapStore
from mapd_api.reasons import Reason
from tests.unit.mapd.dictkernel import CPUS, ROOT, DictKernel, DictMap, raw_info


class Bench:
    """A store on a dict kernel that rules can break."""

    def __init__(self) -> None:
        self.kernel = DictKernel()
        self.faulty = FaultyKernel(self.kernel)
        self.store = MapStore(
            kernel=self.faulty,
            possible_cpus=CPUS,
            boot_id=uuid.UUID(int=7),
            names_root=ROOT,
            pin_roots=("/bpf", "/other"),
        )

    def fails(self, target: Target, number: int, nth: int | None = 1) -> None:
        self.faulty.add(Fault(target=target, errno=number, nth=nth))

    def fill(self, *paths: str) -> None:
        """Maps with ids from 1, each at one path: below the root of names unless it is absolute."""
        for number, path in enumerate(paths):
            made = DictMap(raw_info(id=number + 1))
            self.kernel.add(made, path if path.startswith("/") else f"{ROOT}/{path}")

    def list(self, glob: str = "*", *, pins: bool = False, ids: bool = False) -> Listing:
        return list_maps(self.store, Wanted(glob=glob, pins=pins, ids=ids))


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Every test ends with every fd closed that the kernel handed out."""
    made = Bench()
    yield made
    assert made.kernel.open_fds == 0


def names(found: Listing) -> list[str]:
    return [one.name for one in found.maps]


def test_a_list_has_every_name_sorted_and_says_where_it_looked(bench: Bench) -> None:
    bench.fill("b/x", "a/y", "a/x")
    found = bench.list()
    assert names(found) == ["a/x", "a/y", "b/x"]
    assert found.sources == [f"names below {ROOT}"]
    assert len(found.not_looked_at) == 2  # other programs' pins, and maps without a pin


def test_an_empty_list_says_what_it_did_not_look_at(bench: Bench) -> None:
    found = bench.list()
    assert found.maps == []
    assert any("/bpf, /other" in line for line in found.not_looked_at)


@pytest.mark.parametrize(
    ("glob", "found"),
    [("a/*", ["a/x", "a/y"]), ("*/x", ["a/x", "b/x"]), ("?/y", ["a/y"]), ("a/[yz]", ["a/y"]), ("A/*", [])],
)
def test_a_shell_pattern_chooses_names_and_opens_no_others(bench: Bench, glob: str, found: list[str]) -> None:
    bench.fill("b/x", "a/y", "a/x")
    assert names(bench.list(glob)) == found
    assert len(bench.kernel.opened) == len(found)


@pytest.mark.parametrize("path", ["stray", "a/b/c", "Upper/x", "a/_x"])
def test_pins_that_are_no_names_are_left_out_and_told(bench: Bench, path: str) -> None:
    bench.fill("a/x", path)
    found = bench.list()
    assert names(found) == ["a/x"]
    assert any(f"{ROOT}/{path}: no name" in line for line in found.not_looked_at)


def test_a_name_that_cannot_be_opened_is_left_out_and_told(bench: Bench) -> None:
    bench.fill("a/x", "a/y")
    bench.kernel.pins[f"{ROOT}/a/prog"] = None
    bench.fails(OpenPin, errno.EACCES, nth=3)
    found = bench.list()
    assert names(found) == ["a/x"]
    assert f"{ROOT}/a/prog: not a map" in found.not_looked_at
    assert any(line.startswith(f"{ROOT}/a/y: ") and "EACCES" in line for line in found.not_looked_at)


def test_a_name_that_went_since_it_was_listed_is_neither_there_nor_told(bench: Bench) -> None:
    bench.fill("a/x", "a/y")
    bench.fails(OpenPin, errno.ENOENT)
    found = bench.list()
    assert names(found) == ["a/y"]
    assert not any("a/x" in line for line in found.not_looked_at)


def test_a_map_that_cannot_be_described_is_told_and_the_others_are_listed(bench: Bench) -> None:
    bench.fill("a/x", "a/y", "a/z")
    bench.fails(Command.OBJ_GET_INFO_BY_FD, errno.EIO, nth=2)
    found = bench.list()
    assert len(found.maps) == 2
    assert any("EIO" in line for line in found.not_looked_at)


def test_a_list_has_one_descriptor_open_at_a_time(bench: Bench) -> None:
    bench.fill(*(f"a/map{number}" for number in range(50)))
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, bench.kernel.open_fds)

    bench.faulty.add(Fault(target=OpenPin, failpoint=count))
    assert len(bench.list().maps) == 50
    assert most == 0


def test_a_pattern_longer_than_any_name_is_refused_with_both_numbers(bench: Bench) -> None:
    bench.fill("a/x")
    assert names(bench.list("*" * 256)) == ["a/x"]
    with pytest.raises(MapError, match="a pattern of 400000 characters; at most 256") as caught:
        bench.list("*a" * 200_000)
    assert caught.value.reason is Reason.BAD_SPEC


def test_a_map_of_several_sources_is_one_entry_with_its_pins(bench: Bench) -> None:
    bench.fill("a/x", "/other/foreign")
    both = bench.kernel.maps[1]
    bench.kernel.pins.update({"/other/again": both, f"{ROOT}/a/w": both})
    found = bench.list(pins=True, ids=True)
    assert [(one.facts.id, one.name, one.pin_path) for one in found.maps] == [
        (1, "a/w", f"{ROOT}/a/w"),
        (2, "", "/other/foreign"),
    ]
    assert list(found.maps[0].pins) == [f"{ROOT}/a/w", f"{ROOT}/a/x", "/other/again"]
    assert found.sources == [f"names below {ROOT}", "pins below /bpf", "pins below /other", "kernel ids"]
    assert found.not_looked_at == []


def test_ids_that_end_meanwhile_are_left_out_and_no_right_is_told(bench: Bench) -> None:
    bench.fill("a/x", "/other/y")
    bench.kernel.pins.clear()
    bench.fails(OpenId, errno.ENOENT)
    assert [one.facts.id for one in bench.list(ids=True).maps] == [2]
    bench.fails(NextMapId, errno.EPERM, nth=None)
    found = bench.list(ids=True)
    assert found.maps == []
    assert "maps by id: the daemon lacks CAP_SYS_ADMIN (profile inspector)" in found.not_looked_at


def test_a_root_that_cannot_be_read_is_told_and_one_that_is_not_there_is_not(bench: Bench) -> None:
    bench.fill("a/x")
    bench.fails(ListPins, errno.EACCES, nth=2)
    bench.fails(ListPins, errno.ENOENT, nth=3)
    found = bench.list(pins=True)
    assert names(found) == ["a/x"]
    told = [line for line in found.not_looked_at if line.startswith("/")]
    assert len(told) == 1
    assert told[0].startswith("/bpf: its mode")


def test_a_listing_has_an_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fill("a/a", "a/b", "a/c")
    monkeypatch.setattr(listing, "LISTED", 2)
    found = bench.list()
    assert names(found) == ["a/a", "a/b"]
    assert any("at most 2 maps" in line for line in found.not_looked_at)
    bench.kernel.pins.clear()
    found = bench.list(ids=True)
    assert len(found.maps) == 2
    assert any(line.startswith("maps by id: those after 2") for line in found.not_looked_at)


def test_lines_about_single_pins_have_an_end(bench: Bench) -> None:
    bench.fill(*(f"Stray{number}" for number in range(listing.NOTES + 3)))
    told = [line for line in bench.list().not_looked_at if "no name" in line or "more pins" in line]
    assert len(told) == listing.NOTES + 1
    assert told[-1] == "3 more pins like these"


def test_holders_are_not_looked_for_unless_they_are_asked_for(bench: Bench) -> None:
    bench.fill("a/x")
    bench.fails(ListHolders, errno.EIO)
    assert names(bench.list()) == ["a/x"]

"""The index of names and pins on a real bpffs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd.bpf import Fault, FaultyKernel, ListFolder, OpenPin, Pin, Rename, StampFolders, Unpin
from mapd.maps.errors import MapError
from mapd.maps.pinindex import Known, PinIndex, Unknown
from mapd_api.reasons import Reason
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.test_folders import next_tick


class Bench:
    """An index over a bpffs, the requests that it makes, and shorthands for what others do there."""

    def __init__(self, root: Path, most: int = 100, folders: int = 100) -> None:
        self.root = root
        self.kernel = FaultyKernel(KERNEL)
        self.index = PinIndex(self.kernel, f"{root}/names", [str(root)], most=most, folders=folders)

    def pin(self, path: str, made: TestMap) -> None:
        KERNEL.control(Pin(root=str(self.root), path=f"{self.root}/{path}", mkdir=True), [made.fd])

    def unpin(self, path: str) -> None:
        KERNEL.control(Unpin(root=str(self.root), path=f"{self.root}/{path}"))

    def rename(self, path: str, new_path: str) -> None:
        root = self.root
        KERNEL.control(
            Rename(root=str(root), path=f"{root}/{path}", new_path=f"{root}/{new_path}", mkdir=True)
        )

    def of(self, made: TestMap) -> Known:
        return self.index.of(KERNEL.info(made.fd).id)

    def pins(self, made: TestMap) -> set[str]:
        return {path.removeprefix(f"{self.root}/") for path in self.of(made).pins}

    def count(self, kind: type) -> int:
        return sum(seen.target is kind for seen in self.kernel.seen)


@pytest.fixture
def bench(bpffs: Path) -> Bench:
    (bpffs / "names").mkdir()
    return Bench(bpffs)


def test_a_map_has_all_its_names_and_pins(bench: Bench, maps: Maps) -> None:
    one, other = maps.create(), maps.create()
    for path in ("names/web/flows", "names/db/ct", "loader", "tc/globals"):
        bench.pin(path, one)
    bench.pin("names/web/other", other)
    assert bench.of(one).names == {"web/flows", "db/ct"}
    assert bench.pins(one) == {"names/web/flows", "names/db/ct", "loader", "tc/globals"}
    assert bench.pins(other) == {"names/web/other"}
    assert bench.of(one).unknown == Unknown()


def test_what_others_do_is_known_at_the_next_question(bench: Bench, maps: Maps) -> None:
    """No tick is waited for: changes of one tick, which no stamp tells apart, are seen too."""
    made, other = maps.create(), maps.create()
    bench.pin("a", made)
    for number in range(200):
        bench.pin(f"names/web/m{number}", made)
        assert f"names/web/m{number}" in bench.pins(made)
        bench.rename(f"names/web/m{number}", f"names/db/m{number}")
        assert bench.pins(made) == {"a", f"names/db/m{number}"}
        bench.unpin(f"names/db/m{number}")
        bench.pin(f"names/db/m{number}", other)
        assert bench.pins(made) == {"a"}
        bench.unpin(f"names/db/m{number}")
        assert bench.pins(other) == set()


def test_without_the_rule_of_the_tick_a_pin_would_be_missed(
    bench: Bench, maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary of the test before."""
    monkeypatch.setattr("mapd.maps.pinindex.SETTLED_NS", -(10**12))
    made = maps.create()
    bench.pin("a", made)
    for number in range(2_000):
        bench.pin(f"names/m{number}", made)
        bench.of(made)
        bench.pin(f"names/n{number}", made)
        if f"names/n{number}" not in bench.pins(made):
            return
    pytest.fail("stamps alone told of every pin")


def test_what_has_not_changed_is_neither_listed_nor_opened_again(bench: Bench, maps: Maps) -> None:
    made = maps.create()
    for number in range(10):
        bench.pin(f"names/web/m{number}", made)
    bench.of(made)
    next_tick()
    bench.of(made)  # now all is older than any tick
    listed, opened, stamped = bench.count(ListFolder), bench.count(OpenPin), bench.count(StampFolders)
    assert opened == 10
    bench.of(made)
    assert (bench.count(ListFolder), bench.count(OpenPin), bench.count(StampFolders)) == (
        listed,
        opened,
        stamped + 1,
    )
    bench.pin("names/web/more", made)
    assert len(bench.pins(made)) == 11
    assert bench.count(OpenPin) == opened + 1


def test_a_pin_of_something_else_is_nobodys(bench: Bench, maps: Maps) -> None:
    made = maps.create()
    bench.pin("a", made)
    (bench.root / "link").symlink_to(bench.root / "a")
    assert bench.pins(made) == {"a"}
    assert bench.index.at(f"{bench.root}/link")[1].pins == {f"{bench.root}/link"}
    assert bench.index.at(f"{bench.root}/a") == (KERNEL.info(made.fd).id, bench.of(made))


def test_a_folder_that_goes_takes_its_pins_along(bench: Bench, maps: Maps) -> None:
    made = maps.create()
    for folder in ("x", "x/y"):
        (bench.root / folder).mkdir()
    bench.pin("x/y/z", made)
    assert bench.pins(made) == {"x/y/z"}
    bench.unpin("x/y/z")
    (bench.root / "x/y").rmdir()
    (bench.root / "x").rmdir()
    assert bench.pins(made) == set()
    (bench.root / "x").mkdir()
    bench.pin("x/y", made)
    assert bench.pins(made) == {"x/y"}


def test_a_pin_that_cannot_be_opened_may_be_any_maps(bench: Bench, maps: Maps) -> None:
    made = maps.create()
    bench.pin("a", made)
    bench.pin("names/web/closed", made)
    closed = Fault(target=OpenPin, errno=13, name="a mode")
    bench.kernel.add(closed)
    assert bench.of(made).unknown.pins == {f"{bench.root}/{path}" for path in ("a", "names/web/closed")}
    bench.kernel.remove(closed)
    bench.index.check([])  # tries again; an open does not
    assert bench.pins(made) == {"a", "names/web/closed"}
    assert not bench.of(made).unknown


def test_pins_beyond_the_bound_may_be_any_maps(bpffs: Path, maps: Maps) -> None:
    bench = Bench(bpffs, most=5)
    made = maps.create()
    bench.pin("a", made)
    for number in range(5):
        bench.pin(f"many/m{number}", made)
    assert bench.of(made) == Known(
        frozenset(), frozenset({f"{bpffs}/a"}), Unknown(below=frozenset({f"{bpffs}/many"}))
    )
    bench.unpin("many/m0")
    assert len(bench.pins(made)) == 5
    assert not bench.of(made).unknown


def test_folders_beyond_the_bound_may_hold_anything(bpffs: Path, maps: Maps) -> None:
    bench = Bench(bpffs, folders=3)
    made = maps.create()
    for number in range(5):
        (bpffs / f"f{number}").mkdir()
        bench.pin(f"f{number}/a", made)
    assert len(bench.pins(made)) == 2
    assert bench.of(made).unknown.below == {str(bpffs)}


def test_a_folder_that_cannot_be_read_may_hold_anything(bench: Bench, maps: Maps) -> None:
    made = maps.create()
    bench.pin("names/web/a", made)
    bench.kernel.add(Fault(target=ListFolder, nth=3, errno=13))
    assert bench.of(made).unknown.below == {f"{bench.root}/names/web"}
    assert bench.index.check([(KERNEL.info(made.fd).id, f"{bench.root}/names/web/a")]) == [
        (bench.of(made), KERNEL.info(made.fd).id)
    ]


def test_a_check_tells_where_a_path_leads_now(bench: Bench, maps: Maps) -> None:
    made, other = maps.create(), maps.create()
    bench.pin("a", made)
    ids = [KERNEL.info(one.fd).id for one in (made, other)]
    held = [(ids[0], f"{bench.root}/a")]
    assert bench.index.check(held)[0][1] == ids[0]
    bench.unpin("a")
    assert bench.index.check(held)[0][1] == 0
    bench.pin("a", other)
    assert bench.index.check(held)[0] == (Known(), ids[1])


def test_what_changes_at_every_look_is_refused_in_the_end(bench: Bench, maps: Maps) -> None:
    """A name that wanders from folder to folder could be in none of them whenever one is read."""
    made = maps.create()
    bench.pin("x/a", made)
    (bench.root / "y").mkdir()
    places = ["x/a", "y/a"]

    def wander() -> None:
        next_tick()
        bench.rename(*places)
        places.reverse()

    bench.kernel.add(Fault(target=ListFolder, failpoint=wander, name="wanders"))
    with pytest.raises(MapError) as caught:
        bench.of(made)
    assert caught.value.reason is Reason.BUSY


@pytest.mark.parametrize("known", [True, False])
def test_a_name_that_goes_into_a_folder_that_was_read_already_is_not_lost(
    known: bool, bench: Bench, maps: Maps
) -> None:
    """It would be in neither; and a denial by it would not hold."""
    made = maps.create()
    for folder in "ab":
        (bench.root / f"names/{folder}").mkdir()
    for first, second in ("ab", "ba"):
        bench.pin(f"names/{second}/x", made)
        if known:
            bench.of(made)
            for folder in "ab":  # both are read again, however long ago they were changed
                (bench.root / f"names/{folder}/changed").mkdir()
                (bench.root / f"names/{folder}/changed").rmdir()
        reads: list[str] = []

        def move(first: str = first, second: str = second, reads: list[str] = reads) -> None:
            reads.append("")
            if len(reads) == 1 + (not known) * 2:
                bench.rename(f"names/{second}/x", f"names/{first}/x")

        met = Fault(target=ListFolder, failpoint=move)
        bench.kernel.add(met)
        assert bench.of(made).names == {f"{first}/x"}
        assert reads
        bench.kernel.remove(met)
        bench.unpin(f"names/{first}/x")

"""An object's maps as an unprivileged client (uid 65534) has them made: what it may, what is refused, what is left."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mapd_client.elf.naming import is_unfinished
from tests.e2e import object_client
from tests.e2e.settling import until
from tests.support.bpffs import require_bpf
from tests.support.compiled import bpftool, clang, compiled
from tests.support.daemon import (
    NOBODY,
    DaemonProcess,
    Place,
    client_sources,
    daemon_process,
    private_place,
    spawn_unprivileged,
)

pytestmark = pytest.mark.clang

POLICY = """
[principals.admin]

[principals.edge]
users = [NOBODY]
[principals.edge.quotas]
maps = 70

[[rules]]
who = ["edge"]
role = "owner"
owners = ["self"]

[[rules]]
who = ["edge"]
effect = "deny"
role = "admin"
names = ["edge/*ring"]

[[rules]]
who = ["edge"]
role = "owner"
pins = ["PINS/shared"]
"""


ANSWERS_S = 10.0


class Unprivileged:
    """``object_client.py`` as nobody."""

    def __init__(self, sources: Path, place: Place) -> None:
        socket = place.runtime_dir / "edge" / "mapd.sock"
        code = Path(object_client.__file__).read_text()
        self.process = spawn_unprivileged(sources, code, str(socket), stdin=subprocess.PIPE)
        assert self.read() == {"ready": True}

    def send(self, **fields: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(fields).encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWERS_S)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            pytest.fail(f"no answer: {self.process.communicate()[1].decode()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def create(self, path: Path, **options: object) -> dict[str, Any]:
        self.send(path=str(path), options=options)
        return self.read()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def objects() -> Generator[Path]:
    """A folder of compiled objects that everybody may read: pytest's own are for one user."""
    clang()
    with tempfile.TemporaryDirectory(prefix="mapd-objects-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for source in ("modern", "pinned", "many", "samples"):
            compiled(folder, source)
        compiled(folder, "pinned", target="bpfeb", name="big")
        (folder / "cut.o").write_bytes((folder / "modern.o").read_bytes()[:2000])
        (folder / "text.o").write_text("no object\n")
        yield folder


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    require_bpf()
    with private_place() as place:
        policy = POLICY.replace("NOBODY", str(NOBODY)).replace("PINS", str(place.bpffs))
        with daemon_process(place, policy=policy) as found:
            yield found


@pytest.fixture
def place(served: DaemonProcess) -> Generator[Place]:
    """The daemon's, with nothing in it afterwards."""
    yield served.place
    for pin in pins(served.place):
        (served.place.bpffs / pin).unlink()


@pytest.fixture(scope="module")
def sources() -> Generator[Path]:
    with client_sources() as found:
        yield found


@pytest.fixture(scope="module")
def nobody(served: DaemonProcess, sources: Path) -> Generator[Unprivileged]:
    found = Unprivileged(sources, served.place)
    yield found
    found.end()


def pins(place: Place) -> list[str]:
    found = (one for one in place.bpffs.rglob("*") if one.is_file() and one.suffix != ".debug")
    return sorted(str(one.relative_to(place.bpffs)) for one in found)


def names(place: Place) -> list[str]:
    return [pin.rpartition("/")[2] for pin in pins(place)]


def test_it_has_an_object_s_maps_made(nobody: Unprivileged, place: Place, objects: Path) -> None:
    root = str(place.bpffs)
    told = nobody.create(objects / "pinned.o", pin_root=root, prefix="prog-")
    assert told["uid"] == NOBODY
    assert (told["convention"], told["left_out"]) == ("libbpf", [])
    shared, own = told["maps"]
    assert (shared["name"], shared["pin"], shared["created"]) == ("edge/prog-shared", f"{root}/shared", True)
    assert (own["name"], own["pin"], own["kernel_name"]) == ("edge/prog-own", "", "own")
    assert shared["btf_id"]
    assert own["btf_id"]
    assert pins(place) == ["mapd/edge/prog-own", "mapd/edge/prog-shared", "shared"]


def test_the_example_says_what_there_is(sources: Path, place: Place, objects: Path) -> None:
    example = (Path(__file__).parents[2] / "examples" / "from_object.py").read_text()
    address = {"MAPD_ADDRESS": str(place.runtime_dir / "edge" / "mapd.sock")}
    names = place.names / "edge"
    process = spawn_unprivileged(sources, example, str(objects / "samples.o"), env=address)
    said, complained = process.communicate(timeout=ANSWERS_S)
    assert (process.returncode, complained) == (0, b"")
    assert said.decode().splitlines()[1:] == [
        f"map_fd[0] counters: array, created: {names}/counters",
        f"map_fd[1] ports: hash, created: {names}/ports",
        f"map_fd[2] outer: hash_of_maps, created: {names}/outer",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.o", "text.o"),
        ("cut.o", "cut.o"),
        ("nowhere.o", "nowhere.o"),
        (
            "big.o",
            "big endian hosts, and the daemon's host .* is little endian: compile it with -target bpfel",
        ),
    ],
)
def test_what_is_no_object_for_this_host_is_refused(
    nobody: Unprivileged, place: Place, objects: Path, name: str, message: str
) -> None:
    told = nobody.create(objects / name)
    assert told["error"] in ("Misuse", "BadObject", "FileNotFoundError")
    assert re.search(message, told["message"])
    assert pins(place) == []


def test_a_map_that_the_policy_refuses_ends_it_and_nothing_stays(
    nobody: Unprivileged, place: Place, objects: Path
) -> None:
    told = nobody.create(objects / "modern.o")
    assert told["error"] == "PermissionDenied"
    assert "map 'ring': " in told["message"]
    assert "; removed again: waiting, seen, untyped, by_number, with_kptr" in told["message"]
    assert pins(place) == []


def test_a_quota_ends_it_and_nothing_stays(nobody: Unprivileged, place: Place, objects: Path) -> None:
    first = nobody.create(objects / "many.o", prefix="first-")
    assert len(first["maps"]) == 60
    before = pins(place)
    told = nobody.create(objects / "many.o", prefix="second-")
    assert told["error"] == "QuotaExceeded"
    assert "map 'map_20': " in told["message"]
    assert "its limit is 70" in told["message"]
    assert pins(place) == before


def test_what_is_there_with_another_shape_is_told_field_by_field(
    nobody: Unprivileged, place: Place, objects: Path
) -> None:
    assert "maps" in nobody.create(objects / "pinned.o", pin_root=str(place.bpffs))
    before = pins(place)
    told = nobody.create(
        objects / "many.o", names={"map_12": "own"}, exist_ok=True, prefix="x-", pin_root=str(place.bpffs)
    )
    assert told["error"] == "Incompatible"
    assert "map 'map_12': " in told["message"]
    assert "type: wanted hash, is array" in told["message"]
    assert "removed again: x-map_11, x-map_10" in told["message"]
    assert pins(place) == before


async def test_cancelled_in_the_middle_nothing_stays(
    nobody: Unprivileged, place: Place, objects: Path
) -> None:
    nobody.send(path=str(objects / "many.o"), options={})
    assert await until(lambda: len(pins(place)) > 20)
    nobody.send(cancel=True)
    assert nobody.read() == {"cancelled": True}
    assert pins(place) == []


async def test_killed_in_the_middle_it_leaves_whole_maps_and_the_next_goes_on(
    nobody: Unprivileged, sources: Path, place: Place, objects: Path
) -> None:
    """In their order, each with its contents; of names that are said to be unfinished at most two."""
    victim = Unprivileged(sources, place)
    victim.send(path=str(objects / "many.o"), options={})
    assert await until(lambda: len(pins(place)) > 40)
    victim.process.send_signal(signal.SIGKILL)
    victim.end()
    left = names(place)
    unfinished = [name for name in left if is_unfinished(name)]
    whole = [name for name in left if name not in unfinished]
    assert len(unfinished) <= 2
    order = [f"map_{number}" for number in range(10, 40)] + [f"data_d{number}" for number in range(10, 40)]
    assert 30 < len(whole) < 60, "it was not in the middle"
    assert sorted(whole) == sorted(order[: len(whole)])
    for name in whole:
        if name.startswith("data_d"):
            (element,) = bpftool("map", "dump", "pinned", place.names / "edge" / name)
            octets = bytes(int(one, 16) for one in element["value"])
            assert octets == (0x1234567800000000 + int(name[-2:], 16)).to_bytes(8, "little")
    told = nobody.create(objects / "many.o", exist_ok=True)
    created = {one["declared"] for one in told["maps"] if one["created"]}
    assert len(told["maps"]) == 60
    # The call that was on its way may have been executed after the look.
    assert 60 - len(whole) - 1 <= len(created) <= 60 - len(whole)
    found = names(place)
    assert sorted(name for name in found if not is_unfinished(name)) == sorted(order)
    assert len(found) <= len(order) + 2

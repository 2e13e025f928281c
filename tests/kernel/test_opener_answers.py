"""An opener answers as the kernel does: the same values, errnos, exceptions and words, good or bad the request."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from mapd.bpf import (
    Buffer,
    CreateMap,
    FreezeMap,
    GetBtf,
    Kernel,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    OwnedFd,
    Pin,
    PinNotFound,
    ProgramInfo,
    ProgramRefused,
    RemoveFolder,
    Rename,
    SyscallError,
    Unpin,
)
from mapd.bpf.kernel import ControlRequest, ListFolder, StampFolders
from mapd.bpf.templates import COUNTED
from mapd.maps.trials import U32_BTF
from mapd.opener import Limits, OpenerKernel
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.programs import pin_program
from tests.support.openers import opener

SCRATCH_BYTES: Final = 4096


@pytest.fixture
def roots(bpffs: Path) -> Path:
    """Two folders below ``bpffs``: where names are, and where others pin."""
    (bpffs / "names").mkdir()
    (bpffs / "others").mkdir()
    return bpffs


@pytest.fixture
def kernel(roots: Path) -> Generator[OpenerKernel]:
    with opener(Limits(names_root=f"{roots}/names", pin_roots=(f"{roots}/others",))) as found:
        yield found


@dataclass
class Things:
    """What requests are about."""

    roots: Path
    flows: TestMap
    scratch: TestMap
    btf_fd: int
    prog_fd: int

    @property
    def names(self) -> str:
        return f"{self.roots}/names"

    @property
    def id(self) -> int:
        return KERNEL.info(self.flows.fd).id

    def pin(self, name: str) -> str:
        return f"{self.names}/{name}"


@pytest.fixture
def things(maps: Maps, roots: Path) -> Generator[Things]:
    flows = maps.create(MapType.HASH, key_size=4)
    scratch = maps.create(MapType.ARRAY, value_size=SCRATCH_BYTES, max_entries=1, flags=MapFlag.MMAPABLE)
    with (
        KERNEL.control(LoadBtf(blob=U32_BTF)) as btf,
        btf.lease() as btf_fd,
        KERNEL.control(
            LoadTemplate(template="count_entries", key_size=4, value_size=8), [flows.fd]
        ) as program,
        program.lease() as prog_fd,
    ):
        made = Things(roots, flows, scratch, btf_fd, prog_fd)
        KERNEL.control(Pin(root=made.names, path=made.pin("flows")), [flows.fd])
        pin_program(roots / "names/program", prog_fd)
        (roots / "names/ns").mkdir()
        (roots / "names/link").symlink_to(roots / "others")
        yield made


Case: TypeAlias = Callable[[Things], tuple[ControlRequest[Any], Sequence[int]]]


def small(kind: MapType = MapType.HASH, **other: Any) -> CreateMap:
    fields: dict[str, Any] = {
        "key_size": 4,
        "value_size": 8,
        "max_entries": 4,
        "kernel_name": "mapd_test",
        **other,
    }
    return CreateMap(map_type=kind, **fields)


def template(name: str, **other: int) -> LoadTemplate:
    return LoadTemplate(template=name, **{"key_size": 4, "value_size": 8, **other})


def atomic(**other: int) -> LoadTemplate:
    return template("atomic", slot_bytes=SCRATCH_BYTES, field_size=8, **other)


def vector(name: str = "vector_write", **other: int) -> LoadTemplate:
    fields = {"map_type": int(MapType.HASH), "slots": 1, "slot_bytes": SCRATCH_BYTES, **other}
    return template(name, **fields)


CASES: Final[dict[str, Case]] = {
    "a map": lambda _: (small(), []),
    "a map of maps": lambda t: (small(MapType.HASH_OF_MAPS, value_size=4, with_inner=True), [t.flows.fd]),
    "a map with types": lambda t: (
        small(value_size=4, with_btf=True, btf_key_type_id=1, btf_value_type_id=1),
        [t.btf_fd],
    ),
    "a map of no type": lambda _: (small(MapType.UNSPEC), []),
    "a map of sizes that no map has": lambda _: (small(key_size=0), []),
    "a map with flags that no map has": lambda _: (small(flags=1 << 31), []),
    "a map with a token that nobody gave": lambda _: (small(flags=1 << 16), []),
    "a map with a long name": lambda _: (small(kernel_name="x" * 16), []),
    "a map with a name of other letters": lambda _: (small(kernel_name="a b"), []),
    "a map with types that are a map": lambda t: (small(with_btf=True, btf_value_type_id=1), [t.flows.fd]),
    "a map of maps like a program": lambda t: (
        small(MapType.ARRAY_OF_MAPS, value_size=4, with_inner=True),
        [t.prog_fd],
    ),
    "a map without the descriptor it takes": lambda _: (small(MapType.HASH_OF_MAPS, with_inner=True), []),
    "a map with one descriptor too many": lambda t: (small(), [t.flows.fd]),
    "a pin": lambda t: (OpenPin(root=t.names, path=t.pin("flows")), []),
    "a pin to read": lambda t: (OpenPin(root=t.names, path=t.pin("flows"), read_only=True), []),
    "no pin": lambda t: (OpenPin(root=t.names, path=t.pin("nothing")), []),
    "no folder": lambda t: (OpenPin(root=t.names, path=t.pin("no/such")), []),
    "a folder": lambda t: (OpenPin(root=t.names, path=t.pin("ns")), []),
    "the root": lambda t: (OpenPin(root=t.names, path=t.names), []),
    "a program's pin": lambda t: (OpenPin(root=t.names, path=t.pin("program")), []),
    "a pin through a link": lambda t: (OpenPin(root=t.names, path=t.pin("link/flows")), []),
    "a pin above the root": lambda t: (OpenPin(root=t.names, path=t.pin("../others/x")), []),
    "a pin outside": lambda t: (OpenPin(root=t.names, path="/etc/passwd"), []),
    "a pin with a NUL": lambda t: (OpenPin(root=t.names, path=t.pin("a\0b")), []),
    "a pin of a name too long": lambda t: (OpenPin(root=t.names, path=t.pin("x" * 300)), []),
    "a pin of bytes": lambda t: (OpenPin(root=t.names, path=t.pin("\udcff")), []),
    "a program": lambda t: (OpenProgramPin(root=t.names, path=t.pin("program")), []),
    "a program that is a map": lambda t: (OpenProgramPin(root=t.names, path=t.pin("flows")), []),
    "a map by id": lambda t: (OpenId(map_id=t.id), []),
    "a map by id to read": lambda t: (OpenId(map_id=t.id, read_only=True), []),
    "no map by id": lambda _: (OpenId(map_id=2**31 - 1), []),
    "the next map": lambda t: (NextMapId(map_id=t.id - 1), []),
    "no next map": lambda _: (NextMapId(map_id=2**31 - 2), []),
    "the next map of none": lambda _: (NextMapId(map_id=2**32 - 1), []),
    "no program by id": lambda _: (OpenProgramId(prog_id=2**31 - 1), []),
    "no next program": lambda _: (NextProgramId(prog_id=2**31 - 2), []),
    "a program's info": lambda t: (ProgramInfo(), [t.prog_fd]),
    "pins": lambda t: (ListPins(root=t.names), []),
    "a folder's pins": lambda t: (ListFolder(root=t.names, path=t.names), []),
    "no folder's pins": lambda t: (ListFolder(root=t.names, path=t.pin("nothing")), []),
    "folders' stamps": lambda t: (StampFolders(root=t.names, paths=(t.names, t.pin("ns"), t.pin("no"))), []),
    "a folder taken": lambda t: (MakeFolder(root=t.names, path=t.pin("ns")), []),
    "a folder that is a pin": lambda t: (MakeFolder(root=t.names, path=t.pin("flows")), []),
    "a folder in no folder": lambda t: (MakeFolder(root=t.names, path=t.pin("no/no")), []),
    "a folder in a pin": lambda t: (MakeFolder(root=t.names, path=t.pin("flows/no")), []),
    "a folder with a dot": lambda t: (MakeFolder(root=t.names, path=t.pin("a.b")), []),
    "a folder without a name": lambda t: (MakeFolder(root=t.names, path=t.pin("")), []),
    "a folder outside": lambda t: (MakeFolder(root=t.names, path=t.pin("../no")), []),
    "the root made": lambda t: (MakeFolder(root=t.names, path=t.names), []),
    "no folder removed": lambda t: (RemoveFolder(root=t.names, path=t.pin("no")), []),
    "a pin removed as a folder": lambda t: (RemoveFolder(root=t.names, path=t.pin("flows")), []),
    "the root removed": lambda t: (RemoveFolder(root=t.names, path=t.names), []),
    "a folder removed that is itself": lambda t: (RemoveFolder(root=t.names, path=t.pin("ns/.")), []),
    "a folder removed that is above": lambda t: (RemoveFolder(root=t.names, path=t.pin("ns/..")), []),
    "a pin taken": lambda t: (Pin(root=t.names, path=t.pin("flows")), [t.flows.fd]),
    "a pin in no folder": lambda t: (Pin(root=t.names, path=t.pin("no/flows")), [t.flows.fd]),
    "a pin in no folder's folder": lambda t: (
        Pin(root=t.names, path=t.pin("no/no/flows"), mkdir=True),
        [t.flows.fd],
    ),
    "a pin with a dot": lambda t: (Pin(root=t.names, path=t.pin("a.b")), [t.flows.fd]),
    "a pin without a name": lambda t: (Pin(root=t.names, path=t.pin("")), [t.flows.fd]),
    "a pin of a program": lambda t: (Pin(root=t.names, path=t.pin("other")), [t.prog_fd]),
    "a pin of types": lambda t: (Pin(root=t.names, path=t.pin("other")), [t.btf_fd]),
    "unpin nothing": lambda t: (Unpin(root=t.names, path=t.pin("nothing")), []),
    "unpin a program": lambda t: (Unpin(root=t.names, path=t.pin("program")), []),
    "unpin a folder": lambda t: (Unpin(root=t.names, path=t.pin("ns")), []),
    "unpin above": lambda t: (Unpin(root=t.names, path=t.pin("..")), []),
    "rename nothing": lambda t: (Rename(root=t.names, path=t.pin("no"), new_path=t.pin("b")), []),
    "rename onto itself": lambda t: (Rename(root=t.names, path=t.pin("flows"), new_path=t.pin("flows")), []),
    "types": lambda _: (LoadBtf(blob=U32_BTF), []),
    "no types": lambda _: (LoadBtf(blob=b"nonsense"), []),
    "types of nothing": lambda _: (LoadBtf(blob=b""), []),
    "no types by id": lambda _: (GetBtf(btf_id=2**31 - 1), []),
    "freeze types": lambda t: (FreezeMap(), [t.btf_fd]),
    "freeze nothing": lambda _: (FreezeMap(), []),
    "count entries": lambda t: (template("count_entries"), [t.flows.fd]),
    "an atomic": lambda t: (atomic(), [t.flows.fd, t.scratch.fd]),
    "a vector that reads": lambda t: (vector("vector_read"), [t.flows.fd, t.scratch.fd]),
    "a vector that writes": lambda t: (vector(), [t.flows.fd, t.scratch.fd]),
    "one CPU's slot of a map without CPUs": lambda t: (template("write_one_cpu"), [t.flows.fd]),
    "compare what has no lock": lambda t: (
        template("compare_update", slot_bytes=SCRATCH_BYTES),
        [t.flows.fd, t.scratch.fd],
    ),
    "no program of that name": lambda t: (template("exit"), [t.flows.fd]),
    "a program without its scratch": lambda t: (atomic(), [t.flows.fd]),
    "a program with a scratch that it does not take": lambda t: (
        template("count_entries"),
        [t.flows.fd, t.scratch.fd],
    ),
}


@dataclass(frozen=True)
class Refused:
    """An exception, as it was raised."""

    kind: type[Exception]
    words: str
    path: object
    command: str
    log: str


def told(kernel: Kernel, case: Case, things: Things) -> object:
    """What a kernel answers; of a descriptor what it leads to."""
    request, fds = case(things)
    try:
        answer: object = kernel.control(request, fds)
    except (OSError, ValueError) as error:
        path = error.filename if isinstance(error, OSError) else None
        return Refused(
            type(error), str(error), path, getattr(error, "command", ""), getattr(error, "log", "")
        )
    if not isinstance(answer, OwnedFd):
        return answer
    with answer, answer.lease() as fd:
        return Path(f"/proc/self/fd/{fd}").readlink(), what_it_is(fd)


def what_it_is(fd: int) -> object:
    kind = str(Path(f"/proc/self/fd/{fd}").readlink())
    if kind == "anon_inode:bpf-map":
        info = KERNEL.info(fd)
        return info.map_type, info.key_size, info.value_size, info.max_entries, info.map_flags, info.name
    if kind == "anon_inode:bpf-prog":
        found = KERNEL.control(ProgramInfo(), [fd])
        return found.prog_type, found.name, found.map_ids
    return None


@pytest.mark.parametrize("name", CASES)
def test_an_opener_answers_as_the_kernel_does(kernel: OpenerKernel, things: Things, name: str) -> None:
    assert told(kernel, CASES[name], things) == told(KERNEL, CASES[name], things)


def test_the_cases_meet_every_kind_of_answer(things: Things) -> None:
    """A comparison of two refusals proves little of what is done."""
    found = [told(KERNEL, case, things) for case in CASES.values()]
    refusals = {answer.kind for answer in found if isinstance(answer, Refused)}
    assert refusals == {SyscallError, PinNotFound, ProgramRefused, ValueError}
    assert sum(not isinstance(answer, Refused) for answer in found) > 15


def test_a_map_is_pinned_found_renamed_and_unpinned(kernel: OpenerKernel, roots: Path) -> None:
    root = f"{roots}/names"
    with kernel.control(small()) as owned, owned.lease() as map_fd:
        kernel.control(Pin(root=root, path=f"{root}/ns/a", mkdir=True), [map_fd])
        assert kernel.control(ListPins(root=root)).paths == [f"{root}/ns/a"]
        kernel.control(Rename(root=root, path=f"{root}/ns/a", new_path=f"{root}/other/b", mkdir=True))
        with kernel.control(OpenPin(root=root, path=f"{root}/other/b")) as again, again.lease() as fd:
            assert kernel.info(fd).id == kernel.info(map_fd).id
        kernel.control(FreezeMap(), [map_fd])
        assert kernel.info(map_fd).frozen
        with pytest.raises(SyscallError, match="BPF_MAP_FREEZE: EPERM"):
            kernel.control(FreezeMap(), [map_fd])
        kernel.control(Unpin(root=root, path=f"{root}/other/b"))
        assert kernel.control(ListPins(root=root)).paths == []


def test_a_program_of_the_openers_is_run_by_the_front(kernel: OpenerKernel, things: Things) -> None:
    things.flows.fill(7)
    context = Buffer.allocate(COUNTED.size)
    with (
        kernel.control(template("count_entries"), [things.flows.fd]) as program,
        program.lease() as prog_fd,
    ):
        assert kernel.run(prog_fd, context) == 0
    assert COUNTED.unpack_from(context.view) == (7,)


def test_holders_are_found_of_other_processes(kernel: OpenerKernel, things: Things) -> None:
    found = {holder.pid: holder for holder in kernel.control(ListHolders()).holders}
    theirs = {holder.pid: holder for holder in KERNEL.control(ListHolders()).holders}
    mine = [pid for pid, holder in found.items() if things.id in holder.map_ids]
    assert len(mine) == 1
    assert things.id in theirs[mine[0]].map_ids


def test_a_large_blob_of_types_goes_and_comes_whole(kernel: OpenerKernel) -> None:
    """The kernel's own types are some megabytes: more than a packet, and more than a socket's buffer."""
    own = Path("/sys/kernel/btf/vmlinux").read_bytes()
    assert len(own) > 1 << 20
    assert kernel.control(GetBtf(btf_id=1)) == own
    with pytest.raises(SyscallError) as caught:
        kernel.control(LoadBtf(blob=own + bytes(8)))
    with pytest.raises(SyscallError) as theirs:
        KERNEL.control(LoadBtf(blob=own + bytes(8)))
    assert caught.value.errno == theirs.value.errno == errno.EINVAL
    with kernel.control(LoadBtf(blob=own)) as loaded:
        assert not loaded.closed


def test_a_list_of_many_pins_comes_whole(kernel: OpenerKernel, roots: Path, maps: Maps) -> None:
    made = maps.create()
    root = f"{roots}/names"
    for number in range(1_000):
        KERNEL.control(Pin(root=root, path=f"{root}/{number:060}"), [made.fd])
    found = kernel.control(ListPins(root=root))
    assert found.paths == KERNEL.control(ListPins(root=root)).paths
    assert len(found.paths) == 1_000

"""Names are pins: creating, opening, listing and unpinning maps, and what each failure leaves (nothing).

The kernel here is a dict: it proves what we do with Linux's answers, not what Linux answers.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mapd.bpf import (
    CreateMap,
    Fault,
    FaultyKernel,
    FreezeMap,
    LoadBtf,
    OpenId,
    OpenPin,
    Pin,
    Rename,
    SyscallError,
    Unpin,
)
from mapd.bpf.abi import Command
from mapd.bpf.faulty import Target
from mapd.maps.errors import MapError
from mapd.maps.opened import Described, OpenMap
from mapd.maps.spec import BtfSpec, MapSpec
from mapd.maps.store import IdRef, MapStore, NameRef, PinRef, Ref
from mapd_api.reasons import Reason
from mapd_api.uapi import ENOTSUPP, MapFlag, MapType
from tests.unit.mapd.dictkernel import CPUS, ROOT, DictKernel, DictMap, raw_info

FLOWS = NameRef("ns", "flows")
FLOWS_PATH = f"{ROOT}/ns/flows"
HASH = MapSpec(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=1_000)
TYPED = replace(HASH, btf=BtfSpec(blob=b"btf", key_type_id=1, value_type_id=2))


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

    def fails(self, target: Target, number: int, nth: int = 1) -> None:
        self.faulty.add(Fault(target=target, errno=number, nth=nth))

    def create(self, spec: MapSpec = HASH, *, exist_ok: bool = False) -> bool:
        """Create ns/flows; whether it is new."""
        opened, new = self.store.create(FLOWS, spec, exist_ok=exist_ok)
        opened.fd.close()
        return new


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Every test ends with every fd closed that the kernel handed out."""
    made = Bench()
    yield made
    assert made.kernel.open_fds == 0


# ---- create ------------------------------------------------------------------------------------


def test_a_created_map_is_pinned_under_its_name_and_open(bench: Bench) -> None:
    opened, new = bench.store.create(FLOWS, HASH, exist_ok=False)
    assert new
    assert bench.kernel.pins[FLOWS_PATH] is bench.kernel.maps[opened.facts.id]
    assert (opened.name, opened.pin_path, opened.read_only) == ("ns/flows", FLOWS_PATH, False)
    assert not opened.fd.closed
    opened.fd.close()


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [
        ("flows", "", "flows"),
        ("per-cpu-counters-of-flows", "", "per_cpu_counter"),
        ("flows", "mine", "mine"),
    ],
)
def test_the_kernels_name_is_derived_unless_it_is_given(
    bench: Bench, name: str, asked: str, given: str
) -> None:
    opened, _ = bench.store.create(NameRef("ns", name), replace(HASH, kernel_name=asked), exist_ok=False)
    opened.fd.close()
    assert opened.facts.info.name == given


def test_a_map_that_its_creator_may_only_read_is_pinned_for_both_and_open_for_one(bench: Bench) -> None:
    opened, _ = bench.store.create(FLOWS, replace(HASH, flags=int(MapFlag.RDONLY)), exist_ok=False)
    with opened.lease() as number, pytest.raises(OSError, match="EPERM"):
        bench.kernel.control(FreezeMap(), [number])
    with pytest.raises(MapError, match="opened read-only") as caught:
        bench.store.pin(opened, "/bpf/again")
    assert caught.value.reason is Reason.READ_ONLY
    opened.fd.close()
    assert list(bench.kernel.pins) == [FLOWS_PATH]


def test_a_map_that_its_creator_cannot_open_to_read_is_unpinned_again(bench: Bench) -> None:
    bench.fails(OpenPin, errno.EMFILE)
    with pytest.raises(MapError, match="EMFILE"):
        bench.create(replace(HASH, flags=int(MapFlag.RDONLY)))
    assert bench.kernel.pins == {}


def test_a_bad_spec_makes_no_syscall(bench: Bench) -> None:
    with pytest.raises(MapError) as caught:
        bench.create(replace(HASH, key_size=0))
    assert caught.value.reason is Reason.BAD_SPEC
    assert bench.faulty.seen == ()


def test_a_taken_name_is_refused_with_its_pin(bench: Bench) -> None:
    assert bench.create()
    with pytest.raises(MapError, match=FLOWS_PATH) as caught:
        bench.create()
    assert caught.value.reason is Reason.MAP_EXISTS


def test_exist_ok_opens_the_map_that_is_there(bench: Bench) -> None:
    assert bench.create(exist_ok=True)
    assert not bench.create(exist_ok=True)
    assert len(bench.kernel.created) == 1


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (replace(HASH, map_type=MapType.LRU_HASH), "type"),
        (replace(HASH, key_size=8), "key_size"),
        (replace(HASH, value_size=8), "value_size"),
        (replace(HASH, max_entries=7), "max_entries"),
        (replace(HASH, flags=int(MapFlag.NO_PREALLOC)), "flags"),
        (replace(HASH, key_size=8, max_entries=7), "key_size, max_entries"),
    ],
)
def test_exist_ok_with_another_shape_is_incompatible_and_names_the_fields(
    bench: Bench, spec: MapSpec, field: str
) -> None:
    bench.create()
    with pytest.raises(MapError, match=f"{field.partition(',')[0]}: wanted ") as caught:
        bench.create(spec, exist_ok=True)
    assert caught.value.reason is Reason.INCOMPATIBLE
    assert caught.value.refusal.metadata["fields"] == field


def test_exist_ok_meets_a_map_that_another_creator_pinned_meanwhile(bench: Bench) -> None:
    other = bench.kernel.add(DictMap(raw_info()))

    def pin_first() -> None:
        bench.kernel.pins[FLOWS_PATH] = other

    bench.faulty.add(Fault(target=Pin, failpoint=pin_first))
    opened, new = bench.store.create(FLOWS, HASH, exist_ok=True)
    opened.fd.close()
    assert (opened.facts.id, new) == (other.info.id, False)


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.ENOMEM, Reason.KERNEL_MEMORY, "ask for fewer entries, or give the daemon's cgroup more"),
        (errno.EPERM, Reason.DAEMON_CAPABILITY, "give mapd CAP_BPF"),
        (errno.E2BIG, Reason.BAD_SPEC, "ask for fewer or smaller entries"),
        (errno.EINVAL, Reason.BAD_SPEC, "refuses this combination"),
        (ENOTSUPP, Reason.OPERATION_UNSUPPORTED, "this kernel cannot"),
        (errno.EMFILE, Reason.QUOTA, "no file descriptors left"),
        (errno.EIO, Reason.INTERNAL, "EIO"),
    ],
)
def test_a_refused_creation_says_why_and_what_to_do(
    bench: Bench, number: int, reason: Reason, words: str
) -> None:
    bench.fails(CreateMap, number)
    with pytest.raises(MapError, match=words) as caught:
        bench.create()
    assert caught.value.reason is reason
    assert "ns/flows (hash map of 1000 x (4, 4) bytes)" in str(caught.value)
    assert caught.value.refusal.metadata["operation"] == "create"
    assert bench.kernel.pins == {}


def test_no_memory_and_no_right_to_create_are_told_apart(bench: Bench) -> None:
    bench.fails(CreateMap, errno.ENOMEM)
    bench.fails(CreateMap, errno.EPERM, nth=1)
    with pytest.raises(MapError) as memory:
        bench.create()
    bench.fails(CreateMap, errno.EPERM)
    with pytest.raises(MapError) as rights:
        bench.create()
    assert memory.value.reason is Reason.KERNEL_MEMORY
    assert rights.value.reason is Reason.DAEMON_CAPABILITY
    assert rights.value.refusal.metadata["capability"] == "CAP_BPF"


@pytest.mark.parametrize(
    ("target", "number"),
    [
        (LoadBtf, errno.EPERM),
        (LoadBtf, errno.EINVAL),
        (CreateMap, errno.ENOMEM),
        (Command.OBJ_GET_INFO_BY_FD, errno.ENOMEM),
        (Pin, errno.EACCES),
        (Pin, errno.ENOENT),
        (Pin, errno.ENOSPC),
    ],
)
def test_a_creation_that_fails_half_way_leaves_no_fd_and_no_pin(
    bench: Bench, target: Target, number: int
) -> None:
    bench.fails(target, number)
    with pytest.raises((MapError, OSError)):
        bench.create(TYPED)
    assert bench.kernel.pins == {}
    assert bench.kernel.open_fds == 0


def test_an_exception_nobody_foresaw_leaves_no_fd(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("unforeseen")

    bench.faulty.add(Fault(target=Pin, failpoint=fail))
    with pytest.raises(RuntimeError):
        bench.create()


def test_btf_goes_along_and_its_fd_is_closed(bench: Bench) -> None:
    bench.create(TYPED)
    (request,) = bench.kernel.created
    assert (request.with_btf, request.btf_key_type_id, request.btf_value_type_id) == (True, 1, 2)


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EPERM, Reason.DAEMON_CAPABILITY), (errno.EINVAL, Reason.BAD_SPEC)]
)
def test_refused_btf_says_whether_the_right_or_the_blob_is_missing(
    bench: Bench, number: int, reason: Reason
) -> None:
    bench.fails(LoadBtf, number)
    with pytest.raises(MapError, match=r"BTF|CAP_BPF") as caught:
        bench.create(TYPED)
    assert caught.value.reason is reason


# ---- open --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "name", "pin_path"),
    [
        (FLOWS, "ns/flows", FLOWS_PATH),
        (PinRef(FLOWS_PATH), "ns/flows", FLOWS_PATH),
        (PinRef("/bpf/xdp/stats"), "", "/bpf/xdp/stats"),
        (PinRef("/other/stats"), "", "/other/stats"),
        (IdRef(41), "", ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_map_is_opened_by_name_pin_or_id(
    bench: Bench, ref: Ref, name: str, pin_path: str, read_only: bool
) -> None:
    made = bench.kernel.add(DictMap(raw_info()))
    bench.kernel.pins |= dict.fromkeys([FLOWS_PATH, "/bpf/xdp/stats", "/other/stats"], made)
    opened = bench.store.open(ref, read_only=read_only)
    opened.fd.close()
    assert opened.facts.id == 41
    assert (opened.name, opened.pin_path, opened.read_only) == (name, pin_path, read_only)


@pytest.mark.parametrize("ref", [FLOWS, PinRef("/bpf/none"), IdRef(9)], ids=str)
def test_what_is_not_there_is_not_found_and_named(bench: Bench, ref: Ref) -> None:
    with pytest.raises(MapError, match=str(ref)) as caught:
        bench.store.open(ref)
    assert caught.value.reason is Reason.MAP_NOT_FOUND
    assert caught.value.refusal.metadata["map"] == str(ref)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "relative", "", "/bpf", "/bpf/../etc/x", "/bpfx/m", "/bpf/a/../../x", "/bpf/a\0b"],
)
def test_a_path_outside_the_roots_makes_no_syscall(bench: Bench, path: str) -> None:
    for attempt in (lambda: bench.store.open(PinRef(path)), lambda: bench.store.unpin(PinRef(path))):
        with pytest.raises(MapError, match="pin_roots") as caught:
            attempt()
        assert caught.value.reason is Reason.BAD_SPEC
    assert bench.faulty.seen == ()


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.EACCES, Reason.DAEMON_CAPABILITY, "CAP_DAC_OVERRIDE"),
        (errno.EINVAL, Reason.BAD_SPEC, "not a map"),
        (errno.ELOOP, Reason.BAD_SPEC, "symbolic link"),
        (errno.EXDEV, Reason.BAD_SPEC, "symbolic link or out of its root"),
        (errno.ENOTDIR, Reason.MAP_NOT_FOUND, "/bpf/xdp/stats"),
        (errno.ENOMEM, Reason.KERNEL_MEMORY, "ENOMEM"),
        (errno.EMFILE, Reason.QUOTA, "EMFILE"),
        (errno.ENFILE, Reason.QUOTA, "ENFILE"),
    ],
)
def test_a_pin_that_cannot_be_opened_says_why(bench: Bench, number: int, reason: Reason, words: str) -> None:
    bench.fails(OpenPin, number)
    with pytest.raises(MapError, match=words) as caught:
        bench.store.open(PinRef("/bpf/xdp/stats"))
    assert caught.value.reason is reason


def test_a_pin_whose_modes_forbid_it_comes_with_the_line_that_mends_it(bench: Bench) -> None:
    bench.fails(OpenPin, errno.EACCES)
    with pytest.raises(MapError, match=FLOWS_PATH) as caught:
        bench.store.open(FLOWS)
    metadata = caught.value.refusal.metadata
    assert metadata["errno"] == "EACCES"
    assert metadata["capability"] == "CAP_DAC_OVERRIDE"
    assert "chown or chmod the pin" in metadata["fix"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EPERM, Reason.DAEMON_CAPABILITY),
        (errno.ENOENT, Reason.MAP_NOT_FOUND),
        (errno.EMFILE, Reason.QUOTA),
        (errno.ENOMEM, Reason.KERNEL_MEMORY),
    ],
)
def test_an_id_that_cannot_be_opened_says_why(bench: Bench, number: int, reason: Reason) -> None:
    bench.fails(OpenId, number)
    with pytest.raises(MapError, match="id:41") as caught:
        bench.store.open(IdRef(41))
    assert caught.value.reason is reason


def test_a_map_whose_info_cannot_be_read_leaves_no_fd(bench: Bench) -> None:
    bench.create()
    bench.fails(Command.OBJ_GET_INFO_BY_FD, errno.ENOMEM)
    with pytest.raises(OSError, match="ENOMEM"):
        bench.store.open(FLOWS)


# ---- describe ----------------------------------------------------------------------------------


def described(bench: Bench, opened: OpenMap) -> Described:
    with opened.lease() as map_fd:
        return bench.store.describe(opened, map_fd)


def test_a_map_is_described_as_it_is_now(bench: Bench) -> None:
    made = bench.kernel.add(DictMap(raw_info()), FLOWS_PATH)
    opened = bench.store.open(FLOWS)
    assert described(bench, opened) == opened.described
    bench.store.freeze(opened)
    assert described(bench, opened).facts.info.frozen
    assert not opened.facts.info.frozen
    bench.kernel.pins = {}
    assert (described(bench, opened).name, described(bench, opened).pin_path) == ("", "")
    bench.kernel.pins = {FLOWS_PATH: bench.kernel.add(DictMap(raw_info(id=42)))}
    assert described(bench, opened).name == ""
    bench.kernel.pins = {FLOWS_PATH: made}
    assert described(bench, opened).name == "ns/flows"
    opened.fd.close()


@pytest.mark.parametrize(("number", "name"), [(errno.EACCES, "ns/flows"), (errno.EINVAL, "")])
def test_a_pin_that_cannot_be_seen_may_be_there(bench: Bench, number: int, name: str) -> None:
    bench.kernel.add(DictMap(raw_info()), FLOWS_PATH)
    opened = bench.store.open(FLOWS)
    bench.fails(OpenPin, number)
    assert described(bench, opened).name == name
    opened.fd.close()


# ---- pin, unpin --------------------------------------------------------------------------------


def test_a_map_may_be_pinned_at_one_more_path(bench: Bench) -> None:
    made = DictMap(raw_info())
    with bench.kernel.open(made).fd as fd:
        del fd
        bench.store.pin(replace(bench.kernel.open(made)), "/bpf/xdp/stats")
        bench.kernel.opened[-1].close()
    assert bench.kernel.pins == {"/bpf/xdp/stats": made}


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.EEXIST, Reason.MAP_EXISTS, "the kernel never overwrites a pin"),
        (errno.ENOENT, Reason.BAD_SPEC, "a folder of the path does not exist"),
        (errno.EPERM, Reason.BAD_SPEC, "not on a bpffs, or its name has a '.'"),
        (errno.EACCES, Reason.DAEMON_CAPABILITY, "CAP_DAC_OVERRIDE"),
        (errno.ENOSPC, Reason.BAD_SPEC, "ENOSPC"),
    ],
)
def test_a_pin_that_cannot_be_made_says_why(bench: Bench, number: int, reason: Reason, words: str) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    bench.fails(Pin, number)
    with pytest.raises(MapError, match=words) as caught:
        bench.store.pin(opened, "/bpf/xdp/stats")
    assert caught.value.reason is reason
    opened.fd.close()


def test_a_read_only_opening_is_not_pinned(bench: Bench) -> None:
    opened = bench.kernel.open(DictMap(raw_info()), read_only=True)
    with pytest.raises(MapError, match="could open it for writing through the new pin") as caught:
        bench.store.pin(opened, "/bpf/xdp/stats")
    assert caught.value.reason is Reason.READ_ONLY
    assert bench.faulty.seen == ()
    opened.fd.close()


@pytest.mark.parametrize("path", ["team", "Team/flows", "team/flows/x", "team/_x"])
def test_below_the_root_of_names_only_names_are_pinned(bench: Bench, path: str) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    with pytest.raises(MapError, match="namespace/name") as caught:
        bench.store.pin(opened, f"{ROOT}/{path}")
    assert caught.value.reason is Reason.BAD_SPEC
    assert bench.faulty.seen == ()
    bench.store.pin(opened, f"{ROOT}/team/flows")
    opened.fd.close()


@pytest.mark.parametrize("path", ["/bpf/xdp/", "/bpf//xdp", "/bpf/./mapd/team", "/bpf/xdp/.", f"{ROOT}//a/b"])
def test_a_path_in_a_second_spelling_is_refused_and_says_why(bench: Bench, path: str) -> None:
    opened = bench.kernel.open(DictMap(raw_info()))
    for attempt in (
        lambda: bench.store.open(PinRef(path)),
        lambda: bench.store.unpin(PinRef(path)),
        lambda: bench.store.pin(opened, path),
    ):
        with pytest.raises(MapError, match=r"empty or '\.'") as caught:
            attempt()
        assert caught.value.reason is Reason.BAD_SPEC
    assert bench.faulty.seen == ()
    opened.fd.close()


def test_a_namespace_that_is_a_pin_is_told_as_what_it_is(bench: Bench) -> None:
    bench.fails(Pin, errno.ENOTDIR)
    with pytest.raises(MapError, match="a part of the path is a pin, not a folder") as caught:
        bench.create()
    assert caught.value.reason is Reason.BAD_SPEC


@pytest.mark.parametrize(
    ("number", "namespace", "reason", "words"),
    [
        (errno.ENOTDIR, "other", Reason.BAD_SPEC, f"{ROOT}/other: a part of the path is a pin, not a folder"),
        (errno.ENOTDIR, "ns", Reason.MAP_NOT_FOUND, "rename ns/flows: no such map"),
        (errno.ENOENT, "ns", Reason.MAP_NOT_FOUND, "rename ns/flows: no such map"),
    ],
)
def test_a_rename_tells_the_folder_of_the_old_name_from_that_of_the_new(
    bench: Bench, number: int, namespace: str, reason: Reason, words: str
) -> None:
    def fail() -> None:
        raise SyscallError(number, "openat2", f"{ROOT}/{namespace}")

    bench.faulty.add(Fault(target=Rename, failpoint=fail))
    with pytest.raises(MapError, match=words) as caught:
        bench.store.rename(FLOWS, NameRef("other", "flows"))
    assert caught.value.reason is reason


@pytest.mark.parametrize("ref", [FLOWS, PinRef(FLOWS_PATH)], ids=str)
def test_unpinning_takes_the_name_away_and_leaves_the_map(bench: Bench, ref: NameRef | PinRef) -> None:
    bench.create()
    bench.store.unpin(ref)
    assert bench.kernel.pins == {}
    assert len(bench.kernel.maps) == 1


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOENT, Reason.MAP_NOT_FOUND),
        (errno.EINVAL, Reason.BAD_SPEC),
        (errno.EACCES, Reason.DAEMON_CAPABILITY),
    ],
)
def test_a_pin_that_cannot_be_removed_says_why(bench: Bench, number: int, reason: Reason) -> None:
    bench.create()
    bench.fails(Unpin, number)
    with pytest.raises(MapError, match="unpin") as caught:
        bench.store.unpin(FLOWS)
    assert caught.value.reason is reason
    assert bench.kernel.pins

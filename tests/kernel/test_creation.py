"""Every map type, made through the store: what the table accepts this kernel takes, and what it refuses too."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from mapd.bpf import (
    FaultyKernel,
    LinuxKernel,
    LoadBtf,
    ProgramRefused,
    ProgramType,
    counter_program,
    load_program,
    possible_cpus,
)
from mapd.bpf.kernel import CreateMap
from mapd.maps import creation
from mapd.maps.errors import MapError
from mapd.maps.opened import OpenMap
from mapd.maps.spec import BtfSpec, MapSpec, check
from mapd.maps.store import MapStore, NameRef
from mapd.maps.traits import Btf, Entries
from mapd.maps.types import TYPES, type_name
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL
from tests.support.daemon import environment
from tests.support.samples import BLOB, EVERY_TYPE, TEMPLATE, described, sample

NAME: Final = NameRef("ns", "it")
EVERY_FLAG: Final = [1 << bit for bit in range(32)]
TYPES_BY_NAME: Final = {type_name(kind): kind for kind in EVERY_TYPE}


class Bench:
    """A store on a private bpffs, whose syscalls are written down, and a template for maps of maps."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.kernel = FaultyKernel(LinuxKernel())
        self.store = MapStore(
            kernel=self.kernel,
            possible_cpus=possible_cpus(),
            boot_id=uuid.UUID(int=1),
            names_root=str(root),
        )
        self._stack = stack
        self.template, _ = self.store.create(NameRef("ns", "template"), TEMPLATE, exist_ok=False)
        stack.callback(self.template.fd.close)

    def create(self, spec: MapSpec, name: NameRef = NAME, *, exist_ok: bool = False) -> OpenMap:
        """Created and pinned, and closed in the end."""
        template = self.template if spec.inner else None
        made, _ = self.store.create(name, spec, exist_ok=exist_ok, template=template)
        self._stack.callback(made.fd.close)
        return made

    def refused(self, spec: MapSpec, **how: Any) -> MapError:
        with pytest.raises(MapError) as caught:
            self.create(spec, **how)
        return caught.value

    def kernel_takes(self, spec: MapSpec) -> MapError | None:
        """What the kernel says of a spec that nobody has checked."""
        template = self.template if spec.inner else None
        try:
            creation.create(self.kernel, "it", spec, "it", template).close()
        except MapError as error:
            return error
        return None

    def refused_by_both(self, spec: MapSpec) -> tuple[MapError, MapError]:
        """What mapd says, which makes no syscall for it, and what the kernel says."""
        before = len(self.kernel.seen)
        ours = self.refused(spec)
        assert len(self.kernel.seen) == before
        theirs = self.kernel_takes(spec)
        assert theirs is not None, f"this kernel creates {spec}, flags {spec.flags:#x}"
        return ours, theirs


@pytest.fixture
def bench(bpffs: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(bpffs, stack)


@pytest.fixture(params=sorted(TYPES_BY_NAME))
def kind(request: pytest.FixtureRequest) -> MapType:
    return TYPES_BY_NAME[request.param]


# ---- each type ---------------------------------------------------------------------------------


def test_the_table_has_every_type_that_has_a_number() -> None:
    assert set(EVERY_TYPE) == set(MapType) - {MapType.UNSPEC}
    assert len(EVERY_TYPE) == 33


def test_a_map_of_each_type_is_made_pinned_and_found_again(bench: Bench, kind: MapType) -> None:
    spec = sample(kind)
    made = bench.create(spec)
    info = made.facts.info
    assert (info.map_type, info.key_size, info.value_size) == (kind, spec.key_size, spec.value_size)
    assert (info.max_entries, info.name) == (spec.max_entries, "it")
    assert bench.create(spec, exist_ok=True).facts.id == made.facts.id
    assert bench.refused(spec).reason is Reason.MAP_EXISTS


def bpftool(*arguments: str) -> Any:
    tool = shutil.which("bpftool", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if tool is None:
        pytest.skip("no bpftool: apt install bpftool")
    return json.loads(subprocess.run([tool, "-j", *arguments], capture_output=True, check=True).stdout)


def test_bpftool_agrees_on_every_attribute(bench: Bench, kind: MapType) -> None:
    traits = TYPES[kind]
    spec = sample(kind)
    if traits.btf is Btf.ACCEPTED:
        spec = replace(spec, btf=described(spec))
    extra = next(iter(traits.map_extra[3:]), 0) if kind is MapType.BLOOM_FILTER else 0
    made = bench.create(replace(spec, kernel_name="by_mapd", map_extra=extra))
    said = bpftool("map", "show", "pinned", made.pin_path)
    info = made.facts.info
    assert said["type"] in (type_name(kind), kind)  # a number where the tool is older than the type
    assert (said["id"], said["name"], said["flags"]) == (info.id, "by_mapd", info.map_flags)
    assert (said["bytes_key"], said["bytes_value"]) == (spec.key_size, spec.value_size)
    assert said["max_entries"] == spec.max_entries
    assert said.get("btf_id", 0) == info.btf_id
    assert bool(info.btf_id) == (traits.btf is not Btf.REFUSED)
    assert info.map_extra == extra


# ---- flags -------------------------------------------------------------------------------------


def flagged(spec: MapSpec, flag: int) -> MapSpec:
    """The spec with one flag more, and what goes with it."""
    if flag == MapFlag.STACK_BUILD_ID:
        spec = replace(spec, value_size=32)
    if flag == MapFlag.NUMA_NODE:
        spec = replace(spec, numa_node=0)
    return replace(spec, flags=spec.flags | flag)


def test_every_flag_of_the_table_is_taken(bench: Bench, kind: MapType) -> None:
    for flag in TYPES[kind].flags:
        spec = flagged(sample(kind), flag)
        made = bench.create(spec, NameRef("ns", f"with-{flag.name}".lower()))
        # The kernel does not keep what is the creator's descriptor's alone.
        kept = 0 if flag in (MapFlag.RDONLY, MapFlag.WRONLY) else flag
        assert made.facts.info.map_flags & flag == kept, flag


def test_every_other_flag_is_refused_before_any_syscall_and_by_the_kernel(
    bench: Bench, kind: MapType
) -> None:
    others = [flag for flag in EVERY_FLAG if not flag & int(TYPES[kind].flags)]
    for flag in others:
        ours, theirs = bench.refused_by_both(replace(sample(kind), flags=sample(kind).flags | flag))
        assert ours.reason is Reason.BAD_FLAGS, flag
        assert f"flags {flag:#x}" in str(ours)
        lru = kind in (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH) and flag == MapFlag.NO_PREALLOC
        assert theirs.refusal.metadata["errno"] == ("ENOTSUPP" if lru else "EINVAL"), flag


def test_a_required_flag_is_missed_by_both(bench: Bench, kind: MapType) -> None:
    for flag in TYPES[kind].required_flags:
        spec = sample(kind)
        ours, theirs = bench.refused_by_both(replace(spec, flags=spec.flags & ~int(flag)))
        assert ours.reason is Reason.BAD_FLAGS
        assert f"needs BPF_F_{flag.name}" in str(ours)
        assert theirs.refusal.metadata["errno"] == "EINVAL"


def test_a_numa_node_is_taken_and_one_that_is_not_there_is_refused(bench: Bench) -> None:
    spec = replace(sample(MapType.HASH), flags=int(MapFlag.NUMA_NODE))
    bench.create(replace(spec, numa_node=0))
    assert bench.refused(replace(spec, numa_node=1_000), name=NameRef("ns", "x")).reason is Reason.BAD_SPEC


# ---- sizes -------------------------------------------------------------------------------------


def beside(sizes: range) -> Generator[int]:
    """Sizes next to those of a range, that are not in it; none of more than 128 KiB."""
    edges = {sizes.start - 1, sizes.start + 1, sizes[-1] - 1, sizes[-1] + 1, sizes[-1] + sizes.step}
    yield from sorted(size for size in edges if 0 <= size <= 1 << 17 and size not in sizes)


def resized(spec: MapSpec, field: str, size: int) -> MapSpec:
    return replace(spec, key_size=size) if field == "key_size" else replace(spec, value_size=size)


@pytest.mark.parametrize("field", ["key_size", "value_size"])
def test_sizes_outside_the_table_are_refused_by_both(bench: Bench, kind: MapType, field: str) -> None:
    traits, spec = TYPES[kind], sample(kind)
    for size in beside(traits.key_sizes if field == "key_size" else traits.value_sizes):
        ours, theirs = bench.refused_by_both(resized(spec, field, size))
        assert ours.reason is Reason.BAD_SPEC
        assert f"{field} is {size};" in str(ours)
        assert theirs.reason is Reason.BAD_SPEC


@pytest.mark.parametrize("field", ["key_size", "value_size"])
def test_the_smallest_and_the_largest_size_of_the_table_are_taken(
    bench: Bench, kind: MapType, field: str
) -> None:
    traits, spec = TYPES[kind], sample(kind)
    sizes = traits.key_sizes if field == "key_size" else traits.value_sizes
    if traits.btf is Btf.REQUIRED:
        sizes = range(spec.value_size, spec.value_size + 1) if field == "value_size" else sizes
    for size in {sizes.start, sizes[-1]} if sizes[-1] < 1 << 15 else {sizes.start, 4_095, 32_768}:
        asked = resized(spec, field, size)
        if size in sizes and kind is not MapType.LPM_TRIE:
            bench.create(asked, NameRef("ns", f"{field}-{size}"))


def test_entries_outside_the_table_are_refused_by_both(bench: Bench, kind: MapType) -> None:
    wrong = {
        Entries.ANY: [0],
        Entries.ZERO: [1],
        Entries.ONE: [0, 2],
        Entries.CPUS: [0, 8_193],
        Entries.PAGES: [0, (1 << 20) + 1],
        Entries.POWER_OF_TWO_PAGES: [0, 2_048, 4_097, 12_288],
    }[TYPES[kind].entries]
    for entries in wrong:
        ours, theirs = bench.refused_by_both(replace(sample(kind), max_entries=entries))
        assert f"max_entries is {entries};" in str(ours)
        assert theirs.reason is Reason.BAD_SPEC


def test_map_extra_is_taken_and_refused_alike(bench: Bench, kind: MapType) -> None:
    extras = TYPES[kind].map_extra
    for extra in (1, 15, 16, 4_096, 1 << 32):
        spec = replace(sample(kind), map_extra=extra)
        if extra in extras:
            assert bench.create(spec, NameRef("ns", f"extra-{extra}")).facts.info.map_extra == extra
        else:
            ours, theirs = bench.refused_by_both(spec)
            assert f"map_extra is {extra};" in str(ours)
            assert theirs.refusal.metadata["errno"] == "EINVAL"


def test_an_arena_that_crosses_four_gibibytes_is_told_so(bench: Bench) -> None:
    error = bench.refused(replace(sample(MapType.ARENA), map_extra=0xFFFF_F000))
    assert (error.reason, error.refusal.metadata["errno"]) == (Reason.BAD_SPEC, "ERANGE")
    assert "4 GiB boundary" in str(error)


# ---- type information --------------------------------------------------------------------------


def test_type_information_is_kept_or_left_out_as_the_table_says(bench: Bench, kind: MapType) -> None:
    spec = sample(kind)
    btf = spec.btf or described(spec)
    info = bench.create(replace(spec, btf=btf)).facts.info
    if TYPES[kind].btf is Btf.REFUSED:
        assert (info.btf_id, info.btf_key_type_id, info.btf_value_type_id) == (0, 0, 0)
        with KERNEL.control(LoadBtf(blob=BLOB)) as loaded, loaded.lease() as btf_fd:
            assert kernel_errno(bench, replace(spec, btf=btf), btf_fd) == 524
        return
    assert info.btf_id
    assert (info.btf_key_type_id, info.btf_value_type_id) == (btf.key_type_id, btf.value_type_id)
    assert bench.store.btf(bench.create(replace(spec, btf=btf), exist_ok=True)).blob == BLOB
    assert info.btf_vmlinux_value_type_id == spec.btf_vmlinux_value_type_id


def kernel_errno(bench: Bench, spec: MapSpec, btf_fd: int) -> int:
    """Of a creation with BTF, and nothing tried after it."""
    assert spec.btf is not None
    request = CreateMap(
        map_type=spec.map_type,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=spec.flags,
        with_inner=spec.inner,
        with_btf=True,
        btf_key_type_id=spec.btf.key_type_id,
        btf_value_type_id=spec.btf.value_type_id,
    )
    with bench.template.lease() as template:
        try:
            KERNEL.control(request, [template, btf_fd] if spec.inner else [btf_fd]).close()
        except OSError as error:
            return error.errno or 0
    return 0


def test_btf_that_is_needed_is_missed_by_both(bench: Bench, kind: MapType) -> None:
    if TYPES[kind].btf is Btf.REQUIRED:
        ours, theirs = bench.refused_by_both(replace(sample(kind), btf=None))
        assert "btf is missing" in str(ours)
        assert theirs.refusal.metadata["errno"] == "EINVAL"


@pytest.mark.parametrize("ids", [(1, 1), (77, 2), (2, 2)])
def test_btf_of_other_sizes_is_refused_with_the_sizes_and_makes_no_map(
    bench: Bench, ids: tuple[int, int]
) -> None:
    btf = BtfSpec(blob=BLOB, key_type_id=ids[0], value_type_id=ids[1])
    error = bench.refused(replace(sample(MapType.HASH), btf=btf))
    assert error.reason is Reason.BAD_SPEC
    assert error.refusal.metadata["field"] == "btf"
    assert f"key type {ids[0]} must have 4 bytes and value type {ids[1]} 8 bytes" in str(error)
    bench.create(sample(MapType.HASH))  # the name is free


def test_a_structure_id_of_the_kernel_is_for_struct_ops_alone(bench: Bench, kind: MapType) -> None:
    spec = sample(kind)
    wrong = 0 if kind is MapType.STRUCT_OPS else sample(MapType.STRUCT_OPS).btf_vmlinux_value_type_id
    ours, theirs = bench.refused_by_both(replace(spec, btf_vmlinux_value_type_id=wrong))
    assert f"btf_vmlinux_value_type_id is {wrong};" in str(ours)
    assert theirs.refusal.metadata["errno"] == "EINVAL"


# ---- templates, exclusive programs -------------------------------------------------------------


@contextmanager
def outer_of(bench: Bench, kind: MapType, template: OpenMap) -> Generator[OpenMap]:
    made, _ = bench.store.create(NAME, sample(kind), exist_ok=False, template=template)
    try:
        yield made
    finally:
        made.fd.close()
        bench.store.unpin(NAME)


@pytest.mark.parametrize("outer", [MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS])
def test_every_type_is_a_template_or_refused_with_both_types(
    bench: Bench, kind: MapType, outer: MapType
) -> None:
    inner = bench.create(sample(kind), NameRef("ns", "inner"))
    none = {MapType.PROG_ARRAY, MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE, MapType.STRUCT_OPS}
    if kind in none or TYPES[kind].template:
        with pytest.raises(MapError) as caught, outer_of(bench, outer, inner):
            pass
        assert caught.value.reason in (Reason.BAD_SPEC, Reason.OPERATION_UNSUPPORTED)
        assert f"{type_name(outer)} map of 4" in str(caught.value)
        assert f"of maps like {type_name(kind)} map" in str(caught.value)
    else:
        with outer_of(bench, outer, inner):
            pass


def test_a_template_is_missed_by_both_and_given_elsewhere_refused(bench: Bench, kind: MapType) -> None:
    spec = sample(kind)
    if spec.inner:
        ours, theirs = bench.refused_by_both(replace(spec, inner=False))
        assert "inner is missing" in str(ours)
        assert theirs.refusal.metadata["errno"] in ("EINVAL", "EBADF")
    else:
        assert "inner is given" in str(bench.refused(replace(spec, inner=True)))


def test_an_exclusive_map_is_for_one_program(bench: Bench) -> None:
    plain = bench.create(sample(MapType.HASH), NameRef("ns", "plain"))
    other = hashlib.sha256(b"another program").digest()
    exclusive = bench.create(replace(sample(MapType.HASH), exclusive_program_hash=other))
    for opened, allowed in ((plain, True), (exclusive, False)):
        with opened.lease() as map_fd:
            code = counter_program(map_fd, 4, 8)
            if allowed:
                load_program(code, ProgramType.SYSCALL).close()
                continue
            with pytest.raises(ProgramRefused, match="EACCES"):
                load_program(code, ProgramType.SYSCALL)


def test_every_type_can_be_exclusive(bench: Bench, kind: MapType) -> None:
    bench.create(replace(sample(kind), exclusive_program_hash=bytes(32)))


def test_a_hash_of_another_length_is_refused_by_both(bench: Bench) -> None:
    ours, theirs = bench.refused_by_both(replace(sample(MapType.HASH), exclusive_program_hash=bytes(31)))
    assert "exclusive_program_hash is 31 bytes long; hash maps take 32 bytes" in str(ours)
    assert theirs.refusal.metadata["errno"] == "EINVAL"


# ---- exist_ok ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"map_type": MapType.LRU_HASH}, "type"),
        ({"key_size": 8, "btf": None}, "key_size"),
        ({"value_size": 4, "btf": None}, "value_size"),
        ({"max_entries": 5}, "max_entries"),
        ({"flags": int(MapFlag.NO_PREALLOC | MapFlag.RDONLY_PROG)}, "flags"),
        ({"kernel_name": "other"}, "kernel_name"),
        ({"btf": BtfSpec(blob=BLOB, key_type_id=1, value_type_id=4)}, "btf"),
        ({"btf": BtfSpec(blob=BLOB[:-1] + b"\0", key_type_id=1, value_type_id=2)}, None),
        ({"btf": BtfSpec(blob=BLOB.replace(b"octets", b"eights"), key_type_id=1, value_type_id=2)}, "btf"),
        ({"exclusive_program_hash": bytes(32)}, "exclusive_program_hash"),
        ({"kernel_name": "it", "flags": int(MapFlag.NO_PREALLOC | MapFlag.RDONLY)}, None),
        ({"btf": None}, None),
    ],
)
def test_exist_ok_takes_what_agrees_in_every_field_and_names_those_that_differ(
    bench: Bench, changed: dict[str, Any], fields: str | None
) -> None:
    plain = replace(sample(MapType.HASH), flags=int(MapFlag.NO_PREALLOC))
    spec = replace(plain, btf=described(plain))
    made = bench.create(spec)
    asked = replace(spec, **changed)
    if asked.map_type == MapType.LRU_HASH:
        asked = replace(asked, flags=0)
        fields = "type, flags"
    if fields is None:
        assert bench.create(asked, exist_ok=True).facts.id == made.facts.id
        return
    error = bench.refused(asked, exist_ok=True)
    assert error.reason is Reason.INCOMPATIBLE
    assert error.refusal.metadata["fields"] == fields
    assert f"{fields.split(', ')[0]}: wanted " in str(error)


def test_exist_ok_forgives_a_device_map_what_the_kernel_adds(bench: Bench) -> None:
    made = bench.create(sample(MapType.DEVMAP))
    assert made.facts.info.map_flags == MapFlag.RDONLY_PROG
    assert bench.create(sample(MapType.DEVMAP), exist_ok=True).facts.id == made.facts.id


# ---- rights ------------------------------------------------------------------------------------

UNDER_RIGHTS: Final = """
import sys
from mapd.bpf import LinuxKernel
from mapd.maps import creation
from mapd.maps.errors import MapError
from tests.support.samples import EVERY_TYPE, TEMPLATE, sample
from mapd.maps.opened import OpenMap, facts
from mapd.maps.programs import Programs

kernel = LinuxKernel()
inner = creation.create(kernel, "inner", TEMPLATE, "inner")
with inner.lease() as number:
    template = OpenMap(fd=inner, facts=facts(kernel.info(number), 1), programs=Programs().enter(0, inner))
for kind in EVERY_TYPE:
    spec = sample(kind)
    try:
        creation.create(kernel, "it", spec, "it", template if spec.inner else None).close()
    except MapError as error:
        print(kind.name.lower(), error.refusal.metadata.get("capability", str(error)))
inner.close()
"""


def test_each_type_needs_the_capability_that_the_table_says() -> None:
    """CAP_BPF alone makes all but those that say CAP_NET_ADMIN, and the refusal names it."""
    setpriv = shutil.which("setpriv", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if setpriv is None:
        pytest.skip("no setpriv: apt install util-linux")
    needs = {
        type_name(kind): TYPES[kind].capability for kind in EVERY_TYPE if TYPES[kind].capability != "CAP_BPF"
    }
    assert set(needs.values()) == {"CAP_NET_ADMIN"}
    root = str(Path(__file__).parents[2])
    for rights, missing in (("+bpf", needs), ("+bpf,+net_admin", {})):
        command = [setpriv, f"--bounding-set=-all,{rights}", f"--inh-caps=-all,{rights}"]
        done = subprocess.run(
            [*command, sys.executable, "-c", UNDER_RIGHTS],
            env=environment(PYTHONPATH=f"{root}/src:{root}"),
            cwd=root,
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == missing


def test_the_check_alone_says_what_the_store_says(kind: MapType) -> None:
    assert check(sample(kind), possible_cpus()) is TYPES[kind]

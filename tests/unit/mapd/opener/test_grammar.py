"""The grammar: every request travels, or is carried out by the front itself; nothing else is taken for one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mapd.bpf import kernel as protocol
from mapd.bpf.control import HANDLERS
from mapd.bpf.kernel import (
    ControlRequest,
    CreateMap,
    FolderPins,
    FreezeMap,
    GetBtf,
    LimitRefused,
    ListFolder,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    MapHolder,
    MapHolders,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    PinPaths,
    PinStamp,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.pins import PinNotFound
from mapd.bpf.program import ProgramRefused
from mapd.bpf.templates import IN_SCRATCH, MUTATING, READING, Template
from mapd.opener import OpenerFailed, forms
from mapd.opener.checks import CHECKS
from mapd.opener.client import LOCAL
from mapd.opener.wire import Malformed

REQUESTS: tuple[ControlRequest[Any], ...] = (
    CreateMap(map_type=1, key_size=4, value_size=8, max_entries=2**32 - 1),
    CreateMap(
        map_type=33,
        key_size=0,
        value_size=0,
        max_entries=1,
        flags=2**32 - 1,
        kernel_name="n\u00e4me",
        map_extra=2**64 - 1,
        numa_node=0,
        with_inner=True,
        with_btf=True,
        btf_key_type_id=1,
        btf_value_type_id=2,
        btf_vmlinux_value_type_id=3,
        exclusive_program_hash=bytes(range(32)),
    ),
    OpenPin(root="/r", path="/r/\udcff\0..", read_only=True),
    OpenId(map_id=2**32 - 1, read_only=False),
    Pin(root="/r", path="/r/a", mkdir=True),
    Unpin(root="", path=""),
    Rename(root="/r", path="/r/a", new_path="/r/b", mkdir=False),
    MakeFolder(root="/r", path="/r/a"),
    RemoveFolder(root="/r", path="/r/a"),
    ListPins(root="/r"),
    ListFolder(root="/r", path="/r/a"),
    StampFolders(root="/r", paths=("/r/a", "/r/b")),
    StampFolders(root="/r", paths=()),
    NextMapId(map_id=0),
    OpenProgramId(prog_id=7),
    OpenProgramPin(root="/r", path="/r/p"),
    NextProgramId(prog_id=9),
    ListHolders(),
    LoadBtf(blob=bytes(range(256))),
    LoadBtf(blob=b""),
    LoadTemplate(
        template="vector_read",
        key_size=1,
        value_size=2,
        map_type=3,
        cpus=4,
        slots=5,
        slot_bytes=6,
        field_size=7,
        field_offset=8,
    ),
    FreezeMap(),
    GetBtf(btf_id=5),
)

ANSWERS: tuple[tuple[ControlRequest[Any], object], ...] = (
    (Unpin(root="", path=""), None),
    (NextMapId(map_id=0), None),
    (NextMapId(map_id=0), 2**32 - 1),
    (ListPins(root="/r"), PinPaths(["/r/a", "/r/\udcff"], ["/r/b"])),
    (ListFolder(root="/r", path="/r"), FolderPins(2**63, [PinStamp("a", 2**64 - 1, 5)], ["b", "c"])),
    (StampFolders(root="/r", paths=("a", "b")), [0, 2**63]),
    (ListHolders(), MapHolders([MapHolder(1, "init", frozenset({3, 1}))], 4)),
    (GetBtf(btf_id=1), bytes(range(256))),
)

ERRORS: tuple[Exception, ...] = (
    SyscallError(1, "BPF_MAP_CREATE"),
    SyscallError(524, "BPF_MAP_FREEZE", "/r/\udcff"),
    PinNotFound(2, "openat2", "/r/a"),
    ProgramRefused(13, "first\nsecond\nR1 invalid\n"),
    LimitRefused(7, "BPF_MAP_CREATE", "a map of 9 bytes; map_bytes is 8 for each"),
    ValueError("a path has no NUL"),
    OSError(5, "Input/output error", "/proc/1/fd"),
)


def all_requests() -> set[type]:
    """Every kind of request that the protocol defines."""
    return {
        kind
        for kind in vars(protocol).values()
        if isinstance(kind, type) and issubclass(kind, ControlRequest) and kind is not ControlRequest
    }


def test_every_request_of_the_protocol_has_its_form_and_its_check() -> None:
    """Who adds a request decides how it travels and what the opener grants of it; there is no default."""
    requests = all_requests()
    assert requests == set(HANDLERS)
    assert set(forms.FORMS) == requests - set(LOCAL)
    assert set(CHECKS) == set(forms.FORMS)
    assert {type(request) for request in REQUESTS} == set(forms.FORMS)


def test_every_field_of_a_request_travels() -> None:
    for kind, form in forms.FORMS.items():
        named = {*form.fields, form.raw} - {""}
        assert named == set(kind.__slots__), kind.__name__


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_arrives_as_it_was_sent(request_: ControlRequest[Any]) -> None:
    assert forms.take_request(*forms.put_request(request_)) == request_


@pytest.mark.parametrize(("request_", "answer"), ANSWERS, ids=lambda value: type(value).__name__)
def test_an_answer_arrives_as_it_was_sent(request_: ControlRequest[Any], answer: object) -> None:
    assert forms.take_answer(request_, *forms.put_answer(request_, answer)) == answer


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_refusal_arrives_as_it_was_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        forms.take_answer(FreezeMap(), forms.put_error(error), b"")
    found = caught.value
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
    if isinstance(error, OSError) and isinstance(found, OSError):
        assert (found.errno, found.strerror, found.filename) == (error.errno, error.strerror, error.filename)


def test_a_mistake_of_the_opener_tells_nothing_but_its_kind() -> None:
    with pytest.raises(OpenerFailed, match=r"the opener failed \(KeyError\); its log says why"):
        forms.take_answer(FreezeMap(), forms.put_error(KeyError("secret")), b"")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[",
        b"nonsense",
        b'["FreezeMap"]',
        b'["FreezeMap",{},{}]',
        b'["FreezeMap",[]]',
        b'["FreezeMap",{"fd":3}]',
        b'["ProgramInfo",{}]',
        b'["LinuxControl",{}]',
        b'["__class__",{}]',
        b'[["FreezeMap"],{}]',
        b'["NextMapId",{}]',
        b'["NextMapId",{"map_id":-1}]',
        b'["NextMapId",{"map_id":4294967296}]',
        b'["NextMapId",{"map_id":true}]',
        b'["NextMapId",{"map_id":1.0}]',
        b'["NextMapId",{"map_id":1e2}]',
        b'["NextMapId",{"map_id":"1"}]',
        b'["NextMapId",{"map_id":NaN}]',
        b'["NextMapId",{"map_id":1' + b"0" * 5_000 + b"}]",
        b'["OpenPin",{"root":"/r","path":null,"read_only":false}]',
        b'["OpenPin",{"root":"/r","path":"' + b"x" * 9_000 + b'","read_only":false}]',
        b'["OpenPin",{"root":"/r","path":"/r/a","read_only":0}]',
        b'["StampFolders",{"root":"/r","paths":"/r"}]',
        b'["StampFolders",{"root":"/r","paths":[' + b'"a",' * 512 + b'"a"]}]',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        '["FreezeMap",{"\u00e4":1}]'.encode(),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_request_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        forms.take_request(text, b"")


def test_raw_bytes_travel_with_the_request_that_has_them_alone() -> None:
    with pytest.raises(Malformed, match="bytes behind the text"):
        forms.take_request(b'["FreezeMap",{}]', b"more")


@pytest.mark.parametrize("digits", ["0", "zz", "AA", "0x", "aa" * 33, " a", "\u0661\u0661"])
def test_a_hash_is_hexadecimal_digits_and_nothing_like_them(digits: str) -> None:
    name, fields = json.loads(forms.put_request(REQUESTS[0])[0])
    fields["exclusive_program_hash"] = digits
    with pytest.raises(Malformed):
        forms.take_request(json.dumps([name, fields]).encode(), b"")


@pytest.mark.parametrize(
    "answer", [b"[]", b'["done",{}]', b'["done",-1]', b'["refused",{}]', b'["other",1]', b"7"]
)
def test_what_is_no_answer_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed):
        forms.take_answer(NextMapId(map_id=0), answer, b"")


def test_values_beyond_the_kernels_fields_do_not_leave_the_front() -> None:
    """Ctypes would cut them off, and another map would be made than was asked for."""
    with pytest.raises(ValueError, match="no number of 32 bits"):
        forms.put_request(CreateMap(map_type=1, key_size=4, value_size=4, max_entries=2**32))


def test_every_program_is_known_to_read_or_to_write() -> None:
    assert set(Template) == READING | MUTATING
    assert not READING & MUTATING
    assert {Template.VECTOR_READ, Template.COUNT_ENTRIES} == READING
    assert set(Template) > IN_SCRATCH


def loaded_by(module: str) -> tuple[set[str], set[str]]:
    """All that a fresh interpreter has after importing it: top-level packages, and modules."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    return {name.partition(".")[0] for name in modules}, modules


def mapd_modules(modules: Sequence[str] | set[str]) -> set[str]:
    """The packages of mapd among them."""
    return {".".join(name.split(".")[:2]) for name in modules if name.startswith("mapd.")}


def test_the_opener_loads_the_standard_library_and_mapd_bpf_alone() -> None:
    """The process with the rights stays small: no numpy, no gRPC, no protobuf, no event loop."""
    startup, _ = loaded_by("sys")
    packages, modules = loaded_by("mapd.opener.__main__")
    assert packages - startup - sys.stdlib_module_names == {"mapd", "mapd_api"}
    assert mapd_modules(modules) == {"mapd.opener", "mapd.bpf"}
    assert (
        not {"asyncio", "numpy", "grpc", "google.protobuf", "pickle", "mapd_api.v1", "mapd_api.reasons"}
        & modules
    )

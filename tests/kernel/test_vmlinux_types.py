"""The running kernel's own BTF: our reading of it agrees with bpftool's, type by type."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final, cast

import pytest

from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.layouts import Record
from tests.support import rawbtf
from tests.support.rawbtf import Raw

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
NAMES: Final = {kind.__name__.upper(): kind for kind in kinds.KINDS} | {
    "FUNC_PROTO": kinds.FuncProto,
    "DECL_TAG": kinds.DeclTag,
    "TYPE_TAG": kinds.TypeTag,
}
LINKAGES: Final = ("static", "global", "extern")


def dumped(*args: str | Path) -> list[dict[str, Any]]:
    """The types as bpftool prints them."""
    done = subprocess.run(["bpftool", "-j", "btf", "dump", "file", *args], capture_output=True, check=True)
    return cast("list[dict[str, Any]]", json.loads(done.stdout)["types"])


@pytest.fixture(scope="module")
def vmlinux() -> Types:
    return Types(VMLINUX.read_bytes())


@pytest.fixture(scope="module")
def printed() -> list[dict[str, Any]]:
    return dumped(VMLINUX)


def printed_value(kind: kinds.Enum | kinds.Enum64, value: int) -> int:
    """In JSON bpftool 7.1 extends the sign of an unsigned 32-bit value; its text has it right."""
    extended = isinstance(kind, kinds.Enum) and not kind.signed and value >> 31
    return value | 0xFFFF_FFFF << 32 if extended else value


def as_printed(number: int, kind: kinds.Kind, printed: dict[str, Any]) -> dict[str, Any]:
    """What bpftool would print of our reading; of an enum's and a tag's words only those that it knows."""
    shown: dict[str, Any] = {"id": number, "kind": printed["kind"]}
    assert type(kind) is NAMES[printed["kind"]], (number, kind, printed)
    shown["name"] = getattr(kind, "name", "") or "(anon)"
    match kind:
        case kinds.Int():
            encoding = "SIGNED" if kind.signed else "CHAR" if kind.char else "BOOL" if kind.bool else "(none)"
            shown |= {
                "size": kind.size,
                "bits_offset": kind.offset,
                "nr_bits": kind.bits,
                "encoding": encoding,
            }
        case kinds.Array():
            shown |= {"type_id": kind.type, "index_type_id": kind.index_type, "nr_elems": kind.nelems}
        case kinds.Struct() | kinds.Union():
            shown |= {"size": kind.size, "vlen": len(kind.members)}
            shown["members"] = [
                {"name": one.name or "(anon)", "type_id": one.type, "bits_offset": one.bit_offset}
                | ({"bitfield_size": one.bits} if one.bits else {})
                for one in kind.members
            ]
        case kinds.Enum() | kinds.Enum64():
            shown |= {"size": kind.size, "vlen": len(kind.values)}
            shown["encoding"] = "SIGNED" if kind.signed else "UNSIGNED"
            shown["values"] = [
                {"name": name, "val": printed_value(kind, value)} for name, value in kind.values
            ]
        case kinds.Fwd():
            shown["fwd_kind"] = "union" if kind.union else "struct"
        case kinds.FuncProto():
            shown |= {"ret_type_id": kind.type, "vlen": len(kind.params)}
            shown["params"] = [
                {"name": name or "(anon)", "type_id": type_id} for name, type_id in kind.params
            ]
        case kinds.Func() | kinds.Var():
            shown |= {"type_id": kind.type, "linkage": LINKAGES[kind.linkage]}
        case kinds.Datasec():
            shown |= {"size": kind.size, "vlen": len(kind.vars)}
            shown["vars"] = [
                {"type_id": one.type, "offset": one.offset, "size": one.size} for one in kind.vars
            ]
        case kinds.Float():
            shown["size"] = kind.size
        case kinds.DeclTag():
            shown |= {"type_id": kind.type, "component_idx": kind.component_idx}
        case kinds.Void():
            raise AssertionError("bpftool prints no void")
        case _:
            shown["type_id"] = kind.type
    return shown


def test_every_type_of_the_kernel_is_read_as_bpftool_reads_it(
    vmlinux: Types, printed: list[dict[str, Any]]
) -> None:
    """Kind, name, size, members with offsets and widths, values: every word of every record."""
    assert len(printed) == len(vmlinux) - 1 > 10_000
    for number, theirs in enumerate(printed, 1):
        ours = as_printed(number, vmlinux[number], theirs)
        assert ours == theirs


def test_every_struct_of_the_kernel_has_bpftools_size_and_offsets_in_its_layout(
    vmlinux: Types, printed: list[dict[str, Any]]
) -> None:
    records = [one for one in printed if one["kind"] in ("STRUCT", "UNION")]
    special = 0
    for theirs in records:
        found = vmlinux.layout(theirs["id"])
        assert found.size == vmlinux.size(theirs["id"]) == theirs["size"]
        if not isinstance(found, Record):
            special += 1  # bpf_spin_lock and its like: the kernel's own
            continue
        wanted = [
            (one["name"].replace("(anon)", ""), one["bits_offset"], one.get("bitfield_size"))
            for one in theirs["members"]
        ]
        assert [(one.name, one.bit_offset, one.bits) for one in found.members] == wanted
        assert found.union == (theirs["kind"] == "UNION")
    assert sum(kind in (kinds.Struct, kinds.Union) for kind in map(vmlinux.kind, range(len(vmlinux)))) == len(
        records
    )
    assert special < 20 < len(records)


def test_every_other_data_type_of_the_kernel_has_a_layout_or_is_only_declared(vmlinux: Types) -> None:
    """Functions are no data, whatever their typedefs are called."""
    no_data = (kinds.Void, kinds.Struct, kinds.Union, kinds.Func, kinds.FuncProto, kinds.DeclTag)
    refused = list[str]()
    for number in range(1, len(vmlinux)):
        if vmlinux.kind(number) in no_data:
            continue
        try:
            assert vmlinux.layout(number).size == vmlinux.size(number)
        except BadBtf as error:
            refused.append(str(error))
    allowed = re.compile("a FUNCPROTO is no data|a VOID is no data|is only declared in this BTF")
    assert [reason for reason in refused if not allowed.search(reason)] == []
    assert len(refused) < 1000


def test_names_find_what_bpftool_calls_so(vmlinux: Types, printed: list[dict[str, Any]]) -> None:
    by_name = dict[tuple[str, str], list[int]]()
    for theirs in printed:
        by_name.setdefault((theirs["name"], theirs["kind"]), []).append(theirs["id"])
    for name, kind in (
        ("task_struct", "STRUCT"),
        ("u32", "TYPEDEF"),
        ("int", "INT"),
        ("list_head", "STRUCT"),
    ):
        assert list(vmlinux.ids(name, NAMES[kind])) == by_name[name, kind]


def test_a_split_blob_on_the_kernels_is_read_as_bpftool_reads_it(vmlinux: Types, tmp_path: Path) -> None:
    """As the BTF of a kernel module is: its ids and strings go on where the kernel's end."""
    raw = Raw(first=len(vmlinux), first_string=vmlinux.strings_end)
    (task,) = vmlinux.ids("task_struct", kinds.Struct)
    (word,) = vmlinux.ids("u32", kinds.Typedef)
    pointer = raw.add(rawbtf.PTR, "", task)
    own = raw.struct("mapd_split", 16, ("task", pointer, 0), ("n", word, 64))
    outer = raw.struct("mapd_outer", 32, ("in", own, 0), ("all", raw.array(own, 1), 128))
    raw.add(rawbtf.TYPEDEF, "mapd_split_t", outer)
    blob = tmp_path / "split.btf"
    blob.write_bytes(raw.blob())
    printed = dumped(blob, "-B", VMLINUX)
    types = Types(raw.blob(), vmlinux)
    assert [one["id"] for one in printed] == list(range(len(vmlinux), len(types))) != []
    for theirs in printed:
        assert as_printed(theirs["id"], types[theirs["id"]], theirs) == theirs
    found = types.layout(outer)
    assert isinstance(found, Record)
    assert [(one.name, one.offset, one.layout.size) for one in found.members] == [
        ("in", 0, 16),
        ("all", 16, 16),
    ]
    assert types.ids("mapd_outer") == (outer,)
    assert types.ids("u32", kinds.Typedef) == (word,)

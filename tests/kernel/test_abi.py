"""Our layouts and numbers beside those of the running kernel, which describes itself in BTF."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import pytest

from mapd.bpf import BatchCommand, ProgramType, abi, host
from mapd.bpf.asm import Helper
from mapd_api.uapi import ElementFlag, MapFlag, MapType
from tests.kernel.btf import STRUCT, UNION, Btf, Field

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
ATTRS: Final = (
    abi.MapCreateAttr,
    abi.ElementAttr,
    abi.NextKeyAttr,
    abi.BatchAttr,
    abi.ObjectAttr,
    abi.IdAttr,
    abi.InfoAttr,
    abi.BtfLoadAttr,
    abi.ProgLoadAttr,
    abi.ProgRunAttr,
)
NAMED: Final[dict[type[ctypes.Structure], str]] = {
    abi.MapInfo: "bpf_map_info",
    abi.ProgInfo: "bpf_prog_info",
    abi.BtfInfo: "bpf_btf_info",
    abi.OpenHow: "open_how",
}
OTHER_NAMES: Final[dict[type[ctypes.Structure], dict[str, str]]] = {abi.IdAttr: {"id": "start_id"}}
"""Where one command's name of a field is not in the union that it shares with others."""


@pytest.fixture(scope="module")
def vmlinux() -> Btf:
    return Btf(VMLINUX.read_bytes())


@pytest.fixture(scope="module")
def enumerators(vmlinux: Btf) -> dict[str, int]:
    return vmlinux.enumerators()


def ours(structure: type[ctypes.Structure]) -> dict[str, Field]:
    """Our fields by the kernel's names; padding is left out."""
    names = OTHER_NAMES.get(structure, {})
    found: dict[str, Field] = {}
    for name, *_ in structure._fields_:
        if name != "_pad":
            field = getattr(structure, name)
            found[names.get(name, name)] = Field(field.offset, field.size)
    return found


def attr_members(vmlinux: Btf) -> list[dict[str, Field]]:
    """The structures in union bpf_attr, each by its fields."""
    union = vmlinux.find("bpf_attr", UNION)
    return [vmlinux.members(inner) for _, inner, _ in vmlinux.direct(union)]


@pytest.mark.parametrize("structure", ATTRS)
def test_attr_is_a_prefix_of_a_member_of_bpf_attr(structure: type[ctypes.Structure], vmlinux: Btf) -> None:
    fields = ours(structure)
    matching = [member for member in attr_members(vmlinux) if fields.items() <= member.items()]
    nearest = max(attr_members(vmlinux), key=lambda member: len(fields.items() & member.items()))
    assert matching, f"not in the kernel: {dict(fields.items() - nearest.items())}, it has {nearest}"


@pytest.mark.parametrize("structure", NAMED)
def test_struct_is_a_prefix_of_the_kernels(structure: type[ctypes.Structure], vmlinux: Btf) -> None:
    assert ours(structure).items() <= vmlinux.fields(NAMED[structure], STRUCT).items()


@pytest.mark.parametrize("structure", [*ATTRS, *NAMED])
def test_every_byte_of_a_structure_has_a_field(structure: type[ctypes.Structure]) -> None:
    end = 0
    for name, *_ in structure._fields_:
        field = getattr(structure, name)
        assert field.offset == end, f"hole before {name}"
        end = field.offset + field.size
    # ctypes rounds the size up to the alignment; the kernel may know a field in that tail.
    assert ctypes.sizeof(structure) - end in (0, 4)


def test_commands_have_the_kernels_numbers(enumerators: dict[str, int]) -> None:
    for command in abi.Command:
        assert enumerators[command.uapi_name] == command
    for batch in BatchCommand:
        assert batch.value in enumerators


def test_map_types_have_the_kernels_numbers(enumerators: dict[str, int]) -> None:
    for map_type in MapType:
        assert enumerators[f"BPF_MAP_TYPE_{map_type.name}"] == map_type


def test_flags_have_the_kernels_numbers(enumerators: dict[str, int]) -> None:
    for flag in MapFlag:
        assert enumerators.get(f"BPF_F_{flag.name}") == flag
    assert enumerators["BPF_F_RDONLY"] == abi.F_RDONLY
    for element in (ElementFlag.NOEXIST, ElementFlag.EXIST):
        assert enumerators[f"BPF_{element.name}"] == element
    assert enumerators["BPF_F_LOCK"] == ElementFlag.LOCK


def test_programs_and_helpers_have_the_kernels_numbers(enumerators: dict[str, int]) -> None:
    for kind in ProgramType:
        assert enumerators[f"BPF_PROG_TYPE_{kind.name}"] == kind
    for helper in Helper:
        assert enumerators[f"BPF_FUNC_{helper.name.lower()}"] == helper


def test_the_last_capability_named_is_the_kernels_last() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    every = host.parse_capabilities(f"{(1 << last + 1) - 1:x}")
    assert "CAP_CHECKPOINT_RESTORE" in every
    assert len(every) == last + 1

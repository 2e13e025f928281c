"""What an object file declares: plain values, whatever convention it was read by. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mapd_client.btf import Types
from mapd_client.info import ByteOrder

Convention: TypeAlias = Literal["samples", "tc", "libbpf"]

Pinning: TypeAlias = Literal["none", "by name", "object", "global", "custom"]
"""libbpf knows the first two, tc all but the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What an element of a map holds from the beginning.

    Attributes:
        key: of the element, in the object's byte order.
        map: the place of the inner map in the object; None where it is a program.
        program: the name of that program's function; "" for a map.
    """

    key: bytes
    map: int | None = None
    program: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One map as an object declares it.

    Attributes:
        name: of its symbol, or of the section whose contents it has (".rodata").
        kernel_name: as the loader of its convention gives it to the kernel, at most 15 characters.
        index: its place: ``map_fd[index]`` of samples/bpf; maps of data sections come after the others.
        type: the kernel's number.
        key_size: bytes.
        value_size: bytes, of one CPU's slot.
        max_entries: elements; 0 where the object leaves it to the loader.
        flags: BPF_F_*.
        map_extra: BPF_MAP_CREATE's.
        numa_node: None for any.
        pinning: as its convention says it.
        pin: the path below the bpffs' mount that it is to be pinned at ("tc/globals/flows"), "" for none.
        inner: of a map of maps: the place of its template in the object, or a template of its own.
        slots: its first elements.
        inserts: the slots are filled at every load, also where the map was there before (tc).
        contents: of a data section; b"" where it is no data section, or its bytes are all zero.
        frozen: the section only reads.
        key_type_id: in ``ObjectFile.btf``; 0 for none.
        value_type_id: likewise.
    """

    name: str
    kernel_name: str
    index: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    map_extra: int = 0
    numa_node: int | None = None
    pinning: Pinning = "none"
    pin: str = ""
    inner: Declared | int | None = None
    slots: Sequence[Slot] = ()
    inserts: bool = False
    contents: bytes = b""
    frozen: bool = False
    key_type_id: int = 0
    value_type_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFile:
    """An object as it was read.

    Attributes:
        convention: how its maps are declared.
        rule: the sentence that says why it was read so.
        maps: in the order of their indexes.
        license: of its programs, "" where it says none.
        btf: its types, sections filled in; None where it has none.
        byteorder: of the hosts that it is compiled for.
        programs: names of the sections that hold programs.
        left_out: what it asks for and is not declared here, or not as it says it, a sentence each.
    """

    convention: Convention
    rule: str
    maps: Sequence[Declared]
    license: str
    btf: Types | None
    byteorder: ByteOrder
    programs: Sequence[str]
    left_out: Sequence[str] = ()

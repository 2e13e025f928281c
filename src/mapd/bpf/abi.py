"""The binary interface of bpf(2): command numbers and the structures that the kernel reads.

Owns layouts and numbers, calls nothing. Each structure is the prefix of a member of
``union bpf_attr`` that its command needs: the kernel takes any size up to 4096 bytes and reads what
is missing as zero (kernel/bpf/syscall.c, __sys_bpf()), so a short one works on every kernel that
knows its fields. Padding is named, because the kernel refuses a tail that is not zero.
tests/kernel/test_abi.py compares every field with the running kernel's BTF.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

u32 = ctypes.c_uint32
u64 = ctypes.c_uint64
s32 = ctypes.c_int32


class Command(IntEnum):
    """enum bpf_cmd, those that mapd issues; the names carry BPF_ in uapi linux/bpf.h."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27

    @property
    def uapi_name(self) -> str:
        """As linux/bpf.h spells it: ``BPF_MAP_CREATE``."""
        return f"BPF_{self.name}"


F_RDONLY: Final = 1 << 3
"""file_flags and open_flags: an fd that may read elements only (include/uapi/linux/bpf.h)."""

F_SLEEPABLE: Final = 1 << 4
"""prog_flags: the program may sleep. Programs of type SYSCALL must have it. Linux 5.10."""


class MapCreateAttr(ctypes.Structure):
    """BPF_MAP_CREATE. Up to ``excl_prog_hash_size``, which Linux 6.18 brought; sizes in bytes.

    An older kernel takes what it does not know as long as it is zero, else it answers E2BIG.
    """

    _fields_ = (
        ("map_type", u32),
        ("key_size", u32),
        ("value_size", u32),
        ("max_entries", u32),
        ("map_flags", u32),
        ("inner_map_fd", u32),
        ("numa_node", u32),
        ("map_name", ctypes.c_char * 16),
        ("map_ifindex", u32),
        ("btf_fd", u32),
        ("btf_key_type_id", u32),
        ("btf_value_type_id", u32),
        ("btf_vmlinux_value_type_id", u32),
        ("map_extra", u64),
        ("value_type_btf_obj_fd", s32),
        ("map_token_fd", s32),
        ("excl_prog_hash", u64),
        ("excl_prog_hash_size", u32),
    )


class ElementAttr(ctypes.Structure):
    """BPF_MAP_*_ELEM and BPF_MAP_FREEZE; ``key`` and ``value`` are addresses."""

    _fields_ = (
        ("map_fd", u32),
        ("_pad", u32),
        ("key", u64),
        ("value", u64),
        ("flags", u64),
    )


class NextKeyAttr(ctypes.Structure):
    """BPF_MAP_GET_NEXT_KEY: ElementAttr without flags, which the kernel refuses here."""

    _fields_ = (
        ("map_fd", u32),
        ("_pad", u32),
        ("key", u64),
        ("next_key", u64),
    )


class BatchAttr(ctypes.Structure):
    """BPF_MAP_*_BATCH; ``count`` goes in and comes out. Linux 5.6."""

    _fields_ = (
        ("in_batch", u64),
        ("out_batch", u64),
        ("keys", u64),
        ("values", u64),
        ("count", u32),
        ("map_fd", u32),
        ("elem_flags", u64),
        ("flags", u64),
    )


class ObjectAttr(ctypes.Structure):
    """BPF_OBJ_PIN and BPF_OBJ_GET."""

    _fields_ = (
        ("pathname", u64),
        ("bpf_fd", u32),
        ("file_flags", u32),
    )


class IdAttr(ctypes.Structure):
    """BPF_*_GET_NEXT_ID and BPF_*_GET_FD_BY_ID; ``id`` goes in, ``next_id`` comes out."""

    _fields_ = (
        ("id", u32),
        ("next_id", u32),
        ("open_flags", u32),
    )


class InfoAttr(ctypes.Structure):
    """BPF_OBJ_GET_INFO_BY_FD; ``info_len`` (bytes) goes in and comes out."""

    _fields_ = (
        ("bpf_fd", u32),
        ("info_len", u32),
        ("info", u64),
    )


class BtfLoadAttr(ctypes.Structure):
    """BPF_BTF_LOAD; sizes in bytes."""

    _fields_ = (
        ("btf", u64),
        ("btf_log_buf", u64),
        ("btf_size", u32),
        ("btf_log_size", u32),
        ("btf_log_level", u32),
    )


class ProgLoadAttr(ctypes.Structure):
    """BPF_PROG_LOAD; ``insn_cnt`` counts slots of eight bytes."""

    _fields_ = (
        ("prog_type", u32),
        ("insn_cnt", u32),
        ("insns", u64),
        ("license", u64),
        ("log_level", u32),
        ("log_size", u32),
        ("log_buf", u64),
        ("kern_version", u32),
        ("prog_flags", u32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", u32),
        ("expected_attach_type", u32),
        ("prog_btf_fd", u32),
        ("func_info_rec_size", u32),
        ("func_info", u64),
        ("func_info_cnt", u32),
        ("line_info_rec_size", u32),
    )


class ProgRunAttr(ctypes.Structure):
    """BPF_PROG_TEST_RUN, which newer headers also call BPF_PROG_RUN; sizes in bytes."""

    _fields_ = (
        ("prog_fd", u32),
        ("retval", u32),
        ("data_size_in", u32),
        ("data_size_out", u32),
        ("data_in", u64),
        ("data_out", u64),
        ("repeat", u32),
        ("duration", u32),
        ("ctx_size_in", u32),
        ("ctx_size_out", u32),
        ("ctx_in", u64),
        ("ctx_out", u64),
    )


class MapInfo(ctypes.Structure):
    """struct bpf_map_info up to ``map_extra``: an older kernel fills a prefix, the rest stays zero."""

    _fields_ = (
        ("type", u32),
        ("id", u32),
        ("key_size", u32),
        ("value_size", u32),
        ("max_entries", u32),
        ("map_flags", u32),
        ("name", ctypes.c_char * 16),
        ("ifindex", u32),
        ("btf_vmlinux_value_type_id", u32),
        ("netns_dev", u64),
        ("netns_ino", u64),
        ("btf_id", u32),
        ("btf_key_type_id", u32),
        ("btf_value_type_id", u32),
        ("btf_vmlinux_id", u32),
        ("map_extra", u64),
    )


class ProgInfo(ctypes.Structure):
    """struct bpf_prog_info up to ``name``; ``nr_map_ids`` is the room going in, and how many there are coming out."""

    _fields_ = (
        ("type", u32),
        ("id", u32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", u32),
        ("xlated_prog_len", u32),
        ("jited_prog_insns", u64),
        ("xlated_prog_insns", u64),
        ("load_time", u64),
        ("created_by_uid", u32),
        ("nr_map_ids", u32),
        ("map_ids", u64),
        ("name", ctypes.c_char * 16),
    )


class BtfInfo(ctypes.Structure):
    """struct bpf_btf_info; ``btf_size`` is the room going in, and the blob's size coming out."""

    _fields_ = (
        ("btf", u64),
        ("btf_size", u32),
        ("id", u32),
        ("name", u64),
        ("name_len", u32),
        ("kernel_btf", u32),
    )


class OpenHow(ctypes.Structure):
    """struct open_how of openat2(2). Linux 5.6."""

    _fields_ = (
        ("flags", u64),
        ("mode", u64),
        ("resolve", u64),
    )


RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

RENAME_NOREPLACE: Final = 1
"""renameat2(2): EEXIST where the new name is taken (include/uapi/linux/fs.h)."""


@dataclass(frozen=True, slots=True)
class SyscallNumbers:
    """What syscall(2) calls bpf(2), renameat2(2) and openat2(2) on one architecture."""

    bpf: int
    renameat2: int
    openat2: int = 437


class UnsupportedArchitecture(Exception):
    """The syscall numbers of this machine are not in the table."""


_NUMBERS: Final = {
    "x86_64": SyscallNumbers(321, 316),
    "aarch64": SyscallNumbers(280, 276),
    "riscv64": SyscallNumbers(280, 276),
    "loongarch64": SyscallNumbers(280, 276),
    "ppc64": SyscallNumbers(361, 357),
    "ppc64le": SyscallNumbers(361, 357),
    "s390x": SyscallNumbers(351, 347),
}


def syscall_numbers(machine: str, pointer_size: int = struct.calcsize("P")) -> SyscallNumbers:
    """The numbers for ``machine`` as uname(2) names it, and a ``pointer_size`` in bytes.

    Raises:
        UnsupportedArchitecture: not in the table, or a 32-bit process: its numbers differ from
            those of the kernel that uname(2) names.

    Source: arch/*/kernel/syscalls/syscall.tbl; include/uapi/asm-generic/unistd.h.
    """
    numbers = _NUMBERS.get(machine)
    if numbers is None or pointer_size != 8:
        known = ", ".join(sorted(_NUMBERS))
        raise UnsupportedArchitecture(
            f"no syscall number of bpf(2) is known for {machine} with {pointer_size * 8}-bit pointers; "
            f"64-bit processes on these work: {known}"
        )
    return numbers

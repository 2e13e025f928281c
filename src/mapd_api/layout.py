"""How elements lie in packed columns: the kernel's own layout, so that nobody converts."""

from __future__ import annotations

from mapd_api.uapi import PER_CPU_TYPES, MapType


def round_up8(size: int) -> int:
    """The kernel pads each CPU's slot of a per-CPU value to eight bytes."""
    return (size + 7) & ~7


def value_stride(map_type: MapType | int, value_size: int, possible_cpus: int) -> int:
    """Bytes that one value takes in a column, and that the kernel reads or writes for it.

    ``possible_cpus`` counts /sys/devices/system/cpu/possible, not the CPUs online: the kernel
    fills a slot for each possible CPU and is told no buffer size (kernel/bpf/syscall.c,
    bpf_map_value_size()).
    """
    if map_type in PER_CPU_TYPES:
        return round_up8(value_size) * possible_cpus
    return value_size

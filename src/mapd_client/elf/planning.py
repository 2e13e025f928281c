"""From what an object declares to what is to be created: names, pins, sizes, types, order."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Final

from mapd_api.uapi import MapType
from mapd_client.elf import read_object, read_pinnings
from mapd_client.elf.declared import Declared, ObjectFile
from mapd_client.elf.kernelbtf import btf_of
from mapd_client.elf.naming import mapd_names
from mapd_client.elf.plan import Choices, Plan, Planned
from mapd_client.elf.reuse import Shape
from mapd_client.errors import Misuse, Unsupported
from mapd_client.info import Btf, ServerInfo

_OUTER: Final = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
_RINGS: Final = (MapType.RINGBUF, MapType.USER_RINGBUF)
_WITHOUT_BTF: Final = frozenset(
    {
        *_OUTER,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.STACK_TRACE,
        MapType.DEVMAP,
        MapType.DEVMAP_HASH,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.SOCKHASH,
        MapType.QUEUE,
        MapType.STACK,
    }
)
"""Types that libbpf gives none to, for the kernel refuses it (``bpf_object__create_map()``, tools/lib/bpf/libbpf.c)."""

_PAGE: Final = 4096
"""Bytes of the smallest page; a host with larger ones refuses what is smaller than one of its own."""

_TARGETS: Final = {"little": "bpfel", "big": "bpfeb"}


PINNINGS: Final = Path("/etc/iproute2/bpf_pinning")
"""What tc's custom pinning numbers mean on the host that an object is loaded from."""


def read(path: str | PathLike[str], convention: str) -> ObjectFile:
    """``read_object``, with this host's list of custom pinnings where the object has any. Blocking."""
    found = read_object(path, convention)
    if not any(one.pinning == "custom" for one in found.maps):
        return found
    try:
        text = PINNINGS.read_text()
    except OSError:
        return found
    return read_object(path, convention, pinnings=read_pinnings(text))


def plan_of(label: str, found: ObjectFile, server: ServerInfo, choices: Choices) -> Plan:
    """The plan for one daemon.

    Raises:
        Misuse: compiled for another byte order than the host's; names that clash, or are none.
        Unsupported: a map type that this library does not know.
    """
    if found.byteorder != server.byteorder:
        raise Misuse(
            f"create_from_object {label}: it is compiled for {found.byteorder} endian hosts, and the daemon's host "
            f"{server.node} is {server.byteorder} endian: compile it with -target {_TARGETS[server.byteorder]}"
        )
    names = mapd_names([one.name for one in found.maps], choices.prefix, choices.names, label)
    planning = _Planning(label, found, server, choices.pin_root.rstrip("/"))
    maps = [planning.map(one, name) for one, name in zip(found.maps, names, strict=True)]
    return Plan(
        label=label,
        convention=found.convention,
        rule=found.rule,
        maps=maps,
        # Outer maps after their templates, as tc makes them; libbpf's order among the others.
        order=sorted(range(len(maps)), key=lambda at: maps[at].shape.type in _OUTER),
        left_out=planning.left_out,
    )


class _Planning:
    """What planning one map needs of the object and the host."""

    def __init__(self, label: str, found: ObjectFile, server: ServerInfo, pin_root: str) -> None:
        self._label = label
        self._found = found
        self._cpus = server.possible_cpus
        self._pin_root = pin_root
        self.left_out = [*found.left_out]

    def map(self, one: Declared, name: str) -> Planned:
        """One map."""
        slots: list[tuple[bytes, int]] = []
        for slot in one.slots:
            if slot.map is None:
                key = int.from_bytes(slot.key, self._found.byteorder)
                self.left_out.append(
                    f"{one.name}[{key}]: program {slot.program}: mapd loads no programs; whoever does puts it there by "
                    "update_reference(program=...)"
                )
            else:
                slots.append((slot.key, slot.map))
        inner = one.inner
        return Planned(
            declared=one.name,
            kernel_name=one.kernel_name,
            name=name,
            pin=f"{self._pin_root}/{one.pin}" if one.pin else "",
            shape=self._shape(one),
            numa_node=one.numa_node,
            btf=self._btf(one),
            template=self.map(inner, "") if isinstance(inner, Declared) else inner,
            slots=slots,
            inserts=one.inserts,
            contents=one.contents,
            frozen=one.frozen,
        )

    def _shape(self, one: Declared) -> Shape:
        try:
            kind = MapType(one.type)
        except ValueError:
            raise Unsupported(
                f"create_from_object {self._label}: map {one.name!r} is of type {one.type}, which this library does "
                "not know"
            ) from None
        entries = one.max_entries
        if kind is MapType.PERF_EVENT_ARRAY and entries == 0:
            entries = self._cpus
        elif kind in _RINGS and entries:
            entries = ring_bytes(entries)
        return Shape(
            type=kind,
            key_size=one.key_size,
            value_size=one.value_size,
            max_entries=entries,
            flags=one.flags,
            map_extra=one.map_extra,
        )

    def _btf(self, one: Declared) -> Btf | None:
        if self._found.btf is None or one.type in _WITHOUT_BTF:
            return None
        return btf_of(self._found.btf, one.key_type_id, one.value_type_id)


def ring_bytes(wanted: int) -> int:
    """The next size that a ring may have: pages, by a power of two (``adjust_ringbuf_sz()`` of libbpf).

    What no power of two in 32 bits reaches stays, and is the kernel's to refuse.
    """
    size = max(_PAGE, 1 << (wanted - 1).bit_length())
    return size if size < 1 << 32 else wanted

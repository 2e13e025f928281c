"""What the daemon says of itself, of maps and of dumps: plain values. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from mapd_api import layout, limits
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType

UpdateFlag = Literal["any", "noexist", "exist"]
"""bpftool's words for BPF_ANY, BPF_NOEXIST, BPF_EXIST."""

ByteOrder = Literal["little", "big"]


TypeAnswer = Literal["ok", "refused", "unknown"]
"""Whether the daemon's kernel has a map type; "unknown" where the daemon may not create one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHolder:
    """A process with a descriptor of a map; ``comm`` is at most 15 characters."""

    pid: int
    comm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramHolder:
    """A loaded BPF program that uses a map."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the daemon accepts; this library stays below by itself.

    Attributes:
        message_bytes: one request or response.
        chunk_bytes: the columns of one message of a dump or load.
        batch_elements: elements of one group.
        groups: groups of one message.
        handles: maps that one principal may hold open.
    """

    message_bytes: int = limits.MESSAGE_BYTES
    chunk_bytes: int = limits.CHUNK_MAX_BYTES
    batch_elements: int = limits.BATCH_ELEMENTS
    groups: int = limits.GROUPS
    handles: int = limits.HANDLES


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a daemon is and can do.

    Attributes:
        version: of the daemon; ask ``features``, never compare this.
        epoch: random at every start of the daemon.
        boot_id: the kernel's; pins and map ids live as long as it.
        node: host name.
        kernel_release: of the daemon's host ("6.18.5").
        byteorder: of integers inside keys and values.
        possible_cpus: slots of a per-CPU value.
        features: named abilities.
        profile: the daemon's rights: minimal, pins-ro, pins-rw, network, inspector.
        backend: kernel or memory.
        principal: who the caller is, as the socket it came through says.
        namespace: of names without one.
        pin_root: names are pinned at <pin_root>/<namespace>/<name>.
        types: what creating the smallest map of a type came to, by bpftool's words ("hash").
        programs: BPF programs that the daemon's kernel loads ("vector_read"): without those whose names begin with
            "vector" a syscall is made for each element, without the others their operations are refused.
    """

    version: str
    epoch: str
    boot_id: str
    node: str
    kernel_release: str
    byteorder: ByteOrder
    possible_cpus: int
    features: frozenset[str]
    limits: Limits
    profile: str
    backend: str
    principal: str
    namespace: str
    pin_root: str
    types: Mapping[str, TypeAnswer] = field(default_factory=dict[str, TypeAnswer])
    programs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lease:
    """What keeps a map that has no name, for ``create_map(None, ..., lease=...)``.

    Attributes:
        ttl: seconds that its maps outlive whoever keeps it alive: from 1 to 86,400, in milliseconds.
        id: "job-7" or "ns/job-7", for several maps in one lease; "": a lease of its own for each map that is made.
    """

    ttl: float
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """A lease as the daemon has it.

    Attributes:
        ttl: seconds that it has whenever it is kept alive.
        remaining: seconds until it ends if nobody does.
        pins: of its maps, those that the caller may see.
    """

    ttl: float
    remaining: float
    pins: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    """One map, as it was when it was opened or listed.

    Attributes:
        id: the kernel's, unique on the host until it reboots.
        type: a plain int for a type that this library does not know.
        key_size: bytes.
        value_size: bytes, of one CPU's slot for per-CPU types.
        max_entries: elements that fit.
        flags: BPF_F_* as the kernel holds them; it adds some of its own.
        frozen: no writes from user space any more.
        name: "namespace/name", "" if mapd has no name for it.
        kernel_name: at most 15 characters, not unique.
        pin_path: for other programs' loaders; "" if the map was reached otherwise.
        key_stride: bytes of one key in a column.
        value_stride: bytes of one value in a column: all CPUs' slots for per-CPU types.
        map_extra: BPF_MAP_CREATE's map_extra.
        btf_id: the kernel's BTF object, 0 if none.
        btf_key_type_id: in it, 0 if none.
        btf_value_type_id: in it, 0 if none.
        memlock_bytes: kernel memory as fdinfo says.
        supported_operations: what may be asked of this map here.
        iteration: how exact a dump is: "exact", "best_effort" or "none"; "" if not said.
        has_lock: values have a bpf_spin_lock, which reads and writes hold.
        pins: every pin that a listing found, pin_path included.
        holders: who holds the map, where a listing was asked for it.
        lease: what keeps pin_path, with an id; None where that is no pin of a lease.
    """

    id: int
    type: MapType | int
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlag
    frozen: bool
    name: str
    kernel_name: str
    pin_path: str
    key_stride: int
    value_stride: int
    map_extra: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    memlock_bytes: int
    supported_operations: frozenset[str]
    iteration: str
    has_lock: bool = False
    pins: Sequence[str] = ()
    holders: Sequence[ProcessHolder | ProgramHolder] = ()
    lease: Lease | None = None

    @property
    def type_name(self) -> str:
        """The type as bpftool writes it: "percpu_hash", "type 99" for one unknown here."""
        return self.type.name.lower() if isinstance(self.type, MapType) else f"type {self.type}"

    @property
    def per_cpu(self) -> bool:
        """Whether a value is one slot per possible CPU."""
        return self.type in PER_CPU_TYPES

    @property
    def label(self) -> str:
        """How messages call it: its name, else its pin, else its id."""
        return self.name or (f"pin:{self.pin_path}" if self.pin_path else f"id:{self.id}")

    def slots(self) -> int:
        """How many CPUs' slots a value has; 1 for other types."""
        slot = layout.round_up8(self.value_size)
        return self.value_stride // slot if self.per_cpu and slot else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many elements a map has.

    Attributes:
        entries: elements.
        exact: what the kernel's own counter said; a scan's count is not, while others write.
        method: "sum_elem_count", "max_entries", "scan".
    """

    entries: int
    exact: bool
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """How a dump went, said by the daemon at its end.

    Attributes:
        entries: elements sent, in all parts of a dump that went on after its stream had broken.
        complete: the guarantee of ``MapInfo.iteration`` holds, to the end of the map or the limit.
        incomplete_reason: why not; "" if complete.
        method: "lookup_batch", "next_key".
        restarts: how often the kernel's cursor began again, in the last part.
        duplicates_suppressed: elements met twice and sent once, in the last part.
        started_at: by the clock of the daemon's host, UTC; of a dump that went on, as long before its end as it took.
        ended_at: likewise.
        map_id: the kernel's.
        epoch: of the daemon that dumped, the last part.
        resumed: how often the dump went on in another stream, for the one before had broken.
    """

    entries: int
    complete: bool
    incomplete_reason: str
    method: str
    restarts: int
    duplicates_suppressed: int
    started_at: datetime
    ended_at: datetime
    map_id: int
    epoch: str
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class Btf:
    """Type information to create a map with.

    Attributes:
        blob: as in an ELF object's .BTF section.
        key_type_id: of the key's type in it, 0 for none.
        value_type_id: of the value's type in it, 0 for none.
        vmlinux_value_type_id: struct_ops maps: ``struct bpf_struct_ops_NAME`` in the BTF of the daemon's kernel.
    """

    blob: bytes
    key_type_id: int = 0
    value_type_id: int = 0
    vmlinux_value_type_id: int = 0


@dataclass(frozen=True, slots=True)
class MapPage:
    """One answer of a listing; ``next_token`` is "" on the last."""

    maps: Sequence[MapInfo]
    sources: Sequence[str]
    not_looked_at: Sequence[str]
    next_token: str

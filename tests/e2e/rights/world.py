"""Maps, principals and the policy that the matrix is about. Maps are made past the daemon, by the kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import tomllib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mapd.bpf import Buffer, Columns, CreateMap, LoadBtf, OpenPin, OwnedFd, Pin, Unpin, possible_cpus
from mapd_api.layout import value_stride
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from mapd_api.v1.types_pb2 import MapRef
from tests.e2e.rights.agents import User
from tests.support import spinlock
from tests.support.daemon import Place
from tests.support.pinned import KERNEL, Snapshot, read_open
from tests.unit.mapd.access.reference import Map, Reference

T = MapType
INSIDE: Final = bytes.fromhex("0a00000000000001")
OUTSIDE: Final = bytes.fromhex("0b00000000000001")
ABSENT: Final = bytes.fromhex("0a000000000000ff")
ROUTE: Final = bytes.fromhex("180000000a000000")
LEASE_MS: Final = 86_400_000
VALUE: Final = bytes.fromhex("0102030405060708")


@dataclass(frozen=True, slots=True)
class Shape:
    """How a map is made and what is in it."""

    type: T
    key_size: int = 8
    value_size: int = 8
    keys: tuple[bytes, ...] = (INSIDE, OUTSIDE)
    flags: int = 0

    @property
    def value(self) -> bytes:
        """What each key has, on the wire."""
        stride = value_stride(self.type, self.value_size, possible_cpus())
        return (VALUE * (stride // 8 + 1))[:stride] if self.type != T.ARRAY_OF_MAPS else b""


HASH = Shape(T.HASH)
FIRST, SECOND = bytes(4), bytes([1, 0, 0, 0])
SHAPES: Final = {
    "hash": HASH,
    "percpu": Shape(T.PERCPU_HASH),
    "lpm": Shape(T.LPM_TRIE, keys=(ROUTE,), flags=int(MapFlag.NO_PREALLOC)),
    "queue": Shape(T.QUEUE, 0, keys=(b"", b"")),
    "bloom": Shape(T.BLOOM_FILTER, 0, keys=(b"",)),
    "locked": Shape(T.HASH, 4, 16, keys=(FIRST,)),
    "nested": Shape(T.ARRAY_OF_MAPS, 4, 4, keys=()),
}


@dataclass(slots=True)
class Known:
    """One map of the world: where it is reached, and what it is."""

    label: str
    shape: Shape
    names: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    fd: OwnedFd | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """A way to a map, and an element of it.

    Attributes:
        ref: how a request names it.
        of: None: nothing is there.
    """

    label: str
    ref: MapRef
    of: Known | None
    key: bytes
    like: Shape

    @property
    def by_id(self) -> bool:
        """Whether another right is asked for."""
        return bool(self.ref.WhichOneof("ref") == "id")

    @property
    def by_handle(self) -> bool:
        """Whether it is one that the owner has open."""
        return bool(self.ref.WhichOneof("ref") == "handle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of caller.

    Attributes:
        principal: whose socket it tries; also who it is, if it is let in.
        refused: by what all its calls shall be, "" if by nothing: KERNEL at connect(), TLS at the handshake, NOBODY
            for a certificate that is no principal's, GONE for a principal that the policy has no more.
        mounts: it reaches the socket by a mount of its own.
        certificate: it comes by TCP, and shows this one; NO_CERTIFICATE: none.
    """

    name: str
    principal: str
    user: User
    refused: str = ""
    mounts: bool = False
    certificate: str = ""

    @property
    def admitted(self) -> bool:
        """Whether it is let in."""
        return not self.refused


KERNEL_REFUSES, TLS_REFUSES, NOBODY, GONE = "the kernel", "the handshake", "the daemon", "its removal"
NO_CERTIFICATE: Final = "none"
REMOTE: Final = "spiffe://example.org/ns/net/sa/remote"


def by_tcp(name: str, certificate: str, refused: str = "") -> Kind:
    """A caller with a certificate."""
    return Kind(
        name=name,
        principal="remote",
        user=User(uid=70020, gid=70020),
        refused=refused,
        certificate=certificate,
    )


KINDS: Final = (
    Kind(name="admin", principal="admin", user=User()),
    Kind(name="owner of the namespace", principal="team", user=User(uid=70001, gid=70001)),
    Kind(name="other uid", principal="team", user=User(uid=70099, gid=70099), refused=KERNEL_REFUSES),
    Kind(name="by its gid", principal="crew", user=User(uid=70002, gid=71002)),
    Kind(name="other gid", principal="crew", user=User(uid=70003, gid=71003), refused=KERNEL_REFUSES),
    Kind(name="by a supplementary gid", principal="crew", user=User(uid=70004, gid=70004, groups=(71002,))),
    Kind(name="mount grant", principal="box", user=User(uid=70005, gid=70005), mounts=True),
    Kind(name="no mount", principal="box", user=User(uid=70005, gid=70005), refused=KERNEL_REFUSES),
    Kind(name="read-only", principal="viewer", user=User(uid=70006, gid=70006)),
    Kind(name="write-only", principal="writer", user=User(uid=70007, gid=70007)),
    Kind(name="key-filtered", principal="keys", user=User(uid=70008, gid=70008)),
    Kind(name="namespace of another", principal="neighbour", user=User(uid=70009, gid=70009)),
    Kind(name="list-less", principal="blind", user=User(uid=70010, gid=70010)),
    Kind(name="denied by a second name", principal="twofold", user=User(uid=70011, gid=70011)),
    Kind(name="no rules at all", principal="nobody", user=User(uid=70012, gid=70012)),
    Kind(name="by id alone", principal="numbers", user=User(uid=70013, gid=70013)),
    Kind(name="denied some keys", principal="most", user=User(uid=70014, gid=70014)),
    by_tcp("certificate", "good"),
    by_tcp("certificate of another authority", "foreign", TLS_REFUSES),
    by_tcp("no certificate", NO_CERTIFICATE, TLS_REFUSES),
    by_tcp("expired certificate", "expired", TLS_REFUSES),
    by_tcp("two SPIFFE ids", "two", NOBODY),
    by_tcp("common name alone", "cn", NOBODY),
    by_tcp("identity of nobody", "stranger", NOBODY),
    Kind(name="removed by a reload", principal="leaver", user=User(uid=70015, gid=70015)),
)

POLICY: Final = """
contact = "netops@example.org"

[principals.team]
users = [70001]
[principals.crew]
namespace = "team"
groups = [71002]
[principals.box]
grant = "mount"
[principals.viewer]
users = [70006]
[principals.writer]
users = [70007]
[principals.keys]
users = [70008]
[principals.neighbour]
namespace = "other"
users = [70009]
[principals.blind]
users = [70010]
[principals.twofold]
users = [70011]
[principals.nobody]
users = [70012]
[principals.numbers]
users = [70013]
[principals.most]
users = [70014]
[principals.remote]
tls = ["{remote}"]
[principals.leaver]
users = [70015]

[[rules]]
name = "own"
who = ["team", "neighbour", "leaver"]
role = "owner"
owners = ["self"]

[[rules]]
name = "crew"
who = ["crew"]
role = "operator"
names = ["team/*"]

[[rules]]
name = "box"
who = ["box"]
verbs = ["list", "read", "write"]
pins = ["{bpffs}/foreign/*"]
types = ["hash"]

[[rules]]
name = "viewer"
who = ["viewer"]
role = "viewer"
names = ["team/*", "other/*"]

[[rules]]
name = "viewer-foreign"
who = ["viewer"]
role = "viewer"
pins = ["{bpffs}/foreign/**"]

[[rules]]
name = "remote"
who = ["remote"]
verbs = ["list", "read", "delete"]
names = ["team/*"]
types = ["hash", "queue"]

[[rules]]
name = "writer"
who = ["writer"]
verbs = ["list", "write", "create"]
names = ["team/*"]

[[rules]]
name = "keys"
who = ["keys"]
verbs = ["list", "read", "write", "delete"]
names = ["team/*"]
key_prefixes = ["0a", "180000000a"]

[[rules]]
name = "blind"
who = ["blind"]
verbs = ["read", "write", "delete", "pin", "freeze"]
names = ["team/*"]
pins = ["{bpffs}/**"]

[[rules]]
name = "twofold"
who = ["twofold"]
role = "owner"
names = ["team/*"]

[[rules]]
name = "twofold-denied"
effect = "deny"
who = ["twofold"]
role = "admin"
names = ["secret/*"]

[[rules]]
name = "numbers"
who = ["numbers"]
role = "admin"
every_map = true

[[rules]]
name = "numbers-without"
effect = "deny"
who = ["numbers"]
verbs = ["write", "create", "freeze"]
names = ["*/*"]

[[rules]]
name = "most"
who = ["most"]
role = "admin"
names = ["team/*"]

[[rules]]
name = "most-without"
effect = "deny"
who = ["most"]
verbs = ["read", "write", "delete"]
names = ["team/*"]
key_prefixes = ["0b"]
"""


def lease_of(pin: str) -> str:
    """The lease, "namespace/id", that a pin is in, or ""."""
    _, _, place = pin.partition("/_leases/")
    parts = place.split("/")
    return f"{parts[0]}/{parts[1].rpartition('-')[0]}" if len(parts) == 3 else ""


def leases_of(pins: tuple[str, ...]) -> tuple[str, ...]:
    """The namespaces of the leases that these pins are in."""
    return tuple(lease.partition("/")[0] for pin in pins if (lease := lease_of(pin)))


def make(shape: Shape) -> OwnedFd:
    """A map of this shape, with its elements."""
    request = CreateMap(
        map_type=shape.type,
        key_size=shape.key_size,
        value_size=shape.value_size,
        max_entries=8,
        flags=shape.flags,
        kernel_name="rights",
    )
    if shape.type == T.ARRAY_OF_MAPS:
        with make(HASH) as inner, inner.lease() as number:
            return KERNEL.control(dataclasses.replace(request, with_inner=True), [number])
    if shape is SHAPES["locked"]:
        with KERNEL.control(LoadBtf(blob=spinlock.btf())) as btf, btf.lease() as number:
            typed = dataclasses.replace(
                request,
                with_btf=True,
                btf_key_type_id=spinlock.KEY_TYPE,
                btf_value_type_id=spinlock.VALUE_TYPE,
            )
            owned = KERNEL.control(typed, [number])
    else:
        owned = KERNEL.control(request)
    return owned


def fill(shape: Shape, map_fd: int) -> None:
    """Put its elements there, and take away what else is."""
    op = {T.QUEUE: Op.PUSH, T.BLOOM_FILTER: Op.ADD}.get(shape.type, Op.UPDATE)
    for number, key in enumerate(shape.keys):
        # Each its own, so that a queue that lost its head is seen.
        value = Buffer.of(bytes([number]) + shape.value[1:] if shape.type == T.QUEUE else shape.value)
        columns = Columns(1, Buffer.of(key), shape.key_size, value, len(shape.value))
        assert KERNEL.each(map_fd, op, columns) == [0]


@dataclass(slots=True)
class World:
    """All maps, and the ways to them."""

    place: Place
    maps: dict[str, Known] = field(default_factory=dict[str, Known])
    handle: int = 0
    """The owner's, of its own map."""

    @property
    def policy(self) -> str:
        """The file."""
        return POLICY.replace("{bpffs}", str(self.place.bpffs)).replace("{remote}", REMOTE)

    @property
    def policy_without_leaver(self) -> str:
        """The same after a change: one principal less."""
        table = "[principals.leaver]\nusers = [70015]\n"
        return self.policy.replace(table, "").replace(', "leaver"]', "]")

    @property
    def rules(self) -> dict[str, Any]:
        """The file, as a dictionary."""
        return tomllib.loads(self.policy)

    def reference(self, without: str = "") -> Reference:
        """What the file means; ``without`` a principal that a reload has removed."""
        said = self.rules
        namespaces = {
            name: table.get("namespace", name)
            for name, table in said["principals"].items()
            if name != without
        }
        return Reference(said["rules"], namespaces)

    def namespace(self, principal: str) -> str:
        """Of names that it gives without one."""
        table: dict[str, Any] = self.rules["principals"].get(principal, {})
        return str(table.get("namespace", principal))

    def path(self, name: str) -> str:
        """Where a name is pinned."""
        return f"{self.place.names}/{name}"

    def subject(self, known: Known) -> Map:
        """A map as the reference takes it."""
        pins = (*(self.path(name) for name in known.names), *known.pins)
        return Map(known.shape.type, known.shape.key_size, known.names, pins, leases_of(pins))

    def add(self, label: str, shape: str, *names: str, pins: tuple[str, ...] = ()) -> None:
        """One map more."""
        known = Known(label, SHAPES[shape], names, tuple(f"{self.place.bpffs}/{pin}" for pin in pins))
        self.maps[label] = known
        self.build(known)

    def build(self, known: Known) -> None:
        """Make it, and give it its names; in place of what had them."""
        if known.fd is not None:
            known.fd.close()
        known.fd = make(known.shape)
        with known.fd.lease() as number:
            fill(known.shape, number)
            known.id = KERNEL.info(number).id
            for path in (*(self.path(name) for name in known.names), *known.pins):
                Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    KERNEL.control(Unpin(root=str(self.place.bpffs), path=path))
                KERNEL.control(Pin(root=str(self.place.bpffs), path=path), [number])

    def unpin(self, path: str) -> None:
        """Take a pin away, or an empty folder."""
        if Path(path).is_dir():
            Path(path).rmdir()
        else:
            KERNEL.control(Unpin(root=str(self.place.bpffs), path=path))

    def pins(self) -> dict[str, int]:
        """Every pin and folder there is, and the map that it leads to."""
        found: dict[str, int] = {}
        # The kernel's own files have a '.', which no pin has.
        for path in sorted(path for path in self.place.bpffs.rglob("*") if "." not in path.name):
            found[str(path)] = 0
            if not path.is_dir():
                request = OpenPin(root=str(self.place.bpffs), path=str(path), read_only=True)
                with KERNEL.control(request) as owned, owned.lease() as number:
                    found[str(path)] = KERNEL.info(number).id
        return found

    def contents(self) -> dict[str, Snapshot]:
        """Every map of the world: what it is and what it holds."""
        found: dict[str, Snapshot] = {}
        for known in self.maps.values():
            assert known.fd is not None
            with known.fd.lease() as number:
                found[known.label] = read_open(number)
                if known.shape.type == T.QUEUE:
                    head = Columns(1, Buffer.of(b""), 0, Buffer.allocate(8), 8)
                    assert KERNEL.each(number, Op.PEEK, head) == [0]
                    assert head.values is not None
                    found[known.label] = Snapshot(found[known.label].info, {b"": head.values.take(8)})
        return found

    def close(self) -> None:
        """Let go of all maps."""
        for known in self.maps.values():
            if known.fd is not None:
                known.fd.close()

    def resources(self) -> list[Resource]:
        """Every way to every map."""
        maps, bpffs = self.maps, self.place.bpffs

        def of(
            label: str, name: str = "", *, pin: str = "", number: int = 0, key: bytes | None = None
        ) -> Resource:
            known = maps.get(label)
            shape = known.shape if known else HASH
            ref = MapRef(name=name) if name else MapRef(pin=pin) if pin else MapRef(id=number)
            if not (name or pin or number):
                ref = MapRef(handle=self.handle)
            what = f"{label} by {ref.WhichOneof('ref')} {name}".strip()
            if key is None:
                key = shape.keys[0] if shape.keys else FIRST
            elif key == OUTSIDE:
                what += ", a key outside"
            return Resource(what, ref, known, key, shape)

        return [
            of("own map", "team/flows"),
            of("own map", "team/flows", key=OUTSIDE),
            of("own map", pin=self.path("team/flows")),
            of("own map", number=maps["own map"].id),
            of("own map"),
            of("another's map", "other/flows"),
            of("foreign pin", pin=f"{bpffs}/foreign/tracer"),
            of("map without a name", number=maps["map without a name"].id),
            of("map of two names", "team/public"),
            of("map of two names", "secret/alias"),
            of("trie", "team/routes"),
            of("queue", "team/jobs"),
            of("per-CPU map", "team/stats"),
            of("Bloom filter", "team/seen"),
            of("map with a lock", "team/locked"),
            of("map of maps", "team/nested"),
            of("missing", "team/missing"),
            of("missing", "other/missing"),
            of("missing", "secret/missing"),
            of("missing", pin=f"{bpffs}/foreign/missing"),
            of("missing", pin=self.path("team/missing")),
            of("missing", pin=self.path(f"_leases/team/none-{LEASE_MS}ms/map")),
            of("leased map", pin=self.path(f"_leases/team/job-{LEASE_MS}ms/map")),
            of("missing", number=0x7FFF_FFF0),
        ]


@contextlib.contextmanager
def made_world(place: Place) -> Generator[World]:
    """All maps, before any daemon."""
    world = World(place)
    place.names.mkdir(mode=0o700, exist_ok=True)
    try:
        world.add("own map", "hash", "team/flows")
        world.add("another's map", "hash", "other/flows")
        world.add("foreign pin", "hash", pins=("foreign/tracer",))
        world.add("map without a name", "hash")
        world.add("map of two names", "hash", "team/public", "secret/alias")
        world.add("leased map", "hash", pins=(f"mapd/_leases/team/job-{LEASE_MS}ms/map",))
        world.add("trie", "lpm", "team/routes")
        world.add("queue", "queue", "team/jobs")
        world.add("per-CPU map", "percpu", "team/stats")
        world.add("Bloom filter", "bloom", "team/seen")
        world.add("map with a lock", "locked", "team/locked")
        world.add("map of maps", "nested", "team/nested")
        yield world
    finally:
        world.close()

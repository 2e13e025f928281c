"""What a front that was taken over may send: valid messages, and those changed in every way that a byte can be."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mapd.bpf.kernel import (
    ControlRequest,
    CreateMap,
    FreezeMap,
    GetBtf,
    ListFolder,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    RemoveFolder,
    Rename,
    StampFolders,
    Unpin,
)
from mapd.bpf.templates import IN_SCRATCH, Template
from mapd.opener import forms
from mapd.opener.wire import HEADER, PACKET_BYTES
from mapd_api.uapi import MapFlag, MapType

NAME: Final = "mapd_fuzz"
"""Begins the kernel names of all maps that are asked for."""

_WEIRD: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    8,
    2**31,
    2**32 - 1,
    2**32,
    2**64 - 1,
    2**64,
    10**30,
    1.5,
    1e308,
    "",
    "/",
    "..",
    "\0",
    "a\0b",
    "\ud800",
    "/etc/passwd",
    "/proc/self/mem",
    "x" * 300,
    "x" * 9_000,
    [],
    {},
    [[]],
    {"a": 1},
    "Pickle",
    "ProgramInfo",
    "__class__",
)


_SHAPES: Final = tuple(
    CreateMap(
        map_type=kind, key_size=key, value_size=value, max_entries=entries, flags=int(flags), with_inner=inner
    )
    for kind, key, value, entries, flags, inner in (
        (MapType.HASH, 4, 8, 16, MapFlag(0), False),
        (MapType.HASH, 16, 100, 64, MapFlag.NO_PREALLOC, False),
        (MapType.ARRAY, 4, 8, 16, MapFlag.MMAPABLE, False),
        (MapType.PERCPU_ARRAY, 4, 8, 16, MapFlag(0), False),
        (MapType.LRU_HASH, 4, 8, 16, MapFlag(0), False),
        (MapType.LPM_TRIE, 8, 8, 16, MapFlag.NO_PREALLOC, False),
        (MapType.QUEUE, 0, 8, 16, MapFlag(0), False),
        (MapType.BLOOM_FILTER, 0, 8, 16, MapFlag(0), False),
        (MapType.RINGBUF, 0, 0, 4096, MapFlag(0), False),
        (MapType.PROG_ARRAY, 4, 4, 4, MapFlag(0), False),
        (MapType.HASH_OF_MAPS, 4, 4, 4, MapFlag(0), True),
        (MapType.DEVMAP, 4, 4, 4, MapFlag(0), False),
    )
)
_NUMBERS: Final = ("map_type", "key_size", "value_size", "max_entries", "flags", "btf_vmlinux_value_type_id")
_SIZES: Final = (
    "key_size",
    "value_size",
    "map_type",
    "cpus",
    "slots",
    "slot_bytes",
    "field_size",
    "field_offset",
)


@dataclass(slots=True)
class Packet:
    """What is sent at once: a packet and descriptors beside it."""

    data: bytes
    fds: Sequence[int] = field(default_factory=tuple)


@dataclass(slots=True)
class Lies:
    """Makes messages, the same ones for the same seed.

    Args:
        root: of the opener; ``paths`` are below it, and outside it.
        fds: by kind, descriptors of all that one can be of.
    """

    seed: int
    root: str
    paths: Sequence[str]
    fds: dict[str, int]
    random: random.Random = field(init=False)
    _owned: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        """Begin."""
        self.random = random.Random(self.seed)  # noqa: S311 - the same each time

    def packet(self, number: int) -> Packet:
        """The next one; ``number`` is what a message that has a header asks to be answered with."""
        way = self.random.choices(_WAYS, _WEIGHTS)[0]
        return way(self, number)

    def close(self) -> None:
        """Close what the last packet was made with."""
        while self._owned:
            os.close(self._owned.pop())

    # ---- requests ------------------------------------------------------------------------------

    def request(self) -> ControlRequest[Any]:
        """One that could be meant well."""
        pick = self.random.choice
        path, other = pick(self.paths), pick(self.paths)
        root = self.root if self.random.random() < 0.9 else pick((path, "/", "", "/etc", self.root + "/"))
        makers: tuple[Callable[[], ControlRequest[Any]], ...] = (
            self.create,
            self.create,
            lambda: OpenPin(root=root, path=path, read_only=pick((True, False))),
            lambda: OpenId(map_id=self.random.getrandbits(32), read_only=pick((True, False))),
            lambda: Pin(root=root, path=path, mkdir=pick((True, False))),
            lambda: Unpin(root=root, path=path),
            lambda: Rename(root=root, path=path, new_path=other, mkdir=pick((True, False))),
            lambda: MakeFolder(root=root, path=path),
            lambda: RemoveFolder(root=root, path=path),
            lambda: ListPins(root=root),
            lambda: ListFolder(root=root, path=path),
            lambda: StampFolders(root=root, paths=(path, other) * self.random.randrange(4)),
            lambda: NextMapId(map_id=self.random.getrandbits(32)),
            lambda: OpenProgramId(prog_id=self.random.getrandbits(32)),
            lambda: OpenProgramPin(root=root, path=path),
            lambda: NextProgramId(prog_id=self.random.getrandbits(32)),
            lambda: LoadBtf(blob=self.random.randbytes(self.random.randrange(200))),
            self.template,
            FreezeMap,
            lambda: GetBtf(btf_id=0x7000_0000 + self.random.getrandbits(20)),
            ListHolders if self.random.random() < 0.02 else FreezeMap,
        )
        return pick(makers)()

    def create(self) -> CreateMap:
        """A small map; half of them with fields beyond what its type, or any limit, takes."""
        pick = self.random.choice
        made = replace(pick(_SHAPES), kernel_name=NAME)
        for _ in range(pick((0, 0, 1, 2))):
            other: dict[str, Any] = {
                pick(_NUMBERS): pick((0, 1, 3, 4096, 2**31, 2**32 - 1, self.random.getrandbits(32)))
            }
            made = replace(made, **other)
        if self.random.random() < 0.1:
            made = replace(
                made, numa_node=pick((0, self.random.getrandbits(32))), map_extra=self.random.getrandbits(64)
            )
        if self.random.random() < 0.1:
            made = replace(
                made, with_btf=True, btf_key_type_id=pick((0, 1)), btf_value_type_id=pick((0, 1, 9))
            )
        if self.random.random() < 0.05:
            made = replace(made, exclusive_program_hash=self.random.randbytes(32))
        return made

    def template(self) -> LoadTemplate:
        """For the maps of the fuzz, hashes of (4, 8) bytes, and for the scratch; half of them with other sizes."""
        pick = self.random.choice
        made = LoadTemplate(
            template=pick((*Template, *Template, "exit", "")),
            key_size=4,
            value_size=8,
            map_type=MapType.HASH,
            slots=1,
            slot_bytes=4096,
            field_size=8,
        )
        if made.template not in IN_SCRATCH:
            made = replace(made, slots=0, slot_bytes=0, field_size=0)
        for _ in range(pick((0, 0, 1, 2))):
            other: dict[str, Any] = {pick(_SIZES): pick((0, 1, 4, 8, 4096, self.random.getrandbits(32)))}
            made = replace(made, **other)
        return made

    def some_fds(self, request: ControlRequest[Any] | None = None) -> list[int]:
        """Descriptors: those that the request takes, or any."""
        kinds = [kind for kind in self.fds if kind != "map" or not isinstance(request, FreezeMap)]
        if request is not None and self.random.random() < 0.7:
            match request:
                case LoadTemplate():
                    wanted = [self.random.choice(("map", "map", "read-only map", "frozen map"))]
                    if request.template in IN_SCRATCH or self.random.random() < 0.1:
                        wanted.append(self.random.choice(("scratch", "scratch", "read-only scratch", "map")))
                    return [self.fds[kind] for kind in wanted]
                case Pin():
                    return [self.fds[self.random.choice(("read-only map", "map", "btf"))]]
                case FreezeMap():
                    return [self.fds[self.random.choice(("read-only map", "to be frozen", "btf"))]]
                case CreateMap(with_inner=inner, with_btf=btf):
                    return [self.fds["map"]] * inner + [self.fds["btf"]] * btf
                case _:
                    return []
        return [
            self.fds[self.random.choice(kinds)] for _ in range(self.random.choice((0, 0, 1, 1, 2, 3, 4, 9)))
        ]

    # ---- messages ------------------------------------------------------------------------------

    def whole(self, number: int, text: bytes, raw: bytes, fds: Sequence[int]) -> Packet:
        """As ``wire.Message`` would send it."""
        if HEADER.size + len(text) + len(raw) <= PACKET_BYTES and self.random.random() < 0.95:
            return Packet(HEADER.pack(number, len(text), len(raw), 0) + text + raw, fds)
        return Packet(HEADER.pack(number, len(text), len(raw), 1), [*fds, self.memfd(text + raw, seals=0xF)])

    def memfd(self, content: bytes, seals: int) -> int:
        """A memfd with that in it, and so sealed."""
        made = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._owned.append(made)
        os.write(made, content)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
        return made

    def valid(self, number: int) -> Packet:
        """A request as it should be."""
        request = self.request()
        text, raw = forms.put_request(request)
        return self.whole(number, text, raw, self.some_fds(request))

    def lying_header(self, number: int) -> Packet:
        """Lengths and flags of another message."""
        packet = self.valid(number)
        words = list(HEADER.unpack_from(packet.data))
        words[self.random.randrange(1, 4)] = self.random.choice(
            (0, 1, 2, 15, 0xFFFF, 2**31, 2**32 - 1, self.random.getrandbits(32))
        )
        return Packet(HEADER.pack(*words) + packet.data[HEADER.size :], packet.fds)

    def lying_memfd(self, number: int) -> Packet:
        """A body that can still be changed, is shorter or longer than said, or no file at all."""
        text, raw = forms.put_request(self.request())
        said = len(text) + self.random.choice((0, 0, 1, -1, 5_000))
        if self.random.random() < 0.5:
            body = self.memfd(text + raw, self.random.randrange(16))
        else:
            body = self.random.choice(list(self.fds.values()))
        return Packet(HEADER.pack(number, max(said, 0), len(raw), 1), [*self.some_fds(), body])

    def flipped(self, number: int) -> Packet:
        """Some bytes of the text are others."""
        packet = self.valid(number)
        data = bytearray(packet.data)
        for _ in range(self.random.randrange(1, 5)):
            if len(data) > HEADER.size:
                data[self.random.randrange(HEADER.size, len(data))] = self.random.getrandbits(8)
        return Packet(bytes(data), packet.fds)

    def cut(self, number: int) -> Packet:
        """The beginning of a message, or a message and more."""
        packet = self.valid(number)
        if self.random.random() < 0.5:
            return Packet(packet.data[: self.random.randrange(len(packet.data) + 1)], packet.fds)
        return Packet(packet.data + self.random.randbytes(self.random.randrange(1, 100)), packet.fds)

    def twisted(self, number: int) -> Packet:
        """JSON, with something else where a value should be."""
        request = self.request()
        text, raw = forms.put_request(request)
        name, fields = json.loads(text)
        match self.random.randrange(5):
            case 0 if fields:
                fields[self.random.choice(list(fields))] = self.random.choice(_WEIRD)
            case 1 if fields:
                del fields[self.random.choice(list(fields))]
            case 2:
                fields[self.random.choice(("fd", "code", "__class__", "root", "blob"))] = self.random.choice(
                    _WEIRD
                )
            case 3:
                name = self.random.choice((*(kind.__name__ for kind in forms.FORMS), *_WEIRD))
            case _:
                fields = self.random.choice(_WEIRD)
        if self.random.random() < 0.05:
            raw += b"more"
        return self.whole(number, json.dumps([name, fields]).encode(), raw, self.some_fds(request))

    def deep(self, number: int) -> Packet:
        """JSON that no parser likes."""
        size = self.random.choice((10, 1_000, 100_000))
        text = self.random.choice(
            (b"[" * size, b'{"a":' * size, b"9" * size, b'"' + b"\\u0000" * size, b"[NaN]")
        )
        return self.whole(number, text, b"", self.some_fds())

    def noise(self, number: int) -> Packet:
        """Anything at all, of any length."""
        del number
        return Packet(
            self.random.randbytes(self.random.choice((0, 0, 1, 15, 16, 17, 100, 20_000))), self.some_fds()
        )


_MIX: Final = (
    (Lies.valid, 30),
    (Lies.lying_header, 8),
    (Lies.lying_memfd, 8),
    (Lies.flipped, 15),
    (Lies.cut, 12),
    (Lies.twisted, 20),
    (Lies.deep, 2),
    (Lies.noise, 5),
)
_WAYS: Final = [way for way, _ in _MIX]
_WEIGHTS: Final = [weight for _, weight in _MIX]


def send(sock: socket.socket, packet: Packet) -> bool:
    """Send it as it is; whether it will be answered: what has a header is."""
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(packet.fds)}i", *packet.fds))]
        if packet.fds
        else []
    )
    sock.sendmsg([packet.data], ancillary)
    return len(packet.data) >= HEADER.size


def kinds_of_fds(stack: ExitStack) -> dict[str, int]:
    """One descriptor of each kind that is no BPF object, closed with the stack."""
    here, there = socket.socketpair()
    reading, writing = os.pipe()
    found = {
        "null": os.open("/dev/null", os.O_RDWR),
        "zero": os.open("/dev/zero", os.O_RDONLY),
        "folder": os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        "path": os.open("/", os.O_PATH),
        "file": os.open("/proc/self/status", os.O_RDONLY),
        "memfd": os.memfd_create("fuzz"),
        "event": os.eventfd(0),
        "reading": reading,
        "writing": writing,
        "socket": here.detach(),
        "other socket": there.detach(),
    }
    for fd in found.values():
        stack.callback(os.close, fd)
    return found

"""Where mapctl knows a map's types from, and how it shows and takes keys and values by them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

from cyclopts import Parameter

from mapd_api.layout import round_up8
from mapd_client.btf import Types
from mapd_client.cli import literals
from mapd_client.client import Client
from mapd_client.codec import Codec
from mapd_client.errors import DaemonCapability, MapdError, Misuse, NoTypeInfo, PermissionDenied, Unsupported
from mapd_client.info import Btf, ByteOrder, MapInfo
from mapd_client.layouts import Integer, Layout, MapLayout, Opaque, Record
from mapd_client.map import Map
from mapd_client.records import Records, Wide
from mapd_client.records.bpftool import Bpftool
from mapd_client.records.reading import from_json
from mapd_client.typed.compiling import codec_of
from mapd_client.typed.hints import resolve
from mapd_client.typed.hintsfile import load_hints
from mapd_client.typed.view import of_btf

_RAW: Final = re.compile(r"hex:|0x|[ui](8|16|32|64):", re.IGNORECASE)
"""How a literal begins that says its bytes, or its type, by itself."""

_NUMBERS: Final = (4, 8)
"""Bytes of what is shown as a number too, where nothing is known of it."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Source:
    """What the user says of a map's types.

    Attributes:
        btf: a BTF file (/sys/kernel/btf/vmlinux, or an object's .BTF) to look for --key-type and --value-type in.
        elf: an object file that declares the map: FILE, or FILE:MAP where its name is another.
        key_type: a type's name in the BTF file.
        value_type: likewise.
        as_: what a field is, PATH=CODEC: key.saddr=ipv4; also ipv6, cidr4, cidr6, mac, port, ktime, ktime_boot,
            ifindex and cgroup_id.
        hints: a file that says it for many maps (TOML).
        strings: integers of 8 bytes as strings, for readers that round numbers beyond 2^53.
    """

    btf: Path | None = None
    elf: str | None = None
    key_type: str | None = None
    value_type: str | None = None
    as_: Annotated[Sequence[str], Parameter(name="--as", negative="")] = ()
    hints: Path | None = None
    strings: Annotated[bool, Parameter(name="--json-safe-ints", negative="")] = False


@dataclass(frozen=True, slots=True)
class Shown:
    """How one map's elements are shown and taken.

    Attributes:
        records: as JSON.
        btf: what the map was created with; None where there is none, or none to be had.
        known: whether key and value are known by a type or a hint.
        why: why not; "" where both are.
    """

    info: MapInfo
    records: Records
    btf: Btf | None
    known: Mapping[str, bool]
    why: str
    _byteorder: ByteOrder
    _layouts: Mapping[str, Layout | None]
    _codecs: Mapping[str, Codec[Any]]
    _hints: Mapping[str, Codec[Any]]

    @property
    def note(self) -> str:
        """A line for who sees hex digits; "" where there are none, or a number beside them."""
        sizes = {"key": self.info.key_size, "value": self.info.value_size}
        hidden = [side for side, size in sizes.items() if not self.known[side] and size not in (0, *_NUMBERS)]
        if not hidden:
            return ""
        what = " and ".join(f"{side}s" for side in hidden)
        return (
            f"mapctl: {what} as hex: {self.why}; give the types with --elf FILE or --btf FILE, or say what they are: "
            f"--as {hidden[0]}=ipv4\n"
        )

    def rows(self, keys: bytes | memoryview, values: bytes | memoryview, count: int) -> Iterable[str]:
        """A line for people for each element."""
        info = self.info
        texts = self.records.texts(keys, values, count)
        shown: list[Iterable[str]] = []
        for side, column, size in (("key", keys, info.key_size), ("value", values, info.value_size)):
            if self.known[side]:
                shown.append(texts[side])
            else:
                slots = info.slots() if side == "value" and info.per_cpu else None
                shown.append(_digits(column, count, size, slots, self._byteorder))
        return [f"{key}  {value}\n" for key, value in zip(*shown, strict=True)]

    def bpftool(self, file: TextIO) -> Callable[[bytes | memoryview, bytes | memoryview, int], None]:
        """Begins the list that ``bpftool -j map dump`` prints; writes elements to it. Its end is the caller's."""
        printer = Bpftool(self.info, self.btf, self._byteorder)
        before = "["

        def write(keys: bytes | memoryview, values: bytes | memoryview, count: int) -> None:
            nonlocal before
            for one in printer.objects(keys, values, count):
                file.write(before + one)
                before = ","

        file.write(before)
        before = ""
        return write

    def key(self, text: str) -> bytes:
        """The bytes of a key as it is typed; raises Misuse."""
        return self._bytes("key", text, literals.parse_key)

    def value(self, text: str) -> bytes:
        """The bytes of a value; in a per-CPU map every CPU gets it. Raises Misuse."""
        data = self._bytes("value", text, literals.parse_value)
        if self.info.per_cpu and len(data) == self.info.value_size != self.info.value_stride:
            return data.ljust(round_up8(len(data)), b"\0") * self.info.slots()
        return data

    def _bytes(self, side: str, text: str, literal: Callable[[str, MapInfo, ByteOrder], bytes]) -> bytes:
        layout, codec = self._layouts[side], self._codecs[side]
        if text.startswith(("{", "[", "json:")):
            value = _json(text.removeprefix("json:"))
            return codec.encode(from_json(layout or Opaque(size=codec.size), value, self._hints, side))
        if not self.known[side] or _RAW.match(text):
            return literal(text, self.info, self._byteorder)
        try:
            if isinstance(layout, Record) and side not in self._hints:
                shape = ", ".join(f'"{one.name}": ...' for one in layout.named() if one.name)
                raise Misuse(f"{text!r}: a {side} of this map is written {{{shape}}}, or hex:...")
            return codec.encode(int(text) if re.fullmatch(r"-?[0-9]{1,40}", text, re.ASCII) else text)
        except Misuse:
            with suppress(Misuse):
                data = literal(text, self.info, self._byteorder)  # 10.0.0.0/8, whatever its fields are called
                if not re.fullmatch(r"-?[0-9]+", text):
                    return data
            raise


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Misuse(f"{text!r} is no JSON: {error}") from None


def _digits(
    column: bytes | memoryview, count: int, size: int, slots: int | None, byteorder: ByteOrder
) -> Iterable[str]:
    """Hex digits, with the number that they may be."""
    slot, cpus = (size, 1) if slots is None else (round_up8(size), slots)
    data = bytes(column)
    for at in range(count):
        cells = [
            data[start : start + size] for start in range(at * cpus * slot, (at + 1) * cpus * slot, slot or 1)
        ]
        yield " ".join(
            f"{cell.hex()} ({int.from_bytes(cell, byteorder)})" if size in _NUMBERS else cell.hex()
            for cell in cells
        )


async def shown_by(opened: Map[Any, Any], client: Client, source: Source) -> Shown:
    """How the elements of a map are shown, by what the user says or else by the map's own BTF.

    Raises:
        Misuse: a file that says nothing of this map, a hint for no field.
    """
    info, server = opened.info, await client.server_info()
    btf, why = None, "the map was created without type information (BTF)"
    if info.btf_id:
        try:
            btf = await opened.btf()
        except (Unsupported, DaemonCapability, PermissionDenied) as error:
            why = f"the daemon does not give the map's type information: {error}"
    layout = _by_source(source, info)
    if layout is None and btf is not None:
        try:
            layout = of_btf(btf, info)
        except MapdError as error:
            why = f"its type information cannot be read: {error}"
    given = {} if source.hints is None else load_hints(source.hints).for_map(info)
    hints = dict(await client.known_hints({**given, **dict(map(_hint, source.as_))}))
    wide: Wide = "string" if source.strings else "number"
    records = Records(info, layout, byteorder=server.byteorder, hints=hints, wide=wide)
    layouts = {"key": layout.key if layout else None, "value": layout.value if layout else None}
    sizes = {"key": info.key_size, "value": info.value_size}
    codecs = {
        side: codec_of(one or Opaque(size=sizes[side]), hints=hints, path=side).bind(server.byteorder, 1)
        for side, one in layouts.items()
    }
    known = {side: one is not None or side in hints for side, one in layouts.items()}
    if btf is not None and not all(known.values()):
        why = why if layout is None else f"{layout.source} says nothing of them"
    return Shown(info, records, btf, known, why, server.byteorder, layouts, codecs, hints)


def _hint(text: str) -> tuple[str, Codec[Any]]:
    path, equals, name = text.partition("=")
    if not equals or path.split(".")[0] not in ("key", "value"):
        raise Misuse(f"--as {text!r}: write FIELD=CODEC, as in key.saddr=ipv4 or value=mac")
    return path, resolve(name)


def _by_source(source: Source, info: MapInfo) -> MapLayout | None:
    if source.elf is not None:
        return _by_object(source.elf, info)
    if source.btf is None:
        if source.key_type or source.value_type:
            raise Misuse("--key-type and --value-type name types of a BTF file: give --btf FILE too")
        return None
    if not (source.key_type or source.value_type):
        raise Misuse("--btf: a file has many types: name the map's with --key-type and --value-type")
    types = Types(_read(source.btf))
    return MapLayout(
        key=_named(types, source.key_type, info.key_size, source.btf),
        value=_named(types, source.value_type, info.value_size, source.btf),
        source=str(source.btf),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misuse(f"{path}: {error.strerror}") from None


def _named(types: Types, name: str | None, size: int, path: Path) -> Layout | None:
    """The type of that name and of the map's size."""
    if name is None:
        return None
    found = types.ids(name.removeprefix("struct ").removeprefix("union ").removeprefix("enum "))
    sizes: list[int] = []
    for type_id in found:
        try:
            sizes.append(types.size(type_id))
        except MapdError:
            continue  # a function, a forward declaration
        if sizes[-1] == size:
            return types.layout(type_id)
    what = f"has {', '.join(map(str, sizes))} bytes, the map's {size}" if sizes else "is not there"
    raise Misuse(f"{path}: type {name!r} {what}")


def _by_object(text: str, info: MapInfo) -> MapLayout:
    from mapd_client.elf.types import types_from_object

    path, name = text, info.kernel_name
    if not Path(text).exists() and ":" in text:
        path, _, name = text.rpartition(":")
    try:
        found = types_from_object(path, name)
    except NoTypeInfo as error:
        raise Misuse(f"{error} (--elf {path}:NAME)") from None
    if found.key is None and info.type_name in ("array", "percpu_array"):
        return replace(found, key=Integer(size=4, signed=False, type_name="__u32"))
    return found

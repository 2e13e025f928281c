"""How mapctl shows and takes keys and values by the types of a map."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from mapd_api.layout import round_up8
from mapd_client.cli import literals
from mapd_client.cli.assignments import from_fields, is_fields
from mapd_client.cli.sources import Source, by_source
from mapd_client.client import Client
from mapd_client.codec import Buffer, Codec
from mapd_client.errors import DaemonCapability, MapdError, Misuse, PermissionDenied, Unsupported
from mapd_client.facts_codecs import HostCodec
from mapd_client.info import Btf, ByteOrder, MapInfo
from mapd_client.layouts import Array, Layout, MapLayout, Opaque, Record
from mapd_client.map import Map
from mapd_client.records import Records, Wide
from mapd_client.records.reading import from_json
from mapd_client.typed.compiling import codec_of
from mapd_client.typed.hints import resolve

if TYPE_CHECKING:
    from mapd_client.cli.outputs.percpu import PerCpuForm

_QUOTED: Final = 80
"""Characters of what was typed that a message repeats."""

_RAW: Final = re.compile(r"hex:|0x|[ui](8|16|32|64):", re.IGNORECASE)
"""How a literal begins that says its bytes, or its type, by itself."""

_NUMBERS: Final = (4, 8)
"""Bytes of what is shown as a number too, where nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How one map's elements are shown and taken.

    Attributes:
        records: as JSON.
        btf: what the map was created with; None where there is none, or none to be had.
        known: whether key and value are known by a type or a hint.
        why: why not; "" where both are.
        byteorder: of the daemon's host.
        layouts: of "key" and "value", of one CPU's slot; None for what is not known.
        hints: codecs by field path, bound.
        wide: how integers of 8 bytes are written as JSON.
        left_out: fields of a per-CPU value that no sum was made of.
    """

    info: MapInfo
    records: Records
    btf: Btf | None
    known: Mapping[str, bool]
    why: str
    byteorder: ByteOrder
    layouts: Mapping[str, Layout | None]
    hints: Mapping[str, Codec[Any]]
    wide: Wide
    _codecs: Mapping[str, Codec[Any]]
    left_out: Sequence[str] = ()
    _convert: Callable[[Buffer], Buffer] | None = None

    @property
    def note(self) -> str:
        """What who reads the lines should know: why there are hex digits, why numbers where names were asked for."""
        told = [
            f"mapctl: {path} is a number: {codec.why}\n"
            for path, codec in self.hints.items()
            if isinstance(codec, HostCodec) and codec.why
        ]
        if self.left_out:
            told.insert(0, f"mapctl: not summed, for they are no integers: {', '.join(self.left_out)}\n")
        return self._hidden() + "".join(told[: 1 + bool(self.left_out)])

    def _hidden(self) -> str:
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

    def rows(self, keys: Buffer, values: Buffer, count: int) -> Iterable[str]:
        """A line for people for each element."""
        info = self.info
        texts = self.records.texts(keys, values, count)
        shown: list[Iterable[str]] = []
        for side, column, size in (("key", keys, info.key_size), ("value", values, info.value_size)):
            if self.known[side]:
                shown.append(texts[side])
            else:
                slots = info.slots() if side == "value" and info.per_cpu else None
                shown.append(_digits(column, count, size, slots, self.byteorder))
        return [f"{key}  {value}\n" for key, value in zip(*shown, strict=True)]

    def keys(self, keys: Buffer, count: int) -> Iterable[str]:
        """What ``rows`` says of the keys."""
        if self.known["key"]:
            return self.records.key_texts(keys, count)
        return _digits(keys, count, self.info.key_size, None, self.byteorder)

    def formed(self, form: PerCpuForm) -> Shown:
        """The same with per-CPU values as a list, a sum, or a field for each CPU; ``converted`` makes these.

        Raises:
            Misuse: a sum of values without integers.
        """
        from mapd_client.cli.outputs.percpu import formed

        found = formed(form, self.info, self.layouts["value"], self.hints, self.byteorder)
        if found is None:
            return self
        layout = MapLayout(key=self.layouts["key"], value=found.value, source="")
        records = Records(found.info, layout, byteorder=self.byteorder, hints=found.hints, wide=self.wide)
        return replace(
            self,
            info=found.info,
            records=records,
            known={**self.known, "value": True},
            layouts={**self.layouts, "value": found.value},
            hints=found.hints,
            left_out=found.left_out,
            _convert=found.convert,
        )

    def converted(self, values: Buffer) -> Buffer:
        """A column as the daemon sends it, to one of the values that are shown."""
        return values if self._convert is None or not len(values) else self._convert(values)

    def key(self, text: str) -> bytes:
        """The bytes of a key as it is typed; raises Misuse."""
        return self._bytes("key", text, literals.parse_key)

    def value(self, text: str) -> bytes:
        """The bytes of a value; in a per-CPU map every CPU gets it, or its own of a JSON list. Raises Misuse."""
        for_each = self._of_each_cpu(text)
        if for_each is not None:
            return b"".join(self._slot(self._encoded("value", one)) for one in for_each)
        data = self._bytes("value", text, literals.parse_value)
        if self.info.per_cpu and len(data) == self.info.value_size != self.info.value_stride:
            return self._slot(data) * self.info.slots()
        return data

    def _slot(self, data: bytes) -> bytes:
        return data.ljust(round_up8(len(data)), b"\0")

    def _of_each_cpu(self, text: str) -> Sequence[Any] | None:
        """The elements of a list that has one for each CPU; None for any other value.

        Where the value itself is an array, it is a list of lists that says each CPU's.
        """
        if not self.info.per_cpu or not text.startswith(("[", "json:")):
            return None
        value: Any = _json(text.removeprefix("json:"))
        hint, layout, inside = self.hints.get("value"), self.layouts["value"], value
        if hint is not None and hint.size == self.info.value_size:
            layout = None
        while isinstance(layout, Array) and isinstance(inside, list) and inside:
            layout, inside = layout.element, cast("Sequence[Any]", inside)[0]
        if not isinstance(inside, list) or isinstance(layout, Array):
            return None
        cpus: list[Any] = value
        if len(cpus) != self.info.slots():
            raise Misuse(
                f"value: {len(cpus)} elements given, {self.info.slots()} needed: one per possible CPU; or give one "
                "alone, for all of them"
            )
        return cpus

    def _bytes(self, side: str, text: str, literal: Callable[[str, MapInfo, ByteOrder], bytes]) -> bytes:
        layout, codec = self.layouts[side], self._codecs[side]
        if text.startswith(("{", "[", "json:")):
            return self._encoded(side, _json(text.removeprefix("json:")))
        if is_fields(text):
            return self._encoded(side, self._assigned(side, text))
        if not self.known[side] or _RAW.match(text):
            return literal(text, self.info, self.byteorder)
        try:
            if isinstance(layout, Record) and side not in self.hints:
                shape = ", ".join(f'"{one.name}": ...' for one in layout.named() if one.name)
                fields = ",".join(f"{one.name}=..." for one in layout.named() if one.name)
                raise Misuse(
                    f"{text!r}: a {side} of this map is written {fields}, or {{{shape}}}, or hex:..."
                )
            return codec.encode(int(text) if re.fullmatch(r"-?[0-9]{1,40}", text, re.ASCII) else text)
        except Misuse as error:
            with suppress(Misuse):
                data = literal(text, self.info, self.byteorder)  # 10.0.0.0/8, whatever its fields are called
                if not re.fullmatch(r"-?[0-9]+", text):
                    return data
            if side == "key":
                literals.check_network(text, self.info)
            if not str(error).startswith((side, repr(text))):
                error.message = f"{side} {_shortened(text)}: {error.message}"
            raise

    def _assigned(self, side: str, text: str) -> Any:
        layout = self.layouts[side]
        if layout is None:
            raise Misuse(
                f"{text!r}: nothing is known of the fields of a {side}: {self.why}; give the types with --elf FILE or "
                "--btf FILE"
            )
        return from_fields(text, layout, self.hints, side)

    def _encoded(self, side: str, value: Any) -> bytes:
        codec = self._codecs[side]
        layout = self.layouts[side] or Opaque(size=codec.size)
        return codec.encode(from_json(layout, value, self.hints, side))


@contextmanager
def saying(verb: str, ref: str) -> Generator[None]:
    """What is wrong in what was typed is told with the verb and the map."""
    try:
        yield
    except Misuse as error:
        error.message = f"{verb} {ref}: {error.message}"
        raise


def _shortened(text: str) -> str:
    """What somebody typed, as a message quotes it."""
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r}..."


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Misuse(f"{_shortened(text)} is no JSON: {error}") from None


def _digits(column: Buffer, count: int, size: int, slots: int | None, byteorder: ByteOrder) -> Iterable[str]:
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
    hints = dict(await client.known_hints(hints_for(source, info)))
    return shown_of(info, btf, why, server.byteorder, source, hints)


def hints_for(source: Source, info: MapInfo) -> Mapping[str, Codec[Any]]:
    """The codecs that the user names for a map's fields; raises Misuse."""
    given: Mapping[str, Codec[Any]] = {}
    if source.hints is not None:
        from mapd_client.typed.hintsfile import load_hints

        given = load_hints(source.hints).for_map(info)
    return {**given, **dict(map(_hint, source.as_))}


def shown_of(
    info: MapInfo,
    btf: Btf | None,
    why: str,
    byteorder: ByteOrder,
    source: Source,
    hints: Mapping[str, Codec[Any]],
) -> Shown:
    """How the elements of a map are shown that may be no open one; ``why`` there is no ``btf``. No I/O but files.

    Raises:
        Misuse: as ``shown_by``.
    """
    layout = by_source(source, info)
    if layout is None and btf is not None:
        from mapd_client.typed.view import of_btf

        try:
            layout = of_btf(btf, info)
        except MapdError as error:
            why = f"its type information cannot be read: {error}"
    wide: Wide = "string" if source.strings else "number"
    records = Records(info, layout, byteorder=byteorder, hints=hints, wide=wide)
    layouts = {"key": layout.key if layout else None, "value": layout.value if layout else None}
    sizes = {"key": info.key_size, "value": info.value_size}
    codecs = {
        side: codec_of(one or Opaque(size=sizes[side]), hints=hints, path=side).bind(byteorder, 1)
        for side, one in layouts.items()
    }
    known = {side: one is not None or side in hints for side, one in layouts.items()}
    if btf is not None and not all(known.values()):
        why = why if layout is None else f"{layout.source} says nothing of them"
    return Shown(info, records, btf, known, why, byteorder, layouts, hints, wide, codecs)


def _hint(text: str) -> tuple[str, Codec[Any]]:
    path, equals, name = text.partition("=")
    if not equals or path.split(".")[0] not in ("key", "value"):
        raise Misuse(f"--as {text!r}: write FIELD=CODEC, as in key.saddr=ipv4 or value=mac")
    return path, resolve(name)

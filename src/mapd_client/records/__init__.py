"""Elements as JSON: one schema of records for every tool (docs/reference/records.md). Sans-I/O.

``Records`` writes them by the fields of a layout, a column at a time; ``Bpftool`` writes what ``bpftool -j map dump``
prints, for scripts that read that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from mapd_client.codec import Buffer, Codec
from mapd_client.errors import Unsupported
from mapd_client.info import ByteOrder, MapInfo
from mapd_client.layouts import Layout, MapLayout, Opaque
from mapd_client.records.columns import Column, Rules
from mapd_client.records.scalars import Wide
from mapd_client.records.schema import VERSION, schema_of
from mapd_client.typed.compiling import codec_of
from mapd_client.typed.hints import Hint, resolve

__all__ = ["VERSION", "Records", "Wide"]

_NOTHING: Final = MapLayout(key=None, value=None, source="")


class Records:
    """How the elements of one map are written as JSON.

    Args:
        info: the map.
        layout: what its keys and values are made of; hex digits for what it does not say, or None.
        byteorder: of the daemon's host.
        hints: codecs by field path, as ``Map.typed`` takes them.
        wide: integers of 8 bytes as numbers, or as strings for readers that round them.

    Raises:
        SizeMismatch, Misuse: a hint for a field that is not there, or of another size.
        TypeMismatch: a layout that no bytes can have.
        Unsupported: a layout of other sizes than the map's.
    """

    def __init__(
        self,
        info: MapInfo,
        layout: MapLayout | None = None,
        *,
        byteorder: ByteOrder,
        hints: Mapping[str, Hint] | None = None,
        wide: Wide = "number",
    ) -> None:
        layout = layout or _NOTHING
        key = _sized(layout.key, info.key_size, "key", layout.source)
        value = _sized(layout.value, info.value_size, "value", layout.source)
        for side, path in ((key, "key"), (value, "value")):
            codec_of(side, hints=hints, path=path)  # refuses hints that cannot be
        slots = info.slots() if info.per_cpu else None
        self._bound: Mapping[str, Codec[Any]] = {
            path: resolve(hint).bind(byteorder, slots or 1) for path, hint in (hints or {}).items()
        }
        rules = Rules(byteorder=byteorder, wide=wide, hints=self._bound)
        self._key = Column(key, rules, "key")
        self._value = Column(value, rules, "value", slots)
        self._sides = key, value
        self._slots = slots
        self._wide: Wide = wide

    def lines(self, keys: Buffer, values: Buffer, count: int) -> str:
        """Columns as NDJSON: a line for each element, ``{"key": ..., "value": ...}``.

        Raises:
            SizeMismatch: columns of other sizes.
            TypeMismatch: bytes that the codec of a hint cannot express.
        """
        pairs = zip(*self.texts(keys, values, count).values(), strict=True)
        return "".join([f'{{"key": {key}, "value": {value}}}\n' for key, value in pairs])

    def texts(self, keys: Buffer, values: Buffer, count: int) -> dict[str, Iterable[str]]:
        """Both columns as JSON texts, "key" and "value"; raises as ``lines``."""
        return {"key": self._key.texts(keys, count), "value": self._value.texts(values, count)}

    def key_texts(self, keys: Buffer, count: int) -> Iterable[str]:
        """The keys alone as JSON texts; raises as ``lines``."""
        return self._key.texts(keys, count)

    def line(self, key: Buffer, value: Buffer) -> str:
        """One element; raises as ``lines``."""
        return self.lines(key, value, 1)

    def record(self, key: Buffer, value: Buffer) -> dict[str, Any]:
        """One element, as ``json.loads`` reads its line; raises as ``lines``."""
        return cast("dict[str, Any]", json.loads(self.lines(key, value, 1)))

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of this map's records."""
        return schema_of(*self._sides, hints=self._bound, wide=self._wide, slots=self._slots)


def _sized(layout: Layout | None, size: int, what: str, source: str) -> Layout:
    if layout is None:
        return Opaque(size=size)
    if layout.size != size:
        raise Unsupported(f"records: by {source} a {what} has {layout.size} bytes, in the map {size}")
    return layout

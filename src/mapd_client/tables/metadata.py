"""What a table says of itself beside its rows: which map, and how its dump went. Sans-I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mapd_client.errors import TypeMismatch
from mapd_client.info import MapInfo, Trailer

if TYPE_CHECKING:
    import pyarrow as pa

KEY: Final = b"mapd"
"""Of the schema's metadata: JSON."""

TRAILER: Final = b"mapd.trailer"
"""Where the trailer is by itself: it comes last in files, after the schema was written."""

VERSION: Final = 1
"""Of what is in there; grows where something means another thing than before."""


def of_trailer(trailer: Trailer) -> dict[str, Any]:
    """A trailer as JSON has it; times in ISO 8601."""
    return asdict(trailer) | {
        "started_at": trailer.started_at.isoformat(),
        "ended_at": trailer.ended_at.isoformat(),
    }


def of_map(info: MapInfo) -> dict[str, Any]:
    """What identifies a map and gives its shape."""
    return {
        "id": info.id,
        "name": info.name,
        "type": info.type_name,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": int(info.flags),
        "slots": info.slots(),
    }


def metadata(info: MapInfo, trailer: Trailer | None) -> dict[bytes, bytes]:
    """A schema's metadata; the trailer is there once a dump has ended."""
    said = {KEY: json.dumps({"version": VERSION, "map": of_map(info)}).encode()}
    if trailer is not None:
        said[TRAILER] = json.dumps(of_trailer(trailer)).encode()
    return said


def about(table: pa.Table | pa.RecordBatch | pa.Schema | Mapping[bytes, bytes]) -> dict[str, Any]:
    """What ``to_arrow`` or a file of ``write_parquet`` says of itself: ``version``, ``map``, ``trailer``.

    Args:
        table: a table, its schema, or metadata of a file: ``pyarrow.parquet.read_metadata(path).metadata``; of an
            Arrow IPC file the metadata of its last batch has the trailer.

    Raises:
        TypeMismatch: it is none of this library's.
    """
    given: Any = table
    schema: Any = getattr(given, "schema", given)
    found: Any = getattr(schema, "metadata", schema)
    if not found or KEY not in found:
        raise TypeMismatch(
            f"no metadata {KEY.decode()!r}: this table was not made from a map, or has lost it"
        )
    said: dict[str, Any] = json.loads(found[KEY])
    if TRAILER in found:
        said["trailer"] = json.loads(found[TRAILER])
    return said


def trailer_of(table: pa.Table | pa.RecordBatch | pa.Schema | Mapping[bytes, bytes]) -> Trailer:
    """How the dump that a table was made of went; raises TypeMismatch where it does not say."""
    said = about(table).get("trailer")
    if said is None:
        raise TypeMismatch(
            "this part of a table says nothing of its dump's end: look at the last one, or the file's"
        )
    times = {name: datetime.fromisoformat(said[name]) for name in ("started_at", "ended_at")}
    return Trailer(**(said | times))

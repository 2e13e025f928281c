"""How a map's elements are shown, without a daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapd_api.uapi import MapType
from mapd_client import replies
from mapd_client.cli.types import Shown
from mapd_client.codec import Codec
from mapd_client.info import ByteOrder
from mapd_client.layouts import Layout, MapLayout, Member, Opaque, Record
from mapd_client.records import Records
from mapd_client.typed.compiling import codec_of
from tests.unit.mapd_client.daemon import map_info


def struct(size: int, *members: tuple[str, int, Layout]) -> Record:
    made = tuple(
        Member(name=one, offset=offset, layout=layout, bit_offset=8 * offset)
        for one, offset, layout in members
    )
    return Record(size=size, members=made, type_name="made")


def shown(
    key: Layout | None,
    value: Layout | None,
    *,
    sizes: tuple[int, int] | None = None,
    type: MapType = MapType.HASH,
    byteorder: ByteOrder = "little",
    hints: Mapping[str, Codec[Any]] | None = None,
) -> Shown:
    """As ``shown_by`` makes it; a per-CPU value has three slots."""
    key_size, value_size = sizes or (key.size if key else 4, value.size if value else 8)
    info = replies.map_info(map_info("ns/made", type, key_size=key_size, value_size=value_size))
    given = hints or {}
    records = Records(
        info, MapLayout(key=key, value=value, source="a test"), byteorder=byteorder, hints=given
    )
    codecs = {
        side: codec_of(layout or Opaque(size=size), hints=given, path=side).bind(byteorder, 1)
        for side, layout, size in (("key", key, key_size), ("value", value, value_size))
    }
    return Shown(
        info,
        records,
        None,
        {"key": key is not None, "value": value is not None},
        "nothing was said",
        byteorder,
        {"key": key, "value": value},
        given,
        "number",
        codecs,
    )

"""What differs between two sides, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, TextIO

from mapd_api.uapi import MapType
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown
from mapd_client.info import MapInfo
from mapd_client.syncing.networks import KEY_SIZES
from mapd_client.syncing.plan import Plan

_PART: Final = 4_096
"""Elements put into words at once."""

CIDRS: Final = {8: "key=cidr4", 20: "key=cidr6"}


def for_networks(source: Source, info: MapInfo) -> Source:
    """``source``, with the keys of an LPM trie as networks unless it says what they are."""
    told = source.elf or source.hints or source.key_type or any(one.startswith("key") for one in source.as_)
    if info.type != MapType.LPM_TRIE or info.key_size not in KEY_SIZES or told:
        return source
    from dataclasses import replace

    return replace(source, as_=(*source.as_, CIDRS[info.key_size]))


def listed(plan: Plan, shown: Shown, most: int, file: TextIO) -> None:
    """A line for each difference, at most so many of each kind; then how many there are."""
    elements = plan.wanted.elements
    for mark, keys in (("+", plan.added), ("-", [*plan.removed]), ("~", [*plan.changed])):
        part = keys[:most]
        values = list(map((plan.removed if mark == "-" else elements).__getitem__, part))
        rows = _rows(part, values, shown)
        if mark == "~":
            old = _rows(part, [plan.changed[key] for key in part], shown)
            names = shown.keys(b"".join(part), len(part))
            rows = [
                f"{row[:-1]}  was {was[len(name) + 2 : -1]}\n"
                for name, row, was in zip(names, rows, old, strict=True)
            ]
        file.writelines(f"{mark} {row.rstrip()}\n" for row in rows)
        if len(keys) > most:
            file.write(f"{mark} ... {len(keys) - most} more\n" if most else "")


def _rows(keys: Sequence[bytes], values: Sequence[bytes], shown: Shown) -> list[str]:
    return [*shown.rows(b"".join(keys), b"".join(values), len(keys))]


def records(plan: Plan, shown: Shown) -> Iterator[str]:
    """A JSON object for each difference: "change", "key", "value" (of B), "was" (of A)."""
    elements = plan.wanted.elements
    for change, keys, now, was in (
        ("added", plan.added, elements, None),
        ("removed", plan.removed, None, plan.removed),
        ("changed", plan.changed, elements, plan.changed),
    ):
        source = iter(keys)
        while part := list(islice(source, _PART)):
            names, after, before = _texts(part, now, was, shown)
            for name, value, old in zip(names, after, before, strict=True):
                yield f'{{"change": "{change}", "key": {name}, "value": {value}, "was": {old}}}'


def _texts(
    keys: Sequence[bytes], now: Mapping[bytes, bytes] | None, was: Mapping[bytes, bytes] | None, shown: Shown
) -> tuple[Iterable[str], Iterable[str], Iterable[str]]:
    """The JSON of keys, values and former values; "null" for a side that has none."""
    names = b"".join(keys)

    def side(values: Mapping[bytes, bytes] | None) -> Iterable[str]:
        if values is None:
            return ["null"] * len(keys)
        if not shown.info.value_size:
            return ['""'] * len(keys)
        return shown.records.texts(names, b"".join(map(values.__getitem__, keys)), len(keys))["value"]

    return shown.records.key_texts(names, len(keys)), side(now), side(was)

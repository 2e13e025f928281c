"""What an opener grants at most, whatever the front asks: fixed when it starts, and read from no message."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Final, Self

from mapd.opener.shapes import Json, as_dict, as_list
from mapd.opener.wire import Malformed
from mapd_api.uapi import MapType

EVERY_TYPE: Final = frozenset(int(kind) for kind in MapType if kind is not MapType.UNSPEC)


class BadLimits(ValueError):
    """A description of limits that is none; says which field and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Static limits of one opener. Sizes in bytes, rates per second.

    The kernel has its own say beside them: what its user and capabilities do not admit is refused all the same.

    Attributes:
        names_root: where names are pinned, the only root below which folders are made.
        pin_roots: further folders below which pins are opened, made, removed and listed. No other path is touched.
        map_types: those that may be created (numbers of ``MapType``).
        map_bytes: kernel memory of one map when it is full, per-CPU values counted (``mapd.bpf.memory``).
        btf_bytes: of one BTF blob.
        makes: how many maps, pins, programs and BTF blobs may be made at once, ``makes_per_s`` after that.
        makes_per_s: see there.
        bytes_per_s: of map memory asked for, over time; as much as ``map_bytes`` and 4 seconds of it at once. What
            all maps take together the memory limit of the opener's cgroup bounds: whoever creates is charged.
        ids: whether maps and programs are listed and opened by id, and BTF is read (profile inspector).
    """

    names_root: str
    pin_roots: tuple[str, ...] = ()
    map_types: frozenset[int] = EVERY_TYPE
    map_bytes: int = 4 << 30
    btf_bytes: int = 16 << 20
    makes: int = 20_000
    makes_per_s: int = 2_000
    bytes_per_s: int = 1 << 30
    ids: bool = True

    def __post_init__(self) -> None:
        """Check what an operator wrote.

        Raises:
            BadLimits: see the message.
        """
        for root in self.roots:
            if not root.startswith("/") or "\0" in root or root.rstrip("/") == "":
                raise BadLimits(f"root {root!r}: must be an absolute path, and not /")
        for name in ("map_bytes", "btf_bytes", "makes", "makes_per_s", "bytes_per_s"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise BadLimits(f"{name}={value!r}: must be a whole number above 0")
        unknown = self.map_types - EVERY_TYPE
        if unknown:
            raise BadLimits(f"map_types: {sorted(unknown)} are no types of maps")

    @property
    def roots(self) -> tuple[str, ...]:
        """All folders below which anything is touched."""
        return (self.names_root, *self.pin_roots)

    def to_json(self) -> str:
        """For the opener's command line."""
        plain = asdict(self)
        plain["map_types"] = sorted(self.map_types)
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The limits that ``to_json`` wrote; fields that are left out have their defaults.

        Raises:
            BadLimits: an unknown field, a wrong type, a value out of bounds.
        """
        try:
            plain = as_dict(json.loads(text))
        except ValueError as error:
            raise BadLimits(f"no object in JSON: {error}") from None
        known = {field.name for field in fields(cls)}
        if unknown := plain.keys() - known:
            raise BadLimits(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        if type(plain.get("names_root")) is not str:
            raise BadLimits("names_root: must be a path")
        if "pin_roots" in plain:
            plain["pin_roots"] = tuple(_listed(plain, "pin_roots", str))
        if "map_types" in plain:
            plain["map_types"] = frozenset(_listed(plain, "map_types", int))
        if type(plain.get("ids", True)) is not bool:
            raise BadLimits("ids: must be true or false")
        return cls(**plain)


def _listed(plain: dict[str, Json], name: str, kind: type) -> list[Json]:
    try:
        values = as_list(plain[name])
    except Malformed as error:
        raise BadLimits(f"{name}: {error}") from None
    if any(type(value) is not kind for value in values):
        raise BadLimits(f"{name}: must be a list of {kind.__name__}")
    return values

"""Where mapctl knows a map's types from, if the user says so: files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mapd_client.errors import MapdError, Misuse, NoTypeInfo, Unsupported
from mapd_client.info import MapInfo
from mapd_client.layouts import Integer, Layout, MapLayout

if TYPE_CHECKING:
    from mapd_client.btf import Types


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
    as_: Annotated[Sequence[str], Parameter(name="--as")] = ()
    hints: Path | None = None
    strings: Annotated[bool, Parameter(name="--json-safe-ints")] = False


def by_source(source: Source, info: MapInfo) -> MapLayout | None:
    """The types by the file that the user named; None without one.

    Raises:
        Misuse: no such file, or one that says nothing of this map.
    """
    if source.elf is not None:
        return _by_object(source.elf, info)
    if source.btf is None:
        if source.key_type or source.value_type:
            raise Misuse("--key-type and --value-type name types of a BTF file: give --btf FILE too")
        return None
    if not (source.key_type or source.value_type):
        raise Misuse("--btf: a file has many types: name the map's with --key-type and --value-type")
    types = _types(source.btf)
    return MapLayout(
        key=_named(types, source.key_type, info.key_size, source.btf),
        value=_named(types, source.value_type, info.value_size, source.btf),
        source=str(source.btf),
    )


def _types(path: Path) -> Types:
    from mapd_client.btf import BadBtf, Types

    try:
        data = path.read_bytes()
    except OSError as error:
        raise Misuse(f"--btf {path}: {error.strerror}") from None
    try:
        return Types(data)
    except BadBtf as error:
        if data.startswith(b"\x7fELF"):
            raise Misuse(f"--btf {path}: this is an object file, no BTF file: give --elf {path}") from None
        raise Misuse(f"--btf {path}: {error}") from None


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
    pinned_as: str | None = (info.pin_path or info.name).rpartition("/")[2]
    if not Path(text).exists() and ":" in text:
        path, _, name = text.rpartition(":")
        pinned_as = None
    try:
        found = types_from_object(path, name, pinned_as=pinned_as)
    except NoTypeInfo as error:
        raise Misuse(f"{error} (--elf {path}:NAME)") from None
    except Unsupported as error:  # pyelftools is missing
        raise Misuse(str(error)) from None
    except OSError as error:
        raise Misuse(f"--elf {path}: {error.strerror}") from None
    for side, layout, size in (("key", found.key, info.key_size), ("value", found.value, info.value_size)):
        if layout is not None and layout.size != size:
            raise Misuse(f"--elf {path}: by {name!r} a {side} has {layout.size} bytes, the map's {size}")
    if found.key is None and info.type_name in ("array", "percpu_array"):
        return replace(found, key=Integer(size=4, signed=False, type_name="__u32"))
    return found

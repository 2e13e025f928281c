"""Writing BTF: what a map's keys and values are made of, as the kernel and bpftool read it. Sans-I/O.

Types are written once each, those that others are made of first. What the kernel would answer with a bare EINVAL
(names, sizes, alignment) is refused here, with the path of the field.

Source: Documentation/bpf/btf.rst; kernel/bpf/btf.c, the ``check_meta`` and ``check_member`` of each kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from mapd_client.btf.writer import Encoding, Writer, WrittenMember
from mapd_client.errors import Misuse, TypeMismatch
from mapd_client.info import Btf, ByteOrder
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Pointer,
    Record,
    Special,
    Text,
)

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_C_WORDS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*( [A-Za-z_][A-Za-z0-9_]*)+", re.ASCII)
_LONGEST_NAME: Final = 128
"""Characters: KSYM_NAME_LEN of kernels before 6.1; 512 since."""

_MEMBERS: Final = 0xFFFF
"""Of one struct or enum: vlen has 16 bits."""

_BIT_OFFSETS: Final = 1 << 24
"""Of a struct with bit-fields: the member's offset has 24 bits, the field's width the other 8."""

_DEEPEST: Final = 32
"""Arrays and records in one another, as ``mapd_client.btf`` reads them: MAX_RESOLVE_DEPTH of kernel/bpf/btf.c."""

_POINTER_BYTES: Final = 8
_FLOATS: Final = {2: "_Float16", 4: "float", 8: "double", 12: "long double", 16: "long double"}
_C_INTS: Final = {
    (1, False): "unsigned char",
    (1, True): "signed char",
    (2, False): "unsigned short",
    (2, True): "short",
    (4, False): "unsigned int",
    (4, True): "int",
    (8, False): "unsigned long long",
    (8, True): "long long",
    (16, False): "unsigned __int128",
    (16, True): "__int128",
}
_C_NAMES: Final = frozenset({"char", "short", "int", "long", "float", "double", "_Float16", "_Bool", "bool"})

_Ordered: TypeAlias = Integer | Boolean | Float | Pointer | Enumeration
_ORDERED: Final = (2, 4, 8)
"""Bytes of numbers whose order a name can say: ``__be16`` to ``__be64``, ``__le16`` to ``__le64``."""

_UNDESCRIBED: Final = {
    **dict.fromkeys(
        ("kptr", "kptr_untrusted", "percpu_kptr", "uptr"),
        "the kernel wants to know what it points to, and this layout does not say it",
    ),
    **dict.fromkeys(
        ("bpf_list_head", "bpf_rb_root"),
        "the kernel wants to know what it contains, and this layout does not say it",
    ),
}


def blob_of(key: Layout | None, value: Layout | None, byteorder: ByteOrder) -> Btf:
    """BTF for BPF_MAP_CREATE that says just this, smallest first and each type once.

    Read again it gives the same layouts, but for what BTF cannot say: a type without a name has C's own
    (``unsigned int``), opaque bytes are an array of ``unsigned char``, the struct of an anonymous member has no tag,
    and only integers of 2, 4 and 8 bytes have a byte order of their own.

    Args:
        key: of one key; None: nothing is said of it (key_type_id 0), which only arrays of sections take.
        value: of one value, of one CPU's slot for per-CPU types; None likewise.
        byteorder: of the daemon's host (``ServerInfo.byteorder``).

    Raises:
        TypeMismatch: what BTF, or the kernel's check of it, has no place for; the message says which field and why.
        Misuse: neither key nor value.

    Requires Linux 4.18 for the simplest, 5.13 for floats, 6.0 for enums of 8 bytes.
    """
    if key is None and value is None:
        raise Misuse("BTF: neither the key nor the value is described: create the map without")
    types = _Types(byteorder)
    key_id = 0 if key is None else types.add(key, "key")
    value_id = 0 if value is None else types.add(value, "value")
    return Btf(types.writer.blob(), key_id, value_id)


@dataclass(slots=True)
class _Types:
    byteorder: ByteOrder
    writer: Writer
    depth: int

    def __init__(self, byteorder: ByteOrder) -> None:
        self.byteorder = byteorder
        self.writer = Writer(byteorder)
        self.depth = 0

    def add(self, layout: Layout, path: str) -> int:
        """The id of a layout's type; raises TypeMismatch that begins with the path."""
        if layout.size < 0:
            raise _refused(path, f"no type has {layout.size} bytes")
        match layout:
            case Record() | Array():
                if self.depth == _DEEPEST:
                    raise _refused(path, f"arrays and structs in one another, more than {_DEEPEST} deep")
                self.depth += 1
                found = (
                    self._record(layout, path) if isinstance(layout, Record) else self._array(layout, path)
                )
                self.depth -= 1
                return found
            case Text():
                found = self.writer.array(self.writer.integer("char", 1, "signed"), self._index, layout.size)
                return self._named(found, layout.type_name, path)
            case Special():
                return self._special(layout, path)
            case Opaque():
                return self._opaque(layout, path)
            case _:
                return self._number(layout, path)

    def _array(self, layout: Array, path: str) -> int:
        if layout.count < 0:
            raise _refused(path, f"no array has {layout.count} elements")
        found = self.writer.array(self.add(layout.element, f"{path}[0]"), self._index, layout.count)
        return self._named(found, layout.type_name, path)

    @property
    def _index(self) -> int:
        """The type of an array's index; the kernel wants an integer, and nobody reads it."""
        return self.writer.integer(_C_INTS[4, False], 4, "")

    def _number(self, layout: Integer | Boolean | Float | Pointer | Enumeration, path: str) -> int:
        name = layout.type_name
        if isinstance(layout, Enumeration):
            return self._ordered(self._enumeration(layout, path), layout, "", path)
        if isinstance(layout, Pointer):
            if layout.size != _POINTER_BYTES:
                raise _refused(path, f"the kernel has no pointer of {layout.size} bytes")
            # What it points to is not known; a name with a star ("struct sock *") is no typedef's.
            name = name if _IDENTIFIER.fullmatch(name) else ""
            return self._ordered(self.writer.pointer(), layout, name, path)
        own = _own_name(layout)
        if own is None:
            raise _refused(path, f"C has no {type(layout).__name__.lower()} of {layout.size} bytes")
        if name in _C_NAMES or _C_WORDS.fullmatch(name):
            own, name = name, ""  # C's own types are no typedefs of others
        if isinstance(layout, Float):
            return self._ordered(self.writer.float(own, layout.size), layout, name, path)
        encoding: Encoding = "bool" if isinstance(layout, Boolean) else "signed" if layout.signed else ""
        return self._ordered(self.writer.integer(own, layout.size, encoding), layout, name, path)

    def _ordered(self, found: int, layout: _Ordered, name: str, path: str) -> int:
        """The type by its name, which says its byte order where that is fixed."""
        size, order = layout.size, layout.order
        if order == "host" or size == 1 or (order == self.byteorder and not isinstance(layout, Integer)):
            return self._named(found, name, path)
        says = f"__{'be' if order == 'big' else 'le'}{8 * size}"
        if size not in _ORDERED or not isinstance(layout, Integer):
            what = type(layout).__name__.lower()
            raise _refused(
                path, f"BTF has no {order}-endian {what} of {size} bytes for a {self.byteorder}-endian host"
            )
        found = self._named(found, says, path)
        return found if name in ("", says) else self._named(found, name, path)

    def _named(self, found: int, name: str, path: str) -> int:
        return self.writer.typedef(_identifier(name, path, "its type's name"), found) if name else found

    def _enumeration(self, layout: Enumeration, path: str) -> int:
        if layout.size not in (1, 2, 4, 8):
            raise _refused(path, f"C has no enum of {layout.size} bytes")
        _few(len(layout.members), "names", path)
        for name, number in layout.members:
            _identifier(name, path, "a name of the enum")
            low, high = _bounds(layout.size, signed=layout.signed)
            if not low <= number <= high:
                raise _refused(
                    path, f"{name} = {number} is outside its {layout.size} bytes ({low} to {high})"
                )
        name = _identifier(layout.type_name, path, "its type's name") if layout.type_name else ""
        return self.writer.enum(name, layout.size, layout.members, signed=layout.signed)

    def _opaque(self, layout: Opaque, path: str) -> int:
        if _is_long_double(layout):
            return self.writer.float(layout.type_name, layout.size)
        octet = self.writer.integer(_C_INTS[1, False], 1, "")
        found = self.writer.array(octet, self._index, layout.size)
        name = layout.type_name if _IDENTIFIER.fullmatch(layout.type_name) else ""
        return self._named(found, name, path)

    def _special(self, layout: Special, path: str) -> int:
        name = _identifier(layout.type_name, path, "its type's name")
        if name in _UNDESCRIBED:
            raise _refused(
                path, f"a {name} cannot be described: {_UNDESCRIBED[name]}; compile the map's type"
            )
        # The kernel goes by the struct's name and size; all but the locks have 8-byte words.
        word = 8 if layout.size % 8 == 0 else 4
        if layout.size % word or not layout.size:
            raise _refused(path, f"no struct {name} has {layout.size} bytes")
        unit = self.writer.integer(_C_INTS[word, False], word, "")
        inner = unit if layout.size == word else self.writer.array(unit, self._index, layout.size // word)
        member = "val" if layout.size == word else "__opaque"
        return self.writer.record(name, layout.size, ((member, inner, 0, None),), union=False)

    def _record(self, layout: Record, path: str) -> int:
        _few(len(layout.members), "members", path)
        _unambiguous(layout, path)
        bitfields = any(member.bits is not None for member in layout.members)
        members: list[WrittenMember] = []
        for at, member in enumerate(layout.members):
            below = f"{path}.{member.name or f'<anonymous {at}>'}"
            _fitting(layout, member, bitfields, below)
            bit_offset = 8 * member.offset if member.bits is None else member.bit_offset
            inner = member.layout
            if isinstance(inner, Record) and not member.name:
                inner = replace(inner, type_name="")  # with a tag C declares no member
            members.append((member.name, self.add(inner, below), bit_offset, member.bits))
        members.sort(key=lambda one: one[2])  # "Invalid member bits_offset" else
        name = _identifier(layout.type_name, path, "its type's name") if layout.type_name else ""
        return self.writer.record(name, layout.size, members, union=layout.union)


def _refused(path: str, why: str) -> TypeMismatch:
    return TypeMismatch(f"{path}: {why}")


def _is_long_double(layout: Layout) -> bool:
    """Whether they are the bytes of a float that no Python number stands for."""
    return isinstance(layout, Opaque) and layout.size in (12, 16) and layout.type_name == _FLOATS[layout.size]


def _own_name(layout: Integer | Boolean | Float) -> str | None:
    """C's name for a number without one of its own; None where C has none."""
    if isinstance(layout, Float):
        return _FLOATS.get(layout.size)
    if isinstance(layout, Boolean):
        return "_Bool" if (layout.size, False) in _C_INTS else None
    return _C_INTS.get((layout.size, layout.signed))


def _identifier(name: str, path: str, what: str) -> str:
    """``name``, if the kernel takes it: btf_name_valid_identifier()."""
    if not _IDENTIFIER.fullmatch(name):
        raise _refused(
            path, f"{what} is {name!r}, and BTF takes C identifiers: letters, digits and _, no digit first"
        )
    if len(name) > _LONGEST_NAME:
        raise _refused(path, f"{what} has {len(name)} characters, and the kernel takes {_LONGEST_NAME}")
    return name


def _few(count: int, what: str, path: str) -> None:
    if count > _MEMBERS:
        raise _refused(path, f"{count} {what}, and BTF has room for {_MEMBERS}")


def _bounds(size: int, *, signed: bool) -> tuple[int, int]:
    bits = 8 * size
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _unambiguous(layout: Record, path: str) -> None:
    """C has no two members of one name, those of anonymous records included; a reader would see the last alone."""
    seen: set[str] = set()
    for member in layout.named():
        if member.name in seen and member.name:
            raise _refused(path, f"two members are called {member.name!r}")
        seen.add(member.name)


def _fitting(record: Record, member: Member, bitfields: bool, path: str) -> None:
    """Raises TypeMismatch for a member that is not where the kernel lets one be."""
    layout = member.layout
    if member.name:
        _identifier(member.name, path, "its name")
    if member.bits is None:
        start, end = 8 * member.offset, 8 * (member.offset + layout.size)
    else:
        start, end = member.bit_offset, member.bit_offset + member.bits
        if not isinstance(layout, (Integer, Boolean, Enumeration)):
            raise _refused(path, f"no bit-field of {type(layout).__name__} exists")
        # btf_enum_check_kflag_member() takes an int's bits of whatever enum.
        most = min(8 * layout.size, 32) if isinstance(layout, Enumeration) else 8 * layout.size
        if not 1 <= member.bits <= most:
            raise _refused(path, f"a bit-field of {member.bits} bits, and its type takes 1 to {most}")
    if start < 0 or end > 8 * record.size:
        raise _refused(path, f"it lies in bits {start} to {end}, its record has {8 * record.size}")
    if record.union and start:
        raise _refused(path, f"a union's members lie at its beginning, not at bit {start}")
    if bitfields and start >= _BIT_OFFSETS:
        raise _refused(
            path, f"at bit {start}: beside bit-fields BTF has room for offsets below {_BIT_OFFSETS}"
        )
    if isinstance(layout, Enumeration) and bitfields and member.bits is None and start + 32 > 8 * record.size:
        raise _refused(
            path,
            f"an enum of {layout.size} bytes among bit-fields, {record.size - member.offset} bytes before the end: "
            "the kernel wants 4 there (btf_enum_check_kflag_member)",
        )
    align = min(layout.size, 8) if isinstance(layout, Float) or _is_long_double(layout) else 1
    if align and member.offset % align:
        raise _refused(
            path,
            f"a float of {layout.size} bytes at offset {member.offset}: the kernel wants it aligned to {align}",
        )

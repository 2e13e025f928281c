"""Of an object's types those of one map, as the kernel takes them. Sans-I/O.

An object's .BTF is not for the kernel as it is: sections of variables have no size and no offsets before a loader has
filled them in, and externs are refused (``bpf_object__sanitize_btf()``, tools/lib/bpf/libbpf.c, mends what is known).
So what a map needs is taken out: the types of its key and value and all that these are made of. It is the same to
bpftool, and a few hundred bytes for each map in place of the whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mapd_client.btf import Types, kinds
from mapd_client.codec import ORDER
from mapd_client.info import Btf

_HEADER: Final = "HBBIIIII"
_HEADER_BYTES: Final = 24
_KFLAG: Final = 1 << 31
_U32: Final = 0xFFFF_FFFF

_NUMBERS: Final = {kind: number for number, kind in enumerate(kinds.KINDS)}

_Words = Sequence[int]


def btf_of(types: Types, key_type_id: int, value_type_id: int) -> Btf | None:
    """The types of a map's key and value alone; None where neither is told.

    Args:
        types: of the object, its sections' sizes and offsets filled in.
        key_type_id: 0 for none.
        value_type_id: 0 for none.
    """
    if not key_type_id and not value_type_id:
        return None
    found = _reached(types, (key_type_id, value_type_id))
    ids = {old: new for new, old in enumerate(found, 1)}
    writer = _Writer(ORDER[types.byteorder], ids)
    return Btf(writer.blob(types, found), ids.get(key_type_id, 0), ids.get(value_type_id, 0))


def _reached(types: Types, roots: Iterable[int]) -> list[int]:
    """All types that ``roots`` are made of, by their ids; void left out."""
    tags: dict[int, list[int]] = {}
    for at in range(1, len(types)):
        if types.kind(at) is kinds.DeclTag:
            tags.setdefault(_refers_to(types[at])[0], []).append(at)
    seen: set[int] = set()
    waiting = [one for one in roots if one]
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        kind = types[at]
        waiting += [one for one in _refers_to(kind) if one]
        waiting += tags.get(at, ())
        if isinstance(kind, kinds.DeclTag) and kind.name.startswith("contains:"):
            # A list or tree of the struct that is named (btf_find_graph_root(), kernel/bpf/btf.c).
            waiting += types.ids(kind.name.split(":")[1], kinds.Struct)
    return sorted(seen)


def _refers_to(kind: kinds.Kind) -> list[int]:
    match kind:
        case kinds.Array():
            return [kind.type, kind.index_type]
        case kinds.Struct() | kinds.Union():
            return [one.type for one in kind.members]
        case kinds.Datasec():
            return [one.type for one in kind.vars]
        case kinds.FuncProto():
            return [kind.type, *(of for _, of in kind.params)]
        case kinds.Void() | kinds.Int() | kinds.Float() | kinds.Fwd() | kinds.Enum() | kinds.Enum64():
            return []
        case _:
            return [kind.type]


class _Writer:
    """Records of a new blob, in which types have new ids and names new places."""

    def __init__(self, order: str, ids: Mapping[int, int]) -> None:
        self._order = order
        self._ids = {0: 0, **ids}
        self._names: dict[str, int] = {"": 0}
        self._strings = bytearray(1)

    def blob(self, types: Types, wanted: Iterable[int]) -> bytes:
        """Header, types, names: what BPF_BTF_LOAD takes."""
        records = b"".join(self._record(types[at]) for at in wanted)
        sizes = (0, len(records), len(records), len(self._strings))
        return (
            struct.pack(self._order + _HEADER, 0xEB9F, 1, 0, _HEADER_BYTES, *sizes) + records + self._strings
        )

    def _record(self, kind: kinds.Kind) -> bytes:
        kflag, vlen, size, words = self._parts(kind)
        name = getattr(kind, "name", "")
        info = (_KFLAG if kflag else 0) | _NUMBERS[type(kind)] << 24 | vlen
        return struct.pack(f"{self._order}{3 + len(words)}I", self._name(name), info, size, *words)

    def _parts(self, kind: kinds.Kind) -> tuple[bool, int, int, _Words]:
        """Its flag, its vlen, its size or type, and what follows."""
        ids, name = self._ids, self._name
        match kind:
            case kinds.Int():
                bits = kind.signed << 24 | kind.char << 25 | kind.bool << 26 | kind.offset << 16 | kind.bits
                return False, 0, kind.size, (bits,)
            case kinds.Array():
                return False, 0, 0, (ids[kind.type], ids[kind.index_type], kind.nelems)
            case kinds.Struct() | kinds.Union():
                kflag = any(one.bits for one in kind.members)
                words = [
                    word
                    for one in kind.members
                    for word in (name(one.name), ids[one.type], one.bits << 24 | one.bit_offset)
                ]
                return kflag, len(kind.members), kind.size, words
            case kinds.Enum():
                words = [word for what, of in kind.values for word in (name(what), of & _U32)]
                return kind.signed, len(kind.values), kind.size, words
            case kinds.Enum64():
                words = [
                    word for what, of in kind.values for word in (name(what), of & _U32, of >> 32 & _U32)
                ]
                return kind.signed, len(kind.values), kind.size, words
            case kinds.Fwd():
                return kind.union, 0, 0, ()
            case kinds.Func():
                return False, kind.linkage, ids[kind.type], ()
            case kinds.FuncProto():
                words = [word for what, of in kind.params for word in (name(what), ids[of])]
                return False, len(kind.params), ids[kind.type], words
            case kinds.Var():
                return False, 0, ids[kind.type], (kind.linkage,)
            case kinds.Datasec():
                words = [word for one in kind.vars for word in (ids[one.type], one.offset, one.size)]
                return False, len(kind.vars), kind.size, words
            case kinds.Float():
                return False, 0, kind.size, ()
            case kinds.DeclTag():
                return kind.attribute, 0, ids[kind.type], (kind.component_idx & _U32,)
            case kinds.TypeTag():
                return kind.attribute, 0, ids[kind.type], ()
            case kinds.Void():
                return False, 0, 0, ()
            case _:
                return False, 0, ids[kind.type], ()

    def _name(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = len(self._strings)
            self._strings += name.encode() + b"\0"
        return self._names[name]

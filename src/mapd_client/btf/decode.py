"""One type record to the value of its kind. Sans-I/O.

A record is three words {name_off, info, size or type} and what its kind adds. The index has already seen that the
record lies within its section, so words are read without a look at the end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, TypeAlias

from mapd_client.btf import kinds
from mapd_client.btf.blob import BadBtf
from mapd_client.btf.kinds import KINDS, Kind

Name: TypeAlias = Callable[[int, int], str]
"""(offset in the strings, the record's byte) -> the string; raises BadBtf."""

_KFLAG: Final = 1 << 31
_INFO_MASK: Final = 0x9F00_FFFF
_INT_SIGNED, _INT_CHAR, _INT_BOOL = 1, 2, 4
_INT_BITS_MAX: Final = 128


class Record:
    """The words of one record, and what a refusal of it needs to say."""

    __slots__ = ("at", "byte", "id", "info", "kflag", "kind", "name", "size", "vlen", "words")

    def __init__(self, id: int, words: array[int], at: int, byte: int, name: Name) -> None:
        self.id = id
        self.words = words
        self.at = at + 3
        self.byte = byte
        self.info = words[at + 1]
        self.kind = self.info >> 24 & 31
        self.vlen = self.info & 0xFFFF
        self.kflag = bool(self.info & _KFLAG)
        self.size = words[at + 2]
        self.name = name

    def bad(self, what: str, number: int | None = None) -> BadBtf:
        """The refusal of this record."""
        kind = KINDS[self.kind].__name__.upper()
        return BadBtf(
            f"BTF: type {self.id} ({kind} at byte {self.byte}): {what}", offset=self.byte, number=number
        )

    def own_name(self) -> str:
        """Its name, "" for none."""
        return self.name(self.words[self.at - 3], self.byte)

    def word_name(self, at: int) -> str:
        """The name of which ``at`` is the word."""
        return self.name(self.words[at], self.byte)


def decode(record: Record) -> Kind:
    """The value of its kind.

    Raises:
        BadBtf: a number in it that its kind does not have, or a name outside of the strings.
    """
    if record.info & ~_INFO_MASK & 0xFFFF_FFFF:
        raise record.bad(f"info {record.info:#010x} has bits that are not known", record.info)
    if record.vlen and record.kind not in _COUNTED:
        raise record.bad(f"vlen {record.vlen}, this kind has none", record.vlen)
    return _DECODERS[record.kind](record)


def _int(record: Record) -> Kind:
    encoding, offset, bits = _int_word(record.words[record.at])
    if encoding & ~(_INT_SIGNED | _INT_CHAR | _INT_BOOL):
        raise record.bad(f"encoding {encoding:#x}, known are signed (1), char (2) and bool (4)", encoding)
    if not 0 < bits <= _INT_BITS_MAX or bits + offset > 8 * record.size:
        raise record.bad(
            f"{bits} bits from bit {offset} of {record.size} bytes; an integer has 1 to {_INT_BITS_MAX}, within them",
            bits,
        )
    return kinds.Int(
        record.own_name(),
        record.size,
        bits,
        offset,
        signed=bool(encoding & _INT_SIGNED),
        char=bool(encoding & _INT_CHAR),
        bool=bool(encoding & _INT_BOOL),
    )


def _int_word(word: int) -> tuple[int, int, int]:
    return word >> 24, word >> 16 & 0xFF, word & 0xFFFF


def _array(record: Record) -> Kind:
    element, index, nelems = record.words[record.at : record.at + 3]
    return kinds.Array(element, index, nelems)


def _members(record: Record) -> tuple[kinds.StructMember, ...]:
    words, found = record.words, list[kinds.StructMember]()
    for at in range(record.at, record.at + 3 * record.vlen, 3):
        where, bits = words[at + 2], 0
        if record.kflag:
            where, bits = where & 0xFF_FFFF, where >> 24
        found.append(kinds.StructMember(record.word_name(at), words[at + 1], where, bits))
    return tuple(found)


def _struct(record: Record) -> Kind:
    return kinds.Struct(record.own_name(), record.size, _members(record))


def _union(record: Record) -> Kind:
    return kinds.Union(record.own_name(), record.size, _members(record))


def _enum_size(record: Record) -> int:
    if record.size not in (1, 2, 4, 8):
        raise record.bad(f"{record.size} bytes; an enum has 1, 2, 4 or 8", record.size)
    return record.size


def _enum(record: Record) -> Kind:
    values = list[tuple[str, int]]()
    for at in range(record.at, record.at + 2 * record.vlen, 2):
        value = record.words[at + 1]
        if record.kflag and value & _KFLAG:
            value -= 1 << 32
        values.append((record.word_name(at), value))
    return kinds.Enum(record.own_name(), _enum_size(record), record.kflag, tuple(values))


def _enum64(record: Record) -> Kind:
    values = list[tuple[str, int]]()
    for at in range(record.at, record.at + 3 * record.vlen, 3):
        value = record.words[at + 1] | record.words[at + 2] << 32
        if record.kflag and value >> 63:
            value -= 1 << 64
        values.append((record.word_name(at), value))
    return kinds.Enum64(record.own_name(), _enum_size(record), record.kflag, tuple(values))


def _func_proto(record: Record) -> Kind:
    params = [
        (record.word_name(at), record.words[at + 1])
        for at in range(record.at, record.at + 2 * record.vlen, 2)
    ]
    return kinds.FuncProto(record.size, tuple(params))


def _datasec(record: Record) -> Kind:
    words = record.words
    found = [
        kinds.SectionVar(words[at], words[at + 1], words[at + 2])
        for at in range(record.at, record.at + 3 * record.vlen, 3)
    ]
    return kinds.Datasec(record.own_name(), record.size, tuple(found))


def _float(record: Record) -> Kind:
    if record.size not in (2, 4, 8, 12, 16):
        raise record.bad(f"{record.size} bytes; a float has 2, 4, 8, 12 or 16", record.size)
    return kinds.Float(record.own_name(), record.size)


def _decl_tag(record: Record) -> Kind:
    component = record.words[record.at]
    if component & _KFLAG:
        component -= 1 << 32
    return kinds.DeclTag(record.own_name(), record.size, component, record.kflag)


def _void(record: Record) -> Kind:
    raise record.bad("kind 0 is no kind of a record", 0)


_DECODERS: Final[tuple[Callable[[Record], Kind], ...]] = (
    _void,
    _int,
    lambda record: kinds.Ptr(record.size),
    _array,
    _struct,
    _union,
    _enum,
    lambda record: kinds.Fwd(record.own_name(), record.kflag),
    lambda record: kinds.Typedef(record.own_name(), record.size),
    lambda record: kinds.Volatile(record.size),
    lambda record: kinds.Const(record.size),
    lambda record: kinds.Restrict(record.size),
    lambda record: kinds.Func(record.own_name(), record.size, record.vlen),
    _func_proto,
    lambda record: kinds.Var(record.own_name(), record.size, record.words[record.at]),
    _datasec,
    _float,
    _decl_tag,
    lambda record: kinds.TypeTag(record.own_name(), record.size, record.kflag),
    _enum64,
)

_COUNTED: Final = frozenset(
    KINDS.index(kind)
    for kind in (
        kinds.Struct,
        kinds.Union,
        kinds.Enum,
        kinds.Func,
        kinds.FuncProto,
        kinds.Datasec,
        kinds.Enum64,
    )
)
"""Kinds that use vlen; of a FUNC it is the linkage."""

"""Types of one blob by their ids: found in one walk, decoded when they are asked for. Sans-I/O."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from mapd_client.btf import kinds
from mapd_client.btf.blob import BadBtf, Blob, read_blob
from mapd_client.btf.decode import Record, decode
from mapd_client.btf.kinds import KINDS, Kind
from mapd_client.btf.layouts import Builder
from mapd_client.info import ByteOrder
from mapd_client.layouts import Layout

_VOID: Final = kinds.Void()

# Words of a record by its kind: what every such record has, and what each of its vlen entries adds.
_FIXED: Final = (0, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3)
_EACH: Final = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)


class Types:
    """The types of a BTF blob: ``types[id]``, from 0 (void) to ``len(types) - 1``.

    Making it walks the type section once (the 126,689 types of a Linux 6.18 in about 20 ms) and keeps where each
    record begins; names and members are decoded, and checked, when they are asked for. A split blob, as of a kernel
    module, continues the ids and the strings of its ``base``.

    Work and memory are bounded by the blob, whatever it says. Pointers have 8 bytes: hosts of 64 bits.

    Attributes:
        blob: the bytes it was made of.
        base: as given.
        byteorder: of the host that the types are of.

    Raises:
        BadBtf: the header, or a record that does not lie within the types' section.
    """

    __slots__ = ("_blob", "_builder", "_by_name", "_first", "_first_string", "_starts", "base", "byteorder")

    def __init__(self, blob: bytes, base: Types | None = None) -> None:
        self._blob: Final[Blob] = read_blob(bytes(blob), split=base is not None)
        self.base: Final = base
        self.byteorder: Final[ByteOrder] = self._blob.byteorder
        if base is not None and base.byteorder != self.byteorder:
            raise BadBtf(f"BTF: a {self.byteorder} endian blob cannot continue a {base.byteorder} endian one")
        self._first: Final = 1 if base is None else len(base)
        self._first_string: Final[int] = 0 if base is None else base.strings_end
        self._starts: Final = self._walk()
        self._by_name: dict[int, array[int]] | None = None
        self._builder: Final = Builder(self)

    @property
    def blob(self) -> bytes:
        """The bytes it was made of, without the base's."""
        return self._blob.data

    @property
    def strings_end(self) -> int:
        """Where the offsets of a split blob's own strings begin."""
        return self._first_string + self._blob.strings_len

    def _walk(self) -> array[int]:
        """The words at which the records begin."""
        words, end = self._blob.words, len(self._blob.words)
        fixed, each, starts, at = _FIXED, _EACH, array("I"), 0
        found = starts.append
        try:
            while at < end:
                found(at)
                info = words[at + 1]
                kind = info >> 24 & 31
                at += fixed[kind] + each[kind] * (info & 0xFFFF)
                if not kind:
                    break
        except IndexError:
            pass  # a kind above 19, or a record of one word: said below
        if at != end:
            raise self._no_record(starts)
        return starts

    def _no_record(self, starts: array[int]) -> BadBtf:
        """What is wrong with the last record that was met."""
        words, at = self._blob.words, starts[-1]
        byte = self._blob.words_at + 4 * at
        where = f"BTF: type {self._first + len(starts) - 1} at byte {byte}"
        left = 4 * (len(words) - at)
        if at + 1 >= len(words):
            return BadBtf(f"{where}: {left} bytes left, a record has 12 or more", offset=byte, number=left)
        info = words[at + 1]
        kind, vlen = info >> 24 & 31, info & 0xFFFF
        if not 0 < kind < len(KINDS):
            return BadBtf(f"{where}: kind {kind}, known are 1 to {len(KINDS) - 1}", offset=byte, number=kind)
        size = 4 * (_FIXED[kind] + _EACH[kind] * vlen)
        return BadBtf(
            f"{where}: kind {kind} with vlen {vlen} has {size} bytes, {left} are left",
            offset=byte,
            number=size,
        )

    def __len__(self) -> int:
        """How many ids there are: void, the base's, and this blob's."""
        return self._first + len(self._starts)

    def __iter__(self) -> Iterator[Kind]:
        """All types, from void."""
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, id: int) -> Kind:
        """The type of that id.

        Raises:
            BadBtf: no such id, or a record that is wrong in itself.
        """
        if id == 0:
            return _VOID
        if id < self._first and self.base is not None:
            return self.base[id]
        if not 0 < id < len(self):
            raise BadBtf(f"BTF: there is no type {id}; ids are 0 (void) to {len(self) - 1}", number=id)
        return decode(self._record(id))

    def _record(self, id: int) -> Record:
        at = self._starts[id - self._first]
        return Record(id, self._blob.words, at, self._blob.words_at + 4 * at, self.string)

    def kind(self, id: int) -> type[Kind]:
        """The kind alone, without decoding; raises BadBtf for no such id."""
        if id < self._first and self.base is not None:
            return self.base.kind(id)
        if not 0 <= id < len(self):
            raise BadBtf(f"BTF: there is no type {id}; ids are 0 (void) to {len(self) - 1}", number=id)
        if id == 0:
            return kinds.Void
        return KINDS[self._blob.words[self._starts[id - self._first] + 1] >> 24 & 31]

    def name(self, id: int) -> str:
        """The name alone, "" for none; raises BadBtf as ``types[id]``."""
        if id < self._first and self.base is not None:
            return self.base.name(id)
        return self._record(id).own_name() if self.kind(id) is not kinds.Void else ""

    def target(self, id: int) -> int:
        """The type id that a PTR, TYPEDEF or qualifier leads to: the record's third word.

        Raises:
            BadBtf: no such id.
        """
        if id < self._first and self.base is not None:
            return self.base.target(id)
        return self._record(id).size if self.kind(id) is not kinds.Void else 0

    def offset(self, id: int) -> int:
        """Where the record begins, in bytes of its own blob; 0 for void and for no such id."""
        if id < self._first and self.base is not None:
            return self.base.offset(id)
        if not 0 < id < len(self):
            return 0
        return self._blob.words_at + 4 * self._starts[id - self._first]

    def string(self, at: int, record: int = 0) -> str:
        """The string at that offset; ``record`` is the byte of the record that says it, for the message.

        Raises:
            BadBtf: outside of the strings, or no UTF-8.
        """
        if at < self._first_string and self.base is not None:
            return self.base.string(at, record)
        return self._blob.string(at - self._first_string, record)

    def ids(self, name: str, kind: type[Kind] | None = None) -> Sequence[int]:
        """The ids of that name, of one kind or of any, ascending, with the base's; () for none.

        The first call makes an index of all records by their names.
        """
        inner = self.base.ids(name, kind) if self.base is not None else ()
        if not name:
            return inner
        if self._by_name is None:
            self._by_name = self._index_names()
        found = list[int]()
        for place in self._names_at(name):
            found += self._by_name.get(place, ())
        own = [one for one in sorted(found) if kind is None or self.kind(one) is kind]
        return (*inner, *own)

    def _index_names(self) -> dict[int, array[int]]:
        words = self._blob.words
        found: dict[int, array[int]] = {}
        for number, at in enumerate(self._starts, self._first):
            place = words[at]
            if place in found:
                found[place].append(number)
            elif place:
                found[place] = array("I", (number,))
        return found

    def _names_at(self, name: str) -> set[int]:
        """Where a record of this blob may say its name to be: in its own strings, or in its base's."""
        own = {place + self._first_string for place in self._blob.places(name)}
        return own | self.base._names_at(name) if self.base is not None else own  # noqa: SLF001

    def size(self, id: int) -> int:
        """Bytes of that type's data.

        Raises:
            BadBtf: it has none (void, a function, a struct that is only declared), or contradicts itself.
        """
        return self._builder.size(id)

    def layout(self, id: int) -> Layout:
        """What the bytes of that type mean; a DATASEC is a record of its variables.

        The result is kept, and shared by every type that contains it.

        Raises:
            BadBtf: as ``size``; a member outside of its struct, a type that contains itself, more than 32 levels,
                or more than 16,384 fields in all.
        """
        return self._builder.layout(id)

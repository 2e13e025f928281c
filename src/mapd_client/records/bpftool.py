"""What ``bpftool -j map dump`` prints for the same map, to the byte. Sans-I/O.

Written after what bpftool does (tools/bpf/bpftool/map.c and btf_dumper.c of Linux 6.1, bpftool 7.1), and compared with
it over generated types. Where bpftool prints no JSON, this does: a ``char`` that is a quotation mark or a backslash is
escaped, a float is a number (bpftool stops in the middle of the line).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii as quoted
from math import isfinite
from typing import Final, TypeAlias

from mapd_api.layout import round_up8
from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.btf.kinds import Kind
from mapd_client.codec import ORDER, Buffer
from mapd_client.errors import SizeMismatch
from mapd_client.info import Btf, ByteOrder, MapInfo

_PRINTABLE: Final = (0x20, 0x7E)
_DIGITS: Final = tuple(f'"0x{byte:02x}"' for byte in range(256))
_FLOATS: Final = {2: "e", 4: "f", 8: "d"}
_DEEPEST: Final = 64
"""Types within one another; the kernel takes 32."""

_Modifier: TypeAlias = kinds.Volatile | kinds.Const | kinds.Restrict | kinds.TypeTag


class Bpftool:
    """Elements of one map as bpftool prints them.

    Args:
        info: the map.
        btf: what it was created with; None: there is none, or none to be had, and "formatted" is missing.
        byteorder: of the daemon's host.
    """

    def __init__(self, info: MapInfo, btf: Btf | None, byteorder: ByteOrder) -> None:
        self._info = info
        self._btf = btf
        self._dumper = _Dumper(Types(btf.blob), byteorder) if btf is not None else None
        self._slots = info.slots() if info.per_cpu else None

    def objects(self, keys: Buffer, values: Buffer, count: int) -> Iterator[str]:
        """One JSON object for each element; bpftool puts them between "[" and "]", with commas.

        Raises:
            SizeMismatch: columns of other sizes.
            BadBtf: types that cannot be read.
        """
        info = self._info
        key_bytes, value_bytes = info.key_stride, info.value_stride
        if (len(keys), len(values)) != (count * key_bytes, count * value_bytes):
            raise SizeMismatch(
                f"{len(keys)} and {len(values)} bytes are not {count} elements of {info.label}"
            )
        all_keys, all_values = bytes(keys), bytes(values)
        for at in range(count):
            key = all_keys[at * key_bytes : at * key_bytes + info.key_size]
            yield self._object(key, all_values[at * value_bytes : (at + 1) * value_bytes])

    def _object(self, key: bytes, value: bytes) -> str:
        info = self._info
        parts = [f'"key":{_hex(key)}']
        if self._slots is None:
            parts.append(f'"value":{_hex(value[: info.value_size])}')
        else:
            cpus = [f'{{"cpu":{cpu},"value":{_hex(slot)}}}' for cpu, slot in self._cpus(value)]
            parts.append(f'"values":[{",".join(cpus)}]')
        if self._btf is not None and self._dumper is not None:
            parts.append(f'"formatted":{{{",".join(self._formatted(self._dumper, self._btf, key, value))}}}')
        return f"{{{','.join(parts)}}}"

    def _cpus(self, value: bytes) -> Iterator[tuple[int, bytes]]:
        stride = round_up8(self._info.value_size)
        for cpu in range(self._slots or 0):
            yield cpu, value[cpu * stride : cpu * stride + self._info.value_size]

    def _formatted(self, dumper: _Dumper, btf: Btf, key: bytes, value: bytes) -> Iterator[str]:
        if btf.key_type_id:
            yield f'"key":{dumper.text(btf.key_type_id, key)}'
        if self._slots is None:
            yield f'"value":{dumper.text(btf.value_type_id, value)}'
        else:
            cpus = [
                f'{{"cpu":{cpu},"value":{dumper.text(btf.value_type_id, slot)}}}'
                for cpu, slot in self._cpus(value)
            ]
            yield f'"values":[{",".join(cpus)}]'


def _hex(data: bytes) -> str:
    return "[" + ",".join([_DIGITS[byte] for byte in data]) + "]"


def _wide(number: int) -> str:
    """Bit-fields and integers of 16 bytes: hex digits in a string."""
    return f'"0x{number:x}"'


class _Dumper:
    def __init__(self, types: Types, order: ByteOrder) -> None:
        self._types = types
        self._order: ByteOrder = order
        self._kinds: dict[int, Kind] = {}
        self._sizes: dict[int, int] = {}

    def _kind(self, type_id: int) -> Kind:
        """Decoded once, not for each element."""
        found = self._kinds.get(type_id)
        if found is None:
            found = self._kinds[type_id] = self._types[type_id]
        return found

    def _size(self, type_id: int) -> int:
        found = self._sizes.get(type_id)
        if found is None:
            found = self._sizes[type_id] = self._types.size(type_id)
        return found

    def text(self, type_id: int, data: bytes, bit: int = 0, depth: int = 0) -> str:
        """A type's JSON; ``bit``: where an old compiler's bit-field begins."""
        if depth > _DEEPEST:
            raise BadBtf(f"BTF: more than {_DEEPEST} types within one another", number=type_id)
        kind = self._kind(type_id)
        match kind:
            case kinds.Int():
                return self._int(kind, data, bit)
            case kinds.Struct() | kinds.Union():
                return self._struct(kind, data, depth)
            case kinds.Array():
                return self._array(kind, data, depth)
            case kinds.Enum() | kinds.Enum64():
                return self._enum(kind, data)
            case kinds.Ptr():
                return str(self._number(data[:8]))
            case kinds.Typedef() | kinds.Volatile() | kinds.Const() | kinds.Restrict() | kinds.TypeTag():
                return self.text(kind.type, data, bit, depth + 1)
            case kinds.Var():
                return f"{{{quoted(kind.name)}:{self.text(kind.type, data, 0, depth + 1)}}}"
            case kinds.Datasec():
                return self._section(kind, data, depth)
            case kinds.Float() if kind.size in _FLOATS:
                (number,) = struct.unpack(f"{ORDER[self._order]}{_FLOATS[kind.size]}", data[: kind.size])
                return repr(number) if isfinite(number) else "null"
            case _:
                raise BadBtf(f"BTF: type {type_id} is no value's", number=type_id)

    def _number(self, data: bytes, *, signed: bool = False) -> int:
        return int.from_bytes(data, self._order, signed=signed)

    def _bits(self, data: bytes, first: int, width: int) -> str:
        data = data[first // 8 :]
        first %= 8
        end = (first + width + 7) // 8
        number = self._number(data[:end])
        shift = first if self._order == "little" else 8 * end - first - width
        return _wide(number >> shift & (1 << width) - 1)

    def _int(self, kind: kinds.Int, data: bytes, bit: int) -> str:
        if kind.offset or bit or kind.bits % 8:
            return self._bits(data, bit + kind.offset, kind.bits)
        data = data[: kind.bits // 8]
        if kind.bits == 128:
            return _wide(self._number(data))
        if kind.bool:
            return "true" if data[:1] != b"\0" else "false"
        if kind.char:
            low, high = _PRINTABLE
            return quoted(chr(data[0])) if low <= data[0] <= high else f'"\\u00{data[0]:02x}"'
        if kind.bits not in (8, 16, 32, 64):
            return self._bits(data, 0, kind.bits)
        return str(self._number(data, signed=kind.signed))

    def _struct(self, kind: kinds.Struct | kinds.Union, data: bytes, depth: int) -> str:
        fields: list[str] = []
        for member in kind.members:
            if member.bits:
                text = self._bits(data, member.bit_offset, member.bits)
            else:
                first, bit = divmod(member.bit_offset, 8)
                text = self.text(member.type, data[first:], bit, depth + 1)
            fields.append(f"{quoted(member.name)}:{text}")
        return f"{{{','.join(fields)}}}"

    def _array(self, kind: kinds.Array, data: bytes, depth: int) -> str:
        size = self._size(kind.type)
        if self._is_char(kind.type):
            text, end, _ = data[: kind.nelems].partition(b"\0")
            if end and all(0x1F < byte < 0x7F for byte in text):
                return quoted(text.decode("ascii"))
        each = (
            self.text(kind.type, data[at * size : (at + 1) * size], 0, depth + 1) for at in range(kind.nelems)
        )
        return f"[{','.join(each)}]"

    def _is_char(self, type_id: int) -> bool:
        """A typedef of char is no char to bpftool."""
        kind = self._kind(type_id)
        for _ in range(_DEEPEST):
            if not isinstance(kind, _Modifier):
                break
            kind = self._kind(kind.type)
        return isinstance(kind, kinds.Int) and kind.bits == 8 and (kind.char or kind.name == "char")

    def _enum(self, kind: kinds.Enum | kinds.Enum64, data: bytes) -> str:
        # Signed, whatever the enum says.
        number = self._number(data[: kind.size], signed=True)
        half = 1 << (31 if isinstance(kind, kinds.Enum) else 63)
        for name, value in kind.values:
            if number == (value - 2 * half if value >= half else value):
                return quoted(name)
        return str(number)

    def _section(self, kind: kinds.Datasec, data: bytes, depth: int) -> str:
        each = (
            self.text(var.type, data[var.offset : var.offset + var.size], 0, depth + 1) for var in kind.vars
        )
        return f"{{{quoted(kind.name)}:[{','.join(each)}]}}"

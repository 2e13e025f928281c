"""What is fuzzed: for each parser a function of one input, which raises where the parser broke its word.

A parser answers, or raises a MapdError that says what is wrong. Everything else is a crash, taking more than a few
seconds a hang.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from mapd_client.btf import BadBtf, Types
from mapd_client.cli import literals
from mapd_client.elf.read import read_object
from mapd_client.errors import MapdError, Misuse
from mapd_client.info import ByteOrder
from mapd_client.layouts import Layout
from mapd_client.refs import MapRef
from mapd_client.tables.dtypes import dtype_of_layout
from mapd_client.typed.compiling import codec_of
from mapd_client.typed.hints import Parsing, known
from mapd_client.typed.hintsfile import parse_hints
from mapd_client.typed.paths import find
from tests.fuzz.objects import objects
from tests.fuzz.questions import read_all
from tests.fuzz.target import Target
from tests.support.btfsamples import every_kind, rich
from tests.support.rawbtf import Raw

_VALUE_BYTES: Final = 4096
"""Of the values that are decoded: the kernel's own are seldom larger."""

_CONVENTIONS: Final = ("auto", "samples", "tc", "libbpf")
_U32_MAX: Final = 0xFFFF_FFFF
_NAMES: Final = b"\0int\0char\0__be32\0bpf_spin_lock\0kptr\0a\0b\0c\0d\0"
_SIZES: Final = (0, 1, 2, 4, 8, 8, 16, 20)


def btf(data: bytes) -> None:
    """A blob as it is, or records without a header, which get one; then all that is made of its types."""
    blob = data if data[:2] in (b"\x9f\xeb", b"\xeb\x9f") else _framed(data)
    read_all(blob)
    try:
        types = Types(blob)
    except BadBtf:
        return
    for number in range(1, min(len(types), 64)):
        try:
            layout = types.layout(number)
        except BadBtf:
            continue
        if 0 < layout.size <= _VALUE_BYTES:  # no map has keys or values of no bytes
            _used(layout, types.byteorder)


def _framed(data: bytes) -> bytes:
    raw = Raw("big" if data[:1] == b"B" else "little")
    raw.strings = bytearray(_NAMES)
    raw.types = [data[1 : 1 + (len(data) - 1) // 4 * 4]]
    return raw.blob()


def _used(layout: Layout, byteorder: ByteOrder) -> None:
    """A value of zeros is read, and written as it was; numpy's description is made."""
    try:
        codec = codec_of(layout).bind(byteorder, 1)
        value = codec.decode(bytes(layout.size))
        again = codec.encode(value)
    except MapdError:
        return
    assert again == bytes(layout.size), (layout, value)
    try:
        dtype_of_layout(layout, byteorder)
    except MapdError:
        return


def elf(data: bytes) -> None:
    """An object, read by one convention or by whichever it is; then the types of its maps."""
    convention = _CONVENTIONS[data[0] & 3] if data else "auto"
    try:
        found = read_object(data[1:], convention)
    except Misuse:
        return
    assert found.convention in _CONVENTIONS
    assert found.rule
    for one in found.maps:
        assert 0 <= one.max_entries <= _U32_MAX
        assert all(len(slot.key) == 4 for slot in one.slots)
        for number in (one.key_type_id, one.value_type_id):
            if number and found.btf is not None:
                with suppress(BadBtf):
                    found.btf.layout(number)


def keys(data: bytes) -> None:
    """What a person types for a map, a key, a value or a field, and a file of hints."""
    text = data[1:].decode("utf-8", "surrogateescape")
    size = _SIZES[data[0] & 7] if data else 4
    order: ByteOrder = "big" if data and data[0] & 8 else "little"
    with suppress(Misuse):
        assert len(literals.parse(text, size, order)) == size
    with suppress(Misuse):
        literals.parse_hex(text)
    with suppress(Misuse):
        ref = MapRef.parse(text)
        assert MapRef.parse(str(ref)) == ref
    with suppress(Misuse):
        parse_hints(data[1:], "fuzz")
    with suppress(Misuse):
        find(_LAYOUT, text)
    for codec in known().values():
        if isinstance(codec, Parsing):
            with suppress(Misuse):
                codec.parse(text)


_BLOBS: Final = (rich().blob(), *(every_kind(order)[0].blob() for order in ("little", "big")))
_RECORDS: Final = tuple(
    side + b"".join(made.types)
    for side, made in ((b"L", rich()), (b"L", every_kind("little")[0]), (b"B", every_kind("big")[0]))
)
_WORDS: Final = tuple(kind.to_bytes(1, "little") for kind in range(1, 20))
_TYPES: Final = Types(rich().blob())
_LAYOUT: Final = _TYPES.layout(_TYPES.ids("value")[0])
_HINTS: Final = b'\x03["web/flows"]\nkey.saddr = "ipv4"\nvalue = "mac"\n["*"]\nkey = "cidr4"\n'
_TYPED: Final = tuple(
    bytes((first,)) + text
    for first, text in (
        (3, b"hex:0a000001"),
        (3, b"0x0a000001"),
        (3, b"u32:7"),
        (11, b"i32:-0x7"),
        (4, b"18446744073709551615"),
        (2, b"-32768"),
        (3, b"10.0.0.1"),
        (4, b"10.0.0.0/8"),
        (7, b"2001:db8::/32"),
        (6, b"fe80::1%eth0"),
        (0, b"02:00:5e:10:00:01"),
        (0, b"pin:/sys/fs/bpf/x"),
        (0, b"id:42"),
        (0, b"web/flows"),
        (0, b"pair[1].mask"),
        (0, b"2026-01-31T12:00:00+00:00"),
    )
)

TARGETS: Final = {
    "btf": Target(btf, (*_BLOBS, *_RECORDS), _WORDS),
    "elf": Target(
        elf,
        tuple(b"\0" + seed for seed in objects()),
        (b".maps", b"maps\0", b".BTF", b".bss", b"license", *_WORDS),
        max_len=4096,
    ),
    "keys": Target(
        keys, (*_TYPED, _HINTS), (b"hex:", b"0x", b"u64:", b"i8:", b"pin:/", b"id:", b"::", b'["'), 512
    ),
}

"""Keys and values as one types them. No I/O.

``hex:0a00`` and ``0x0a00`` are bytes as they lie in memory. ``u32:7`` (u8 to u64, i8 to i64) is an
integer in the byte order of the daemon's host; a plain ``7`` likewise, of the map's own size.
``10.0.0.0/8`` is the key of an LPM trie, ``10.0.0.1`` an address, ``02:00:5e:10:00:01`` a MAC.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Final

from mapd_api.layout import round_up8
from mapd_api.uapi import MapType
from mapd_client.codec import I8, I16, I32, I64, U8, U16, U32, U64
from mapd_client.errors import Misuse, SizeMismatch
from mapd_client.info import ByteOrder, MapInfo
from mapd_client.netcodec import Cidr4, Cidr6, Mac

_INTEGERS: Final = {
    "u8": U8,
    "u16": U16,
    "u32": U32,
    "u64": U64,
    "i8": I8,
    "i16": I16,
    "i32": I32,
    "i64": I64,
}
_BY_SIZE: Final = {1: (U8, I8), 2: (U16, I16), 4: (U32, I32), 8: (U64, I64)}
_FORMS: Final = "hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01"


def parse(text: str, size: int, byteorder: ByteOrder) -> bytes:
    """The ``size`` bytes that ``text`` stands for.

    Raises:
        SizeMismatch: it stands for another number of bytes; has both.
        Misuse: it is none of the forms.
    """
    data = _parse(text, size, byteorder)
    if len(data) != size:
        raise SizeMismatch(f"{text!r} is {len(data)} byte{'s' * (len(data) != 1)}, {size} are needed")
    return data


def _parse(text: str, size: int, byteorder: ByteOrder) -> bytes:
    lowered = text.lower()
    for prefix in ("hex:", "0x"):
        if lowered.startswith(prefix):
            return _hex(text, lowered.removeprefix(prefix))
    kind, colon, number = lowered.partition(":")
    if colon and kind in _INTEGERS:
        return _INTEGERS[kind].bind(byteorder, 1).encode(_int(text, number))
    if re.fullmatch(r"-?[0-9]{1,40}", lowered, re.ASCII):
        if size not in _BY_SIZE:
            raise Misuse(f"{text!r}: no integer has {size} bytes; write {size} bytes as hex:...")
        unsigned, signed = _BY_SIZE[size]
        value = int(lowered)
        return (signed if value < 0 else unsigned).bind(byteorder, 1).encode(value)
    if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", lowered):
        return Mac.encode(lowered)
    return _address(text, byteorder)


def parse_hex(text: str) -> bytes:
    """Bytes of any number: ``hex:0a00``, ``0x0a00`` or ``0a00``; raises Misuse."""
    return _hex(text, text.lower().removeprefix("hex:").removeprefix("0x"))


def _hex(text: str, digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise Misuse(f"{text!r}: two hex digits for each byte") from None


def _int(text: str, number: str) -> int:
    try:
        return int(number, 0)
    except ValueError:
        raise Misuse(f"{text!r}: a number follows the colon, as in u32:7 or u32:0x7") from None


def _address(text: str, byteorder: ByteOrder) -> bytes:
    try:
        if "/" not in text:
            return ip_address(text).packed
        network = ip_network(text)
    except ValueError as error:
        why = f": {error}" if "host bits" in str(error) else f"; write {_FORMS}"
        raise Misuse(f"{text!r} is no key or value{why}") from None
    if isinstance(network, IPv4Network):
        return Cidr4.bind(byteorder, 1).encode(network)
    return Cidr6.bind(byteorder, 1).encode(network)


def parse_key(text: str, info: MapInfo, byteorder: ByteOrder) -> bytes:
    """A key of the map; raises as ``parse``, and Misuse for an address where a network is due."""
    check_network(text, info)
    return parse(text, info.key_size, byteorder)


def check_network(text: str, info: MapInfo) -> None:
    """Raises Misuse for an address where a network is due, however the fields of a key are called."""
    if info.type == MapType.LPM_TRIE and (bits := _address_bits(text)):
        raise Misuse(f"{text!r} is an address, the keys of an LPM trie are networks: write {text}/{bits}")


def _address_bits(text: str) -> int:
    """32 or 128 for an address, 0 for anything else."""
    try:
        return ip_address(text).max_prefixlen
    except ValueError:
        return 0


def parse_value(text: str, info: MapInfo, byteorder: ByteOrder) -> bytes:
    """A value of the map; in a per-CPU map every CPU gets it. Raises as ``parse``."""
    value = parse(text, info.value_size, byteorder)
    if not info.per_cpu:
        return value
    return value.ljust(round_up8(info.value_size), b"\0") * info.slots()


def split_value(value: bytes, info: MapInfo) -> list[bytes]:
    """A value's CPUs, without the padding; one for a map that is not per CPU."""
    if not info.per_cpu:
        return [value]
    slot = round_up8(info.value_size)
    return [value[at : at + info.value_size] for at in range(0, len(value), slot)]

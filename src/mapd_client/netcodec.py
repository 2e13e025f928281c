"""Codecs of network addresses: network byte order, whatever the host. Sans-I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from mapd_client.codec import ORDER, Buffer, Codec
from mapd_client.errors import TypeMismatch
from mapd_client.info import ByteOrder

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

T = TypeVar("T")
Address = TypeVar("Address", IPv4Address, IPv6Address)
Network = TypeVar("Network", IPv4Network, IPv6Network)

_MAC_BYTES: Final = 6


class _Address(Codec[Address], Generic[Address]):
    def __init__(self, name: str, kind: type[Address], size: int) -> None:
        self._name = name
        self._kind: type[Address] = kind
        self.size = size

    def __repr__(self) -> str:
        return self._name

    @property
    def dtype(self) -> DTypeLike:
        return ("u1", (self.size,))

    def encode(self, value: Address) -> bytes:
        _check(self, self._kind, value)
        return value.packed

    def parse(self, text: str) -> Address:
        return _parsed(self, self._kind, text)

    def decode_many(self, column: Buffer) -> list[Address]:
        view = self._whole(column)
        kind = self._kind
        return [kind(data) for (data,) in struct.iter_unpack(f"{self.size}s", view)]


class _Cidr(Codec[Network], Generic[Network]):
    """struct bpf_lpm_trie_key: prefixlen in the host's order, then the address."""

    def __init__(
        self,
        name: str,
        kind: type[Network],
        make: Callable[[bytes, int], Network],
        address_bytes: int,
        byteorder: ByteOrder = "little",
    ) -> None:
        self._name = name
        self._kind: type[Network] = kind
        self._make: Callable[[bytes, int], Network] = make
        self._address_bytes = address_bytes
        self._byteorder: ByteOrder = byteorder
        self.size = 4 + address_bytes
        self._struct = struct.Struct(f"{ORDER[byteorder]}I{address_bytes}s")

    def __repr__(self) -> str:
        return self._name

    @property
    def dtype(self) -> DTypeLike:
        # The kernel's names; struct bpf_lpm_trie_key_u8 in include/uapi/linux/bpf.h.
        formats = [f"{ORDER[self._byteorder]}u4", ("u1", (self._address_bytes,))]
        return {"names": ["prefixlen", "data"], "formats": formats}

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Network]:  # noqa: ARG002 - as Codec
        if byteorder == self._byteorder:
            return self
        return _Cidr(self._name, self._kind, self._make, self._address_bytes, byteorder)

    def encode(self, value: Network) -> bytes:
        _check(self, self._kind, value)
        return self._struct.pack(value.prefixlen, value.network_address.packed)

    def parse(self, text: str) -> Network:
        return _parsed(self, self._kind, text)

    def decode_many(self, column: Buffer) -> list[Network]:
        # A list: an iterator that a traceback keeps alive exports the column, and where the exception is in a cycle the
        # collector of CPython 3.11 says BufferError of that, or reads freed memory.
        pairs = list(self._struct.iter_unpack(self._whole(column)))
        try:
            return [self._make(address, length) for length, address in pairs]
        except ValueError as error:
            raise TypeMismatch(f"what is there is no {self!r}: {error}") from None


def _check(codec: Codec[Any], kind: type, value: object) -> None:
    if not isinstance(value, kind):
        raise TypeMismatch(f"{codec!r} takes ipaddress.{kind.__name__}, not {type(value).__name__} {value!r}")


def _parsed(codec: Codec[T], kind: Callable[[str], T], text: str) -> T:
    try:
        return kind(text)
    except ValueError as error:
        raise TypeMismatch(f"{codec!r}: {error}") from None


class _Mac(Codec[str]):
    size = _MAC_BYTES

    def __repr__(self) -> str:
        return "Mac"

    @property
    def dtype(self) -> DTypeLike:
        return ("u1", (_MAC_BYTES,))

    def encode(self, value: str) -> bytes:
        try:
            data = bytes.fromhex(value.replace(":", "").replace("-", ""))
        except (ValueError, AttributeError):
            data = b""
        if len(data) != _MAC_BYTES:
            raise TypeMismatch(f"Mac takes six bytes as '02:00:5e:10:00:01', not {value!r}")
        return data

    def decode_many(self, column: Buffer) -> list[str]:
        view = self._whole(column)
        return [data.hex(":") for (data,) in struct.iter_unpack("6s", view)]


def _network4(address: bytes, length: int) -> IPv4Network:
    # The kernel keeps the bits beyond the prefix as they were given; a network has none.
    return IPv4Network((address, length), strict=False)


def _network6(address: bytes, length: int) -> IPv6Network:
    return IPv6Network((address, length), strict=False)


Ipv4: Final[Codec[IPv4Address]] = _Address("Ipv4", IPv4Address, 4)
"""Four bytes, ``ipaddress.IPv4Address``."""

Ipv6: Final[Codec[IPv6Address]] = _Address("Ipv6", IPv6Address, 16)
"""Sixteen bytes, ``ipaddress.IPv6Address``."""

Cidr4: Final[Codec[IPv4Network]] = _Cidr("Cidr4", IPv4Network, _network4, 4)
"""Eight bytes: the key of an LPM_TRIE, ``ipaddress.IPv4Network``. A host is looked up as its /32."""

Cidr6: Final[Codec[IPv6Network]] = _Cidr("Cidr6", IPv6Network, _network6, 16)
"""Twenty bytes: the key of an LPM_TRIE, ``ipaddress.IPv6Network``. A host is looked up as its /128."""

Mac: Final[Codec[str]] = _Mac()
"""Six bytes, written ``"02:00:5e:10:00:01"``."""

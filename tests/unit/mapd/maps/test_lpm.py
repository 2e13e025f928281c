"""Prefixes as columns: host bits off, and what lies within what, against ipaddress."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import example, given
from hypothesis import strategies as st

from mapd.maps import lpm

Network = IPv4Network | IPv6Network

networks = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 32))
long_networks = st.tuples(st.integers(0, (1 << 128) - 1), st.integers(0, 128))


def packed(address: int, length: int, size: int = 4) -> bytes:
    return struct.pack("=I", length) + address.to_bytes(size, "big")


def of(network: Network) -> bytes:
    return struct.pack("=I", network.prefixlen) + network.network_address.packed


@given(st.lists(networks, max_size=40))
def test_host_bits_are_taken_off(found: list[tuple[int, int]]) -> None:
    column = b"".join(packed(*one) for one in found)
    assert lpm.canonical(column, 8) == b"".join(of(IPv4Network(one, strict=False)) for one in found)


@given(st.lists(long_networks, max_size=20))
def test_long_addresses_are_cut_likewise(found: list[tuple[int, int]]) -> None:
    column = b"".join(packed(*one, 16) for one in found)
    assert lpm.canonical(column, 20) == b"".join(of(IPv6Network(one, strict=False)) for one in found)


def test_a_column_that_is_clean_is_not_copied() -> None:
    column = of(ip_network("10.0.0.0/8")) + of(ip_network("10.1.2.3/32"))
    assert lpm.canonical(column, 8) is column


def test_a_length_beyond_the_address_is_left_for_the_kernel_to_refuse() -> None:
    for length in (33, 255, 1 << 16, (1 << 32) - 1):
        assert lpm.canonical(packed(0x0A0B0C0D, length), 8) == packed(0x0A0B0C0D, length)


@given(networks, st.lists(networks, max_size=40))
@example((0, 0), [(0xFFFFFFFF, 32), (0, 0)])
@example((0x0A000000, 8), [(0x0A000000, 7), (0x0A000000, 8), (0x0B000000, 8), (0x0AFFFFFF, 32)])
def test_within_is_what_ipaddress_calls_a_subnet(
    outer: tuple[int, int], found: list[tuple[int, int]]
) -> None:
    column = b"".join(packed(*one) for one in found)
    whole = IPv4Network(outer, strict=False)
    wanted = [IPv4Network(one, strict=False).subnet_of(whole) for one in found]
    assert lpm.within(column, 8, packed(*outer)).tolist() == wanted

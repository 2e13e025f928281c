"""Networks as text, beside ipaddress."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_client import Cidr4, Cidr6, Misuse
from mapd_client.syncing.networks import Family, OtherFamily, network
from mapd_client.syncing.shape import Shape

ADDRESSES: dict[Family, st.SearchStrategy[str]] = {
    "ipv4": st.ip_addresses(v=4).map(str),
    "ipv6": st.ip_addresses(v=6).map(str) | st.ip_addresses(v=6).map(lambda one: one.exploded),
}
BITS: dict[Family, int] = {"ipv4": 32, "ipv6": 128}
FAMILIES: list[Family] = ["ipv4", "ipv6"]


def masked(key: bytes) -> list[bytes]:
    return Shape(len(key), 0, networks=True).keys(key)


@pytest.mark.parametrize("family", FAMILIES)
@given(st.data())
def test_a_network_is_what_ipaddress_makes_of_it(family: Family, data: st.DataObject) -> None:
    text = data.draw(ADDRESSES[family])
    if data.draw(st.booleans()):
        text += f"/{data.draw(st.integers(0, BITS[family]))}"

    found = ip_network(text, strict=False)

    expected = Cidr4.encode(found) if isinstance(found, IPv4Network) else Cidr6.encode(found)
    assert masked(network(text, family, "little")) == [expected]


def test_a_netmask_is_taken() -> None:
    assert network("10.0.0.0/255.0.0.0", "ipv4", "big") == b"\0\0\0\x08\x0a\0\0\0"
    assert network("::/0", "ipv6", "little") == Cidr6.encode(IPv6Network("::/0"))


@pytest.mark.parametrize(
    ("text", "family"), [("10.0.0.0/8", "ipv6"), ("::1", "ipv4"), ("2001:db8::/32", "ipv4")]
)
def test_the_other_family_is_told_apart_from_nonsense(text: str, family: Family) -> None:
    with pytest.raises(OtherFamily, match=f"the map's keys are of {family}"):
        network(text, family, "little")


@pytest.mark.parametrize(
    "text", ["", "/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "x", "10.0.0.0/٣", "10.0.0.0/ 8"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="does not appear to be an IPv4 or IPv6 network"):
        network(text, "ipv4", "little")

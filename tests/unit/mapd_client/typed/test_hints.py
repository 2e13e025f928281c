"""Hints: what fields mean beyond their types, by path."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest

from mapd_client import U32, Bytes, Cidr4, Codec, Ipv4, Ipv6, Mac, Misuse, Port, SizeMismatch, TypeMismatch
from mapd_client.layouts import Array, Special
from mapd_client.typed import codec_of
from mapd_client.typed.hints import known, register, resolve
from tests.unit.mapd_client.typed.shapes import BE32, FLOW_KEY, MAC, U8, U16, bit, member, struct
from tests.unit.mapd_client.typed.shapes import U32 as U32_LAYOUT

IN6 = Array(element=U8, count=16)
PEER = struct("peer", member("addr", 0, BE32), member("mac", 4, MAC), member("port", 10, U16))
TABLE = struct(
    "table",
    member("peers", 0, Array(element=PEER, count=2)),
    member("hops", 24, Array(element=U32_LAYOUT, count=2)),
    member("source", 32, IN6),
    member("lock", 48, Special(size=4, type_name="bpf_spin_lock")),
    bit("flags", 52 * 8, 3, U32_LAYOUT),
    size=56,
)

MAP_KEY = struct("lpm", member("prefixlen", 0, U32_LAYOUT), member("data", 4, BE32))


def test_a_path_leads_through_arrays_and_stands_for_each_element() -> None:
    codec = codec_of(
        TABLE,
        hints={
            "value.peers.addr": Ipv4,
            "value.peers.mac": "mac",
            "value.hops": "ipv4",
            "value.source": Ipv6,
        },
    )
    peers = [{"addr": f"10.0.0.{n}", "mac": f"02:00:00:00:00:0{n}", "port": n} for n in (1, 2)]

    found = codec.decode(
        codec.encode({"peers": peers, "hops": ["10.1.0.1", "10.1.0.2"], "source": "fe80::1", "flags": 5})
    )

    assert [peer["addr"] for peer in found["peers"]] == [IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")]
    assert found["peers"][1]["mac"] == "02:00:00:00:00:02"
    assert found["hops"] == (IPv4Address("10.1.0.1"), IPv4Address("10.1.0.2"))
    assert found["source"] == IPv6Address("fe80::1")


def test_an_array_of_one_element_stays_an_array() -> None:
    codec = codec_of(Array(element=U32_LAYOUT, count=1), hints={"value": Ipv4})

    assert codec.decode(b"\x0a\0\0\1") == (IPv4Address("10.0.0.1"),)


def test_bytes_that_a_program_copied_from_a_header_are_a_port() -> None:
    # A plain __u16, which holds what was in the packet.
    codec = codec_of(PEER, hints={"value.port": Port})

    assert codec.decode(bytes(10) + b"\0P")["port"] == 80
    assert codec.bind("big", 1).decode(bytes(10) + b"\0P")["port"] == 80


def test_a_hint_for_the_whole_key_is_its_codec() -> None:
    key = struct("k", member("prefixlen", 0, U32_LAYOUT), member("data", 4, Array(element=U8, count=4)))

    for byteorder in ("little", "big"):
        codec = codec_of(key, hints={"key": "cidr4"}, path="key").bind(byteorder, 1)
        assert codec.decode(codec.encode("10.0.0.0/8")) == IPv4Network("10.0.0.0/8")
        assert codec.encode(IPv4Network("10.0.0.0/8")) == (8).to_bytes(4, byteorder) + b"\x0a\0\0\0"


def test_text_that_a_hint_cannot_read_is_named_with_its_path() -> None:
    codec = codec_of(FLOW_KEY, hints={"key.saddr": Ipv4}, path="key")
    rest = {"dport": 1, "proto": 2, "ifindex": 3}

    with pytest.raises(TypeMismatch, match=r"key\.saddr: Ipv4: Expected 4 octets in '10\.0\.0'"):
        codec.encode({"saddr": "10.0.0", **rest})
    with pytest.raises(TypeMismatch, match=r"key\.saddr: Ipv4 takes ipaddress\.IPv4Address, not int 5"):
        codec.encode({"saddr": 5, **rest})


@pytest.mark.parametrize(
    ("hints", "kind", "message"),
    [
        (
            {"value.hop": Ipv4},
            Misuse,
            r"hint 'value\.hop': there is no such field: did you mean 'value\.hops'",
        ),
        ({"value.peers.mac": Ipv4}, SizeMismatch, r"Ipv4 is of 4 bytes, the field has 6, its elements 1"),
        ({"value.peers.port": Ipv4}, SizeMismatch, r"Ipv4 is of 4 bytes, the field has 2 \(__u16\)"),
        ({"value.flags": U32}, Misuse, "it is a bit-field of 3 bits"),
        ({"value.lock": U32}, Misuse, "struct bpf_spin_lock belongs to the kernel"),
        ({"value.source": "ipv66"}, Misuse, "hint 'ipv66' is not known: did you mean 'ipv6'"),
        ({"value.source": 6}, TypeMismatch, "a hint is a codec or its name, not int 6"),
    ],
)
def test_a_hint_that_fits_no_field_is_refused(
    hints: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        codec_of(TABLE, hints=hints)


def test_hints_of_the_other_side_are_none_of_its_business() -> None:
    assert codec_of(U32_LAYOUT, hints={"value.x": Ipv4}, path="key").decode(b"\1\0\0\0") == 1


@pytest.mark.parametrize(("name", "codec"), [("ipv4", Ipv4), ("mac", Mac), ("cidr4", Cidr4), ("port", Port)])
def test_a_name_stands_for_a_codec(name: str, codec: Codec[Any]) -> None:
    assert resolve(name) is codec
    assert known()[name] is codec


def test_the_hosts_facts_have_names_too() -> None:
    assert {"ktime", "ktime_boot", "ifindex", "cgroup_id"} <= set(known())


def test_a_name_is_given_once() -> None:
    register("ipv4", Ipv4)

    with pytest.raises(Misuse, match="hint 'ipv4' is Ipv4 already"):
        register("ipv4", Bytes(4))


def test_a_codec_is_asked_lazily() -> None:
    class Loud(Bytes):
        asked = 0

        def decode(self, data: Any) -> bytes:
            Loud.asked += 1
            return super().decode(data)

    codec = codec_of(PEER, hints={"value.addr": Loud(4)})
    (found,) = codec.decode_many(bytes(12))
    assert found["port"] == 0
    assert Loud.asked == 0

    assert found["addr"] == bytes(4)
    assert Loud.asked == 1


def test_bytes_that_a_hint_cannot_express_are_named_by_their_path() -> None:
    whole = codec_of(
        struct("v", member("nets", 0, Array(element=MAP_KEY, count=2))), hints={"value.nets": Cidr4}
    )
    found = whole.decode(b"\x21\0\0\0\x0a\0\0\1" * 2)

    with pytest.raises(
        TypeMismatch, match=r"value\.nets: what is there is no Cidr4: 33 is not a valid netmask"
    ):
        found["nets"]

"""What get_next_key tells of an LPM trie: whether a prefix is in it, which no lookup does."""

from __future__ import annotations

import struct
from typing import Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL, Maps, TestMap

Prefix = tuple[int, int]
"""Length and 16 bits of address, which may have bits beyond the length."""

BITS: Final = 16

prefixes = st.tuples(st.integers(0, BITS), st.integers(0, (1 << BITS) - 1))
tries = st.lists(prefixes, max_size=24)


def packed(prefix: Prefix) -> bytes:
    """As struct bpf_lpm_trie_key_u8: the length in the host's order, the address as on the wire."""
    length, address = prefix
    return struct.pack("=I", length) + address.to_bytes(BITS // 8, "big")


def canonical(prefix: Prefix) -> Prefix:
    """The same prefix without bits beyond its length."""
    length, address = prefix
    return length, address >> (BITS - length) << (BITS - length)


def trie(maps: Maps, members: list[Prefix]) -> TestMap:
    made = maps.create(MapType.LPM_TRIE, key_size=4 + BITS // 8, max_entries=64)
    if members:
        values = [made.value(at) for at in range(len(members))]
        assert not any(made.each(Op.UPDATE, [packed(one) for one in members], values))
    return made


def is_in(made: TestMap, prefix: Prefix) -> bool:
    """As the kernel's get_next_key tells it (kernel/bpf/lpm_trie.c, trie_get_next_key())."""
    first = KERNEL.next_key(made.fd, None, made.key_size)
    return first is not None and KERNEL.next_key(made.fd, packed(prefix), made.key_size) != first


def all_prefixes(addresses: list[int]) -> set[Prefix]:
    """Every prefix of some addresses, and its sibling: what is most easily taken for something else."""
    found: set[Prefix] = set()
    for address in addresses:
        for length in range(BITS + 1):
            here = canonical((length, address))
            found |= {here, (length, here[1] ^ (1 << (BITS - length)) & 0xFFFF if length else 0)}
    return found


@settings(max_examples=300, deadline=None)
@given(tries, st.lists(prefixes, max_size=16))
@example([], [(0, 0)])
@example([(0, 0)], [(0, 0xFFFF), (1, 0)])
@example([(16, 1)], [(16, 0), (15, 0), (0, 0)])
@example([(8, 0x0A4D)], [(8, 0x0A00), (8, 0x0AFF), (8, 0x0B00)])
@example([(9, 0x0000), (9, 0x0080)], [(8, 0x0000)])  # a node that stands for no prefix of its own
def test_the_key_after_a_prefix_tells_whether_it_is_there(members: list[Prefix], asked: list[Prefix]) -> None:
    """The key after an absent prefix is the first, after one that is there it is another, or none."""
    model = {canonical(prefix): at for at, prefix in enumerate(members)}
    with Maps() as maps:
        made = trie(maps, members)
        near = all_prefixes([address for _, address in members])
        for prefix in {*asked, *members, *model, *near}:
            there = canonical(prefix) in model
            assert is_in(made, prefix) == there, (prefix, sorted(model))
            if there:
                (own,) = made.lookup([packed(prefix)])
                assert own == made.value(model[canonical(prefix)])


def test_the_stored_key_keeps_the_host_bits_it_was_last_written_with() -> None:
    with Maps() as maps:
        made = trie(maps, [(8, 0x0A00), (8, 0x0A4D)])
        assert made.walk() == [packed((8, 0x0A4D))]
        assert is_in(made, (8, 0x0A00))


def test_a_prefix_longer_than_the_key_is_in_no_trie() -> None:
    with Maps() as maps:
        made = trie(maps, [(0, 0), (16, 1)])
        assert not is_in(made, (BITS + 1, 1))

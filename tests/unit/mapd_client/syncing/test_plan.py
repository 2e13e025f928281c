"""The planner beside a plain dict, and what it refuses."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_client import Cidr4, Cidr6, Misuse
from mapd_client.info import ByteOrder
from mapd_client.syncing.plan import Contradiction, Plan, Planner, Wishes, wanted
from mapd_client.syncing.shape import Shape

BYTES = Shape(3, 2)
KEYS = st.binary(min_size=1, max_size=1).map(lambda one: b"\0" + one + b"\0")
VALUES = st.sampled_from([b"\0\0", b"\1\0", b"\0\1"])
MAPS = st.dictionaries(KEYS, VALUES, max_size=30)

Elements = Mapping[bytes, bytes]


def columns(elements: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    return b"".join(key for key, _ in elements), b"".join(value for _, value in elements)


def planned(shape: Shape, there: Sequence[tuple[bytes, bytes]], wish: Elements, per_chunk: int = 7) -> Plan:
    planner = Planner(wanted(shape, *columns([*wish.items()])))
    for at in range(0, len(there), per_chunk):
        part = there[at : at + per_chunk]
        keys, values = columns(part)
        planner.feed(memoryview(keys), memoryview(values), len(part))
    return planner.plan()


def carried_out(
    plan: Plan, there: Elements, per_message: int, *, removed_first: bool
) -> tuple[dict[bytes, bytes], int]:
    """What a map has after the writes of a plan, and how many elements it had at most on the way."""
    now, most, shape = dict(there), len(there), plan.wanted.shape
    steps = [plan.removals(per_message), plan.writes(per_message)]
    for source in steps if removed_first else steps[::-1]:
        for batch in source:
            assert batch.count <= per_message
            for key in range(0, len(batch.keys), shape.key_stride):
                name = batch.keys[key : key + shape.key_stride]
                value = key // shape.key_stride * shape.value_stride
                if batch.values:
                    now[name] = batch.values[value : value + shape.value_stride]
                else:
                    del now[name]
                most = max(most, len(now))
    return now, most


@given(MAPS, MAPS, st.integers(1, 9), st.integers(1, 9))
def test_the_plan_is_the_difference_of_two_dicts(
    there: dict[bytes, bytes], wish: dict[bytes, bytes], per_chunk: int, per_message: int
) -> None:
    plan = planned(BYTES, [*there.items()], wish, per_chunk)

    assert plan.added == [key for key in wish if key not in there]
    assert plan.changed == {key: there[key] for key in there if key in wish and wish[key] != there[key]}
    assert plan.removed == {key: there[key] for key in there if key not in wish}
    assert plan.entries == len(there)
    assert plan.unchanged == sum(there.get(key) == value for key, value in wish.items())
    assert bool(plan) is (there != wish)
    for removed_first in (False, True):
        assert carried_out(plan, there, per_message, removed_first=removed_first)[0] == wish


@given(MAPS, MAPS, st.integers(1, 60))
def test_what_is_said_to_fit_never_holds_more_than_max_entries(
    there: dict[bytes, bytes], wish: dict[bytes, bytes], room: int
) -> None:
    plan = planned(BYTES, [*there.items()], wish)
    max_entries = max(len(there), len(wish), room)

    _, most = carried_out(plan, there, 4, removed_first=not plan.fits(max_entries))

    assert most <= max_entries


@given(MAPS, MAPS, st.data())
def test_ended_anywhere_and_planned_again_it_ends_equal(
    there: dict[bytes, bytes], wish: dict[bytes, bytes], data: st.DataObject
) -> None:
    plan = planned(BYTES, [*there.items()], wish)
    todo = [(key, wish[key]) for key in [*plan.changed, *plan.added]]
    done = data.draw(st.integers(0, len(todo) + len(plan.removed)))
    now = dict(there) | dict(todo[:done])
    for key in [*plan.removed][: max(0, done - len(todo))]:
        del now[key]

    again = planned(BYTES, [*now.items()], wish)

    assert len(again.added) + len(again.changed) + len(again.removed) == len(todo) + len(plan.removed) - done
    assert carried_out(again, now, 5, removed_first=False)[0] == wish
    assert not again.excessive(len(plan.removed) / max(len(there), 1))  # who was allowed to begin may go on


FEW = st.sampled_from([b"\0a\0", b"\0b\0", b"\0c\0"])


@given(st.lists(st.tuples(FEW, VALUES), max_size=12), st.dictionaries(FEW, VALUES))
def test_a_key_that_a_walk_repeats_counts_as_it_was_shown_last(
    shown: list[tuple[bytes, bytes]], wish: dict[bytes, bytes]
) -> None:
    plan, once = planned(BYTES, shown, wish, 3), planned(BYTES, [*dict(shown).items()], wish, 3)

    assert (plan.added, plan.changed, plan.removed) == (once.added, once.changed, once.removed)


NETWORKS4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32))
ORDERS: list[ByteOrder] = ["little", "big"]


@pytest.mark.parametrize("byteorder", ORDERS)
@given(st.lists(NETWORKS4, max_size=20))
def test_networks_are_equal_without_their_host_bits(
    byteorder: ByteOrder, given: list[tuple[int, int]]
) -> None:
    shape = Shape(8, 1, networks=True, byteorder=byteorder)
    codec = Cidr4.bind(byteorder, 1)
    mark = "<" if byteorder == "little" else ">"
    raw = [struct.pack(f"{mark}I", bits) + address.to_bytes(4, "big") for address, bits in given]

    found = wanted(shape, b"".join(raw), b"\1" * len(raw))

    clean = [codec.encode(IPv4Network(one, strict=False)) for one in given]
    assert list(found.elements) == list(dict.fromkeys(clean))
    assert found.merged == len(clean) - len(set(clean))
    assert found.canonicalised == sum(one != other for one, other in zip(raw, clean, strict=True))


@given(st.integers(0, 2**128 - 1), st.integers(0, 128))
def test_networks_of_ipv6_are_equal_without_their_host_bits(address: int, bits: int) -> None:
    raw = struct.pack("<I", bits) + address.to_bytes(16, "big")

    found = wanted(Shape(20, 0, networks=True), raw, b"")

    assert list(found.elements) == [Cidr6.encode(IPv6Network((address, bits), strict=False))]


def test_a_network_that_was_written_with_host_bits_stays_as_it_is() -> None:
    shape = Shape(8, 1, networks=True)
    there = struct.pack("<I", 8) + bytes((10, 9, 9, 9))

    plan = planned(shape, [(there, b"\1")], {Cidr4.encode(IPv4Network("10.0.0.0/8")): b"\1"})

    assert not plan
    assert plan.unchanged == 1


def test_a_prefix_longer_than_an_address_is_refused_with_its_place() -> None:
    keys = Cidr4.encode(IPv4Network("10.0.0.0/8")) + struct.pack("<I", 33) + bytes(4)

    with pytest.raises(Misuse, match="element 1: a prefix of 33 bits, the map's keys have 32"):
        wanted(Shape(8, 1, networks=True), keys, b"\1\1")


def test_equal_elements_are_one_and_their_places_are_told() -> None:
    found = wanted(Shape(1, 1), b"abacada", b"1213141")

    assert dict(found.elements) == {b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"}
    assert (found.merged, found.twins) == (3, ((0, 2), (0, 4), (0, 6)))


def test_one_key_with_two_values_is_refused_with_both_places() -> None:
    with pytest.raises(Contradiction, match="elements 1 and 3 are of one key") as caught:
        wanted(Shape(1, 1), b"abab", b"1213")
    assert (caught.value.first, caught.value.second) == (1, 3)
    wishes = Wishes(Shape(1, 1))
    wishes.add(b"ab", b"12")
    with pytest.raises(Contradiction, match="elements 1 and 4 are of one key"):
        wishes.add(b"aab", b"113")


def test_what_pads_a_cpus_slot_does_not_count() -> None:
    shape = Shape(1, 16, slot=3)
    there = b"abc\xff\xff\xff\xff\xff" + b"def\xee" + bytes(4)

    plan = planned(shape, [(b"k", there)], {b"k": b"abc" + bytes(5) + b"def" + bytes(5)})
    other = planned(shape, [(b"k", there)], {b"k": b"abc" + bytes(5) + b"deF" + bytes(5)})

    assert not plan
    assert list(other.changed) == [b"k"]


@pytest.mark.parametrize(
    ("removed", "of", "share", "excessive"),
    [(1, 5, 0.2, False), (2, 9, 0.2, True), (0, 0, 0.0, False), (5, 5, 1.0, False), (1, 100, 0.0, True)],
)
def test_removals_are_excessive_beyond_the_share(
    removed: int, of: int, share: float, *, excessive: bool
) -> None:
    keys = [bytes((0, at, 0)) for at in range(of)]

    plan = planned(BYTES, [(key, b"\0\0") for key in keys], dict.fromkeys(keys[removed:], b"\0\0"))

    assert plan.excessive(share) is excessive

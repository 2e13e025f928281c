"""What ``blob_of`` refuses for the kernel's sake the kernel does refuse, with EINVAL and no word more.

Each type is written without the check, by ``Writer``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from mapd.bpf.kernel import SyscallError
from mapd_api.uapi import MapType
from mapd_client.btf.writer import Writer
from mapd_client.info import Btf
from mapd_client.layouts import Integer, Layout, Member, Record, Special, Text
from tests.kernel.maps import Maps
from tests.kernel.typed import INDEX, create_described, create_typed

SIZE = 16
Build = Callable[[Writer, int], int]
"""Writes the value's type, of 16 bytes; it is given that of an integer of 4."""


def taken(maps: Maps, build: Build, map_type: MapType = MapType.HASH) -> None:
    writer = Writer("little")
    key = writer.integer("unsigned int", 4, "")
    value = build(writer, key)
    create_described(maps, map_type, 4, SIZE, Btf(writer.blob(), key, value))


def named(name: str) -> Build:
    """A member of that name."""
    return lambda writer, word: writer.record("s", SIZE, [(name, word, 0, None)], union=False)


def at(
    offset: int, type: Build, *, union: bool = False, bits: int | None = None, first: bool = False
) -> Build:
    """A member of that type so many bytes from the beginning; ``first``: a bit-field before it."""

    def build(writer: Writer, word: int) -> int:
        before = [("bits", word, 0, 3)] if first else []
        return writer.record("s", SIZE, [*before, ("x", type(writer, word), 8 * offset, bits)], union=union)

    return build


def word(writer: Writer, word: int) -> int:
    del writer
    return word


def double(writer: Writer, word: int) -> int:
    del word
    return writer.float("double", 8)


def octets(size: int) -> Build:
    """An enum of so many bytes."""
    return lambda writer, _: writer.enum("e", size, [("on", 1)], signed=False)


def enumerator(name: str) -> Build:
    return at(0, lambda writer, _: writer.enum("e", 4, [(name, 1)], signed=False))


def unsorted(writer: Writer, word: int) -> int:
    return writer.record("s", SIZE, [("b", word, 32, None), ("a", word, 0, None)], union=False)


REFUSED: dict[str, Build] = {
    "a name with a dash": named("with-dash"),
    "a name that begins with a digit": named("9th"),
    "a name that is not ASCII": named("größe"),
    "a name of 513 characters": named("x" * 513),
    "a struct's name of two words": lambda writer, word: writer.record(
        "struct s", SIZE, [("a", word, 0, None)], union=False
    ),
    "a typedef without a name": at(0, lambda writer, word: writer.typedef("", word)),
    "an enum's name with a space": enumerator("a b"),
    "an enum's member without a name": enumerator(""),
    "an enum of 3 bytes": at(0, octets(3)),
    "a float of 3 bytes": at(0, lambda writer, _: writer.float("f", 3)),
    "a float that is not aligned": at(4, double),
    "a float's typedef that is not aligned": at(4, lambda writer, word: writer.typedef("d", double(writer, word))),
    "a member beyond the end": at(13, word),
    "a bit-field wider than its type": at(0, word, bits=33),
    "a bit-field of an enum wider than an int": at(0, octets(8), bits=33),
    "a bit-field of an array": at(0, lambda writer, word: writer.array(word, word, 1), bits=3),
    "a small enum among bit-fields at the end": at(15, octets(1), first=True),
    "a union's member behind its beginning": at(4, word, union=True),
    "members that are not in order": unsorted,
}  # fmt: skip

TAKEN: dict[str, Build] = {
    "a name of 128 characters": named("x" * 128),
    "a float that is aligned": at(8, double),
    "a bit-field of all bits": at(0, word, bits=32),
    "a small enum among bit-fields, 4 bytes before the end": at(12, octets(1), first=True),
    "a member at the end": at(12, word),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_kernel_refuses(maps: Maps, what: str) -> None:
    with pytest.raises(SyscallError) as refusal:
        taken(maps, REFUSED[what])
    assert refusal.value.errno == errno.EINVAL


@pytest.mark.parametrize("what", TAKEN)
def test_the_kernel_takes(maps: Maps, what: str) -> None:
    taken(maps, TAKEN[what])


def value_with(layout: Layout) -> Record:
    number = Integer(size=8, signed=False, type_name="__u64")
    return Record(
        size=layout.size + 8,
        members=(
            Member(name="theirs", offset=0, layout=layout),
            Member(name="ours", offset=layout.size, layout=number, bit_offset=8 * layout.size),
        ),
        type_name="value",
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [("bpf_spin_lock", 4), ("bpf_timer", 16), ("bpf_wq", 16), ("bpf_refcount", 4), ("bpf_list_node", 24)],
)
def test_the_kernels_own_fields_are_taken_in_a_hash(maps: Maps, name: str, size: int) -> None:
    create_typed(maps, MapType.HASH, INDEX, value_with(Special(size=size, type_name=name)))


@pytest.mark.parametrize(("name", "size"), [("bpf_spin_lock", 4), ("bpf_timer", 16), ("bpf_wq", 16)])
def test_the_kernel_finds_them_and_refuses_them_where_they_cannot_be(
    maps: Maps, name: str, size: int
) -> None:
    """So it did not take them for bytes."""
    with pytest.raises(SyscallError) as refusal:
        create_typed(maps, MapType.PERCPU_HASH, INDEX, value_with(Special(size=size, type_name=name)))
    assert refusal.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (MapType.ARRAY, Text(size=4)),
        (MapType.LPM_TRIE, Integer(size=8, signed=False)),
        (MapType.QUEUE, INDEX),
    ],
)
def test_types_that_want_another_key_refuse_it(maps: Maps, kind: MapType, key: Layout) -> None:
    """``create_map`` writes an array's key as an integer and a trie's as a struct, and a queue has none."""
    with pytest.raises(SyscallError) as refusal:
        create_typed(maps, kind, key, value_with(INDEX))
    assert refusal.value.errno == errno.EINVAL

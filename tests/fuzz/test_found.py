"""What fuzzing has found, each in small, so that it is not found again."""

from __future__ import annotations

import pytest

from mapd_client.btf import BadBtf, Types
from mapd_client.elf.bad import BadObject
from mapd_client.elf.read import read_object
from tests.support.elfwriter import ALLOC, PROGBITS, WRITE, BtfMaps, Object
from tests.support.rawbtf import Raw


def test_a_slot_far_behind_its_map_is_refused() -> None:
    """Keys have 32 bits; a hash of maps takes any of them, and a relocation's offset has 64."""
    raw = Raw()
    maps = BtfMaps(raw)
    key = maps.pointer(raw.integer("unsigned int", 4))
    inner = maps.struct({"type": 2, "max_entries": 1}, key=key, value=key)
    outer = maps.struct({"type": 13, "max_entries": 2}, key=key, values=maps.slots(inner))
    raw.datasec(
        ".maps", 0, *((maps.variable(name, of), 0, 64) for name, of in (("in", inner), ("out", outer)))
    )
    made = Object()
    section = made.section(".maps", bytes(128), PROGBITS, WRITE | ALLOC)
    symbols = [made.symbol(name, section, 64 * place, 64) for place, name in enumerate(("in", "out"))]
    made.relocations(section, (64 + 24 + 8 * (1 << 33), symbols[0]))
    made.section(".BTF", raw.blob(), PROGBITS, 0)
    with pytest.raises(BadObject, match=f"slot {1 << 33}, a key has 32 bits"):
        read_object(made.build())


def test_a_message_has_no_more_than_the_beginning_of_a_name() -> None:
    """A name may fill the strings, and a control character takes four characters of a message."""
    raw = Raw()
    name = "\x17" * 5_000
    byte = raw.integer("unsigned char", 1)
    twice = raw.struct("s", 2, (name, byte, 0), (name, byte, 8))
    with pytest.raises(BadBtf, match="two members are called") as refused:
        Types(raw.blob()).layout(twice)
    assert len(str(refused.value)) < 500

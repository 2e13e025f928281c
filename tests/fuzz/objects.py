"""Sound objects to begin with: each convention, in both byte orders."""

from __future__ import annotations

from collections.abc import Iterator

from mapd_client.info import ByteOrder
from tests.support.elfwriter import ALLOC, EXIT, FUNC, NOBITS, PROGBITS, WRITE, BtfMaps, Object, structs
from tests.support.rawbtf import Raw


def modern(order: ByteOrder) -> Object:
    """``.maps``: a hash with a type of its own, a program array with a slot, an array of maps, and .data and .bss."""
    raw = Raw(order)
    maps = BtfMaps(raw)
    word = raw.integer("unsigned int", 4)
    pair = raw.struct("pair", 8, ("a", word, 0), ("b", word, 32))
    key, value = maps.pointer(word), maps.pointer(pair)
    hash_ = maps.struct({"type": 1, "max_entries": 16, "map_flags": 1}, key=key, value=value)
    sizes = {"type": 3, "max_entries": 4, "key_size": 4, "value_size": 4}
    programs = maps.struct(sizes, values=maps.slots(maps.function()))
    inner = maps.struct(
        {"type": 2, "max_entries": 1}, key=key, value=value, map_extra=maps.long("map_extra", 5)
    )
    outer = maps.struct({"type": 12, "max_entries": 2}, key=key, values=maps.slots(inner))
    variables = {"flows": hash_, "calls": programs, "inner": inner, "outer": outer}
    vars_ = [maps.variable(name, of) for name, of in variables.items()]
    ints = [maps.variable(name, word) for name in ("hits", "misses")]
    raw.datasec(".maps", 0, *((var, 0, 64) for var in vars_))
    raw.datasec(".data", 0, (ints[0], 0, 4))
    raw.datasec(".bss", 0, (ints[1], 0, 4))
    made = Object(order)
    section = made.section(".maps", bytes(64 * len(vars_)), PROGBITS, WRITE | ALLOC)
    symbols = [made.symbol(name, section, 64 * place, 64) for place, name in enumerate(variables)]
    made.symbol("hits", made.section(".data", b"\7\0\0\0", PROGBITS, WRITE | ALLOC), 0, 4)
    made.symbol("misses", made.section(".bss", b"", NOBITS, WRITE | ALLOC, size=4), 0, 4)
    text = made.section("xdp", EXIT, PROGBITS, ALLOC | 4)
    program = made.symbol("main", text, 0, len(EXIT), FUNC)
    made.relocations(section, (64 + 8 * 4 + 8, program), (192 + 8 * 3, symbols[2]))
    made.section("license", b"GPL\0")
    made.section(".BTF", raw.blob(), PROGBITS, 0)
    return made


def annotated(order: ByteOrder) -> Object:
    """A ``struct bpf_elf_map`` with the types of key and value beside it."""
    made = structs({"flows": (1, 4, 8, 16, 0, 7, 2, 0, 0)}, order, ("classifier", "7/0"))
    raw = Raw(order)
    word, wide = raw.integer("unsigned int", 4), raw.integer("unsigned long", 8)
    raw.struct("____btf_map_flows", 16, ("key", word, 0), ("value", wide, 64))
    made.section(".BTF", raw.blob(), PROGBITS, 0)
    return made


def objects() -> Iterator[bytes]:
    """All of them."""
    orders: tuple[ByteOrder, ...] = ("little", "big")
    for order in orders:
        yield modern(order).build()
        yield annotated(order).build()
        for words in (4, 5, 6, 7, 9):
            rows = {"first": (1, 4, 8, 16), "second": (2, 4, 4, 2)}
            yield structs({name: (*row, 0, 1, 2, 1, 0)[:words] for name, row in rows.items()}, order).build()

"""``struct bpf_map_def SEC("maps")``, as samples/bpf, its loader ``load_bpf_file()`` and libbpf before 1.0 had it.

All words are u32: type, key_size, value_size, max_entries (16 bytes, 2014), map_flags (20, 2016), inner_map_idx,
numa_node (28, 2017). The map's name is its symbol's; ``map_fd[]`` has them in the order that they lie in. Sans-I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH, MapFlag, MapType
from mapd_client.elf.annotations import annotated
from mapd_client.elf.declared import Declared
from mapd_client.elf.structs import SECTION_NAME, Structs

WORDS: Final = 7
OUTER: Final = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


def declared(structs: Structs, notes: list[str]) -> Sequence[Declared]:
    """The maps. Longer structs are read if what is added is zero, as libbpf did.

    Raises:
        BadObject: a word behind the known ones that is not zero; a template that is none.
    """
    found: list[Declared] = []
    for index, (name, words) in enumerate(zip(structs.names, structs.words, strict=True)):
        known = (*words[:WORDS], *(0,) * (WORDS - len(words)))
        kind, key_size, value_size, max_entries, flags, inner, numa_node = known
        for place, word in enumerate(words[WORDS:], WORDS):
            if word:
                raise structs.image.bad(
                    f"word {place} of {len(words)} is {word}; struct bpf_map_def of samples/bpf has {WORDS} words, "
                    "and what is behind them has to be zero",
                    section=SECTION_NAME,
                    symbol=name,
                    number=word,
                )
        key_type_id, value_type_id = annotated(structs.image, name, key_size, value_size, notes)
        found.append(
            Declared(
                name=name,
                kernel_name=name[:OBJ_NAME_LENGTH],
                index=index,
                type=kind,
                key_size=key_size,
                value_size=value_size,
                max_entries=max_entries,
                flags=flags,
                numa_node=numa_node if flags & MapFlag.NUMA_NODE else None,
                inner=_template(structs, index, inner) if kind in OUTER else None,
                key_type_id=key_type_id,
                value_type_id=value_type_id,
            )
        )
    return found


def _template(structs: Structs, index: int, inner: int) -> int:
    """``inner_map_idx``: the place of another map, which is no map of maps itself."""
    name, there = structs.names[index], len(structs.names)
    if len(structs.words[index]) < WORDS - 1:
        raise structs.image.bad(
            f"a map of maps in a struct of {structs.size} bytes, which has no inner_map_idx: use the one of 28",
            section=SECTION_NAME,
            symbol=name,
            number=structs.size,
        )
    if inner >= there or inner == index or structs.words[inner][0] in OUTER:
        raise structs.image.bad(
            f"inner_map_idx {inner}: the place, from 0, of another of the {there} maps, no map of maps",
            section=SECTION_NAME,
            symbol=name,
            number=inner,
        )
    return inner

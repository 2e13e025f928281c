"""Which convention an object follows, and the sentence that says why. Sans-I/O.

The section's name tells libbpf from the others. samples/bpf and tc share the section ``maps``, and two sizes:

=====  =====================================  =================================
bytes  samples/bpf                            tc
=====  =====================================  =================================
20     word 4 is map_flags                    word 4 is id (2015)
28     words 5, 6: inner_map_idx, numa_node   words 4 to 6: flags, id, pinning
=====  =====================================  =================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from mapd_client.elf.declared import Convention
from mapd_client.elf.image import Image, Section
from mapd_client.elf.structs import SECTION_NAME, Structs
from mapd_client.elf.tc import TAIL_CALL

_KNOWN_FLAGS: Final = (1 << 20) - 1
"""BPF_F_* of BPF_MAP_CREATE up to BPF_F_RB_OVERWRITE, 1 << 19 (include/uapi/linux/bpf.h)."""

_TC_PROGRAMS: Final = frozenset({"classifier", "action", "prog"})
_PINNED: Final = (1, 2)
"""PIN_OBJECT_NS, PIN_GLOBAL_NS."""


def chosen(
    image: Image, asked: str, found: Structs | None, modern: Section | None, programs: Sequence[str]
) -> tuple[Convention, str]:
    """The convention, and why.

    Args:
        image: the object.
        asked: "auto", or what the caller says.
        found: structs of section ``maps``.
        modern: section ``.maps``.
        programs: names of the program sections.

    Raises:
        BadObject: both sections and nobody said which; the section of what was asked for is not there; a size that
            neither convention has.
    """
    if asked != "auto":
        return _explicit(image, cast("Convention", asked), found, modern)
    if found is not None and modern is not None:
        raise image.bad(
            "there are maps in section maps and in section .maps: say which by convention='samples', 'tc' or 'libbpf'",
            section=SECTION_NAME,
        )
    if modern is not None:
        return "libbpf", "libbpf, because the maps are in section .maps"
    if found is None:
        return (
            "libbpf",
            "libbpf, because there is no section maps and no section .maps: global variables at most",
        )
    return _by_size(image, found, programs)


def _explicit(
    image: Image, asked: Convention, found: Structs | None, modern: Section | None
) -> tuple[Convention, str]:
    if asked != "libbpf" and found is None:
        there = "; there is .maps, which convention='libbpf' reads" if modern is not None else ""
        raise image.bad(f"convention {asked!r} wants it, and it is not there{there}", section=SECTION_NAME)
    if asked == "libbpf" and modern is None and image.find(SECTION_NAME) is not None:
        raise image.bad(
            "convention 'libbpf' reads section .maps, and this object has its maps here: "
            "libbpf 1.0 and later refuse it too",
            section=SECTION_NAME,
        )
    rule = f"{asked}, because the caller said so"
    if asked == "libbpf" or found is None:
        return asked, rule
    return asked, f"{rule}; structs have {found.size} bytes{_other_reading(found, asked)}"


def _by_size(image: Image, found: Structs, programs: Sequence[str]) -> tuple[Convention, str]:
    size = found.size
    match size:
        case 16:
            return "samples", "samples, because structs of 16 bytes are those of samples/bpf"
        case 24 | 32 | 36:
            return "tc", f"tc, because structs of {size} bytes are those of iproute2 alone"
        case 20:
            return _of_20(found)
        case 28:
            return _of_28(found, programs)
        case _:
            raise image.bad(
                f"structs of {size} bytes; samples/bpf has 16, 20 and 28, iproute2 20, 24, 28 and 36. Longer ones that "
                "end with zeros are read with convention='samples'",
                section=SECTION_NAME,
                number=size,
            )


def _of_20(found: Structs) -> tuple[Convention, str]:
    for name, words in zip(found.names, found.words, strict=True):
        if words[4] & ~_KNOWN_FLAGS:
            why = f"word 4 of {name!r} is {words[4]:#x}, which is no map flag"
            return "tc", f"tc, because structs have 20 bytes and {why}{_other_reading(found, 'tc')}"
    why = "structs have 20 bytes and word 4 is made of map flags everywhere"
    return "samples", f"samples, because {why}{_other_reading(found, 'samples')}"


def _of_28(found: Structs, programs: Sequence[str]) -> tuple[Convention, str]:
    why = ""
    for name, words in zip(found.names, found.words, strict=True):
        if words[6] in _PINNED:
            why = f"word 6 of {name!r} is {words[6]}, a pinning"
            break
    else:
        for program in programs:
            if program in _TC_PROGRAMS or TAIL_CALL.fullmatch(program):
                why = f"the program section {program!r} is one of tc's"
                break
    if why:
        return "tc", f"tc, because structs have 28 bytes and {why}{_other_reading(found, 'tc')}"
    why = "structs have 28 bytes, word 6 is no pinning, and no program section is one of tc's"
    return "samples", f"samples, because {why}{_other_reading(found, 'samples')}"


def _other_reading(found: Structs, taken: Convention) -> str:
    """What the ambiguous words would have been; of the map that they say most of."""
    meanings = {
        (20, "samples"): ((4, "id"),),
        (20, "tc"): ((4, "map_flags"),),
        (28, "samples"): ((5, "id"), (6, "pinning")),
        (28, "tc"): ((5, "inner_map_idx"), (6, "numa_node")),
    }.get((found.size, taken))
    if meanings is None:
        return ""
    at = max(
        range(len(found.words)), key=lambda one: sum(found.words[one][word] != 0 for word, _ in meanings)
    )
    said = ", ".join(f"{what} {found.words[at][word]}" for word, what in meanings)
    other = "tc" if taken == "samples" else "samples"
    return f"; convention={other!r} would have read {said} of {found.names[at]!r}"

"""Writes docs/reference/types.md: what each map type is, and what the kernel answers to each operation.

The first two tables are ``mapd.maps.types``, the others ``scripts.type_trial`` on the running kernel.
``python -m scripts.type_matrix`` writes the page (root); tests/kernel/test_type_matrix.py derives it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from mapd.maps.traits import Entries, TypeTraits
from mapd.maps.types import TYPES, type_name
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from scripts.type_trial import CELLS, UNTRIED, Answers, matrix

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reference" / "types.md"
KERNEL: Final = "Linux 6.18"

INTRODUCTION: Final = f"""\
# Map types

<!-- Written by scripts/type_matrix.py. Change src/mapd/maps/types.py and run it again as root. -->

What mapd knows of each of Linux's map types. One table in the daemon (`mapd.maps.types`) says it; what may be
created, what is refused and `MapInfo.supported_operations` follow from it. The errnos below are those of {KERNEL},
tried on a running kernel; a test tries them again.

What the table does not have is refused with `OPERATION_UNSUPPORTED` (UNIMPLEMENTED), naming type and operation, and no
syscall is made. [Errors](errors.md) has the reasons.
"""

CREATION: Final = """
## Creating

Sizes in bytes. A flag that is not named here is `BAD_FLAGS`, a size outside `BAD_SPEC`; the kernel refuses both too.
Flags in bold are needed. Key, value and what surrounds them must fit a message (4 MiB), whatever the type could be.
`BPF_F_RDONLY` and `BPF_F_WRONLY` bind the creator's handle alone.

BTF: *accepted*, where its types have the sizes of key and value; *refused*, the map is created without and its
`btf_id` is 0; *required*.

"""

ELEMENTS: Final = """
## Using

Operations are those of `OpGroup` and the calls of `ElementService`. A dump is *exact* where every key that was present
throughout comes exactly once ([guarantees](../explanation/guarantees.md)); *best effort* where the kernel's walk
begins again when its key has gone. The cursor is what it goes by. `fetch_add` to `compare_exchange` work on a field of
4 or 8 bytes; `compare_update` is for maps whose values have a `bpf_spin_lock` (`MapInfo.has_lock`).

"""

VALUES: Final = """
Values:

| value | written and read as |
|---|---|
| plain | bytes |
| per_cpu | a slot of `round_up(value_size, 8)` bytes for each possible CPU, CPU 0 first |
| map, program | written by reference to a map or program, read as its kernel id |
| device | interface (and program) by reference, read as `{ifindex u32[, program id u32]}` |
| cpu | `{queue size u32[, program id u32]}` |
| socket | read as the socket's cookie |
| cgroup, perf_event, object, ring, kernel | not elements that a client can write |
"""

MATRIX: Final = f"""
## What the kernel answers

One bpf(2) command on a fresh map of the type, on {KERNEL}: `ok` or its errno. *absent* is on an empty map,
*present* where the element is there already. In maps without keys the key is NULL: an update is a push or an
add, with `BPF_EXIST` a push that drops the oldest; `lookup_and_delete` is a pop, `lookup` a peek or a membership test.
ENOTSUPP is the kernel's internal 524. An empty cell was not tried: only programs make such elements, or the
element needs a perf event.
"""

_TABLES: Final = (
    ("### Elements", CELLS[:12]),
    ("### Walking and batches", CELLS[12:17]),
    ("### Whole maps", CELLS[17:]),
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _sizes(sizes: range) -> str:
    if len(sizes) == 1:
        return str(sizes.start)
    most = f"{sizes[-1]:,}" if sizes[-1] < 1 << 20 else ""
    if sizes.step == 1:
        return f"{sizes.start} to {most}" if most else f"{sizes.start} up"
    return " or ".join(map(str, sizes)) if len(sizes) < 4 else f"{sizes.start} to {most}, by {sizes.step}"


_ENTRIES: Final[Mapping[Entries, str]] = {
    Entries.ANY: "1 up",
    Entries.ZERO: "0",
    Entries.ONE: "1",
    Entries.POWER_OF_TWO_PAGES: "bytes: a power of two, a page or more",
    Entries.PAGES: "pages: 1 to 1,048,576",
    Entries.CPUS: "1 to the kernel's most CPUs",
}


def _flags(traits: TypeTraits) -> str:
    return " ".join(
        f"**{flag.name}**" if flag & traits.required_flags else str(flag.name)
        for flag in MapFlag
        if flag & traits.flags
    )


def _extra(traits: TypeTraits) -> str:
    if len(traits.map_extra) == 1:
        return ""
    return "an address, in pages" if traits.map_extra.step > 1 else _sizes(traits.map_extra)


def _creation() -> str:
    head = (
        "type",
        "number",
        "key_size",
        "value_size",
        "max_entries",
        "flags",
        "map_extra",
        "BTF",
        "capability",
    )
    rows = (
        (
            f"`{type_name(traits.type)}`",
            str(int(traits.type)),
            _sizes(traits.key_sizes),
            _sizes(traits.value_sizes),
            _ENTRIES[traits.entries],
            _flags(traits),
            "an inner map as template" if traits.template else _extra(traits),
            traits.btf.value,
            traits.capability,
        )
        for _, traits in sorted(TYPES.items())
    )
    return _table(head, rows)


def _using() -> str:
    head = ("type", "operations", "value", "dump", "cursor", "not offered")
    rows = (
        (
            f"`{type_name(traits.type)}`",
            ", ".join(traits.operations),
            traits.value.value,
            traits.iteration.value.replace("_", " "),
            traits.cursor.value.replace("_", " "),
            traits.refused,
        )
        for _, traits in sorted(TYPES.items())
    )
    return _table(head, rows)


def page(found: Mapping[MapType, Answers]) -> str:
    """The whole page, with these answers of a kernel."""
    tables = "".join(
        f"\n{title}\n\n"
        + _table(
            ["type", *(cell.name for cell in cells)],
            (
                [f"`{type_name(kind)}`", *(answers[cell.name] for cell in cells)]
                for kind, answers in found.items()
            ),
        )
        for title, cells in _TABLES
    )
    return INTRODUCTION + CREATION + _creation() + ELEMENTS + _using() + VALUES + MATRIX + tables


def read(text: str) -> dict[MapType, Answers]:
    """The answers that a page has."""
    found: dict[MapType, Answers] = {kind: {} for kind in kinds()}
    for title, cells in _TABLES:
        _, _, rest = text.partition(f"\n{title}\n\n")
        for line in rest.partition("\n\n")[0].splitlines()[2:]:
            name, *answers = (cell.strip() for cell in line.strip("|").split("|"))
            kind = MapType[name.strip("`").upper()]
            found[kind] |= {cell.name: answer for cell, answer in zip(cells, answers, strict=True)}
    return found


def merged(tried: Mapping[MapType, Answers], known: Mapping[MapType, Answers]) -> dict[MapType, Answers]:
    """What was tried, and for what could not be tried on this host what is known already."""
    return {
        kind: {name: answer or known[kind].get(name, UNTRIED) for name, answer in answers.items()}
        for kind, answers in tried.items()
    }


def kinds() -> list[MapType]:
    """Every type by its number."""
    return [MapType(number) for number in sorted(TYPES)]


_CELLS_OF: Final[Mapping[Op, tuple[str, ...]]] = {
    Op.LOOKUP: ("lookup", "lookup, absent"),
    Op.UPDATE: ("update", "update, present"),
    Op.UPDATE_NOEXIST: ("NOEXIST", "NOEXIST, present"),
    Op.UPDATE_EXIST: ("EXIST", "EXIST, absent"),
    Op.DELETE: ("delete", "delete, absent"),
    Op.LOOKUP_AND_DELETE: ("lookup_and_delete", "lookup_and_delete, absent"),
}
_KEYLESS: Final[Mapping[Op, tuple[str, ...]]] = {
    Op.PUSH: _CELLS_OF[Op.UPDATE],
    Op.PUSH_EXIST: _CELLS_OF[Op.UPDATE_EXIST],
    Op.POP: _CELLS_OF[Op.LOOKUP_AND_DELETE],
    Op.PEEK: _CELLS_OF[Op.LOOKUP],
    Op.ADD: _CELLS_OF[Op.UPDATE],
    Op.CONTAINS: _CELLS_OF[Op.LOOKUP],
}


def cells_of(traits: TypeTraits) -> Mapping[Op, tuple[str, ...]]:
    """Which cells show whether the kernel has an operation of this type."""
    if traits.key_sizes != range(1):
        return _CELLS_OF
    bloom = {Op.ADD, Op.CONTAINS}
    wanted = bloom if traits.ops & bloom else set(_KEYLESS) - bloom
    return {op: cells for op, cells in _KEYLESS.items() if op in wanted}


if __name__ == "__main__":
    PAGE.write_text(page(merged(matrix(kinds()), read(PAGE.read_text() if PAGE.exists() else ""))))

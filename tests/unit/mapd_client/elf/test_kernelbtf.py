"""The types of one map taken out of many: the same layouts, nothing else, whatever kind they are of."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from mapd_client.btf import Types, kinds
from mapd_client.elf.kernelbtf import btf_of
from mapd_client.info import ByteOrder

Row = tuple[str, int, int, Sequence[int | str]]


def blob(order: ByteOrder, *records: Row) -> Types:
    """Types of (name, info, size or type, words), where a str among the words is a name."""
    strings = bytearray(1)

    def place(text: str) -> int:
        if not text:
            return 0
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    sign = {"little": "<", "big": ">"}[order]
    words: list[int] = []
    for name, info, size, rest in records:
        words += [place(name), info, size, *(place(one) if isinstance(one, str) else one for one in rest)]
    body = struct.pack(f"{sign}{len(words)}I", *words)
    header = struct.pack(sign + "HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
    return Types(header + body + bytes(strings))


def info(kind: type[kinds.Kind], vlen: int = 0, kflag: int = 0) -> int:
    return kflag << 31 | kinds.KINDS.index(kind) << 24 | vlen


M1 = 0xFFFF_FFFF

EVERY_KIND: tuple[Row, ...] = (
    ("int", info(kinds.Int), 4, [1 << 24 | 32]),  # 1
    ("unused", info(kinds.Int), 8, [64]),  # 2
    ("", info(kinds.Ptr), 9, []),  # 3: to the Fwd
    ("", info(kinds.Array), 0, [1, 1, 2]),  # 4
    ("mode", info(kinds.Enum, 2, 1), 4, ["OFF", M1, "ON", 1]),  # 5
    ("wide", info(kinds.Enum64, 1), 8, ["BIG", 1, 2]),  # 6
    ("f", info(kinds.Float), 8, []),  # 7
    ("u", info(kinds.Union, 2), 8, ["a", 1, 0, "b", 7, 0]),  # 8
    ("task", info(kinds.Fwd, 0, 1), 0, []),  # 9
    ("alias", info(kinds.Typedef), 11, []),  # 10
    ("", info(kinds.Volatile), 12, []),  # 11
    ("", info(kinds.Const), 4, []),  # 12
    ("", info(kinds.Restrict), 3, []),  # 13
    ("kptr", info(kinds.TypeTag), 9, []),  # 14
    ("", info(kinds.Ptr), 14, []),  # 15
    ("", info(kinds.FuncProto, 1), 1, ["x", 1]),  # 16
    ("", info(kinds.Ptr), 16, []),  # 17
    (
        "value",
        info(kinds.Struct, 8, 1),
        64,
        [
            *("m", 5, 0, "w", 6, 64, "u", 8, 128, "arr", 10, 192),
            *("p", 13, 256, "k", 15, 320, "f", 17, 384, "bits", 1, 3 << 24 | 448),
        ],
    ),  # 18
    ("contains:node:link", info(kinds.DeclTag), 18, [7]),  # 19
    ("node", info(kinds.Struct, 1), 4, ["link", 1, 0]),  # 20
    ("elsewhere", info(kinds.DeclTag), 2, [M1]),  # 21
    ("counter", info(kinds.Var), 1, [1]),  # 22
    (".data", info(kinds.Datasec, 1), 4, [22, 0, 4]),  # 23
    ("main", info(kinds.Func, 1), 16, []),  # 24
)


@pytest.mark.parametrize("order", ["little", "big"])
def test_every_kind_is_the_same_type_again(order: ByteOrder) -> None:
    types = blob(order, *EVERY_KIND)
    taken = btf_of(types, 1, 18)
    assert taken is not None
    again = Types(taken.blob)
    assert again.byteorder == order
    assert isinstance(again[taken.key_type_id], kinds.Int)
    assert again.layout(taken.value_type_id) == types.layout(18)
    names = [getattr(kind, "name", "") for kind in again]
    assert "unused" not in names
    assert "elsewhere" not in names
    assert "main" not in names
    (tag,) = [kind for kind in again if isinstance(kind, kinds.DeclTag)]
    assert (tag.name, tag.type, tag.component_idx) == ("contains:node:link", taken.value_type_id, 7)
    assert again.ids("node", kinds.Struct), "what the kernel looks for by its name"
    # Taken out once more there is nothing left to leave out.
    assert btf_of(again, taken.key_type_id, taken.value_type_id) == taken


def test_a_section_of_variables_is_a_value_without_a_key() -> None:
    types = blob("little", *EVERY_KIND)
    taken = btf_of(types, 0, 23)
    assert taken is not None
    assert taken.key_type_id == 0
    again = Types(taken.blob)
    assert again.layout(taken.value_type_id) == types.layout(23)
    assert len(again) == 4


def test_without_types_there_is_no_btf() -> None:
    assert btf_of(blob("little", *EVERY_KIND), 0, 0) is None

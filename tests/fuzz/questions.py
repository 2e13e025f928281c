"""What a blob of BTF can be asked, and what the answers promise."""

from __future__ import annotations

from mapd_client.btf import BadBtf, Types
from mapd_client.btf.layouts import NODES
from mapd_client.layouts import Array, Enumeration, Layout, Record


def nodes(found: Layout) -> int:
    """What somebody sees who walks the layout."""
    match found:
        case Record(members=members):
            return 1 + sum(nodes(one.layout) for one in members)
        case Array(element=element):
            return 1 + nodes(element)
        case Enumeration(members=names):
            return 1 + len(names)
        case _:
            return 1


def _placed(error: BadBtf, blob: bytes) -> None:
    assert 0 <= error.offset <= len(blob)
    assert len(str(error)) < 500


def read_all(blob: bytes) -> None:
    """Every question that a blob can be asked; raises nothing but BadBtf, and keeps what it promises."""
    try:
        types = Types(blob)
    except BadBtf as error:
        _placed(error, blob)
        return
    for number in range(len(types)):
        try:
            kind = types[number]
            assert isinstance(kind, types.kind(number))
            assert types.name(number) == getattr(kind, "name", types.name(number))
            if name := types.name(number):
                assert number in types.ids(name, type(kind))
            found = types.layout(number)
        except BadBtf as error:
            _placed(error, blob)
            continue
        assert found.size == types.size(number) >= 0
        assert nodes(found) <= 16 * NODES
        if isinstance(found, Record):
            assert all(
                one.bit_offset + (one.bits or 8 * one.layout.size) <= 8 * found.size for one in found.members
            )
            names = [one.name for one in found.named()]
            assert len(names) == len(set(names))

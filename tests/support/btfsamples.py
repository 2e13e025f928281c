"""Sound blobs of BTF: a type of each kind, and types that contain each other."""

from __future__ import annotations

from mapd_client.btf import Types, kinds
from mapd_client.info import ByteOrder
from tests.support import rawbtf
from tests.support.rawbtf import Raw

ORDERS: tuple[ByteOrder, ...] = ("little", "big")


def every_kind(order: ByteOrder, base: Types | None = None) -> tuple[Raw, list[kinds.Kind]]:
    """A blob with a type of each kind, and what they are."""
    raw = Raw(order) if base is None else Raw(order, len(base), base.strings_end)
    u32 = raw.integer("unsigned int", 4)
    expected: list[kinds.Kind] = [kinds.Int("unsigned int", 4, 32, 0, signed=False, char=False, bool=False)]
    raw.integer("odd", 4, rawbtf.SIGNED | rawbtf.CHAR, bits=5, offset=3)
    expected.append(kinds.Int("odd", 4, 5, 3, signed=True, char=True, bool=False))
    raw.add(rawbtf.PTR, "", u32)
    expected.append(kinds.Ptr(u32))
    raw.array(u32, 7, index=u32)
    expected.append(kinds.Array(u32, u32, 7))
    raw.struct("pair", 8, ("a", u32, 0), ("b", u32, 32))
    pair = (kinds.StructMember("a", u32, 0, 0), kinds.StructMember("b", u32, 32, 0))
    expected.append(kinds.Struct("pair", 8, pair))
    raw.bit_struct("bits", 4, ("low", u32, 0, 3), ("whole", u32, 0, 0))
    bits = (kinds.StructMember("low", u32, 0, 3), kinds.StructMember("whole", u32, 0, 0))
    expected.append(kinds.Struct("bits", 4, bits))
    raw.record(rawbtf.UNION, "either", 4, ("x", u32, 0))
    expected.append(kinds.Union("either", 4, (kinds.StructMember("x", u32, 0, 0),)))
    raw.enum("sign", 4, ("MINUS", -1), ("PLUS", 1), signed=True)
    expected.append(kinds.Enum("sign", 4, True, (("MINUS", -1), ("PLUS", 1))))
    raw.enum("all", 4, ("ONES", -1))
    expected.append(kinds.Enum("all", 4, False, (("ONES", 0xFFFF_FFFF),)))
    raw.add(rawbtf.FWD, "later", 0, kflag=True)
    expected.append(kinds.Fwd("later", True))
    raw.add(rawbtf.TYPEDEF, "u32", u32)
    expected.append(kinds.Typedef("u32", u32))
    for number, kind in (
        (rawbtf.VOLATILE, kinds.Volatile),
        (rawbtf.CONST, kinds.Const),
        (rawbtf.RESTRICT, kinds.Restrict),
    ):
        raw.add(number, "", u32)
        expected.append(kind(u32))
    proto = raw.add(rawbtf.FUNC_PROTO, "", u32, raw.string("n"), u32, 0, 0, vlen=2)
    expected.append(kinds.FuncProto(u32, (("n", u32), ("", 0))))
    raw.add(rawbtf.FUNC, "main", proto, vlen=1)
    expected.append(kinds.Func("main", proto, 1))
    var = raw.add(rawbtf.VAR, "counter", u32, 1)
    expected.append(kinds.Var("counter", u32, 1))
    raw.datasec(".bss", 4, (var, 0, 4))
    expected.append(kinds.Datasec(".bss", 4, (kinds.SectionVar(var, 0, 4),)))
    raw.add(rawbtf.FLOAT, "double", 8)
    expected.append(kinds.Float("double", 8))
    raw.add(rawbtf.DECL_TAG, "note", var, -1)
    expected.append(kinds.DeclTag("note", var, -1, attribute=False))
    raw.add(rawbtf.TYPE_TAG, "kptr", u32, kflag=True)
    expected.append(kinds.TypeTag("kptr", u32, attribute=True))
    raw.enum64("wide", 8, ("TOP", 1 << 63), ("ONE", 1))
    expected.append(kinds.Enum64("wide", 8, False, (("TOP", 1 << 63), ("ONE", 1))))
    raw.enum64("deep", 8, ("LOW", -1 << 63), signed=True)
    expected.append(kinds.Enum64("deep", 8, True, (("LOW", -1 << 63),)))
    return raw, expected


def rich() -> Raw:
    """Types that contain each other in every way."""
    raw = Raw()
    char = raw.integer("char", 1, rawbtf.SIGNED)
    word = raw.integer("unsigned int", 4)
    be32 = raw.add(rawbtf.TYPEDEF, "__be32", word)
    name = raw.array(char, 16)
    lock = raw.struct("bpf_spin_lock", 4, ("val", word, 0))
    address = raw.struct("address", 8, ("ip", be32, 0), ("mask", be32, 32))
    choice = raw.record(rawbtf.UNION, "", 16, ("name", name, 0), ("pair", raw.array(address, 2), 0))
    mode = raw.enum("mode", 4, ("OFF", 0), ("ON", 1), ("ANY", -1), signed=True)
    bits = raw.bit_struct("bits", 4, ("a", word, 0, 3), ("b", mode, 3, 2), ("c", word, 5, 27))
    tag = raw.add(rawbtf.PTR, "", raw.add(rawbtf.TYPE_TAG, "kptr", raw.add(rawbtf.FWD, "task_struct", 0)))
    value = raw.struct(
        "value",
        48,
        ("lock", lock, 0),
        ("bits", bits, 32),
        ("", choice, 64),
        ("task", tag, 192),
        ("m", mode, 256),
    )
    raw.datasec(".bss", 48, (raw.add(rawbtf.VAR, "state", value, 1), 0, 48))
    return raw

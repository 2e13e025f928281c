"""Fields: what a record looks like to who reads it."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

from mapd_client import Ipv4, TypeMismatch
from mapd_client.layouts import Array, Float
from mapd_client.typed import Fields, codec_of
from tests.unit.mapd_client.typed.shapes import FLOW_KEY, MAC, STATS, U8, U32, U64, member, struct, union

KEY = {"saddr": 1, "dport": 80, "proto": 6, "ifindex": 2}


def _key(**changes: Any) -> Fields:
    codec = codec_of(FLOW_KEY, path="key")
    found = codec.decode(codec.encode({**KEY, **changes}))
    assert isinstance(found, Fields)
    return found


def test_fields_equal_every_mapping_of_the_same() -> None:
    assert _key() == KEY
    assert _key() == KEY
    assert _key() != {**KEY, "proto": 17}
    assert _key() != {**KEY, "more": 1}
    assert _key() != 7


def test_equal_fields_have_one_hash_whatever_lies_in_their_padding() -> None:
    codec = codec_of(FLOW_KEY, path="key")
    clean = _key()
    dirty = codec.decode(bytes(clean)[:7] + b"\xaa" + bytes(clean)[8:])

    assert clean == dirty
    assert hash(clean) == hash(dirty)
    assert {clean: 1}[dirty] == 1
    assert bytes(clean) != bytes(dirty)


def test_a_record_of_nan_has_one_hash() -> None:
    record = struct("v", member("x", 0, Float(size=8)), member("y", 8, Array(element=Float(size=8), count=2)))
    codec = codec_of(record)
    found, again = (codec.decode(codec.encode({"x": math.nan, "y": [math.nan, 1.0]})) for _ in range(2))

    hashes: set[int] = set()
    alive: list[object] = []
    for one in (found, again, found):
        hashes.add(hash(one))
        alive += [one["x"], *one["y"]]  # Python hashes a NaN by its place, which no other takes now

    assert len(hashes) == 1


def test_pickling_says_what_to_pickle() -> None:
    with pytest.raises(TypeError, match=r"Fields cannot be pickled.*bytes\(fields\)"):
        pickle.dumps(_key())


def test_records_of_another_layout_with_equal_fields_are_equal() -> None:
    narrow = codec_of(struct("a", member("n", 0, U8), member("m", 4, U32)))
    wide = codec_of(struct("b", member("m", 0, U64), member("n", 8, U64)))
    one = narrow.decode(narrow.encode({"n": 1, "m": 2}))
    other = wide.decode(wide.encode({"n": 1, "m": 2}))

    assert one == other
    assert hash(one) == hash(other)


def test_a_list_is_as_good_as_the_tuple_that_is_read() -> None:
    codec = codec_of(struct("v", member("mac", 0, MAC), member("stats", 8, STATS)))
    found = codec.decode(codec.encode({"mac": [1, 2, 3, 4, 5, 6], "stats": {"packets": 1, "bytes": 2}}))

    assert found == {"mac": [1, 2, 3, 4, 5, 6], "stats": {"packets": 1, "bytes": 2}}
    assert found != {"mac": [1, 2, 3, 4, 5], "stats": {"packets": 1, "bytes": 2}}
    assert hash(found) == hash(codec.decode(bytes(found)))


def test_a_field_may_be_called_as_a_method_of_mappings() -> None:
    codec = codec_of(struct("v", member("keys", 0, U32), member("items", 4, U32), member("get", 8, U32)))
    found = codec.decode(codec.encode({"keys": 1, "items": 2, "get": 3}))

    assert (found["keys"], found["items"], found["get"]) == (1, 2, 3)
    assert list(found.keys()) == ["keys", "items", "get"]
    assert dict(found) == {"keys": 1, "items": 2, "get": 3}


def test_a_name_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="struct flow_key has no field 'sadr': did you mean 'saddr'"):
        _key()["sadr"]
    assert _key().get("sadr") is None
    assert "sadr" not in _key()


def test_repr_reads_as_the_struct_does() -> None:
    addr = union("addr", ("v4", U32), ("v6", struct("", member("a", 0, U64), member("b", 8, U64))))
    codec = codec_of(
        struct("peer", member("addr", 0, addr), member("port", 16, U32)), hints={"value.addr.v4": Ipv4}
    )

    assert repr(_key()) == "flow_key(saddr=1, dport=80, proto=6, ifindex=2)"
    assert repr(codec.decode(codec.encode({"addr": {"v4": "10.0.0.1"}, "port": 53}))) == (
        "peer(addr=addr(v4=IPv4Address('10.0.0.1'), v6=Fields(a=16777226, b=0)), port=53)"
    )


def test_nobody_can_change_them() -> None:
    found = _key()

    with pytest.raises(TypeError):
        found["proto"] = 17  # type: ignore[index]  # that it may not is the point


def test_replace_keeps_what_is_not_named_and_the_padding() -> None:
    codec = codec_of(FLOW_KEY, path="key")
    dirty = codec.decode(bytes(range(12)))

    changed = dirty.replace(proto=17)

    assert changed == {**dirty, "proto": 17}
    assert bytes(changed)[7] == 7
    with pytest.raises(TypeMismatch, match=r"key\.port: struct flow_key has no such field.*'dport'"):
        dirty.replace(port=1)


def test_replace_writes_the_member_of_a_union_that_is_named() -> None:
    addr = union("addr", ("word", U32), ("octets", struct("", member("a", 0, U8), member("b", 1, U8))))
    codec = codec_of(struct("v", member("addr", 0, addr), member("n", 4, U32)))
    found = codec.decode(codec.encode({"addr": {"word": 0x01020304}, "n": 1}))

    assert found.replace(addr=found["addr"].replace(word=5))["addr"]["octets"] == {"a": 5, "b": 0}
    assert found.replace(n=2)["addr"]["word"] == 0x01020304


def test_a_copy_is_the_same_for_nobody_can_change_it() -> None:
    found = _key()

    assert copy.copy(found) is found
    assert copy.deepcopy({"key": found})["key"] is found

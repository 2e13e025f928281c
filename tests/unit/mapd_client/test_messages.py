"""Requests, batches and answers, without a connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, ATOMICS, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2, errors_pb2, maps_pb2, types_pb2
from mapd_client import (
    U32,
    U64,
    Btf,
    Client,
    Id,
    MapInfo,
    Misuse,
    Name,
    Pin,
    SizeMismatch,
    TypeMismatch,
    Unavailable,
    batches,
    codec,
    errors,
    replies,
    requests,
)
from mapd_client.failures import Asked
from mapd_client.info import Limits
from tests.unit.mapd_client.daemon import map_info

ASKED = Asked("update", "flows", mutates=True)


def info(key_size: int = 4, value_size: int = 8, type: MapType = MapType.HASH) -> MapInfo:
    return replies.map_info(map_info("ns/flows", type, key_size, value_size))


def create(**changes: Any) -> maps_pb2.CreateMapRequest:
    arguments: dict[str, Any] = {
        "key_size": 4,
        "value_size": 8,
        "max_entries": 10,
        "flags": 0,
        "kernel_name": None,
        "map_extra": 0,
        "numa_node": None,
        "inner": None,
        "btf": None,
        "exclusive_program_hash": b"",
        "lease": None,
        "exist_ok": False,
        "session": "s",
    }
    name = changes.pop("name", "flows")
    return requests.create_map(name, MapType.HASH, **{**arguments, **changes})


def test_create_passes_everything_on() -> None:
    request = create(flags=1, kernel_name="fl", inner=Pin("/x"), btf=Btf(b"b", 1, 2), exist_ok=True)
    assert request.type == types_pb2.MAP_TYPE_HASH
    assert (request.named.name, request.map_flags, request.kernel_name) == ("flows", 1, "fl")
    assert (request.inner.pin, request.btf.blob, request.btf.value_type_id) == ("/x", b"b", 2)
    assert (request.exist_ok, request.session) == (True, "s")
    assert not request.HasField("numa_node")


def test_create_passes_on_what_few_types_have() -> None:
    request = create(
        flags=1,
        map_extra=1 << 40,
        numa_node=0,
        exclusive_program_hash=bytes(32),
        btf=Btf(b"b", vmlinux_value_type_id=7),
    )
    assert (request.numa_node, request.map_flags) == (0, 1 | 4)
    assert (request.map_extra, request.btf_vmlinux_value_type_id) == (1 << 40, 7)
    assert request.exclusive_program_hash == bytes(32)


def test_create_wants_a_name_or_a_lease() -> None:
    assert create(name=None, lease=1.5).lease.ttl.ToMilliseconds() == 1500
    for changes in (
        {"lease": 1.0},
        {"name": None},
        {"name": None, "lease": 0.0},
        {"max_entries": -1},
        {"numa_node": 1 << 32},
        {"key_size": 1 << 40},
        {"flags": 1.5},
    ):
        with pytest.raises(Misuse):
            create(**changes)


def test_map_types_are_spelt_as_bpftool_does() -> None:
    assert requests.map_type("lru_percpu_hash") is MapType.LRU_PERCPU_HASH
    assert requests.map_type(MapType.ARRAY) is MapType.ARRAY
    for word in ("unspec", "dictionary"):
        with pytest.raises(Misuse, match=word):
            requests.map_type(word)


def test_remaining_time_is_never_unlimited_by_rounding() -> None:
    assert [requests.remaining_ms(s) for s in (None, 0.0001, 1.5, 1e9)] == [0, 1, 1500, 0xFFFF_FFFF]


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"limit": 0}, Misuse, "limit=0"),
        ({"limit": -1}, Misuse, "limit=-1: a dump hands out at least one"),
        ({"limit": 10**23}, Misuse, "limit=10+: 1 to 18446744073709551615"),
        ({"limit": 2.5}, TypeMismatch, r"limit=2\.5: an int, not float"),
        ({"prefix": "ab"}, TypeMismatch, "prefix='ab': bytes, not str"),
        ({"prefix": None}, TypeMismatch, "prefix=None"),
        ({"resume": "ab"}, TypeMismatch, "resume='ab'"),
    ],
)
def test_a_dump_that_cannot_be_asked_for(changes: dict[str, Any], error: type[Misuse], why: str) -> None:
    arguments: dict[str, Any] = {"columns": "both", "prefix": b"", "limit": None, "resume": None}
    with pytest.raises(error, match=why):
        requests.dump(1, **{**arguments, **changes})
    arguments["prefix"] = memoryview(b"ab")
    assert requests.dump(1, **arguments).prefix == b"ab"


def repr_of(value: float) -> str:
    return codec.shown(value)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), 1e300, 10**5000], ids=repr_of)
def test_seconds_are_positive_and_finite(value: float) -> None:
    with pytest.raises(Misuse, match="timeout="):
        requests.seconds("timeout", value)
    with pytest.raises(Misuse, match="lease="):
        create(name=None, lease=value)
    with pytest.raises(Misuse, match="timeout="):
        Client("/x", timeout=value)


def test_what_is_no_number_of_seconds() -> None:
    with pytest.raises(TypeMismatch, match="timeout='5': a number of seconds, not str"):
        requests.seconds("timeout", "5")


def test_text_is_what_utf8_can_express() -> None:
    with pytest.raises(Misuse, match=r"glob='a\\udcff': cannot be written in UTF-8"):
        requests.list_maps(requests.Wanted("a\udcff"), "")
    with pytest.raises(Misuse, match="kernel_name"):
        create(kernel_name="\udcff")
    with pytest.raises(Misuse, match=r"'/x/\\udcff' is no pin: a path travels as UTF-8"):
        Pin("/x/\udcff")
    for wrong in (Name, Pin, Id):
        with pytest.raises(TypeMismatch):
            wrong(b"x")  # type: ignore[arg-type]  # what a caller without a type checker does
    with pytest.raises(TypeMismatch, match="type=7"):
        requests.map_type(7)  # type: ignore[arg-type]  # likewise


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 5_000_000), st.sampled_from(list(Op)))
def test_no_message_is_larger_than_both_sides_accept(key: int, value: int, op: Op) -> None:
    shape = info(key, value)
    answered = 8 if op in ATOMICS else value
    taken = answered * (2 if op in (Op.COMPARE_EXCHANGE, Op.COMPARE_UPDATE) else 1)
    if key + max(taken, answered) > limits.COLUMN_BYTES:
        return
    count = batches.message_elements(op, shape, Limits(), ASKED)
    assert 1 <= count <= limits.BATCH_ELEMENTS
    values = bytes(taken * count) if op in TAKES_VALUE else b""
    field = (0, 8) if op in ATOMICS else None
    request = requests.apply(2**63, op, count, bytes(key * count), values, field=field, timeout=30)
    assert request.ByteSize() <= limits.MESSAGE_BYTES
    if op in ANSWERS_VALUE:
        result = elements_pb2.GroupResult(statuses=bytes(count), values=bytes(answered * count))
        assert elements_pb2.ApplyResponse(results=[result]).ByteSize() <= limits.MESSAGE_BYTES


def test_an_element_larger_than_a_message_is_refused_with_both_numbers() -> None:
    with pytest.raises(SizeMismatch, match=f"5000004 bytes, a message carries at most {limits.COLUMN_BYTES}"):
        batches.message_elements(Op.UPDATE, info(4, 5_000_000), Limits(), ASKED)


def test_the_daemons_own_limits_are_kept() -> None:
    small = Limits(batch_elements=100, chunk_bytes=1200)
    assert batches.message_elements(Op.UPDATE, info(), small, ASKED) == 100
    assert batches.chunk_elements(info(), small, ASKED) == 100
    assert batches.chunk_elements(info(4, 2_000_000), Limits(), ASKED) == 1


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)), max_size=40), st.integers(1, 9)
)
def test_batches_hold_every_pair_in_order(pairs: list[tuple[int, int]], per_message: int) -> None:
    cut = list(batches.of_pairs(pairs, U32, U64, per_message))
    keys = U32.decode_many(b"".join(batch.keys for batch in cut))
    values = U64.decode_many(b"".join(batch.values for batch in cut))
    assert list(zip(keys, values, strict=True)) == pairs
    assert [batch.first for batch in cut] == list(range(0, len(pairs), per_message))
    assert all(batch.count <= per_message for batch in cut)
    assert [(b.keys, b.count) for b in batches.of_keys(keys, U32, per_message)] == [
        (b.keys, b.count) for b in cut
    ]


def apply_response(statuses: bytes, values: bytes = b"") -> elements_pb2.ApplyResponse:
    return elements_pb2.ApplyResponse(results=[elements_pb2.GroupResult(statuses=statuses, values=values)])


def test_an_absent_key_is_no_failure() -> None:
    outcome = replies.outcome(apply_response(b"\0\1\12"), count=3, value_bytes=0, asked=ASKED)
    assert (outcome.absent, outcome.failed()) == (1, [2])
    assert replies.outcome(apply_response(b"\0\1"), count=2, value_bytes=0, asked=ASKED).failed() == []


def test_an_answer_of_another_length_is_the_daemons_fault() -> None:
    for response in (apply_response(b"\0"), apply_response(b"\0\0", bytes(8)), elements_pb2.ApplyResponse()):
        with pytest.raises(errors.MapdError, match="the daemon answered"):
            replies.outcome(response, count=2, value_bytes=8, asked=ASKED)


def test_a_refused_group_raises_its_class_with_its_delay() -> None:
    result = elements_pb2.GroupResult()
    result.error.reason = errors_pb2.REASON_BUSY
    result.error.message = "busy"
    result.error.retry_after.FromMilliseconds(250)
    with pytest.raises(Unavailable, match="busy") as caught:
        replies.outcome(elements_pb2.ApplyResponse(results=[result]), count=1, value_bytes=0, asked=ASKED)
    assert caught.value.retry_after == 0.25


def test_reasons_and_types_of_a_newer_daemon_do_not_break_this_client() -> None:
    assert replies.reason(250) is Reason.INTERNAL
    error = replies.element_error(250, errno=0, key=b"k", asked=ASKED, info=info())
    assert type(error) is errors.MapdError
    message = map_info("ns/new")
    message.ParseFromString(message.SerializeToString() + b"\x10\xc8\x01")  # field 2, type: 200
    newer = replies.map_info(message)
    assert (newer.type, newer.type_name, newer.per_cpu) == (200, "type 200", False)


def test_labels() -> None:
    assert info().label == "ns/flows"
    assert info(type=MapType.PERCPU_ARRAY).slots() == 3
    assert info().slots() == 1


def dump_message(**fields: Any) -> elements_pb2.DumpResponse:
    return elements_pb2.DumpResponse(**fields)


def test_a_dump_is_read_header_chunks_trailer() -> None:
    reader = replies.DumpReader(Asked("dump", "flows"), key_stride=4, value_stride=8)
    assert reader.feed(dump_message(header=elements_pb2.DumpHeader())) is None
    columns = types_pb2.Columns(count=2, keys=bytes(8), values=bytes(16))
    chunk = reader.feed(dump_message(chunk=elements_pb2.DumpChunk(columns=columns, token=b"t")))
    assert chunk is not None
    assert (chunk.count, chunk.keys.nbytes, chunk.values.nbytes, chunk.token) == (2, 8, 16, b"t")
    unfinished = reader.incomplete(b"t")
    assert unfinished is not None
    assert unfinished.token == b"t"
    reader.feed(dump_message(trailer=elements_pb2.DumpTrailer(entries=2, complete=True)))
    assert reader.incomplete(b"t") is None


@pytest.mark.parametrize(("keys", "values"), [(7, 16), (8, 15), (0, 16), (8, 0)])
def test_columns_of_another_length_are_refused(keys: int, values: int) -> None:
    reader = replies.DumpReader(Asked("dump", "flows"), key_stride=4, value_stride=8)
    columns = types_pb2.Columns(count=2, keys=bytes(keys), values=bytes(values))
    with pytest.raises(errors.MapdError, match="column of"):
        reader.feed(dump_message(chunk=elements_pb2.DumpChunk(columns=columns)))


def test_a_load_that_failed_lists_elements() -> None:
    response = elements_pb2.LoadResponse(applied=5, failed=20)
    response.errors.add(index=3, errno=7, reason=errors_pb2.REASON_MAP_FULL)
    with pytest.raises(errors.BatchFailed, match="20 elements failed, 5 were written") as caught:
        replies.load_result(response, Asked("load", "flows"), info())
    assert (caught.value.applied, caught.value.failed, caught.value.errors[3].errno) == (5, 20, 7)
    assert isinstance(caught.value.errors[3], errors.MapFull)


def test_references_become_the_protos() -> None:
    assert requests.by_ref(Name("a/b")).name == "a/b"
    assert requests.by_ref(Pin("/x")).pin == "/x"

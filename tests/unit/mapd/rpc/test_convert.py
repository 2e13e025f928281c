"""Messages to our own types and back: nothing a client can say is ignored, nothing we know is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from mapd.access.principal import Principal
from mapd.bpf import Buffer
from mapd.maps.answers import ElementFailure
from mapd.maps.errors import MapError
from mapd.maps.groups import FieldSpec, Group
from mapd.maps.job import Outcome
from mapd.maps.leased import LeasedRef, LeaseId
from mapd.maps.store import IdRef, NameRef, PinRef
from mapd.maps.types import TYPES
from mapd.rpc import convert
from mapd.runtime.host import AnyRef, HandleRef
from mapd_api.ops import Op
from mapd_api.reasons import RETRY_AFTER_S, Reason, Refusal
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1 import types_pb2 as types
from tests.unit.mapd.dictkernel import DictKernel, DictMap, raw_info

ALICE = Principal(name="admin", namespace="alice")


def refused(reason: Reason) -> pytest.RaisesExc[MapError]:
    return pytest.RaisesExc(MapError, check=lambda error: error.reason is reason)


# ---- which map ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "ref"),
    [
        (types.MapRef(handle=7), HandleRef(7)),
        (types.MapRef(handle=0), HandleRef(0)),
        (types.MapRef(name="flows"), NameRef("alice", "flows")),
        (types.MapRef(name="web/flows"), NameRef("web", "flows")),
        (types.MapRef(pin="/sys/fs/bpf/x"), PinRef("/sys/fs/bpf/x")),
        (types.MapRef(id=41), IdRef(41)),
    ],
)
def test_a_map_is_named_in_one_of_four_ways(message: types.MapRef, ref: AnyRef) -> None:
    assert convert.ref(message, ALICE, "lookup") == ref


@pytest.mark.parametrize(
    "message",
    [
        types.MapRef(),
        types.MapRef(name=""),
        types.MapRef(name="/flows"),
        types.MapRef(name="a/b/c"),
        types.MapRef(name="../flows"),
        types.MapRef(name="Flows"),
        types.MapRef(name="a" * 64),
        types.MapRef(name="flows\n"),
        types.MapRef(name="flows\0"),
    ],
)
def test_a_reference_that_names_nothing_is_refused(message: types.MapRef) -> None:
    with refused(Reason.BAD_SPEC) as caught:
        convert.ref(message, ALICE, "lookup")
    assert str(caught.value).startswith("lookup: ")


# ---- creating ----------------------------------------------------------------------------------


def creation(**fields: Any) -> maps.CreateMapRequest:
    given: dict[str, Any] = {
        "type": types.MAP_TYPE_HASH,
        "key_size": 4,
        "value_size": 8,
        "max_entries": 16,
        "named": maps.Named(name="flows"),
    }
    return maps.CreateMapRequest(**{**given, **fields})


def test_every_field_of_a_creation_arrives() -> None:
    request = creation(
        map_flags=5,
        kernel_name="kernel",
        map_extra=9,
        numa_node=0,
        exist_ok=True,
        btf=types.Btf(blob=b"btf", key_type_id=1, value_type_id=2),
    )
    new = convert.new_map(request, ALICE)
    assert (new.name, new.exist_ok) == (NameRef("alice", "flows"), True)
    spec = new.spec
    assert (spec.map_type, spec.key_size, spec.value_size, spec.max_entries) == (1, 4, 8, 16)
    assert (spec.flags, spec.kernel_name, spec.map_extra, spec.numa_node) == (5, "kernel", 9, 0)
    assert spec.btf is not None
    assert (spec.btf.blob, spec.btf.key_type_id, spec.btf.value_type_id) == (b"btf", 1, 2)


def test_what_is_not_given_is_not_invented() -> None:
    spec = convert.new_map(creation(), ALICE).spec
    assert (spec.flags, spec.kernel_name, spec.map_extra, spec.numa_node, spec.btf) == (0, "", 0, None, None)


def leased(
    lease_id: str = "job", name: str = "flows", *, seconds: int = 30, nanos: int = 0
) -> maps.CreateMapRequest:
    lease = maps.Lease(id=lease_id, name=name, ttl=Duration(seconds=seconds, nanos=nanos))
    return creation(named=None, lease=lease)


def test_a_lease_is_its_namespace_its_ttl_in_whole_milliseconds_and_a_name() -> None:
    of_alice = convert.new_map(leased(), ALICE).name
    assert of_alice == LeasedRef(LeaseId("alice", "job"), 30_000, "flows")
    other = convert.new_map(leased("team/job", seconds=1, nanos=999_999), ALICE).name
    assert other == LeasedRef(LeaseId("team", "job"), 1_000, "flows")


@pytest.mark.parametrize("lease_id", ["", "Job", "a/b/c", "../job", "a.b", "a" * 64, "_a", "team/"])
def test_what_is_no_lease_is_refused(lease_id: str) -> None:
    with refused(Reason.BAD_SPEC) as caught:
        convert.new_map(leased(lease_id), ALICE)
    assert "is no lease" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "a.b", "a" * 64])
def test_a_map_of_a_lease_has_a_name_in_it(name: str) -> None:
    with refused(Reason.BAD_SPEC):
        convert.new_map(leased(name=name), ALICE)


@pytest.mark.parametrize(
    "ttl",
    [
        (0, 999_999_999),
        (-1, 0),
        (86_400, 1_000_000),
        (2**63 - 1, 2**31 - 1),
        (-(2**63), -(2**31)),
    ],
)
def test_a_ttl_that_no_lease_has_is_refused(ttl: tuple[int, int]) -> None:
    with refused(Reason.BAD_SPEC) as caught:
        convert.new_map(leased(seconds=ttl[0], nanos=ttl[1]), ALICE)
    assert "from 1 to 86400 s" in str(caught.value)


def test_a_template_and_an_exclusive_program_are_part_of_the_shape() -> None:
    spec = convert.new_map(creation(inner=types.MapRef(id=1), exclusive_program_hash=bytes(32)), ALICE).spec
    assert (spec.inner, spec.exclusive_program_hash) == (True, bytes(32))


def test_a_map_without_a_lifetime_is_refused() -> None:
    with refused(Reason.BAD_SPEC):
        convert.new_map(creation(named=None), ALICE)


def test_a_type_that_the_contract_does_not_know_is_refused() -> None:
    convert.check_type(types.MAP_TYPE_ARENA)
    for number in (0, 34, 1_000):
        with refused(Reason.BAD_SPEC):
            convert.check_type(number)


# ---- describing --------------------------------------------------------------------------------


@pytest.mark.parametrize("map_type", sorted(TYPES))
def test_a_map_is_described_with_what_its_type_can_do(map_type: int) -> None:
    opened = DictKernel().open(DictMap(raw_info(map_type)))
    info = convert.map_info(opened.described)
    locked = replace(opened.described, facts=replace(opened.facts, has_lock=True))
    opened.fd.close()
    assert (info.id, info.type, info.kernel_name, info.max_entries) == (41, map_type, "flows", 1_000)
    assert info.key_stride == 4
    assert info.value_stride == opened.facts.value_stride
    assert tuple(convert.map_info(locked).supported_operations) == TYPES[map_type].operations
    lockless = tuple(name for name in TYPES[map_type].operations if name != "compare_update")
    assert tuple(info.supported_operations) == lockless
    assert types.Iteration.Name(info.iteration) == f"ITERATION_{TYPES[map_type].iteration.upper()}"


def test_a_map_of_a_type_that_nobody_knows_is_described_all_the_same() -> None:
    opened = DictKernel().open(DictMap(raw_info(77)))
    info = convert.map_info(opened.described)
    opened.fd.close()
    assert (list(info.supported_operations), info.iteration) == ([], types.ITERATION_NONE)


def test_each_type_of_the_kernel_has_its_number_in_the_contract() -> None:
    assert set(types.MapType.values()) == set(MapType)


# ---- elements ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "op"),
    [(0, Op.UPDATE), (1, Op.UPDATE), (2, Op.UPDATE_NOEXIST), (3, Op.UPDATE_EXIST)],
)
def test_an_update_flag_is_an_operation(flag: int, op: Op) -> None:
    assert convert.update_op(flag, "update") is op


@pytest.mark.parametrize("flag", [4, 7, -1])
def test_an_unknown_update_flag_is_refused(flag: int) -> None:
    with refused(Reason.BAD_FLAGS):
        convert.update_op(flag, "update")


def test_a_group_arrives_as_it_was_sent() -> None:
    message = elements.OpGroup(count=2, ops=b"\1\2", keys=b"kkkk", values=b"vv", flags=4)
    assert convert.group(message) == Group(count=2, ops=b"\1\2", keys=b"kkkk", values=b"vv", flags=4)


def test_a_group_of_atomics_arrives_with_its_field_and_whether_it_creates() -> None:
    field = elements.Field(offset=16, size=4)
    message = elements.OpGroup(count=1, ops=b"\x0e", keys=b"kk", values=b"vvvv", field=field, create=True)
    found = convert.group(message)
    assert (found.field, found.create) == (FieldSpec(16, 4), True)
    assert convert.group(elements.OpGroup(count=1, ops=b"\1")).field is None


def test_a_group_says_whether_it_touches() -> None:
    assert convert.group(elements.OpGroup(count=1, ops=b"\1", keys=b"k", touch=True)).touch
    assert not convert.group(elements.OpGroup(count=1, ops=b"\1", keys=b"k")).touch


def test_an_outcome_goes_out_as_columns_and_first_failures() -> None:
    failure = ElementFailure(1, Reason.MAP_FULL, 7)
    message = convert.outcome(Outcome(bytearray([0, Reason.MAP_FULL]), Buffer.of(b"value"), [failure]))
    assert (message.statuses, message.values) == (bytes([0, 10]), b"value")
    assert list(message.errors) == [errors.ElementError(index=1, reason=errors.REASON_MAP_FULL, errno=7)]
    assert not message.HasField("error")


def test_failures_of_a_stream_are_counted_over_all_of_it() -> None:
    (message,) = convert.element_errors([ElementFailure(3, Reason.KEY_EXISTS, 17)], offset=1_000)
    assert message.index == 1_003


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_number_in_the_contract(reason: Reason) -> None:
    name = "REASON_UNSPECIFIED" if reason is Reason.DONE else f"REASON_{reason.name}"
    assert errors.Reason.Value(name) == reason


@pytest.mark.parametrize("reason", [Reason.BUSY, Reason.QUOTA, Reason.MAP_FROZEN])
def test_a_refusal_inside_an_answer_says_all_that_one_of_a_call_says(reason: Reason) -> None:
    message = convert.error(Refusal(reason, "why", {"map": "map 41"}))
    assert (int(message.reason), message.message) == (int(reason), "why")
    assert dict(message.metadata) == {"map": "map 41"}
    assert message.HasField("retry_after") == (reason in RETRY_AFTER_S)
    assert message.retry_after.ToNanoseconds() == RETRY_AFTER_S.get(reason, 0) * 1e9

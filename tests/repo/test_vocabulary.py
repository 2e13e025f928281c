"""The names in Python are the names of the contract, and the contract states all rights."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import EnumDescriptor, FileDescriptor

from mapd_api import contract
from mapd_api.ops import Op, Verb
from mapd_api.reasons import RETRY_AFTER_S, STATUS, Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2, errors_pb2, types_pb2


def wire_names(enum: EnumDescriptor, prefix: str) -> dict[str, int]:
    """Names without prefix and numbers; without the 0 that says "not given"."""
    return {v.name.removeprefix(prefix): v.number for v in enum.values if v.number != 0}


def own_names(enum: type[IntEnum]) -> dict[str, int]:
    return {member.name: member.value for member in enum if member.value != 0}


def test_a_number_that_differs_is_found() -> None:
    class Verb(IntEnum):
        LIST = 2

    assert own_names(Verb) != wire_names(types_pb2.DESCRIPTOR.enum_types_by_name["Verb"], "VERB_")


@pytest.mark.parametrize(
    ("own", "file", "prefix"),
    [
        (Reason, errors_pb2.DESCRIPTOR, "REASON_"),
        (Op, elements_pb2.DESCRIPTOR, "OP_"),
        (Verb, types_pb2.DESCRIPTOR, "VERB_"),
        (MapType, types_pb2.DESCRIPTOR, "MAP_TYPE_"),
    ],
)
def test_own_enums_equal_the_contract(own: type[IntEnum], file: FileDescriptor, prefix: str) -> None:
    """Numbers travel; if the two differed, one side would read another word than was sent."""
    assert own_names(own) == wire_names(file.enum_types_by_name[own.__name__], prefix)


def test_every_reason_but_the_answers_has_a_status() -> None:
    """DONE and KEY_ABSENT are answers; a refusal without a status could not be sent."""
    assert set(STATUS) == set(Reason) - {Reason.DONE, Reason.KEY_ABSENT}
    assert set(RETRY_AFTER_S) <= set(STATUS)


def test_every_method_and_operation_states_its_rights() -> None:
    """Default deny begins here: what states no rights cannot be granted, or would be open to all."""
    methods = contract.check()
    assert len(methods) == sum(len(service.methods) for service in contract.SERVICES)
    assert set(contract.op_verbs()) == set(Op)


def planted(access: types_pb2.Access | None) -> FileDescriptor:
    """A contract of one method with the given rights, and one operation without any."""
    file = descriptor_pb2.FileDescriptorProto(name="planted.proto", package="planted", syntax="proto3")
    file.message_type.add(name="Nothing")
    method = file.service.add(name="PlantedService").method.add(
        name="Planted", input_type=".planted.Nothing", output_type=".planted.Nothing"
    )
    if access is not None:
        options: Any = method.options  # the stubs do not know extensions
        options.Extensions[types_pb2.access].CopyFrom(access)
    operation = file.enum_type.add(name="Op")
    operation.value.add(name="OP_UNSPECIFIED", number=0)
    operation.value.add(name="OP_LOOKUP", number=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName("planted.proto")


@pytest.mark.parametrize(
    ("access", "complaint"),
    [
        (None, "states no rights"),
        (types_pb2.Access(), "states no rights"),
        (types_pb2.Access(everyone=True, verbs=[types_pb2.VERB_READ]), "choose one"),
    ],
)
def test_a_method_without_clear_rights_is_refused(access: types_pb2.Access | None, complaint: str) -> None:
    service = planted(access).services_by_name["PlantedService"]
    with pytest.raises(contract.ContractError, match=complaint):
        contract.check((service,))


def test_a_method_with_rights_is_accepted() -> None:
    service = planted(types_pb2.Access(verbs=[types_pb2.VERB_READ])).services_by_name["PlantedService"]
    assert contract.check((service,))["/planted.PlantedService/Planted"].verbs == {Verb.READ}


def test_an_operation_without_rights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "elements_pb2", SimpleNamespace(DESCRIPTOR=planted(None)))
    with pytest.raises(contract.ContractError, match="OP_LOOKUP states no rights"):
        contract.check()

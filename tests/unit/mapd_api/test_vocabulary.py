"""The vocabulary in Python has the names and numbers of the generated descriptors."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from mapd_api import contract
from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2, errors_pb2, types_pb2


@pytest.mark.parametrize(
    ("ours", "generated", "prefix"),
    [
        (Op, elements_pb2.Op, "OP_"),
        (Verb, types_pb2.Verb, "VERB_"),
        (MapType, types_pb2.MapType, "MAP_TYPE_"),
        (Reason, errors_pb2.Reason, "REASON_"),
    ],
)
def test_each_name_has_the_number_of_the_contract(ours: type[IntEnum], generated: Any, prefix: str) -> None:
    theirs = {name.removeprefix(prefix): number for name, number in generated.items() if number}
    assert {member.name: member.value for member in ours if member.value} == theirs


def test_each_operation_and_method_states_its_rights() -> None:
    assert set(contract.op_verbs()) == set(Op)
    assert len(contract.check()) == sum(len(service.methods) for service in contract.SERVICES)

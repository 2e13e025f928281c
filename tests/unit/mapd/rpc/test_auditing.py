"""What a line of the audit trail says of the decision that it tells of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from mapd.access.authorize import Authorizer
from mapd.access.policy.holder import PolicyHolder
from mapd.access.policy.model import Subject
from mapd.access.principal import Principal
from mapd.rpc.auditing import Auditor
from mapd.rpc.caller import Caller, Context
from mapd.rpc.guard import Call
from mapd.runtime.audit_log import AuditLog
from mapd_api.contract import MethodAccess
from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1.host_pb2 import GetHostInfoRequest, GetHostInfoResponse
from tests.unit.mapd.access.policies import text
from tests.unit.mapd.access.reference import RuleDict
from tests.unit.mapd.dictkernel import DictKernel, DictMap, raw_info

WEB = Principal(name="web", namespace="web")
GIVES: RuleDict = {"name": "gives", "who": ["web"], "role": "operator", "names": ["web/*"]}
TAKES: RuleDict = {"name": "takes", "effect": "deny", "who": ["web"], "role": "admin", "names": ["web/*"]}


def fault(error: Exception) -> Refusal:
    raise AssertionError(error)


def test_a_group_is_told_under_the_policy_that_allowed_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text([GIVES]))
    holder = PolicyHolder.start(path)
    version = holder.policy.version
    authorizer, verbs = Authorizer(holder), frozenset({Verb.WRITE})
    kernel = DictKernel()
    opened = kernel.open(kernel.add(DictMap(raw_info())))
    info = opened.facts.info
    subject = Subject.of(info.map_type, info.key_size, names=["web/flows"], pins=())
    call = Call(
        caller=Caller(principal=WEB, attested_by="test"),
        method="/mapd_api.v1.ElementService/Apply",
        access=cast("MethodAccess", None),
        authorizer=authorizer,
        context=cast("Context", None),
        expires=0.0,
        fault=fault,
    )
    log = AuditLog(str(tmp_path / "audit.jsonl"), epoch="e")
    line = Auditor(log).begin(
        call, authorizer.authorize_map(WEB, verbs, opened, subject), "apply", bytes([Op.UPDATE]), 2
    )
    assert line is not None
    path.write_text(text([GIVES, TAKES]))
    assert holder.reload()
    line.told(bytes([0, Reason.KEY_ABSENT]))
    line.close()
    assert log.close(10)
    opened.fd.close()
    told: list[dict[str, Any]] = [
        json.loads(one) for one in (tmp_path / "audit.jsonl").read_bytes().splitlines()
    ]
    (found,) = [one for one in told if one["event"] == "mutation"]
    assert (found["policy"], "gives" in found["rule"], "takes" in found["rule"]) == (version, True, False)


@pytest.mark.parametrize("reads", [True, False])
def test_who_asked_about_the_host_is_told_where_reads_are(tmp_path: Path, reads: bool) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"), epoch="e")
    call = Call(
        caller=Caller(principal=WEB, attested_by="test"),
        method="/mapd_api.v1.HostService/GetHostInfo",
        access=cast("MethodAccess", None),
        authorizer=Authorizer(),
        context=cast("Context", None),
        expires=0.0,
        fault=fault,
    )
    with Auditor(log, reads=reads).call(call, GetHostInfoRequest()) as told:
        told["answer"] = GetHostInfoResponse()
    assert log.close(10)
    lines = [json.loads(one) for one in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    found = [(one["operation"], one["principal"]) for one in lines if one["event"] == "read"]
    assert found == ([("host_info", "web")] if reads else [])

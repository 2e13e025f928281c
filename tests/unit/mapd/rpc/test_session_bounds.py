"""What a session may make the daemon do: how much it looks through, under which policy, how much it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd.access.authorize import Authorizer
from mapd.access.policy.holder import PolicyHolder
from mapd.maps.groups import distinct_ops
from mapd.rpc import apply
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.support.rawsession import RawSession, group
from tests.unit.mapd.access.policies import text
from tests.unit.mapd.dictkernel import ROOT, DictMap, n, raw_info
from tests.unit.mapd.rpc.test_handlers import FLOWS
from tests.unit.mapd.rpc.test_sessions import executed, put, talking
from tests.unit.mapd.rpc.wire import STRANGER, serving

pytestmark = pytest.mark.usefixtures("watched_loop")


async def test_a_message_of_too_many_groups_is_refused_before_any_op_column_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scanned: list[int] = []

    def scanning(ops: bytes) -> frozenset[Op]:
        scanned.append(len(ops))
        return distinct_ops(ops)

    async with talking() as (wire, talk, ref):
        monkeypatch.setattr(apply, "distinct_ops", scanning)
        many = [put(ref, 1, 1)] * (limits.GROUPS + 1)
        assert (await talk.ask(0, 1, *many)).error.reason == errors.REASON_BAD_COLUMNS
        assert scanned == []
        first = await talk.ask(0, 1, put(ref, 1, 1))
        assert first.results[0].statuses == b"\0"
        assert await talk.ask(0, 1, put(ref, 1, 1)) == first
        assert (executed(wire), set(scanned)) == (1, {1})
        await talk.end()


@pytest.mark.parametrize("by_name", [False, True])
async def test_an_op_column_longer_than_a_group_is_refused_unscanned_and_other_groups_are_run(
    monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    scanned: list[int] = []

    def scanning(ops: bytes) -> frozenset[Op]:
        scanned.append(len(ops))
        return distinct_ops(ops)

    async with talking() as (wire, talk, ref):
        monkeypatch.setattr(apply, "distinct_ops", scanning)
        size = limits.BATCH_ELEMENTS + 1
        long = elements.OpGroup(map=FLOWS if by_name else ref, count=size, ops=bytes([Op.LOOKUP]) * size)
        answer = await talk.ask(0, 1, long, put(ref, 1, 1))
        assert answer.results[0].error.reason == errors.REASON_BAD_COLUMNS
        assert f"{size} bytes; a group has at most {limits.BATCH_ELEMENTS}" in answer.results[0].error.message
        assert answer.results[1].statuses == b"\0"
        assert await talk.ask(0, 1, long, put(ref, 1, 1)) == answer
        assert (executed(wire), set(scanned)) == (1, {1})
        await talk.end()


async def test_after_a_reload_that_revokes_the_next_group_of_the_same_session_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    viewer = text([{"who": ["web"], "role": "viewer", "every_map": True}])
    path.write_text(viewer)
    policy = PolicyHolder.start(path)
    async with serving(principal=STRANGER) as wire:
        monkeypatch.setattr(wire.guard, "_authorizer", Authorizer(policy))
        wire.kernel.add(DictMap(raw_info()), f"{ROOT}/web/flows").fill(1)
        talk = await RawSession.open(wire.channel)
        request = maps.OpenMapRequest(map=FLOWS, session=talk.opened.session, read_only=True)
        read = group(MapRef(handle=(await wire.call(request)).handle), Op.LOOKUP, n(0))
        assert (await talk.ask(0, 1, read, read)).results[1].values == n(100)
        path.write_text(text([]))
        assert policy.reload()
        for sequence in (2, 3):
            found = (await talk.ask(0, sequence, read)).results[0]
            assert (found.error.reason, found.values) == (errors.REASON_MAP_NOT_FOUND, b"")
        path.write_text(viewer)
        assert policy.reload()
        assert (await talk.ask(0, 4, read)).results[0].values == n(100)
        await talk.end()

"""Both services over a real socket: the answers of each method, and what no call may leave behind.

The kernel is a dict; what Linux answers, tests/kernel and tests/e2e show.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from mapd.access.authorize import Authorized, Authorizer, Denied
from mapd.access.policy.model import Quotas, Subject
from mapd.access.principal import Principal
from mapd.access.quotas import always
from mapd.bpf import CreateMap, Fault, OpenPin, Pin
from mapd.bpf.abi import Command
from mapd.maps.opened import OpenMap
from mapd_api import limits
from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1 import types_pb2 as types
from tests.unit.mapd.dictkernel import ROOT, DictMap, n, raw_info
from tests.unit.mapd.rpc.wire import EPOCH, WAIT_S, Wire, serving

pytestmark = pytest.mark.usefixtures("watched_loop")

T = TypeVar("T")

FLOWS = types.MapRef(name="flows")


def add(wire: Wire, name: str = "flows", count: int = 0, **info: Any) -> DictMap:
    """A map pinned as admin/<name>."""
    made = wire.kernel.add(DictMap(raw_info(**info)), f"{ROOT}/admin/{name}")
    made.fill(count)
    return made


def creation(**fields: Any) -> maps.CreateMapRequest:
    given: dict[str, Any] = {
        "type": types.MAP_TYPE_HASH,
        "key_size": 4,
        "value_size": 4,
        "max_entries": 16,
        "named": maps.Named(name="flows"),
    }
    return maps.CreateMapRequest(**{**given, **fields})


async def opened(wire: Wire, session: str = "") -> types.MapRef:
    answer = await wire.call(maps.OpenMapRequest(map=FLOWS, session=session))
    return types.MapRef(handle=answer.handle)


# ---- maps --------------------------------------------------------------------------------------


async def test_the_daemon_says_what_it_is() -> None:
    async with serving() as wire:
        server = (await wire.call(maps.GetServerInfoRequest())).server
        assert (server.epoch, server.principal, server.namespace) == (EPOCH, "admin", "admin")
        assert server.limits.message_bytes == limits.MESSAGE_BYTES
        assert list(server.features) == ["apply"]


async def test_a_map_is_created_once_and_opened_the_second_time() -> None:
    async with serving() as wire:
        first = await wire.call(creation(exist_ok=True))
        second = await wire.call(creation(exist_ok=True))
        assert (first.created, second.created) == (True, False)
        assert first.info.name == "admin/flows"
        assert first.info.pin_path == f"{ROOT}/admin/flows"
        assert first.handle != second.handle
        assert (await wire.refusal(creation())).reason is Reason.MAP_EXISTS
        assert len(wire.host.handles) == 2


async def test_a_handle_serves_until_it_is_closed() -> None:
    async with serving() as wire:
        add(wire, count=1)
        handle = await opened(wire)
        lookup = elements.LookupRequest(map=handle, key=n(0))
        assert (await wire.call(lookup)).value == n(100)
        await wire.call(maps.CloseMapRequest(handle=handle.handle))
        await wire.call(maps.CloseMapRequest(handle=handle.handle))
        assert (await wire.refusal(lookup)).reason is Reason.STALE_HANDLE


async def test_a_handle_is_not_opened_again_nor_unpinned() -> None:
    async with serving() as wire:
        add(wire)
        handle = await opened(wire)
        assert (await wire.refusal(maps.OpenMapRequest(map=handle))).reason is Reason.BAD_SPEC
        assert (await wire.refusal(maps.UnpinMapRequest(map=handle))).reason is Reason.BAD_SPEC
        assert (await wire.refusal(maps.UnpinMapRequest(map=types.MapRef(id=41)))).reason is Reason.BAD_SPEC


async def test_a_read_only_handle_reads_and_refuses_every_write() -> None:
    async with serving() as wire:
        add(wire, count=1)
        answer = await wire.call(maps.OpenMapRequest(map=FLOWS, read_only=True))
        handle = types.MapRef(handle=answer.handle)
        assert (await wire.call(elements.LookupRequest(map=handle, key=n(0)))).value == n(100)
        for request in (
            elements.UpdateRequest(map=handle, key=n(0), value=n(0)),
            elements.DeleteRequest(map=handle, key=n(0)),
            maps.FreezeMapRequest(map=handle),
        ):
            assert (await wire.refusal(request)).reason is Reason.READ_ONLY


async def test_a_list_goes_on_behind_its_token() -> None:
    async with serving() as wire:
        for number in range(5):
            add(wire, f"map{number}", id=number + 1)
        wire.kernel.pins[f"{ROOT}/stray"] = None
        names: list[str] = []
        request = maps.ListMapsRequest(page_size=2)
        while True:
            answer = await wire.call(request)
            names += [info.name for info in answer.maps]
            assert any("stray" in line for line in answer.not_looked_at)
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        assert names == [f"admin/map{number}" for number in range(5)]


async def test_a_map_is_described_as_it_is_now() -> None:
    async with serving() as wire:
        add(wire)
        await wire.call(maps.FreezeMapRequest(map=FLOWS))
        assert (await wire.call(maps.GetMapRequest(map=FLOWS))).info.frozen
        assert (await wire.refusal(maps.GetMapRequest(map=types.MapRef(name="none")))).reason is (
            Reason.MAP_NOT_FOUND
        )


async def test_a_handle_tells_what_its_map_is_now_and_no_name_that_it_lost() -> None:
    async with serving() as wire:
        add(wire, count=1)
        handle = await opened(wire)
        await wire.call(maps.FreezeMapRequest(map=handle))
        dump = wire.callable("Dump")(elements.DumpRequest(map=handle), timeout=WAIT_S)
        header = (await dump.read()).header
        assert header.info.frozen
        assert header.info.name == "admin/flows"
        await wire.call(maps.UnpinMapRequest(map=FLOWS))
        info = (await wire.call(maps.GetMapRequest(map=handle))).info
        assert (info.id, info.name, info.pin_path) == (41, "", "")


async def test_a_map_gets_one_more_pin_and_loses_its_name() -> None:
    async with serving() as wire:
        made = add(wire)
        await wire.call(maps.PinMapRequest(map=FLOWS, path="/bpf/also"))
        await wire.call(maps.UnpinMapRequest(map=FLOWS))
        assert wire.kernel.pins == {"/bpf/also": made}


async def test_a_call_that_is_refused_in_the_middle_leaves_no_fd() -> None:
    async with serving() as wire:
        add(wire)
        wire.faulty.add(Fault(target=Command.OBJ_GET_INFO_BY_FD, errno=errno.EIO))
        with capture_logs() as logged:
            for request in (maps.OpenMapRequest(map=FLOWS), creation(exist_ok=True)):
                assert (await wire.refusal(request)).reason is Reason.INTERNAL
                assert wire.kernel.open_fds == 0
            listing = await wire.call(maps.ListMapsRequest())
            assert any("EIO" in line for line in listing.not_looked_at)
            assert wire.kernel.open_fds == 0
        assert [event["event"] for event in logged if event["log_level"] == "error"] == ["fault"] * 2


async def test_the_last_handle_is_for_the_first_who_asks_and_nothing_is_created_for_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as wire:
        monkeypatch.setattr(wire.host.handles.shares, "quotas_of", always(Quotas(handles=1)))
        reached, let_go = threading.Event(), threading.Event()
        wire.faulty.add(Fault(target=CreateMap, nth=1, reached=reached, wait=let_go))
        first = asyncio.ensure_future(wire.call(creation()))
        await asyncio.to_thread(reached.wait, WAIT_S)
        found = await wire.refusal(creation(named=maps.Named(name="second")))
        let_go.set()
        await first
        assert found.reason is Reason.QUOTA
        assert list(wire.kernel.pins) == [f"{ROOT}/admin/flows"]


@pytest.mark.parametrize("there", [False, True])
async def test_a_map_created_for_a_session_that_ends_is_taken_back_and_one_that_was_there_is_not(
    there: bool,
) -> None:
    async with serving() as wire:
        if there:
            add(wire, max_entries=16)
        stream = wire.callable("Session")()
        await stream.write(elements.SessionRequest(open=elements.SessionOpen()))
        session = (await stream.read()).opened.session
        reached, let_go = threading.Event(), threading.Event()
        wire.faulty.add(Fault(target=OpenPin if there else Pin, nth=1, reached=reached, wait=let_go))
        call = asyncio.ensure_future(wire.refusal(creation(session=session, exist_ok=there)))
        await asyncio.to_thread(reached.wait, WAIT_S)
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        let_go.set()
        assert (await call).reason is Reason.STALE_HANDLE
        assert len(wire.kernel.pins) == there
        assert len(wire.host.handles) == 0


class NoMaps(Authorizer):
    """Lets maps be made, and nobody have one."""

    def authorize_map(
        self,
        principal: Principal,
        verbs: frozenset[Verb],
        target: T,
        subject: Subject | None,
        *,
        by_key: bool = False,
    ) -> Authorized[T]:
        if isinstance(target, OpenMap):
            raise Denied(principal, verbs, reveal=True)
        return super().authorize_map(principal, verbs, target, subject, by_key=by_key)


async def test_a_created_map_that_its_creator_may_not_have_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as wire:
        monkeypatch.setattr(wire.guard, "_authorizer", NoMaps())
        assert (await wire.refusal(creation())).reason is Reason.POLICY
        assert wire.kernel.pins == {}
        assert wire.kernel.open_fds == 0


async def test_what_only_looks_opens_a_map_to_read_alone() -> None:
    async with serving() as wire:
        add(wire, count=1)

        def opened_read_only() -> list[bool]:
            found = [request.read_only for request in wire.kernel.pins_opened]
            wire.kernel.pins_opened.clear()
            return found

        lookup = elements.OpGroup(map=FLOWS, count=1, ops=bytes([Op.LOOKUP]), keys=n(0))
        pop = elements.OpGroup(map=FLOWS, count=1, ops=bytes([Op.LOOKUP_AND_DELETE]), keys=n(0))
        looks: list[Message] = [
            elements.LookupRequest(map=FLOWS, key=n(0)),
            elements.GetNextKeyRequest(map=FLOWS),
            maps.GetMapRequest(map=FLOWS),
            elements.ApplyRequest(groups=[lookup]),
        ]
        for request in looks:
            await wire.call(request)
            assert set(opened_read_only()) == {True}
        async for _ in wire.callable("Dump")(elements.DumpRequest(map=FLOWS), timeout=WAIT_S):
            pass
        assert set(opened_read_only()) == {True}
        changes: list[Message] = [
            elements.ApplyRequest(groups=[pop]),
            elements.UpdateRequest(map=FLOWS, key=n(0), value=n(0)),
            elements.DeleteRequest(map=FLOWS, key=n(0)),
            maps.PinMapRequest(map=FLOWS, path="/bpf/also"),
            maps.FreezeMapRequest(map=FLOWS),
        ]
        for request in changes:
            await wire.call(request)
            assert opened_read_only() == [False]


async def test_an_open_that_the_client_gave_up_leaves_no_fd_and_no_handle() -> None:
    async with serving() as wire:
        add(wire)
        reached, let_go = threading.Event(), threading.Event()
        wire.faulty.add(Fault(target=OpenPin, reached=reached, wait=let_go))
        call = asyncio.ensure_future(wire.call(maps.OpenMapRequest(map=FLOWS)))
        await asyncio.to_thread(reached.wait, WAIT_S)
        call.cancel()
        await asyncio.wait([call])
        await wire.guard.wait_ended(WAIT_S)
        let_go.set()
        assert len(wire.host.handles) == 0


# ---- elements ----------------------------------------------------------------------------------


async def test_single_operations_answer_and_a_missing_key_is_an_answer() -> None:
    async with serving() as wire:
        made = add(wire)
        await wire.call(elements.UpdateRequest(map=FLOWS, key=n(1), value=n(7)))
        assert made.elements == {n(1): n(7)}
        assert (await wire.call(elements.LookupRequest(map=FLOWS, key=n(1)))).value == n(7)
        assert not (await wire.call(elements.LookupRequest(map=FLOWS, key=n(2)))).HasField("value")
        assert (await wire.call(elements.GetNextKeyRequest(map=FLOWS))).next_key == n(1)
        assert not (await wire.call(elements.GetNextKeyRequest(map=FLOWS, key=n(1)))).HasField("next_key")
        assert (await wire.call(elements.DeleteRequest(map=FLOWS, key=n(1)))).existed
        assert not (await wire.call(elements.DeleteRequest(map=FLOWS, key=n(1)))).existed


@pytest.mark.parametrize(
    ("flag", "key", "reason"),
    [
        (elements.UPDATE_FLAG_NOEXIST, 0, Reason.KEY_EXISTS),
        (elements.UPDATE_FLAG_EXIST, 9, Reason.KEY_MISSING),
        (elements.UPDATE_FLAG_ANY, 9, Reason.MAP_FULL),
    ],
)
async def test_a_single_element_refused_says_operation_map_type_and_errno(
    flag: Any, key: int, reason: Reason
) -> None:
    async with serving() as wire:
        add(wire, count=3, max_entries=3)
        found = await wire.refusal(elements.UpdateRequest(map=FLOWS, key=n(key), value=n(0), flag=flag))
        assert found.reason is reason
        assert found.metadata["operation"] == "update"
        assert (found.metadata["map"], found.metadata["map_type"]) == ("map 41 (flows)", "hash")
        assert found.metadata["errno"] in {"EEXIST", "ENOENT", "E2BIG"}


async def test_groups_run_in_order_and_one_refused_does_not_stop_the_next() -> None:
    async with serving() as wire:
        made = add(wire)
        update = elements.OpGroup(map=FLOWS, count=1, ops=bytes([Op.UPDATE]), keys=n(1), values=n(7))
        bad = elements.OpGroup(map=FLOWS, count=1, ops=bytes([Op.UPDATE]), keys=b"k", values=n(7))
        lookup = elements.OpGroup(map=FLOWS, count=2, ops=bytes([Op.LOOKUP]), keys=n(1) + n(2))
        missing = elements.OpGroup(map=types.MapRef(name="none"), count=1, ops=b"\1", keys=n(1))
        request = elements.ApplyRequest(groups=[update, bad, missing, lookup])
        results = (await wire.call(request)).results
        assert made.elements == {n(1): n(7)}
        assert [result.error.reason for result in results] == [
            errors.REASON_UNSPECIFIED,
            errors.REASON_KEY_SIZE_MISMATCH,
            errors.REASON_MAP_NOT_FOUND,
            errors.REASON_UNSPECIFIED,
        ]
        assert (results[3].statuses, results[3].values) == (bytes([0, Reason.KEY_ABSENT]), n(7) + n(0))
        assert results[1].statuses == b""


async def test_too_many_groups_and_stamped_messages_are_refused() -> None:
    async with serving() as wire:
        many = elements.ApplyRequest(groups=[elements.OpGroup()] * (limits.GROUPS + 1))
        assert (await wire.refusal(many)).reason is Reason.BAD_COLUMNS
        stamped = elements.ApplyRequest(stamp=elements.Stamp(session="x"))
        assert (await wire.refusal(stamped)).reason is Reason.BAD_SPEC


async def test_a_group_whose_time_is_over_is_not_executed() -> None:
    async with serving() as wire:
        made = add(wire)
        handle = await opened(wire)
        reached, let_go = threading.Event(), threading.Event()
        wire.faulty.add(Fault(target=Command.MAP_LOOKUP_ELEM, reached=reached, wait=let_go))
        first = asyncio.ensure_future(wire.call(elements.LookupRequest(map=handle, key=n(1))))
        await asyncio.to_thread(reached.wait, WAIT_S)
        late = elements.OpGroup(
            map=handle, count=1, ops=bytes([Op.UPDATE]), keys=n(1), values=n(1), remaining_ms=1
        )
        second = asyncio.ensure_future(wire.call(elements.ApplyRequest(groups=[late])))
        overdue = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, overdue.set_result, None)
        await overdue
        let_go.set()
        (result,) = (await second).results
        await first
        assert result.error.reason == errors.REASON_EXPIRED
        assert made.elements == {}


async def test_answers_that_fit_no_message_are_refused_by_group_and_the_others_served() -> None:
    async with serving() as wire:
        add(wire, value_size=1 << 20)
        made = wire.kernel.maps[41]
        made.elements = {n(number): bytes(1 << 20) for number in range(3)}
        two = elements.OpGroup(map=FLOWS, count=2, ops=bytes([Op.LOOKUP]), keys=n(0) + n(1))
        results = (await wire.call(elements.ApplyRequest(groups=[two, two]))).results
        assert len(results[0].values) == 2 << 20
        assert results[1].error.reason == errors.REASON_BAD_COLUMNS


async def test_what_was_taken_out_reaches_the_caller_whatever_the_groups_behind_it_are_refused_for() -> None:
    """A message beyond the limit is dropped by grpc, and with it values that are in no map any more."""
    async with serving() as wire:
        made = add(wire, value_size=1000)
        made.elements = {n(number): bytes(1000) for number in range(2000)}
        keys = b"".join(map(n, range(2000)))
        take = elements.OpGroup(map=FLOWS, count=2000, ops=bytes([Op.LOOKUP_AND_DELETE]), keys=keys)
        bad = elements.OpGroup(
            map=types.MapRef(name="nowhere/" + "n" * 63), count=1, ops=bytes([Op.LOOKUP]), keys=n(1)
        )
        request = elements.ApplyRequest(groups=[take] + [bad] * (limits.GROUPS - 1))
        results = (await wire.call(request)).results
        first, *rest = results
        if first.HasField("error"):  # refused for want of room, so nothing was taken
            assert first.error.reason == errors.REASON_BAD_COLUMNS
            assert len(made.elements) == 2000
        else:
            assert len(first.values) == 2_000_000
        assert {result.error.reason for result in rest} == {errors.REASON_MAP_NOT_FOUND}


async def test_a_fault_in_one_group_does_not_cost_the_results_of_those_before_it() -> None:
    async with serving() as wire:
        made = add(wire)
        made.elements = {n(1): n(1)}
        take = elements.OpGroup(map=FLOWS, count=1, ops=bytes([Op.LOOKUP_AND_DELETE]), keys=n(1))
        wire.faulty.add(Fault(target=Command.OBJ_GET_INFO_BY_FD, errno=errno.EIO, nth=2))
        with capture_logs():
            taken, failed = (await wire.call(elements.ApplyRequest(groups=[take, take]))).results
        assert taken.values == n(1)
        assert failed.error.reason == errors.REASON_INTERNAL
        assert failed.error.metadata["incident"]

"""The policy on every map and element, over a real socket: who is refused what, and what he is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message

from mapd.access.authorize import Authorizer
from mapd.access.policy.holder import PolicyHolder
from mapd.access.principal import Principal
from mapd.bpf import Fault, OpenId, OpenPin
from mapd.bpf.abi import Command
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import Columns, MapRef
from tests.support.rawsession import RawSession, group
from tests.unit.mapd.access.policies import policy, text
from tests.unit.mapd.access.reference import RuleDict
from tests.unit.mapd.dictkernel import ROOT, n
from tests.unit.mapd.rpc.ruled import (
    ANYTHING,
    FLOWS,
    OWNER,
    SECRET,
    SOME_KEYS,
    WEB,
    add,
    creation,
    dumped,
    ruled,
)
from tests.unit.mapd.rpc.wire import ADMIN, WAIT_S, Wire, refusal_of, serving, turns

pytestmark = pytest.mark.usefixtures("watched_loop")


# ---- maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [MapRef(name="web/flows"), MapRef(pin="/bpf/innocent"), MapRef(id=41)])
async def test_a_denial_by_one_name_holds_by_whichever_the_map_is_reached(ref: MapRef) -> None:
    async with ruled(ANYTHING, SECRET) as wire:
        made = add(wire, "web/flows", "/bpf/innocent", count=20)
        assert (await wire.call(elements.LookupRequest(map=ref, key=n(1)))).value == n(101)
        wire.kernel.pins[f"{ROOT}/db/secret-x"] = made
        for request in (elements.LookupRequest(map=ref, key=n(1)), maps.OpenMapRequest(map=ref)):
            assert (await wire.refusal(request)).reason is Reason.MAP_NOT_FOUND
        del wire.kernel.pins[f"{ROOT}/db/secret-x"]
        assert (await wire.call(elements.LookupRequest(map=ref, key=n(1)))).value == n(101)


async def test_a_permission_by_one_name_holds_by_whichever_the_map_is_reached() -> None:
    async with ruled(OWNER) as wire:
        add(wire, "web/flows", "/bpf/loader", count=2)
        assert (await wire.call(elements.LookupRequest(map=MapRef(pin="/bpf/loader"), key=n(1)))).value == n(
            101
        )


def everything(ref: MapRef) -> list[Message]:
    """A request of every method that names a map, on this one."""
    name = ref.name or "db/flows"
    op = elements.OpGroup(map=ref, count=1, ops=bytes([Op.LOOKUP]), keys=n(0))
    column = Columns(count=1, keys=n(0), values=n(0))
    found: list[Message] = [
        maps.OpenMapRequest(map=ref),
        maps.GetMapRequest(map=ref),
        maps.PinMapRequest(map=ref, path="/bpf/more"),
        maps.FreezeMapRequest(map=ref),
        maps.GetBtfRequest(map=ref),
        elements.LookupRequest(map=ref, key=n(0)),
        elements.UpdateRequest(map=ref, key=n(0), value=n(0)),
        elements.DeleteRequest(map=ref, key=n(0)),
        elements.UpdateReferenceRequest(map=ref, key=n(0), inner=MapRef(name="web/flows")),
        elements.CountEntriesRequest(map=ref),
        elements.GetNextKeyRequest(map=ref),
        elements.ApplyRequest(groups=[op]),
        elements.DumpRequest(map=ref),
        elements.LoadRequest(map=ref, columns=column),
    ]
    if not ref.id:
        found.append(maps.UnpinMapRequest(map=ref))
    if ref.name:
        found.append(maps.RenameMapRequest(name=name, new_name="web/more"))
    return found


async def answer_of(wire: Wire, request: Message) -> str:
    """All that comes back, of a stream or a group too."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    try:
        if name == "Dump":
            async for message in wire.callable(name)(request, timeout=WAIT_S):
                return str(message)
        elif name == "Load":
            return str(await wire.callable(name)(iter([request]), timeout=WAIT_S))
        else:
            return str(await wire.callable(name)(request, timeout=WAIT_S))
    except grpc.aio.AioRpcError as error:
        return f"{error.code()} {error.details()} {refusal_of(error)}"
    return ""


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (MapRef(name="db/flows"), MapRef(name="db/other")),
        (MapRef(pin="/bpf/flows"), MapRef(pin="/bpf/other")),
        (MapRef(id=41), MapRef(id=42)),
    ],
)
@pytest.mark.parametrize(
    "rules",
    [
        (),
        (OWNER,),
        ({"who": ["web"], "role": "admin", "types": ["lpm_trie"]},),
        ({"who": ["web"], "role": "admin", "every_map": True}, {**SECRET, "names": ["db/*"]}),
    ],
)
async def test_a_map_that_is_hidden_and_none_are_answered_alike_word_for_word(
    there: MapRef, missing: MapRef, rules: tuple[RuleDict, ...]
) -> None:
    async with ruled(*rules) as wire:
        add(wire, "db/flows", "/bpf/flows", count=1)
        for hidden, absent in zip(everything(there), everything(missing), strict=True):
            said = await answer_of(wire, hidden)
            told = await answer_of(wire, absent)
            for old, new in (("db/other", "db/flows"), ("/bpf/other", "/bpf/flows"), ("id:42", "id:41")):
                told = told.replace(old, new)
            assert said == told
            assert "MAP_NOT_FOUND" in said or f"reason: {Reason.MAP_NOT_FOUND.name}" in said


async def test_nothing_is_opened_for_one_who_may_not_know_of_it() -> None:
    async with ruled(OWNER) as wire:
        add(wire, "db/flows", "/bpf/flows")
        await wire.refusal(maps.GetMapRequest(map=FLOWS))  # the index opens what is new, once
        wire.kernel.pins_opened.clear()
        for ref in (MapRef(name="db/flows"), MapRef(pin="/bpf/flows"), MapRef(id=41)):
            for request in everything(ref):
                await answer_of(wire, request)
        assert wire.kernel.pins_opened == []
        assert [seen.target for seen in wire.faulty.seen if seen.target is OpenId] == []


@pytest.mark.parametrize("number", [13, 21, 22, 40])
async def test_a_fault_at_opening_tells_nobody_that_there_is_something(number: int) -> None:
    """Rules by type: only an open map says whether they are about it."""
    async with ruled({"who": ["web"], "role": "admin", "types": ["hash"]}) as wire:
        missing = await wire.refusal(maps.GetMapRequest(map=MapRef(name="db/flows")))
        add(wire, "db/flows")
        wire.faulty.add(Fault(target=OpenPin, errno=number))
        assert await wire.refusal(maps.GetMapRequest(map=MapRef(name="db/flows"))) == missing


async def test_a_refusal_says_who_one_is_whom_to_ask_and_what_would_admit_it() -> None:
    async with ruled({"who": ["web"], "role": "viewer", "names": ["web/*"]}) as wire:
        add(wire, "web/flows", count=1)
        found = await wire.refusal(elements.UpdateRequest(map=FLOWS, key=n(0), value=n(1)))
        assert found.reason is Reason.POLICY
        assert found.message == (
            "update web/flows: you are 'web', and no rule of the policy allows you write here; ask ops@example.org "
            "for: mapd policy allow web operator web/flows"
        )
        assert dict(found.metadata) == {"operation": "update", "map": "web/flows", "principal": "web"}
        handle = (await wire.call(maps.OpenMapRequest(map=FLOWS))).handle
        by_handle = elements.UpdateRequest(map=MapRef(handle=handle), key=n(0), value=n(1))
        assert await wire.refusal(by_handle) == found


async def test_by_id_takes_a_right_of_its_own_beside_the_one_on_the_map() -> None:
    by_id = MapRef(id=41)
    async with ruled(OWNER) as wire:
        add(wire, "web/flows", count=1)
        found = await wire.refusal(elements.LookupRequest(map=by_id, key=n(0)))
        assert (found.reason, "open_by_id" in found.message) == (Reason.POLICY, True)
        assert (await wire.refusal(maps.OpenMapRequest(map=by_id))).reason is Reason.POLICY
    also: RuleDict = {"who": ["web"], "verbs": ["open_by_id"], "owners": ["self"]}
    async with ruled(OWNER, also) as wire:
        add(wire, "web/flows", count=1)
        assert (await wire.call(elements.LookupRequest(map=by_id, key=n(0)))).value == n(100)


async def test_a_handle_by_id_is_no_way_round_the_right_to_reach_by_id(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text([ANYTHING]))
    holder = PolicyHolder.start(path)
    async with reloading(holder) as wire:
        add(wire, "web/flows", count=1)
        handle = (await wire.call(maps.OpenMapRequest(map=MapRef(id=41)))).handle
        request = elements.LookupRequest(map=MapRef(handle=handle), key=n(0))
        assert (await wire.call(request)).value == n(100)
        path.write_text(text([OWNER]))
        assert holder.reload()
        assert (await wire.refusal(request)).reason is Reason.POLICY


@asynccontextmanager
async def reloading(holder: PolicyHolder) -> AsyncGenerator[Wire]:
    async with serving(principal=WEB) as wire:
        wire.guard._authorizer = Authorizer(holder)  # pyright: ignore[reportPrivateUsage]
        yield wire


async def test_a_listing_has_what_one_may_see_and_says_nothing_of_the_rest() -> None:
    async with ruled(OWNER, {"who": ["web"], "role": "viewer", "pins": ["/bpf/tc/*"]}) as wire:
        add(wire, "web/flows", id=1)
        add(wire, "db/flows", "/bpf/x", id=2)
        add(wire, "/bpf/tc/y", id=3)
        add(wire, "web/two", "db/two", id=4)
        add(wire, id=5)
        for path in ("db/prog", "db/BAD", "web/prog"):
            wire.kernel.pins[f"{ROOT}/{path}"] = None
        answer = await wire.call(maps.ListMapsRequest(pins=True))
        assert [one.id for one in answer.maps] == [4, 1, 3]
        told = " ".join([*answer.sources, *answer.not_looked_at])
        assert f"{ROOT}/web/prog: not a map" in told
        assert "db" not in told
        assert (await wire.refusal(maps.ListMapsRequest(ids=True))).reason in (
            Reason.POLICY,
            Reason.MAP_NOT_FOUND,
        )
        page = await wire.call(maps.ListMapsRequest(pins=True, page_size=2))
        rest = await wire.call(maps.ListMapsRequest(pins=True, page_token=page.next_page_token))
        assert [one.id for one in (*page.maps, *rest.maps)] == [4, 1, 3]


async def test_a_walk_over_ids_lists_those_that_one_may_reach_by_id() -> None:
    hashes: RuleDict = {"who": ["web"], "verbs": ["open_by_id"], "every_map": True}
    async with ruled({"who": ["web"], "role": "viewer", "types": ["hash"]}, hashes) as wire:
        add(wire, id=1)
        add(wire, id=2, map_type=MapType.ARRAY)
        answer = await wire.call(maps.ListMapsRequest(ids=True))
        assert [one.id for one in answer.maps] == [1]


# ---- names -------------------------------------------------------------------------------------


async def test_a_map_is_created_where_its_name_may_be() -> None:
    async with ruled(OWNER) as wire:
        assert (await wire.call(creation("flows"))).info.name == "web/flows"
        for taken in (False, True):
            if taken:
                add(wire, "db/flows", id=7)
            found = await wire.refusal(creation("db/flows"))
            assert found.reason is Reason.POLICY
            assert "mapd policy allow web owner db/flows" in found.message
        assert list(wire.kernel.created) == [wire.kernel.created[0]]


async def test_what_exists_and_may_not_be_seen_is_neither_opened_nor_compared() -> None:
    async with ruled({"who": ["web"], "verbs": ["create"], "every_map": True}) as wire:
        add(wire, "db/flows", key_size=8)
        there = await wire.refusal(creation("db/flows", exist_ok=True))
        assert there == await wire.refusal(creation("db/flows"))
        assert there.reason is Reason.MAP_EXISTS
        assert wire.kernel.open_fds == 0


async def test_who_may_see_what_exists_opens_it() -> None:
    async with ruled(OWNER) as wire:
        add(wire, "web/flows", max_entries=8)
        answer = await wire.call(creation("flows", exist_ok=True))
        assert (answer.info.id, answer.created) == (41, False)


# ---- while it runs -----------------------------------------------------------------------------


LIST_ALONE: RuleDict = {"who": ["web"], "verbs": ["list"], "owners": ["self"]}


async def until_refused(call: Any) -> None:
    """Read a dump that is ended before its trailer."""
    while True:
        message = await call.read()
        assert not message.HasField("trailer")


@pytest.mark.parametrize(
    ("rules", "reason"),
    [([], Reason.MAP_NOT_FOUND), ([LIST_ALONE], Reason.POLICY), ([SOME_KEYS], Reason.POLICY)],
)
async def test_a_dump_ends_when_its_right_is_gone_or_narrowed(
    rules: list[RuleDict], reason: Reason, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text([OWNER]))
    holder = PolicyHolder.start(path)
    async with reloading(holder) as wire:
        add(wire, "web/flows", count=15_000, max_entries=20_000)
        decided = threading.Event()
        wire.faulty.add(Fault(target=Command.MAP_LOOKUP_BATCH, nth=2, wait=decided))
        # With a limit it is read in one range, batch after batch.
        call = wire.callable("Dump")(elements.DumpRequest(map=FLOWS, limit=14_999), timeout=WAIT_S)
        assert (await call.read()).HasField("header")
        first = await call.read()
        path.write_text(text(rules))
        assert holder.reload()
        decided.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await until_refused(call)
        assert refusal_of(caught.value).reason is reason
        path.write_text(text([OWNER, {"who": ["web"], "role": "viewer", "types": ["lpm_trie"]}]))
        assert holder.reload()
        assert (await dumped(wire, resume_token=first.chunk.token))[-1].trailer.complete


async def test_a_load_ends_when_its_right_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text([OWNER]))
    holder = PolicyHolder.start(path)
    async with reloading(holder) as wire:
        made = add(wire, "web/flows")
        call = wire.callable("Load")(timeout=WAIT_S)
        await call.write(elements.LoadRequest(map=FLOWS, columns=Columns(count=1, keys=n(1), values=n(1))))
        async with asyncio.timeout(WAIT_S):
            while not made.elements:
                await turns()
        path.write_text(text([{"who": ["web"], "role": "viewer", "owners": ["self"]}]))
        assert holder.reload()
        await call.write(elements.LoadRequest(columns=Columns(count=1, keys=n(2), values=n(2))))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        found = refusal_of(caught.value)
        assert (found.reason, found.metadata["applied"]) == (Reason.POLICY, "1")
        assert set(made.elements) == {n(1)}


async def test_a_handle_is_judged_by_a_name_that_its_map_got_meanwhile() -> None:
    async with ruled(OWNER, SECRET) as wire:
        made = add(wire, "web/flows", count=1)
        talk = await RawSession.open(wire.channel)
        opened = await wire.call(maps.OpenMapRequest(map=FLOWS, session=talk.opened.session))
        read = group(MapRef(handle=opened.handle), Op.LOOKUP, n(0))
        assert (await talk.ask(0, 1, read)).results[0].values == n(100)
        wire.kernel.pins[f"{ROOT}/web/secret-x"] = made
        await wire.host.check_pins()
        assert (await talk.ask(0, 2, read)).results[0].error.reason == errors.REASON_MAP_NOT_FOUND
        await talk.end()


@pytest.mark.parametrize("principal", [ADMIN, WEB])
@pytest.mark.parametrize("ref", [FLOWS, MapRef(pin="/bpf/x")])
async def test_a_map_whose_pin_leads_to_another_is_read_and_never_written(
    ref: MapRef, principal: Principal
) -> None:
    rules = policy(OWNER, {"who": ["web"], "role": "owner", "pins": ["/bpf/*"]})
    async with serving(principal=principal, policy=rules) as wire:
        path = ref.pin or f"{ROOT}/web/flows"
        made = add(wire, path, count=1)
        talk = await RawSession.open(wire.channel)
        opened = await wire.call(maps.OpenMapRequest(map=ref, session=talk.opened.session))
        handle = MapRef(handle=opened.handle)
        write = group(handle, Op.UPDATE, n(5), value=n(5))
        assert (await talk.ask(0, 1, write)).results[0].statuses == b"\0"
        other = add(wire, path, id=77)
        await wire.host.check_pins()
        found = (await talk.ask(0, 2, write)).results[0].error
        assert (found.reason, found.metadata["map_id"]) == (errors.REASON_MAP_REPLACED, "77")
        requests: list[Message] = [
            elements.UpdateRequest(map=handle, key=n(6), value=n(6)),
            elements.DeleteRequest(map=handle, key=n(0)),
            maps.FreezeMapRequest(map=handle),
            maps.PinMapRequest(map=handle, path="/bpf/again"),
        ]
        for request in requests:
            assert (await wire.refusal(request)).reason is Reason.MAP_REPLACED
        assert set(made.elements) == {n(0), n(5)}
        assert not other.elements
        assert (await wire.call(elements.LookupRequest(map=handle, key=n(0)))).value == n(100)
        assert not (await wire.call(maps.GetMapRequest(map=handle))).info.name
        wire.kernel.pins[path] = made
        await wire.host.check_pins()
        assert (await talk.ask(0, 3, write)).results[0].statuses == b"\0"
        await talk.end()


async def test_a_pin_that_was_replaced_between_decision_and_removal_stays() -> None:
    async with ruled(OWNER) as wire:
        add(wire, "web/flows")

        def replaced() -> None:
            add(wire, "web/flows", id=77)

        for request in (
            maps.UnpinMapRequest(map=FLOWS),
            maps.RenameMapRequest(name="web/flows", new_name="web/more"),
        ):
            # The index looks at it, then it is opened, then it is looked at again before it is changed.
            wire.faulty.add(fault := Fault(target=OpenPin, nth=3, failpoint=replaced))
            found = await wire.refusal(request)
            assert found.reason is Reason.MAP_REPLACED
            wire.faulty.remove(fault)
            add(wire, "web/flows")
        assert set(wire.kernel.pins) == {f"{ROOT}/web/flows"}


async def test_names_with_dots_lead_nowhere() -> None:
    async with ruled(ANYTHING) as wire:
        add(wire, "/bpf/other")
        for ref in (
            MapRef(pin=f"{ROOT}/../other"),
            MapRef(pin="/bpf/./other"),
            MapRef(pin="/bpf/x/../other"),
            MapRef(pin="/etc/../bpf/other"),
            MapRef(name="web/.."),
            MapRef(name="../other"),
            MapRef(name="web/../../other"),
        ):
            for request in everything(ref):
                assert "BAD_SPEC" in await answer_of(wire, request), request


async def test_programs_and_devices_of_the_host_take_more_than_the_right_to_write() -> None:
    def reference(**target: Any) -> elements.UpdateReferenceRequest:
        return elements.UpdateReferenceRequest(map=MapRef(name="web/devs"), key=n(0), **target)

    async with ruled(OWNER) as wire:
        add(wire, "web/devs", map_type=MapType.DEVMAP, id=1)
        add(wire, "web/progs", map_type=MapType.PROG_ARRAY, id=2)
        device = elements.DeviceRef(name="lo")
        found = await wire.refusal(reference(device=device))
        assert (found.reason, "open_by_id" in found.message) == (Reason.POLICY, True)
        request = reference(program=elements.ProgramRef(id=7))
        request.map.name = "web/progs"
        assert (await wire.refusal(request)).reason is Reason.POLICY
        wire.kernel.pins["/bpf/prog"] = None
        told: list[str] = []
        for path in ("/bpf/prog", "/bpf/none"):
            request.program.pin = path
            found = await wire.refusal(request)
            told.append(f"{found}".replace(path, "/bpf/prog"))
        assert told[0] == told[1]
        assert "BAD_SPEC" in told[0]

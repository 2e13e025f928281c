"""Rights about what a map is called: names and pins that are made, moved and removed, over a real socket."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from mapd.bpf import Fault, ListFolder, Unpin
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.unit.mapd.access.reference import RuleDict
from tests.unit.mapd.dictkernel import ROOT, n
from tests.unit.mapd.rpc.ruled import FLOWS, OWNER, SECRET, add, creation, ruled
from tests.unit.mapd.rpc.wire import WAIT_S, serving, turns

pytestmark = pytest.mark.usefixtures("watched_loop")


LOADER: RuleDict = {"who": ["web"], "verbs": ["pin"], "pins": ["/bpf/tc/*"]}


@pytest.mark.parametrize(
    ("path", "rules", "reason"),
    [
        ("/bpf/tc/x", (OWNER,), Reason.POLICY),
        ("/bpf/tc/x", (OWNER, LOADER), None),
        (f"{ROOT}/web/two", (OWNER,), None),
        (f"{ROOT}/db/flows", (OWNER,), Reason.POLICY),
        (
            "/bpf/tc/x",
            (OWNER, LOADER, {"who": ["web"], "verbs": ["open_by_id"], "pins": ["/bpf/tc/*"]}),
            Reason.POLICY,
        ),
        ("/bpf/tc/x", (OWNER, {"who": ["web"], "role": "viewer", "pins": ["/bpf/tc/*"]}), Reason.POLICY),
        ("/bpf/tc/x", (OWNER, LOADER, {**SECRET, "names": None, "pins": ["/bpf/tc/*"]}), Reason.POLICY),
        ("/bpf/web/../x", (OWNER,), Reason.BAD_SPEC),
        ("/bpf//x", (OWNER,), Reason.BAD_SPEC),
    ],
)
async def test_a_pin_gives_nobody_more_and_takes_no_place_of_another(
    path: str, rules: tuple[RuleDict, ...], reason: Reason | None
) -> None:
    said = tuple({key: value for key, value in rule.items() if value is not None} for rule in rules)
    async with ruled(*said) as wire:
        add(wire, "web/flows")
        request = maps.PinMapRequest(map=FLOWS, path=path)
        if reason is None:
            await wire.call(request)
            assert path in wire.kernel.pins
        else:
            assert (await wire.refusal(request)).reason is reason
            assert path not in wire.kernel.pins


async def test_whether_a_place_is_taken_is_told_to_whoever_may_pin_there() -> None:
    async with ruled(OWNER) as wire:
        add(wire, "web/flows")
        add(wire, "/bpf/tc/there", id=42)
        there, missing = [
            await wire.refusal(maps.PinMapRequest(map=FLOWS, path=f"/bpf/tc/{name}"))
            for name in ("there", "missing")
        ]
        assert there.reason is missing.reason is Reason.POLICY
        assert there.message.replace("there", "missing") == missing.message


async def test_a_rename_takes_the_right_to_both_names_and_gives_none() -> None:
    more: RuleDict = {"who": ["web"], "verbs": ["open_by_id"], "names": ["web/special-*"]}
    async with ruled(OWNER, more, SECRET) as wire:
        add(wire, "web/flows")
        add(wire, "db/flows", id=42)
        for name, new in (
            ("web/flows", "db/mine"),
            ("web/flows", "web/special-x"),
            ("web/flows", "web/secret-x"),
        ):
            found = await wire.refusal(maps.RenameMapRequest(name=name, new_name=new))
            assert found.reason is Reason.POLICY, (name, new)
        found = await wire.refusal(maps.RenameMapRequest(name="db/flows", new_name="web/theirs"))
        assert found.reason is Reason.MAP_NOT_FOUND
        assert set(wire.kernel.pins) == {f"{ROOT}/web/flows", f"{ROOT}/db/flows"}
        await wire.call(maps.RenameMapRequest(name="web/flows", new_name="web/other"))
        assert set(wire.kernel.pins) == {f"{ROOT}/web/other", f"{ROOT}/db/flows"}


async def test_a_pin_is_removed_by_who_may_pin_its_map() -> None:
    async with ruled(OWNER, {"who": ["web"], "role": "operator", "names": ["db/*"]}) as wire:
        add(wire, "web/flows", "/bpf/x")
        add(wire, "db/flows", id=42)
        await wire.call(maps.UnpinMapRequest(map=MapRef(pin="/bpf/x")))
        found = await wire.refusal(maps.UnpinMapRequest(map=MapRef(name="db/flows")))
        assert (found.reason, "pin" in found.message) == (Reason.POLICY, True)
        assert set(wire.kernel.pins) == {f"{ROOT}/web/flows", f"{ROOT}/db/flows"}


async def test_who_removes_a_pin_is_not_rid_of_what_is_denied_by_it() -> None:
    """A map that has other pins is judged by those from then on."""
    closed: RuleDict = {"effect": "deny", "who": ["web"], "verbs": ["read"], "pins": ["/bpf/closed/*"]}
    async with ruled(OWNER, closed) as wire:
        add(wire, "web/flows", "/bpf/closed/x", count=1)
        found = await wire.refusal(maps.UnpinMapRequest(map=MapRef(pin="/bpf/closed/x")))
        assert (found.reason, "read" in found.message) == (Reason.POLICY, True)
        assert set(wire.kernel.pins) == {f"{ROOT}/web/flows", "/bpf/closed/x"}
        assert (await wire.refusal(elements.LookupRequest(map=FLOWS, key=n(0)))).reason is Reason.POLICY
        await wire.call(maps.UnpinMapRequest(map=FLOWS))  # nothing is denied by its name
        assert set(wire.kernel.pins) == {"/bpf/closed/x"}


async def test_a_map_without_a_pin_is_given_none_that_is_rid_of_what_was_denied() -> None:
    """It is judged by the pins that it had as long as there is no other."""
    closed: RuleDict = {"effect": "deny", "who": ["web"], "verbs": ["read"], "names": ["web/closed"]}
    async with ruled(OWNER, closed) as wire:
        add(wire, "web/closed", count=1)
        opened = await wire.call(maps.OpenMapRequest(map=MapRef(name="web/closed")))
        handle = MapRef(handle=opened.handle)
        await wire.call(maps.UnpinMapRequest(map=MapRef(name="web/closed")))  # its last: it goes with it
        found = await wire.refusal(maps.PinMapRequest(map=handle, path=f"{ROOT}/web/open"))
        assert (found.reason, "read" in found.message) == (Reason.POLICY, True)
        assert not wire.kernel.pins
        assert (await wire.refusal(elements.LookupRequest(map=handle, key=n(0)))).reason is Reason.POLICY
        await wire.call(maps.PinMapRequest(map=handle, path=f"{ROOT}/web/closed"))


async def test_a_pin_that_is_made_and_one_that_is_removed_at_once_are_judged_one_after_the_other() -> None:
    closed: RuleDict = {"effect": "deny", "who": ["web"], "verbs": ["read"], "names": ["web/closed"]}
    async with ruled(OWNER, closed) as wire:
        add(wire, "web/closed", count=1)
        opened = await wire.call(maps.OpenMapRequest(map=MapRef(name="web/closed")))
        handle = MapRef(handle=opened.handle)
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            assert go.wait(WAIT_S)

        wire.faulty.add(Fault(target=Unpin, failpoint=hold))
        unpin = asyncio.ensure_future(wire.call(maps.UnpinMapRequest(map=MapRef(name="web/closed"))))
        assert await asyncio.to_thread(held.wait, WAIT_S)
        pin = asyncio.ensure_future(wire.refusal(maps.PinMapRequest(map=handle, path=f"{ROOT}/web/open")))
        await wire.call(maps.GetServerInfoRequest())  # one connection, in order: the request to pin has come
        await turns()
        go.set()
        await unpin
        assert (await pin).reason is Reason.POLICY
        assert not wire.kernel.pins


async def test_what_was_done_is_told_so_where_its_names_cannot_be_looked_at() -> None:
    """A refusal would say that nothing was done, and leave no line in the audit trail."""
    async with serving() as wire:
        add(wire, "web/flows", "/bpf/x")
        await wire.call(maps.OpenMapRequest(map=FLOWS))
        wire.faulty.add(fault := Fault(target=ListFolder, errno=errno.EMFILE))
        for request in (
            maps.PinMapRequest(map=FLOWS, path="/bpf/y"),
            maps.UnpinMapRequest(map=MapRef(pin="/bpf/x")),
            maps.RenameMapRequest(name="web/flows", new_name="web/more"),
            creation("web/new"),
        ):
            await wire.call(request)
        assert wire.faulty.fired.count(fault) >= 4
        assert set(wire.kernel.pins) == {"/bpf/y", f"{ROOT}/web/more", f"{ROOT}/web/new"}

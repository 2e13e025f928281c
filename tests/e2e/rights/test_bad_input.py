"""What is not the caller's, or is none at all: refused in the same words, logged once, nothing changed.

Every caller here is a process of its own user, on the socket of its own principal.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mapd.bpf import Pin
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.e2e.rights.agents import Agent, Answer
from tests.e2e.rights.cells import METHODS
from tests.e2e.rights.matrix import callers
from tests.e2e.rights.world import INSIDE, KINDS, VALUE, World, made_world
from tests.support.daemon import DaemonProcess, Place, client_sources, daemon_process
from tests.support.pinned import KERNEL, Snapshot
from tests.support.pki import put

OWNER, NEIGHBOUR, VIEWER = "owner of the namespace", "namespace of another", "read-only"
FLOWS = MapRef(name="team/flows")


@dataclass(frozen=True)
class Ground:
    """A world, its daemon, and three who ask."""

    world: World
    daemon: DaemonProcess
    agents: dict[str, Agent]

    @property
    def owner(self) -> Agent:
        return self.agents[OWNER]

    @property
    def neighbour(self) -> Agent:
        return self.agents[NEIGHBOUR]

    @property
    def viewer(self) -> Agent:
        return self.agents[VIEWER]

    async def handle(self, agent: Agent, ref: MapRef = FLOWS, **more: Any) -> int:
        """An open map."""
        answer = await agent.call(METHODS["OpenMap"], maps.OpenMapRequest(map=ref, **more))
        assert answer.code == "OK", answer
        return int(maps.OpenMapResponse.FromString(answer.replies[0]).handle)

    def state(self) -> tuple[dict[str, int], dict[str, Snapshot]]:
        """All that a call could have changed."""
        return self.world.pins(), self.world.contents()

    @contextlib.contextmanager
    def unchanged(self) -> Generator[None]:
        """Fail unless every map and pin is as before."""
        before = self.state()
        yield
        assert self.state() == before
        assert '"event": "fault"' not in self.daemon.log.read_text()


@asynccontextmanager
async def on_ground(place: Place) -> AsyncGenerator[Ground]:
    kinds = [kind for kind in KINDS if kind.name in (OWNER, NEIGHBOUR, VIEWER)]
    with (
        client_sources() as sources,
        made_world(place) as world,
        daemon_process(place, policy=world.policy) as daemon,
    ):
        async with callers(world, sources, kinds) as agents:
            yield Ground(world, daemon, agents)


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


def by_handle(number: int) -> list[tuple[str, Any]]:
    """Every way to use a handle."""
    ref = MapRef(handle=number)
    return [
        ("GetMap", maps.GetMapRequest(map=ref)),
        ("FreezeMap", maps.FreezeMapRequest(map=ref)),
        ("PinMap", maps.PinMapRequest(map=ref, path="/nowhere")),
        ("GetBtf", maps.GetBtfRequest(map=ref)),
        ("Lookup", pb.LookupRequest(map=ref, key=INSIDE)),
        ("Update", pb.UpdateRequest(map=ref, key=INSIDE, value=bytes(8))),
        ("Delete", pb.DeleteRequest(map=ref, key=INSIDE)),
        ("CountEntries", pb.CountEntriesRequest(map=ref)),
        ("GetNextKey", pb.GetNextKeyRequest(map=ref)),
        ("Dump", pb.DumpRequest(map=ref)),
        ("Load", pb.LoadRequest(map=ref)),
        ("Apply", group(ref, Op.UPDATE)),
        ("Apply", group(ref, Op.LOOKUP_AND_DELETE)),
    ]


def group(ref: MapRef, op: Op, key: bytes = INSIDE) -> pb.ApplyRequest:
    """One operation on one element; the value is not the one that is there."""
    values = bytes(8) if op in (Op.UPDATE, Op.UPDATE_NOEXIST) else b""
    return pb.ApplyRequest(groups=[pb.OpGroup(map=ref, count=1, ops=bytes([op]), keys=key, values=values)])


def words(answer: Answer, *own: object) -> str:
    """What was said, without what the caller gave."""
    assert answer.refusal is not None, answer
    text = f"{answer.code} {answer.refusal.message} {sorted(answer.refusal.metadata.items())}"
    for word in own:
        text = text.replace(str(word), "<own>")
    return text


# ---- handles ---------------------------------------------------------------------------------


async def test_a_forged_handle_and_another_s_are_refused_alike(ground: Ground) -> None:
    """Random, one off, another principal's: no method tells them apart, and none does anything."""
    own = await ground.handle(ground.owner)
    stranger = secrets.randbits(63) | 1
    with ground.unchanged():
        for caller in (ground.neighbour, ground.viewer):
            said: dict[str, set[str]] = {}
            for number in (stranger, own, own ^ 1, own + 2, 0, 2**64 - 1):
                for method, request in by_handle(number):
                    answer = await caller.call(METHODS[method], request)
                    assert answer.reason is Reason.STALE_HANDLE, (method, answer)
                    said.setdefault(method, set()).add(words(answer, f"{number:#x}", number))
            assert all(len(each) == 1 for each in said.values()), said
    answer = await ground.owner.call(METHODS["Lookup"], pb.LookupRequest(map=MapRef(handle=own), key=INSIDE))
    assert pb.LookupResponse.FromString(answer.replies[0]).value == VALUE


async def test_a_forged_handle_in_a_session_is_refused_as_elsewhere(ground: Ground) -> None:
    own = await ground.handle(ground.owner)
    await ground.neighbour.open_session()
    with ground.unchanged():
        for number in (own, own ^ 1, 0):
            for op in (Op.LOOKUP, Op.UPDATE, Op.DELETE, Op.FETCH_ADD):
                answer = await ground.neighbour.apply(group(MapRef(handle=number), op))
                assert answer.reason is Reason.STALE_HANDLE, (op, answer)


async def test_closing_another_s_handle_leaves_it_open(ground: Ground) -> None:
    own = await ground.handle(ground.owner)
    answer = await ground.neighbour.call(METHODS["CloseMap"], maps.CloseMapRequest(handle=own))
    assert answer.code == "OK"
    found = await ground.owner.call(METHODS["GetMap"], maps.GetMapRequest(map=MapRef(handle=own)))
    assert found.code == "OK", found


# ---- sessions --------------------------------------------------------------------------------


async def test_another_s_session_cannot_be_resumed_or_opened_into(ground: Ground) -> None:
    opened = (await ground.owner.open_session()).raw
    theirs, epoch = opened["session"], opened["epoch"]
    stranger = secrets.token_hex(8)
    mine = MapRef(name="other/flows")
    with ground.unchanged():
        said: dict[str, set[str]] = {}
        for name in (theirs, stranger):
            resumed = await ground.neighbour.open_session("taken", resume=name, epoch=epoch)
            assert resumed.code == "OK", resumed
            assert not resumed.raw["resumed"]
            assert resumed.raw["session"] not in (theirs, name), "a new one of its own"
            request = maps.OpenMapRequest(map=mine, session=name)
            answer = await ground.neighbour.call(METHODS["OpenMap"], request)
            assert answer.reason is Reason.STALE_HANDLE, answer
            said.setdefault("OpenMap", set()).add(words(answer, name))
            created = maps.CreateMapRequest(type=1, key_size=4, value_size=4, max_entries=1, session=name)  # type: ignore[arg-type]
            created.named.name = "other/made"
            answer = await ground.neighbour.call(METHODS["CreateMap"], created)
            assert answer.reason is Reason.STALE_HANDLE, answer
            said.setdefault("CreateMap", set()).add(words(answer, name))
        assert all(len(each) == 1 for each in said.values()), said
    answer = await ground.owner.apply(group(FLOWS, Op.LOOKUP))
    assert answer.code == "OK", "the session went on with its owner"


async def test_a_message_for_another_s_session_is_refused(ground: Ground) -> None:
    theirs = (await ground.owner.open_session()).raw["session"]
    await ground.neighbour.open_session()
    with ground.unchanged():
        message = group(MapRef(name="other/flows"), Op.UPDATE)
        answer = await ground.neighbour.apply(message, stamp={"session": theirs})
        assert answer.reason is Reason.BAD_SPEC, answer


async def test_a_replayed_sequence_is_never_executed_again(ground: Ground) -> None:
    """One whose reply is kept is answered with it; one that was acknowledged has a fate that nobody knows."""
    await ground.owner.open_session()
    pop = pb.ApplyRequest(groups=[pb.OpGroup(map=MapRef(name="team/jobs"), count=1, ops=bytes([Op.POP]))])
    first = await ground.owner.apply(pop)
    assert first.code == "OK", first
    with ground.unchanged():
        again = await ground.owner.apply(pop, stamp={"sequence": 1, "acknowledged": 0})
        assert again.replies == first.replies
    push = pb.ApplyRequest(
        groups=[pb.OpGroup(map=MapRef(name="team/jobs"), count=1, ops=bytes([Op.PUSH]), values=VALUE)]
    )
    assert (await ground.owner.apply(push)).code == "OK"
    with ground.unchanged():
        older = await ground.owner.apply(pop, stamp={"sequence": 1, "acknowledged": 0})
        assert older.reason is Reason.OUTCOME_UNKNOWN, older
        confused = await ground.owner.apply(pop, stamp={"sequence": 1, "acknowledged": 1})
        assert confused.reason is Reason.BAD_SPEC, confused
        nowhere = await ground.owner.apply(pop, stamp={"slot": limits.SLOTS})
        assert nowhere.reason is Reason.BAD_SPEC, nowhere


async def test_a_slot_of_the_same_number_is_another_principal_s_own(ground: Ground) -> None:
    """What one has been answered in a slot is nothing that another can ask for."""
    await ground.owner.open_session()
    answered = await ground.owner.apply(group(FLOWS, Op.LOOKUP_AND_DELETE))
    assert VALUE in answered.replies[0]
    ground.world.build(ground.world.maps["own map"])
    await ground.neighbour.open_session()
    with ground.unchanged():
        message = group(FLOWS, Op.LOOKUP_AND_DELETE)
        replayed = await ground.neighbour.apply(message, stamp={"sequence": 1, "acknowledged": 0})
        assert replayed.reason is Reason.MAP_NOT_FOUND, replayed
        assert VALUE not in replayed.replies[0]


# ---- names and paths ---------------------------------------------------------------------------

BAD_NAMES = (
    "..",
    "../flows",
    "team/..",
    "team/../other/flows",
    "team//flows",
    "/team/flows",
    "team/flows/",
    "team/fl\0ws",
    "team/.hidden",
    "Team/flows",
    f"team/{'n' * 64}",
    f"{'n' * 64}/flows",
    "team/" + "n" * 100_000,
)


@pytest.mark.parametrize("who", [OWNER, NEIGHBOUR])
async def test_a_name_that_is_none_is_refused_by_every_method(ground: Ground, who: str) -> None:
    caller = ground.agents[who]
    with ground.unchanged():
        for name in BAD_NAMES:
            ref = MapRef(name=name)
            created = maps.CreateMapRequest(type=1, key_size=4, value_size=4, max_entries=1)  # type: ignore[arg-type]
            created.named.name = name
            for method, request in (
                ("GetMap", maps.GetMapRequest(map=ref)),
                ("CreateMap", created),
                ("UnpinMap", maps.UnpinMapRequest(map=ref)),
                ("RenameMap", maps.RenameMapRequest(name="team/flows", new_name=name)),
                ("RenameMap", maps.RenameMapRequest(name=name, new_name="team/made")),
                ("Apply", group(ref, Op.UPDATE)),
            ):
                answer = await caller.call(METHODS[method], request)
                assert answer.reason is Reason.BAD_SPEC, (method, name[:80], answer)


async def test_a_path_that_leads_out_of_the_roots_is_refused(ground: Ground) -> None:
    """Whatever is there: a path is refused for its text, so the refusal tells nothing of the host."""
    bpffs = ground.world.place.bpffs
    paths = (
        "relative/path",
        "/etc/passwd",
        f"{bpffs}/../policy.toml",
        f"{bpffs}/foreign/../mapd/team/flows",
        f"{bpffs}//foreign/tracer",
        f"{bpffs}/./foreign/tracer",
        f"{bpffs}/foreign/tracer/",
        f"{bpffs}/foreign/tra\0cer",
        f"{bpffs}",
        "/sys/fs/bpf/" + "n" * 5_000,
    )
    with ground.unchanged():
        for path in paths:
            ref = MapRef(pin=path)
            for method, request in (
                ("GetMap", maps.GetMapRequest(map=ref)),
                ("UnpinMap", maps.UnpinMapRequest(map=ref)),
                ("Apply", group(ref, Op.UPDATE)),
                ("PinMap", maps.PinMapRequest(map=FLOWS, path=path)),
            ):
                answer = await ground.owner.call(METHODS[method], request)
                assert answer.reason in (Reason.BAD_SPEC, Reason.MAP_NOT_FOUND, Reason.POLICY), (method, path)


async def test_a_symbolic_link_gives_nobody_another_s_map(ground: Ground) -> None:
    """The viewer may read what is pinned in a folder; a link in it to a map elsewhere is no pin of that folder."""
    bpffs = ground.world.place.bpffs
    secret = Path(ground.world.path("secret/alone"))
    secret.parent.mkdir(exist_ok=True)
    (bpffs / "foreign" / "link").symlink_to(secret)
    (bpffs / "foreign" / "folder").symlink_to(secret.parent)
    hidden = ground.world.maps["map without a name"]
    assert hidden.fd is not None
    with hidden.fd.lease() as number:
        KERNEL.control(Pin(root=str(bpffs), path=str(secret)), [number])
    for path in (f"{bpffs}/foreign/link", f"{bpffs}/foreign/folder/alone"):
        ref = MapRef(pin=path)
        for method, request in (
            ("OpenMap", maps.OpenMapRequest(map=ref)),
            ("Lookup", pb.LookupRequest(map=ref, key=INSIDE)),
            ("Dump", pb.DumpRequest(map=ref)),
            ("Apply", group(ref, Op.LOOKUP)),
        ):
            answer = await ground.viewer.call(METHODS[method], request)
            assert answer.reason in (Reason.BAD_SPEC, Reason.MAP_NOT_FOUND), (method, answer)
            assert "secret" not in str(answer)
            assert VALUE not in b"".join(answer.replies)


# ---- what changes behind the daemon ------------------------------------------------------------


async def test_a_pin_replaced_behind_us_is_reported_and_never_written_to(ground: Ground) -> None:
    """Another map has the name now: who holds the old one is told so, by every way to change it; reading goes on."""
    handle = await ground.handle(ground.owner)
    await ground.owner.open_session()
    ref = MapRef(handle=handle)
    ground.world.build(ground.world.maps["own map"])
    with ground.unchanged():
        async with asyncio.timeout(30):
            answer = await ground.owner.apply(group(ref, Op.UPDATE))
            while answer.reason is not Reason.MAP_REPLACED:
                assert answer.code == "OK", answer
                answer = await ground.owner.apply(group(ref, Op.UPDATE))
        new = ground.world.maps["own map"].id
        assert answer.refusal is not None
        assert answer.refusal.metadata["map_id"] == str(new)
        for method, request in (
            ("Update", pb.UpdateRequest(map=ref, key=INSIDE, value=bytes(8))),
            ("Delete", pb.DeleteRequest(map=ref, key=INSIDE)),
            ("FreezeMap", maps.FreezeMapRequest(map=ref)),
            ("PinMap", maps.PinMapRequest(map=ref, path=ground.world.path("team/made"))),
            ("Apply", group(ref, Op.FETCH_ADD)),
            ("Apply", group(ref, Op.LOOKUP_AND_DELETE)),
        ):
            answer = await ground.owner.call(METHODS[method], request)
            assert answer.reason is Reason.MAP_REPLACED, (method, answer)
        answer = await ground.owner.call(METHODS["Lookup"], pb.LookupRequest(map=ref, key=INSIDE))
        assert pb.LookupResponse.FromString(answer.replies[0]).value == bytes(8), "the old map's"
    answer = await ground.owner.call(METHODS["Lookup"], pb.LookupRequest(map=FLOWS, key=INSIDE))
    assert pb.LookupResponse.FromString(answer.replies[0]).value == VALUE, "the new map's"
    assert ground.daemon.log.read_text().count('"event": "a pin was replaced"') == 1


async def test_a_name_more_behind_us_takes_what_it_denies(ground: Ground) -> None:
    """A program of the host pins a map where a rule denies it: whoever holds it loses it, by its old name too."""
    place = ground.world.place
    policy = ground.world.policy + (
        '[[rules]]\nname = "vault"\neffect = "deny"\nwho = ["viewer"]\nrole = "admin"\nnames = ["vault/*"]\n'
    )
    put(place.policy, policy.encode())
    ground.daemon.process.send_signal(signal.SIGHUP)
    handle = MapRef(handle=await ground.handle(ground.viewer))
    looks = [("Lookup", pb.LookupRequest(map=ref, key=INSIDE)) for ref in (FLOWS, handle)]
    for method, request in looks:
        assert (await ground.viewer.call(METHODS[method], request)).code == "OK"
    path = Path(ground.world.path("vault/flows"))
    path.parent.mkdir()
    known = ground.world.maps["own map"]
    assert known.fd is not None
    with known.fd.lease() as number:
        KERNEL.control(Pin(root=str(place.bpffs), path=str(path)), [number])
    for method, request in looks:
        async with asyncio.timeout(30):
            answer = await ground.viewer.call(METHODS[method], request)
            while answer.code == "OK":
                answer = await ground.viewer.call(METHODS[method], request)
        assert answer.reason is Reason.MAP_NOT_FOUND, answer
        assert "vault" not in str(answer.raw)


BAD_POLICIES = (
    b"[principals",
    b"\xff\xfe",
    b"x = " + b"[" * 10_000,
    b"[[rules]]\nwho = ['nobody-here']\nrole = 'admin'\nevery_map = true\n",
    b"[principals.viewer]\nusers = [70001]\n[principals.team]\nusers = [70001]\n",
    b"#" * (2 << 20),
)


async def test_of_a_policy_that_cannot_be_used_nothing_is_used_and_it_is_said_once(ground: Ground) -> None:
    """Whatever was in force stays in force, for who has rights as for who has none."""
    asked = pb.LookupRequest(map=FLOWS, key=INSIDE)
    said = "the policy cannot be used"
    for number, content in enumerate(BAD_POLICIES, 1):
        put(ground.world.place.policy, content)  # in one step: half of it would be another fault
        ground.daemon.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            while (count := ground.daemon.log.read_text().count(said)) < number:
                assert (await ground.viewer.call(METHODS["Lookup"], asked)).code == "OK"
        assert count == number
        assert (await ground.viewer.call(METHODS["Lookup"], asked)).code == "OK"
        answer = await ground.neighbour.call(METHODS["Lookup"], asked)
        assert answer.reason is Reason.MAP_NOT_FOUND, answer
    # Asked again for the same fault, it says nothing more.
    ground.daemon.process.send_signal(signal.SIGHUP)
    for _ in range(50):
        assert (await ground.viewer.call(METHODS["Lookup"], asked)).code == "OK"
    assert ground.daemon.log.read_text().count(said) == len(BAD_POLICIES)


# ---- connections -----------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def test_half_open_connections_keep_nobody_else_from_being_served(ground: Ground) -> None:
    """Silent ones, cut-off prefaces, frames that are none: the daemon serves on, and lets go of them all."""
    path = str(ground.world.place.socket)
    for caller in ground.agents.values():
        assert (await caller.call(METHODS["GetServerInfo"], maps.GetServerInfoRequest())).code == "OK"
    before = len(ground.daemon.fds())
    halves: list[socket.socket] = []
    for number, said in enumerate(
        [b"", PREFACE[:10], PREFACE, PREFACE + b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n"] * 6
    ):
        half = socket.socket(socket.AF_UNIX)
        half.settimeout(5)
        half.connect(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            half.sendall(said)
        if number % 3 == 0:
            half.shutdown(socket.SHUT_WR)
        halves.append(half)
    with ground.unchanged():
        for caller in ground.agents.values():
            answer = await caller.call(METHODS["GetServerInfo"], maps.GetServerInfoRequest())
            assert answer.code == "OK", answer
    for half in halves:
        half.close()
    async with asyncio.timeout(20):
        while len(ground.daemon.fds()) > before:
            answer = await ground.owner.call(METHODS["GetServerInfo"], maps.GetServerInfoRequest())
            assert answer.code == "OK", answer

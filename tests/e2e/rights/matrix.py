"""Running the matrix: each cell is one call of a real client, compared with what the reference says."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from mapd.maps.types import TYPES
from mapd_api import contract
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import access_pb2, elements_pb2, maps_pb2, types_pb2
from mapd_api.v1.types_pb2 import MapRef
from tests.e2e.rights import cells
from tests.e2e.rights.agents import Agent, Answer, agent, setpriv
from tests.e2e.rights.cells import LISTINGS, METHODS, Action
from tests.e2e.rights.expected import ADMITTED, HIDDEN, REFUSALS, Expected
from tests.e2e.rights.tcp import Tcp
from tests.e2e.rights.world import (
    HASH,
    KERNEL_REFUSES,
    KINDS,
    LEASE_MS,
    NOBODY,
    Kind,
    Known,
    Resource,
    World,
    lease_of,
)

DENIED_BY_KERNEL: Final = "Permission denied"
COUNTS: Final = ("entries", "read_elements", "written_elements")
OWNER: Final = "owner of the namespace"
IN_SESSIONS: Final = (
    "own map by name team/flows",
    "own map by name team/flows, a key outside",
    "own map by handle",
    "own map by id",
    "another's map by name other/flows",
    "map of two names by name secret/alias",
    "missing by name team/missing",
    "missing by name other/missing",
    "missing by name secret/missing",
    "missing by id",
)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A cell that is not as it must be."""

    kind: str
    action: str
    resource: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.action} by {self.kind} on {self.resource}: expected {self.expected}, got {self.got}"


@dataclass(slots=True)
class Report:
    """What came of a matrix.

    Attributes:
        done: actions that were executed to their end at least once.
        refused: refusals by principal and method that the audit trail must have a line of each.
        unsure: those where nothing was, of which it may have one.
    """

    calls: int = 0
    wrongly_admitted: list[Wrong] = field(default_factory=list[Wrong])
    wrongly_refused: list[Wrong] = field(default_factory=list[Wrong])
    told: list[Wrong] = field(default_factory=list[Wrong])
    changed: list[Wrong] = field(default_factory=list[Wrong])
    done: set[str] = field(default_factory=set[str])
    refused: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    unsure: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def faults(self) -> list[str]:
        """A line each."""
        return [
            f"{what}: {wrong}"
            for what, found in (
                ("wrongly admitted", self.wrongly_admitted),
                ("wrongly refused", self.wrongly_refused),
                ("told", self.told),
                ("changed", self.changed),
            )
            for wrong in found
        ]


def target(world: World, kind: Kind) -> str:
    """The socket that a kind of caller tries."""
    if kind.mounts:
        return f"unix:{world.place.root}/mnt/mapd.sock"
    run = world.place.runtime_dir / kind.principal
    folder = run / "mount" if kind.principal == "box" else run
    return f"unix:{folder}/mapd.sock"


@asynccontextmanager
async def callers(
    world: World, sources: Path, kinds: Sequence[Kind] = KINDS, tcp: Tcp | None = None
) -> AsyncGenerator[dict[str, Agent]]:
    """A process for each kind of caller, connected to the socket that it tries."""
    async with AsyncExitStack() as stack:
        found: dict[str, Agent] = {}
        for kind in kinds:
            prefix: list[str] = []
            if kind.mounts:
                folder = world.place.root / "mnt"
                folder.mkdir(exist_ok=True)
                mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
                source = world.place.runtime_dir / kind.principal / "mount"
                prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(source)]
                prefix += [str(folder), *setpriv(kind.user)]
            one = await stack.enter_async_context(agent(sources, kind.user, *prefix))
            if kind.certificate:
                assert tcp is not None
                await one.connect(tcp.target, tls=tcp.shown(kind.certificate))
            else:
                await one.connect(target(world, kind))
            found[kind.name] = one
        yield found


class Matrix:
    """One world, one daemon, one report."""

    def __init__(self, world: World, agents: dict[str, Agent]) -> None:
        self.world = world
        self.agents = agents
        self.report = Report()
        self._pins = world.pins()
        self._contents = world.contents()

    async def _open_again(self) -> None:
        """A handle of the owner's, to the map that is there now."""
        if OWNER in self.agents:
            request = maps_pb2.OpenMapRequest(map=MapRef(name="team/flows"))
            answer = await self.agents[OWNER].call(METHODS["OpenMap"], request)
            assert answer.code == "OK", answer
            self.world.handle = maps_pb2.OpenMapResponse.FromString(answer.replies[0]).handle

    async def run(
        self,
        kinds: Iterable[Kind] = KINDS,
        actions: Sequence[Action] | None = None,
        only: Callable[[Resource], bool] = lambda _resource: True,
    ) -> Report:
        """Every cell of these."""
        chosen = list(cells.actions()) if actions is None else actions
        await self._open_again()
        for kind in kinds:
            if kind.name in self.agents:
                await self._of(kind, chosen, only)
        return self.report

    async def _of(self, kind: Kind, actions: Sequence[Action], only: Callable[[Resource], bool]) -> None:
        caller = _Caller(self, kind)
        later: list[tuple[Action, int]] = []
        for action, at, resource in self._pairs(kind, actions, only):
            if action.changes and kind.admitted and caller.expected.of(action, resource) == ADMITTED:
                later.append((action, at))
            else:
                await caller.cell(action, resource)
        await self._unchanged(kind, "refused and reading calls")
        for action, at in later:
            resource = self.world.resources()[at]
            await caller.cell(action, resource)
            await self._restore(resource)

    def _pairs(
        self, kind: Kind, actions: Sequence[Action], only: Callable[[Resource], bool]
    ) -> Iterator[tuple[Action, int, Resource]]:
        resources = [pair for pair in enumerate(self.world.resources()) if only(pair[1])]
        # Missing ones first: what is hidden is compared with them.
        resources.sort(key=lambda pair: pair[1].of is not None)
        for action in actions:
            for number, (at, resource) in enumerate(resources):
                alike = not action.verbs or not kind.admitted
                if alike and number:
                    continue
                if kind.principal == "admin" or _worth(action, resource):
                    yield action, at, resource

    async def _unchanged(self, kind: Kind, what: str) -> None:
        pins, contents = self.world.pins(), self.world.contents()
        for before, after in ((self._pins, pins), (self._contents, contents)):
            for label in before.keys() | after.keys():
                if before.get(label) != after.get(label):
                    self.report.changed.append(Wrong(kind.name, what, label, "as before", "changed"))
        if self.report.changed:
            await self._rebuild()

    async def _restore(self, resource: Resource) -> None:
        """Make good what an admitted call has done."""
        if resource.of is not None:
            await self._build(resource.of)
        if resource.of is self.world.maps["own map"]:
            await self._open_again()
        for path in self.world.pins().keys() - self._pins.keys():
            self.world.unpin(path)
        self._pins = self.world.pins()
        self._contents = self.world.contents()

    async def _build(self, known: Known) -> None:
        """Make a map anew; a lease begins with it again."""
        self.world.build(known)
        if OWNER not in self.agents or not (lease := lease_of(known.pins[0] if known.pins else "")):
            return
        request = maps_pb2.CreateMapRequest(
            type=types_pb2.MAP_TYPE_HASH,
            key_size=known.shape.key_size,
            value_size=known.shape.value_size,
            max_entries=8,
            kernel_name="rights",
            lease=maps_pb2.Lease(id=lease, ttl=Duration(seconds=LEASE_MS // 1_000), name="map"),
            exist_ok=True,
        )
        answer = await self.agents[OWNER].call(METHODS["CreateMap"], request)
        assert answer.code == "OK", answer
        made = maps_pb2.CreateMapResponse.FromString(answer.replies[0])
        assert not made.created
        await self.agents[OWNER].call(METHODS["CloseMap"], maps_pb2.CloseMapRequest(handle=made.handle))

    async def _rebuild(self) -> None:
        for known in self.world.maps.values():
            await self._build(known)
        for path in self.world.pins().keys() - self._pins.keys():
            self.world.unpin(path)
        self._pins = self.world.pins()
        self._contents = self.world.contents()


class _Caller:
    """One kind of caller's part of the matrix."""

    def __init__(self, matrix: Matrix, kind: Kind) -> None:
        self.matrix = matrix
        self.kind = kind
        self.expected = Expected(matrix.world, kind)
        self._agent = matrix.agents[kind.name]
        self._session = False
        self._missing: dict[tuple[str, str, str], str] = {}

    async def cell(self, action: Action, resource: Resource) -> None:
        """One call, and what it must come to."""
        answer = await self.ask(action, resource)
        if answer is None:
            return
        report, allowed = self.matrix.report, self.expected.of(action, resource)
        report.calls += 1
        if answer.reason in (Reason.POLICY, Reason.MAP_NOT_FOUND, Reason.UNAUTHENTICATED):
            known = self.kind.admitted or answer.reason is not Reason.UNAUTHENTICATED
            who = self.kind.principal if known else NOBODY
            nothing = answer.reason is Reason.MAP_NOT_FOUND and resource.of is None
            lines = report.unsure if nothing else report.refused
            lines[who, contract.full_name(action.method)] += 1
        report.unsure[NOBODY, contract.full_name(action.method)] += answer.raw.get("again", 0)
        if not self.kind.admitted:
            if not turned_away(self.kind, answer):
                expected = f"refused by {self.kind.refused}"
                report.wrongly_admitted.append(self._wrong(action, resource, expected, answer))
            return
        if answer.code == "OK":
            report.done.add(action.name)
        refused = (
            answer.reason in REFUSALS
            or (bool(allowed) and answer.reason in allowed)
            or (answer.refusal is None and answer.code != "OK")
        )
        if refused and not allowed:
            report.wrongly_refused.append(self._wrong(action, resource, "admitted", answer))
        elif not refused and allowed:
            report.wrongly_admitted.append(self._wrong(action, resource, _names(allowed), answer))
        elif refused and answer.reason not in allowed:
            report.wrongly_refused.append(self._wrong(action, resource, _names(allowed), answer))
        self._told(action, resource, allowed, answer)
        if action.method.name == "Explain" and answer.code == "OK":
            self._explained(action, resource, answer)
        if action.method.name == "Dump" and answer.code == "OK":
            self._dumped(action, resource, answer)

    async def ask(self, action: Action, resource: Resource) -> Answer | None:
        """The call alone."""
        messages = cells.requests(self.matrix.world, action, resource)
        if messages is None:
            return None
        if action.method.name == "ListMapStats":
            return await self._pages(action, messages)
        if action.method.name != "Session":
            return await self._agent.call(action.method, *messages)
        assert action.op is not None
        if not self._session:
            opened = await self._agent.open_session()
            if opened.code != "OK":
                return opened
            self._session = True
        return await self._agent.apply(cells.apply(resource, action.op))

    async def _pages(self, action: Action, messages: Sequence[Message]) -> Answer:
        """The whole listing: with ids, other tests' maps may fill the first 500 places."""
        answer = await self._agent.call(action.method, *messages)
        replies = list(answer.replies)
        while answer.code == "OK":
            token = maps_pb2.ListMapStatsResponse.FromString(replies[-1]).next_page_token
            if not token:
                break
            following = maps_pb2.ListMapStatsRequest.FromString(messages[0].SerializeToString())
            following.page_token = token
            answer = await self._agent.call(action.method, following)
            replies += answer.replies
        return replace(answer, replies=tuple(replies))

    def _told(self, action: Action, resource: Resource, allowed: frozenset[Reason], answer: Answer) -> None:
        """Nothing of what it may not know of, and the same words for that as for nothing."""
        world, report = self.matrix.world, self.matrix.report
        said = _text(answer)
        asked = {resource.ref.name, resource.ref.pin, world.path(resource.ref.name), "team/flows"}
        for known in world.maps.values():
            if self.expected.sees(known):
                continue
            words = {*known.names, *(world.path(name) for name in known.names), *known.pins} - asked
            report.told.extend(
                self._wrong(action, resource, f"nothing of {word}", answer) for word in words if word in said
            )
        if action.method.name in LISTINGS and answer.code == "OK":
            self._listed(action, resource, answer)
        if answer.reason is not Reason.MAP_NOT_FOUND:
            return
        ref = resource.ref
        path = ref.pin.rpartition("/")[0] if lease_of(ref.pin) else ref.name or ref.pin
        place = (action.name, str(ref.WhichOneof("ref")), path.rpartition("/")[0])
        text = _without(world, resource, answer)
        if resource.of is None:
            self._missing[place] = text
        elif allowed == HIDDEN and text != self._missing.get(place):
            missing = self._missing.get(place, "as what is missing, which was not asked for")
            report.told.append(self._wrong(action, resource, missing, answer))

    def _dumped(self, action: Action, resource: Resource, answer: Answer) -> None:
        """Exactly the keys that it may read."""
        assert resource.of is not None
        of, shape = self.matrix.world.subject(resource.of), resource.of.shape
        column = b"".join(
            elements_pb2.DumpResponse.FromString(one).chunk.columns.keys for one in answer.replies
        )
        told = {column[at : at + shape.key_size] for at in range(0, len(column), shape.key_size)}
        for key in told | set(shape.keys):
            may = self.expected.may(Verb.READ, of, key)
            if may is not (key in told):
                wrong = self._wrong(
                    action, resource, f"key {key.hex()} {'told' if may else 'not told'}", answer
                )
                report = self.matrix.report
                (report.wrongly_refused if may else report.wrongly_admitted).append(wrong)

    def _explained(self, action: Action, resource: Resource, answer: Answer) -> None:
        """What is said about a right is what the reference says."""
        assert resource.of is not None
        of = self.matrix.world.subject(resource.of)
        verbs = (Verb.READ, Verb.OPEN_BY_ID) if resource.by_id else (Verb.READ,)
        allowed = all(self.expected.may(verb, of) for verb in verbs)
        if access_pb2.ExplainResponse.FromString(answer.replies[0]).allowed is not allowed:
            report = self.matrix.report
            wrong = self._wrong(action, resource, f"allowed: {allowed}", answer)
            (report.wrongly_refused if allowed else report.wrongly_admitted).append(wrong)

    def _listed(self, action: Action, resource: Resource, answer: Answer) -> None:
        """Exactly what it may see, of what this listing looks for."""
        ours = {known.id: known for known in self.matrix.world.maps.values()}
        if action.method.name == "ListMapStats":
            stats = [
                one
                for reply in answer.replies
                for one in maps_pb2.ListMapStatsResponse.FromString(reply).stats
            ]
            found = {one.id for one in stats}
            self._counted(action, resource, answer, {one.id: one for one in stats if one.id in ours})
        else:
            found = {one.id for one in maps_pb2.ListMapsResponse.FromString(answer.replies[0]).maps}
        listed = found & ours.keys()
        sees = {
            number
            for number, known in ours.items()
            if self.expected.sees(known) and (known.names or known.pins or resource.by_id)
        }
        for number in listed ^ sees:
            what = "seen" if number in sees else "not seen"
            wrong = self._wrong(action, resource, f"{ours[number].label} {what}", answer)
            report = self.matrix.report
            (report.wrongly_refused if number in sees else report.wrongly_admitted).append(wrong)

    def _counted(
        self, action: Action, resource: Resource, answer: Answer, told: Mapping[int, maps_pb2.MapStats]
    ) -> None:
        """What counts is told of those maps alone whose every key it may read."""
        for known in self.matrix.world.maps.values():
            if (one := told.get(known.id)) is None:
                continue
            may = self.expected.may(Verb.READ, self.matrix.world.subject(known))
            counts = [name for name in COUNTS if one.HasField(name)]
            if one.HasField("read_elements") is not may or (counts and not may):
                wrong = self._wrong(
                    action, resource, f"{known.label}: counts told {may}, not {counts}", answer
                )
                report = self.matrix.report
                (report.wrongly_refused if may else report.wrongly_admitted).append(wrong)

    def _wrong(self, action: Action, resource: Resource, expected: str, answer: Answer) -> Wrong:
        return Wrong(self.kind.name, action.name, resource.label, expected, str(answer)[:300])


def _worth(action: Action, resource: Resource) -> bool:
    """Leaves out operations that a type lacks, but on hash maps; of sessions, what is the same in Apply."""
    if action.op is None:
        return True
    if resource.like is not HASH:
        return (
            action.op.name.lower() in TYPES[resource.like.type].operations and action.method.name == "Apply"
        )
    return action.method.name == "Apply" or resource.label in IN_SESSIONS


def turned_away(kind: Kind, answer: Answer) -> bool:
    """Whether a caller that is to be let in nowhere was not."""
    if kind.refused == NOBODY:
        return answer.reason is Reason.UNAUTHENTICATED
    denied = kind.refused != KERNEL_REFUSES or DENIED_BY_KERNEL in answer.details
    return answer.code == "UNAVAILABLE" and answer.refusal is None and denied


def _names(reasons: frozenset[Reason]) -> str:
    return " or ".join(sorted(reason.name for reason in reasons))


def _text(answer: Answer) -> str:
    """All that came back, as text in which a name can be found."""
    parts = [answer.details, str(answer.refusal), *(reply.decode("latin-1") for reply in answer.replies)]
    for name, value in answer.raw["metadata"]:
        hidden = name.endswith("-bin")
        parts.append(bytes.fromhex(value).decode("latin-1") if hidden else str(value))
    return "\n".join(parts)


def _without(world: World, resource: Resource, answer: Answer) -> str:
    """A refusal, with the caller's own text for the map taken out."""
    assert answer.refusal is not None
    text = f"{answer.code} {answer.refusal.message} {sorted(answer.refusal.metadata.items())}"
    ref = resource.ref
    own = [world.path(ref.name), ref.name] if ref.name else [ref.pin or str(ref.id or ref.handle)]
    if lease := lease_of(ref.pin):
        own.append(lease)
    for word in own:
        text = text.replace(word, "<map>")
    return text

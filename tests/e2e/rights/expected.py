"""What the reference evaluator says of each cell of the matrix. The engine has no part in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason
from tests.e2e.rights.cells import LISTINGS, MADE, Action
from tests.e2e.rights.world import ABSENT, INSIDE, OUTSIDE, ROUTE, Kind, Known, Resource, World, leases_of
from tests.unit.mapd.access.reference import Map, Reference

ADMITTED: Final[frozenset[Reason]] = frozenset()
HIDDEN: Final[frozenset[Reason]] = frozenset({Reason.MAP_NOT_FOUND})
KNOWN: Final[frozenset[Reason]] = frozenset({Reason.POLICY})
STALE: Final = frozenset({Reason.STALE_HANDLE})
LACKING: Final = frozenset({Reason.OPERATION_UNSUPPORTED})
REFUSALS: Final = HIDDEN | KNOWN | STALE | {Reason.UNAUTHENTICATED}

AS_OP: Final = {"Lookup": Op.LOOKUP, "Update": Op.UPDATE, "Delete": Op.DELETE, "Load": Op.UPDATE}
"""Methods that are decided by key as these operations are."""

SOME_KEYS: Final = (INSIDE, OUTSIDE, ABSENT, ROUTE, bytes(8))


@dataclass(slots=True)
class Expected:
    """One caller's cells."""

    world: World
    kind: Kind
    reference: Reference = field(init=False)

    def __post_init__(self) -> None:
        self.reference = self.world.reference()

    @property
    def who(self) -> str:
        """The principal."""
        return self.kind.principal

    def may(self, verb: Verb, of: Map | None, key: bytes | None = None) -> bool:
        """As the reference; the admin, of whom it knows nothing, may do everything."""
        return self.who == "admin" or self.reference.may(self.who, verb, of, key)

    def sees(self, known: Known) -> bool:
        """Whether it may know that a map exists."""
        return self.may(Verb.LIST, self.world.subject(known))

    def of(self, action: Action, resource: Resource) -> frozenset[Reason]:
        """How it may be refused; nothing: it must be admitted."""
        if not action.verbs:
            return ADMITTED
        name = action.method.name
        if name == "RenameMap" and resource.of and not self.may(Verb.PIN, self._renamed(resource)):
            # About the new name, which is the caller's own word; but first he must be let to the old one.
            found = self.world.subject(resource.of)
            return KNOWN if self.may(Verb.PIN, found) or self.may(Verb.LIST, found) else HIDDEN
        if name == "CreateMap":
            return ADMITTED if self.may(Verb.CREATE, self._new(resource)) else KNOWN
        if name == "GetHostInfo":  # of the daemon: by rules about every map alone
            return ADMITTED if self.may(Verb.HOST, None) else KNOWN
        if name in LISTINGS:
            return self._listing(resource)
        if resource.by_handle and self.who != "team":
            return STALE  # another's: as if it were open nowhere
        if resource.of is None:
            return HIDDEN | (KNOWN if self.may(Verb.LIST, self._new(resource)) else ADMITTED)
        of = self.world.subject(resource.of)
        if resource.by_id and not self.may(Verb.OPEN_BY_ID, of):
            # Before the map: who may not look there is told that nothing is.
            return HIDDEN | (KNOWN if self.may(Verb.LIST, of) else ADMITTED)
        if self._allowed(action, resource, of):
            # A pin takes the right at its place too, whatever the map is called besides.
            return ADMITTED if name != "PinMap" or self.may(Verb.PIN, self._pinned(of)) else KNOWN
        if not self.may(Verb.LIST, of):
            return HIDDEN
        # Who has the right on some keys may be told that nobody can do this to any.
        return KNOWN | (LACKING if self._on_some_key(action, of) else ADMITTED)

    def _allowed(self, action: Action, resource: Resource, of: Map) -> bool:
        name, op = action.method.name, action.op or AS_OP.get(action.method.name)
        if all(self.may(verb, of) for verb in action.verbs):
            if name == "UpdateReference" and resource.of is self.world.maps["map of maps"]:
                return self.may(Verb.READ, self.world.subject(self.world.maps["own map"]))
            return True
        if self.who == "admin":
            return False
        if name == "Dump":
            return self._on_some_key(action, of)
        if op is None or not of.key_size:
            return False
        return self.reference.may_element(self.who, op, action.verbs, of, resource.key[: of.key_size])

    def _on_some_key(self, action: Action, of: Map) -> bool:
        """Whether there is a key for which it may."""
        return any(
            all(self.may(verb, of, key[: of.key_size]) for verb in action.verbs)
            for key in SOME_KEYS
            if of.key_size
        )

    def _renamed(self, resource: Resource) -> Map:
        """The place of its new name, whatever the map is called besides."""
        name = f"{resource.ref.name.partition('/')[0]}/{MADE}"
        return Map(resource.like.type, resource.like.key_size, (name,), (self.world.path(name),))

    def _pinned(self, of: Map) -> Map:
        """The place of its new pin."""
        return Map(of.type, of.key_size, (), (f"{self.world.place.bpffs}/foreign/{MADE}",))

    def _listing(self, resource: Resource) -> frozenset[Reason]:
        if not resource.by_id or self.may(Verb.OPEN_BY_ID, None):
            return ADMITTED
        return HIDDEN | KNOWN

    def _new(self, resource: Resource) -> Map:
        """What would be at a place if there were anything."""
        ref, like = resource.ref, resource.like
        if ref.name:
            return Map(like.type, like.key_size, (ref.name,), (self.world.path(ref.name),))
        pins = (ref.pin,) if ref.pin else ()
        return Map(like.type, like.key_size, (), pins, leases_of(pins))

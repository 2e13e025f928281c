"""Decisions, and the proof of one that the runtime asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

from mapd.access.policy import decide, explain
from mapd.access.policy.decide import Decision, Grants
from mapd.access.policy.explain import Asked
from mapd.access.policy.holder import NOBODY_ELSE, PolicyHolder
from mapd.access.policy.model import Policy, Subject
from mapd.access.policy.roles import names
from mapd.access.principal import ADMIN, Principal
from mapd_api.ops import Verb

T = TypeVar("T")

_SEAL: Final = object()


class Denied(Exception):
    """The policy does not allow it, or not for all keys where all are needed.

    Attributes:
        reveal: whether the caller may know that the thing exists.
        decision: what was decided, for the audit: the rights that are missing, the rules that said so; None where
            no policy was asked.
    """

    def __init__(
        self,
        principal: Principal,
        verbs: frozenset[Verb],
        *,
        reveal: bool,
        policy: Policy | None = None,
        decision: Decision | None = None,
    ) -> None:
        super().__init__(f"{principal.name} may not {names(verbs)}")
        self.reveal = reveal
        self.decision = decision
        self._policy = policy

    @classmethod
    def by(cls, policy: Policy, decision: Decision, principal: Principal) -> Self:
        """What a decision comes to."""
        lacks = decision.missing or decision.asked
        return cls(principal, lacks, reveal=decision.reveal, policy=policy, decision=decision)

    def message(self, asked: Asked, *, missing: str) -> str:
        """What the caller is told; ``missing``, word for word, where he may not know that the thing exists.

        Args:
            missing: what is said where there is no such map.
        """
        if self._policy is None or self.decision is None:
            return str(self) if self.reveal else missing
        tells = explain.key_refusal if self.decision.allowed else explain.refusal
        return tells(self._policy, self.decision, asked, missing=missing)


class Authorized(Generic[T]):
    """A thing together with the rights that were granted on it. Only ``Authorizer`` makes one.

    Attributes:
        target: the thing.
        principal: who was granted them.
        verbs: what was granted.
        grants: by which keys are told apart, where some of ``verbs`` hold for some keys alone
            (``policy.elements.permitted``, ``grants.filters``); None where they hold for all.
        subject: the map as it was judged; None for what is no map.
    """

    __slots__ = ("grants", "principal", "subject", "target", "verbs")

    def __init__(
        self,
        target: T,
        principal: Principal,
        verbs: frozenset[Verb],
        seal: object,
        grants: Grants | None = None,
        subject: Subject | None = None,
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("Authorized is made by Authorizer.authorize alone")
        self.target = target
        self.principal = principal
        self.verbs = verbs
        self.grants = grants
        self.subject = subject

    def demand(self, verbs: Iterable[Verb]) -> T:
        """The thing, for a use that needs ``verbs``.

        Raises:
            AssertionError: a right was not asked for; a fault of ours, not of the caller.
        """
        missing = frozenset(verbs) - self.verbs
        if missing:
            raise AssertionError(f"used with {sorted(missing)}, authorised for {sorted(self.verbs)}")
        return self.target


@dataclass(frozen=True, slots=True)
class View:
    """What one principal may know of, under one policy. Pure: for any thread."""

    policy: Policy
    principal: Principal

    def could(self, verbs: frozenset[Verb], place: Subject) -> bool:
        """Whether something of unknown type that is called so may be used so, or may at least be listed."""
        found = decide.possible(self.policy, self.principal.name, place)
        return Verb.LIST in found or verbs <= found

    def lists(self, subject: Subject) -> bool:
        """Whether this map may be listed; of one whose type is not known: whatever it is."""
        return decide.grants(self.policy, self.principal.name, subject).reveal

    def reads(self, subject: Subject) -> bool:
        """Whether all elements of this map may be read, whatever their keys."""
        return Verb.READ in decide.grants(self.policy, self.principal.name, subject).whole

    def by_id(self, subject: Subject) -> bool:
        """Whether this map may be reached by its kernel id."""
        return Verb.OPEN_BY_ID in decide.grants(self.policy, self.principal.name, subject).whole


class Authorizer:
    """Asks the policy in force; without one the admin may do everything, and nobody else anything."""

    def __init__(self, policy: PolicyHolder | None = None) -> None:
        self.policy: Final = policy or PolicyHolder(NOBODY_ELSE)

    def authorize(self, principal: Principal, verbs: frozenset[Verb], target: T) -> Authorized[T]:
        """Decide on what is no map: the daemon itself, which only rules about every map concern.

        Raises:
            Denied: no rule allows it, or one denies it.
        """
        return self.authorize_map(principal, verbs, target, None)

    def authorize_map(
        self,
        principal: Principal,
        verbs: frozenset[Verb],
        target: T,
        subject: Subject | None,
        *,
        by_key: bool = False,
    ) -> Authorized[T]:
        """Decide on a map, by all that is known of it.

        Args:
            by_key: the caller leaves out the keys that ``Authorized.grants`` does not permit. Without it rights on some
                keys are none: who forgets to filter gets nothing to filter.

        Raises:
            Denied: no rule allows it, or one denies it.
        """
        decider = self.policy.decider
        grants = decider.grants(principal.name, subject)
        decision = grants.decide(verbs)
        if not decision.allowed or (decision.filters and not by_key):
            raise Denied.by(decider.policy, decision, principal)
        return Authorized(target, principal, verbs, _SEAL, grants if decision.filters else None, subject)

    def view(self, principal: Principal) -> View | None:
        """What a principal may know of now; None for the admin, who may know of everything."""
        return None if principal.name == ADMIN else View(self.policy.policy, principal)

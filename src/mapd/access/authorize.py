"""Decisions, and the proof of one that the runtime asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from mapd.access.principal import ADMIN, Principal
from mapd_api.ops import Verb

T = TypeVar("T")

_SEAL: Final = object()


class Denied(Exception):
    """The policy does not allow it.

    Attributes:
        reveal: whether the caller may know that the thing exists.
    """

    def __init__(self, principal: Principal, verbs: frozenset[Verb], *, reveal: bool) -> None:
        names = ", ".join(sorted(verb.name.lower() for verb in verbs))
        super().__init__(f"{principal.name} may not {names}")
        self.reveal = reveal


class Authorized(Generic[T]):
    """A thing together with the rights that were granted on it. Only ``Authorizer`` makes one.

    Attributes:
        target: the thing.
        principal: who was granted them.
        verbs: what was granted.
    """

    __slots__ = ("principal", "target", "verbs")

    def __init__(self, target: T, principal: Principal, verbs: frozenset[Verb], seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("Authorized is made by Authorizer.authorize alone")
        self.target = target
        self.principal = principal
        self.verbs = verbs

    def demand(self, verbs: Iterable[Verb]) -> T:
        """The thing, for a use that needs ``verbs``.

        Raises:
            AssertionError: a right was not asked for; a fault of ours, not of the caller.
        """
        missing = frozenset(verbs) - self.verbs
        if missing:
            raise AssertionError(f"used with {sorted(missing)}, authorised for {sorted(self.verbs)}")
        return self.target


class Authorizer:
    """The policy. For now: the admin may do everything, nobody else anything."""

    def authorize(self, principal: Principal, verbs: frozenset[Verb], target: T) -> Authorized[T]:
        """Decide.

        Raises:
            Denied: no rule allows it.
        """
        if principal.name != ADMIN or not verbs:
            raise Denied(principal, verbs, reveal=False)
        return Authorized(target, principal, verbs, _SEAL)

"""From the map that a request names to the right to use it: the only way from one to the other.

Whoever may not know of a map is told what he would be told if there were none, word for word.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from mapd.access.authorize import Authorized, Denied
from mapd.access.policy.decide import Decision, gains
from mapd.access.policy.explain import Asked
from mapd.access.policy.model import Subject
from mapd.access.policy.roles import names
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef
from mapd.maps.opened import OpenMap
from mapd.maps.reference_errors import no_program
from mapd.maps.store import IdRef, NameRef, PinRef, Ref
from mapd.maps.targets import CpuQueue, Device, ProgramId, ProgramPin, Target
from mapd.rpc import convert
from mapd.rpc.guard import Call
from mapd.rpc.targets import OPERATION
from mapd.runtime.handles import Handle
from mapd.runtime.host import HandleRef, MapHost
from mapd.runtime.reach import Unlisted
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from mapd_api.v1.types_pb2 import MapRef

T = TypeVar("T")

_OF_THE_PLACE = frozenset({Verb.WRITE, Verb.DELETE, Verb.PIN, Verb.FREEZE})
"""Rights to change what a name leads to: not used on a map that its name does not lead to any more."""


class Withheld(MapError):
    """What the policy refuses: POLICY, or the words for a map that is not there.

    Attributes:
        decision: what was decided, for the audit.
    """

    def __init__(self, reason: Reason, message: str, decision: Decision | None, **metadata: object) -> None:
        super().__init__(reason, message, **metadata)
        self.decision = decision


def withheld(call: Call, denied: Denied, asked: Asked, missing: MapError) -> Withheld:
    """What a caller is told of a denial; ``missing``: what he is told where there is nothing."""
    text = denied.message(asked, missing=str(missing))
    if not denied.reveal:
        return Withheld(missing.reason, text, denied.decision, **missing.refusal.metadata)
    about = {"operation": asked.operation, "map": asked.what, "principal": call.principal.name}
    return Withheld(Reason.POLICY, text, denied.decision, **about)


def decided(
    call: Call,
    target: T,
    verbs: frozenset[Verb],
    subject: Subject | None,
    asked: Asked,
    missing: MapError,
    *,
    by_key: bool = False,
) -> Authorized[T]:
    """Rights on a thing that is judged as ``subject``.

    Raises:
        Withheld: the policy does not give them.
    """
    try:
        return call.authorizer.authorize_map(call.principal, verbs, target, subject, by_key=by_key)
    except Denied as denied:
        raise withheld(call, denied, asked, missing) from None


def unlisted(call: Call, error: Unlisted, verbs: frozenset[Verb], missing: MapError) -> Withheld:
    """The same where the caller may not know whether there is anything, and nothing was opened."""
    decision = call.authorizer.policy.decider.decide(call.principal.name, verbs | {Verb.LIST}, error.subject)
    return Withheld(missing.reason, str(missing), decision, **missing.refusal.metadata)


def wanted(operation: str, ref: Ref | LeasedRef, subject: Subject | None = None) -> Asked:
    """What a caller wanted, and what ``mapd policy allow`` takes for it."""
    if isinstance(ref, IdRef):
        called = (*sorted(subject.names), *sorted(subject.pins)) if subject else ()
        selector = called[0] if called else ""
    else:
        selector = ref.path if isinstance(ref, PinRef) else str(ref)
    return Asked(operation=operation, what=str(ref), selector=selector)


def ref_of(handle: Handle) -> Ref:
    """By what a handle's map was opened."""
    opened = handle.opened
    if handle.by_id or not opened.pin_path:
        return IdRef(opened.facts.id)
    return NameRef(*opened.name.split("/")) if opened.name else PinRef(opened.pin_path)


def rights(
    host: MapHost,
    call: Call,
    handle: Handle,
    verbs: frozenset[Verb],
    operation: str,
    *,
    by_key: bool = False,
    missing_as: str = "open",
) -> Authorized[OpenMap]:
    """Rights on an open map, by all that it is called; past names and pins they take one more.

    Args:
        by_key: as ``Authorizer.authorize_map``.
        missing_as: the word for what was asked where the map is not there.

    Raises:
        MapError: Withheld; MAP_REPLACED, another map has its name, and this one is not to be written.
    """
    ref = ref_of(handle)
    asked = verbs | {Verb.OPEN_BY_ID} if handle.by_id else verbs
    found = decided(
        call,
        handle.opened,
        asked,
        handle.subject,
        wanted(operation, ref, handle.subject),
        host.missing(ref, missing_as),
        by_key=by_key,
    )
    if handle.replaced:
        check_current(handle, verbs, operation)
    return found


def check_current(handle: Handle, verbs: frozenset[Verb], operation: str) -> None:
    """Refuse to change a map whose name or pin leads to another one by now; it can still be read.

    Raises:
        MapError: MAP_REPLACED, with the other map's id.
    """
    if not handle.replaced or verbs.isdisjoint(_OF_THE_PLACE):
        return
    facts, path = handle.opened.facts, handle.opened.name or handle.opened.pin_path
    raise MapError(
        Reason.MAP_REPLACED,
        f"{operation} {facts.label}: {path} leads to map {handle.replaced} by now, and this handle to the one it was "
        "opened on, which programs may not look at any more: nothing was executed; open it again for the new one",
        **facts.about(operation),
        map_id=handle.replaced,
    )


@dataclass(slots=True)
class Use:
    """A map that is in use for one call, and the rights on it."""

    host: MapHost
    call: Call
    handle: Handle
    verbs: frozenset[Verb]
    operation: str
    by_key: bool
    missing_as: str
    authorized: Authorized[OpenMap]
    _policy: str
    _subject: Subject

    def again(self) -> Authorized[OpenMap]:
        """The rights as they are now: decided anew where the policy or the map's names are others.

        Raises:
            MapError: as ``rights``.
        """
        version = self.call.authorizer.policy.policy.version
        handle = self.handle
        if version != self._policy or handle.subject is not self._subject or handle.replaced:
            self.authorized = rights(
                self.host,
                self.call,
                handle,
                self.verbs,
                self.operation,
                by_key=self.by_key,
                missing_as=self.missing_as,
            )
            self._policy, self._subject = version, handle.subject
        return self.authorized


@asynccontextmanager
async def used(
    host: MapHost,
    call: Call,
    message: MapRef,
    operation: str,
    verbs: frozenset[Verb] | None = None,
    *,
    by_key: bool = False,
    missing_as: str = "open",
) -> AsyncGenerator[Use]:
    """The map of a request, open and authorised, for the length of the block.

    Args:
        verbs: what is asked for, where it depends on the request; otherwise the method's rights.
        by_key: as ``Authorizer.authorize_map``.
        missing_as: the word for what was asked where the map is not there.

    Raises:
        MapError: the map is not there, or not for this caller.
    """
    ref = convert.ref(message, call.principal, operation)
    verbs = call.access.verbs if verbs is None else verbs
    version, view = call.authorizer.policy.policy.version, call.authorizer.view(call.principal)
    try:
        async with host.borrow(call.principal, ref, view, verbs, missing_as) as handle:
            found = rights(host, call, handle, verbs, operation, by_key=by_key, missing_as=missing_as)
            yield Use(
                host, call, handle, verbs, operation, by_key, missing_as, found, version, handle.subject
            )
    except Unlisted as error:
        assert not isinstance(ref, HandleRef), "a handle's map was opened before"
        raise unlisted(call, error, verbs, host.missing(ref, missing_as)) from None


def key_refused(use: Use) -> Withheld:
    """Why the only element of a call was not done: its key is not the caller's."""
    authorized = use.authorized
    assert authorized.grants is not None, "every key is permitted"
    call, ref = use.call, ref_of(use.handle)
    denied = Denied.by(
        call.authorizer.policy.policy, authorized.grants.decide(authorized.verbs), call.principal
    )
    asked = wanted(use.operation, ref, use.handle.subject)
    return withheld(call, denied, asked, use.host.missing(ref, "open"))


def check_same(use: Use, begun: Authorized[OpenMap]) -> None:
    """Refuse to go on with what was begun under ``begun`` where the rights are fewer by now, or for other keys.

    Raises:
        MapError: as ``rights``; POLICY, what was told until now can be gone on with from its last token.
    """
    now = use.again()
    if now is begun or now.grants is None:
        return
    held = begun.grants
    keys = now.grants.filters.items()
    if held is not None and all(held.filters.get(verb) == some for verb, some in keys if verb in now.verbs):
        return
    raise key_refused(use)


def check_name(
    host: MapHost,
    call: Call,
    opened: Authorized[OpenMap],
    new: NameRef | PinRef,
    before: Subject,
    after: Subject,
    operation: str,
) -> None:
    """Refuse a name or pin that whoever gives it may not give: by it the map would be another one's, or more his.

    It takes the right to pin at that place, whatever the map is called besides, and on the map as it will be called:
    programs look at places, and what is at one that is not the caller's is none of his business.

    Raises:
        Withheld: POLICY.
    """
    if call.authorizer.view(call.principal) is None:
        return
    info, ref = opened.target.facts.info, wanted(operation, new)
    pin = frozenset({Verb.PIN})
    _decided_openly(call, pin, host.reach.place_of(new, info.map_type, info.key_size), ref)
    _decided_openly(call, pin, after, ref)
    why = f"{operation} {opened.target.facts.label}: at {new} you, {call.principal.name!r}, would have "
    _check_gains(
        call, before, after, why, "a new name gives nobody who makes it", "name it so", operation, new
    )


def check_unpin(
    call: Call, opened: Authorized[OpenMap], pin: NameRef | PinRef, before: Subject, after: Subject | None
) -> None:
    """Refuse to take a name or pin away from whoever has less by it: a denial ends with the pin that it is about.

    Args:
        after: the map by its other pins; None where it has none, and goes with this one.

    Raises:
        Withheld: POLICY.
    """
    if call.authorizer.view(call.principal) is None or after is None:
        return
    why = f"unpin {opened.target.facts.label}: without {pin} you, {call.principal.name!r}, would have "
    _check_gains(call, before, after, why, "to remove a pin gives nobody", "remove it", "unpin", pin)


def _check_gains(
    call: Call,
    before: Subject,
    after: Subject,
    why: str,
    rule: str,
    step: str,
    operation: str,
    place: NameRef | PinRef,
) -> None:
    policy = call.authorizer.policy.policy
    more = gains(policy, call.principal.name, before, after)
    if more:
        raise Withheld(
            Reason.POLICY,
            f"{why}{names(more)} on it, which you have not now: {rule} more rights; ask "
            f"{policy.contact or 'whoever administers mapd on this host'} to {step}",
            call.authorizer.policy.decider.decide(call.principal.name, more, before),
            operation=operation,
            map=str(place),
            principal=call.principal.name,
        )


def _decided_openly(call: Call, verbs: frozenset[Verb], subject: Subject, asked: Asked) -> None:
    """A decision about a place that the caller himself has named; what is there makes no difference to it."""
    try:
        call.authorizer.authorize_map(call.principal, verbs, None, subject)
    except Denied as denied:
        text = denied.message(
            asked, missing=f"{asked.operation} {asked.what}: no rule of the policy allows you that"
        )
        raise Withheld(
            Reason.POLICY,
            text,
            denied.decision,
            operation=asked.operation,
            map=asked.what,
            principal=call.principal.name,
        ) from None


def check_named(host: MapHost, call: Call, outer: Authorized[OpenMap], target: Target) -> None:
    """Refuse to put an object of the host into a map for whoever may not reach it.

    A program that is pinned takes the right to read at that place. What has no place that a rule can name
    (programs by id, network devices) takes OPEN_BY_ID on the map that it is put into.

    Raises:
        Withheld: POLICY, or the words for what is not there.
    """
    program = target.program if isinstance(target, Device | CpuQueue) else target
    if isinstance(target, Device) or isinstance(program, ProgramId):
        ref = IdRef(outer.target.facts.id)
        asked = Asked(operation=OPERATION, what=str(ref), selector="")
        decided(call, None, frozenset({Verb.OPEN_BY_ID}), outer.subject, asked, host.missing(ref, "open"))
    if isinstance(program, ProgramPin):
        place = PinRef(program.path)
        subject = host.reach.place_of(place)
        missing = no_program(outer.target.facts, program.path)
        decided(call, None, frozenset({Verb.READ}), subject, wanted(OPERATION, place), missing)


@asynccontextmanager
async def admitted(
    host: MapHost,
    call: Call,
    message: MapRef,
    operation: str,
    verbs: frozenset[Verb] | None = None,
    *,
    by_key: bool = False,
) -> AsyncGenerator[Authorized[OpenMap]]:
    """The same, for what asks once and is short."""
    async with used(host, call, message, operation, verbs, by_key=by_key) as use:
        yield use.authorized

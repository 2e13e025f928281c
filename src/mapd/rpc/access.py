"""AccessService: who the caller is, and what the policy lets it do."""

from __future__ import annotations

from collections.abc import Mapping

from mapd.access.policy import explain as words
from mapd.access.policy.decide import Decision
from mapd.access.policy.explain import Asked
from mapd.access.policy.model import Effect, Policy, Subject
from mapd.access.policy.roles import ROLES, names
from mapd.access.principal import ADMIN
from mapd.access.quotas import Dimension
from mapd.maps.errors import MapError
from mapd.maps.store import IdRef, NameRef, Ref
from mapd.rpc import convert
from mapd.rpc.admit import decided, used, wanted
from mapd.rpc.guard import Call, Handler
from mapd.runtime.host import HandleRef, MapHost
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import access_pb2 as pb

OPERATION = "explain"

_DAEMON = "the daemon itself"


class AccessHandlers:
    """One coroutine for each method of the service."""

    def __init__(self, host: MapHost) -> None:
        self._host = host

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {"WhoAmI": self.who_am_i, "Explain": self.explain}

    async def who_am_i(self, call: Call, _request: pb.WhoAmIRequest) -> pb.WhoAmIResponse:
        """Who is asking."""
        policy = call.authorizer.policy.policy
        maps, map_bytes = await self._host.charged(call.principal)
        counted = {Dimension.MAPS: maps, Dimension.MAP_BYTES: map_bytes}
        shares = {
            dimension.value: pb.Share(limit=share.limit, used=counted.get(dimension, share.used))
            for dimension, share in self._host.shares.of(call.principal).items()
        }
        return pb.WhoAmIResponse(
            principal=call.principal.name,
            namespace=call.principal.namespace,
            attested_by=call.caller.attested_by,
            roles=roles_of(policy, call.principal.name),
            policy_version=policy.version,
            contact=policy.contact,
            shares=pb.Shares(**shares),
        )

    async def explain(self, call: Call, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Whether something may be done, and why. Nothing is done."""
        verb = _verb(request.verb)
        about = request.principal or call.principal.name
        if about != call.principal.name:
            asked = Asked(operation=OPERATION, what=f"what {about!r} may do", selector="")
            nobody = MapError(Reason.POLICY, f"explain: you may not ask about {about!r}", operation=OPERATION)
            decided(call, None, frozenset({Verb.ADMIN}), None, asked, nobody)
        if not request.HasField("map"):
            return self._answer(call, about, verb, None, None, request)
        ref = convert.ref(request.map, call.principal, OPERATION)
        if isinstance(ref, HandleRef):
            raise convert.bad_spec("a handle is its holder's own; give a name, a pin or an id", OPERATION)
        if verb is Verb.CREATE and isinstance(ref, NameRef):  # of a map that need not be there
            return self._answer(call, about, verb, ref, self._host.reach.place_of(ref), request)
        async with used(self._host, call, request.map, OPERATION, frozenset({Verb.LIST})) as use:
            if request.HasField("key"):
                _check_key(use.handle.opened.facts.info.key_size, request.key, ref)
            subject = await self._host.called(use.authorized)
            return self._answer(call, about, verb, ref, subject, request)

    @staticmethod
    def _answer(
        call: Call,
        about: str,
        verb: Verb,
        ref: Ref | None,
        subject: Subject | None,
        request: pb.ExplainRequest,
    ) -> pb.ExplainResponse:
        decider = call.authorizer.policy.decider
        verbs = frozenset({verb, Verb.OPEN_BY_ID} if isinstance(ref, IdRef) else {verb})
        decision = decider.decide(about, verbs, subject)
        of_key = request.HasField("key")
        filters = decision.filters.values()
        allowed = decision.allowed and (
            not filters or (of_key and all(one.permits(request.key) for one in filters))
        )
        administers = Verb.ADMIN in decider.grants(call.principal.name, None).whole
        if administers and subject is not None:
            what = str(ref)
            text = words.explain(decider.policy, about, verb, subject, what).text
        else:
            text = _told(decider.policy, decision, ref, subject, allowed=allowed)
        return pb.ExplainResponse(
            allowed=allowed,
            by_key=decision.allowed and bool(filters),
            text=text,
            policy_version=decider.policy.version,
        )


def roles_of(policy: Policy, principal: str) -> list[str]:
    """The roles that rules give somebody wholly on some maps, the least first."""
    if principal == ADMIN:
        return [ADMIN]
    allowing = [rule for rule in policy.rules_of(principal) if rule.effect is Effect.ALLOW]
    given = {([name for name, has in ROLES.items() if has <= rule.verbs] or [""])[-1] for rule in allowing}
    return [role for role in ROLES if role in given]


def _told(
    policy: Policy, decision: Decision, ref: Ref | None, subject: Subject | None, *, allowed: bool
) -> str:
    """What somebody is told of himself: no more than a refusal would tell, and in its words."""
    doing = names(decision.asked)
    asked = wanted(doing, ref, subject) if ref else Asked(operation=doing, what=_DAEMON, selector="")
    if decision.filters:
        return words.key_refusal(policy, decision, asked, missing="")
    if allowed:
        return f"{decision.principal} may {doing} {asked.what}"
    unsaid = f"{doing} {asked.what}: no rule of the policy allows you {doing} here"
    return words.refusal(policy, decision, asked, missing=unsaid)


def _verb(number: int) -> Verb:
    try:
        return Verb(number)
    except ValueError:
        raise convert.bad_spec(f"{number} is no right; see Verb in types.proto", OPERATION) from None


def _check_key(size: int, key: bytes, ref: Ref) -> None:
    if len(key) != size:
        raise MapError(
            Reason.KEY_SIZE_MISMATCH,
            f"{OPERATION} {ref}: the key has {len(key)} bytes, and keys of this map have {size}",
            operation=OPERATION,
            map=str(ref),
            given=len(key),
            expected=size,
        )

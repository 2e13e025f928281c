"""What is told in the audit trail: one line for each group or call that changes something, one for each refusal.

A mutation's line has its place before anything is executed (``AuditLog.reserve``), and is written when its outcome is
known. Keys and values are never looked at here.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mapd.access.audit import REFUSALS
from mapd.access.authorize import Authorized
from mapd.access.policy.decide import Decision
from mapd.maps.errors import MapError
from mapd.maps.groups import distinct_ops
from mapd.maps.leased import LeaseId
from mapd.maps.leases import Ended
from mapd.maps.opened import OpenMap
from mapd.runtime.audit_log import AuditLog, Entry
from mapd.runtime.handles import HandleTable
from mapd_api.contract import ELEMENT_SERVICE, HOST_SERVICE, LEASE_SERVICE, MAP_SERVICE, full_name
from mapd_api.ops import MUTATES, Verb
from mapd_api.reasons import Reason, Refusal

if TYPE_CHECKING:
    from mapd.rpc.guard import Call

CHANGES: Final[Mapping[str, str]] = {
    **{
        full_name(MAP_SERVICE.methods_by_name[method]): word
        for method, word in (
            ("CreateMap", "create"),
            ("PinMap", "pin"),
            ("UnpinMap", "unpin"),
            ("RenameMap", "rename"),
            ("FreezeMap", "freeze"),
        )
    },
    full_name(ELEMENT_SERVICE.methods_by_name["UpdateReference"]): "update_reference",
    full_name(LEASE_SERVICE.methods_by_name["LeaseRevoke"]): "revoke",
}
"""Calls that change something and are no groups, with the word for what they do."""

READS: Final[Mapping[str, str]] = {
    **{
        full_name(ELEMENT_SERVICE.methods_by_name[method]): word
        for method, word in (("Dump", "dump"), ("CountEntries", "count"), ("GetNextKey", "get_next_key"))
    },
    full_name(HOST_SERVICE.methods_by_name["GetHostInfo"]): "host_info",
}
"""Calls that read elements, or facts of the host, and are no groups."""

TEXT: Final = 300
"""Characters of a name or path at most: a request may have any."""

_NOT_DONE: Final = frozenset(Reason) - {Reason.INTERNAL, Reason.OUTCOME_UNKNOWN}
"""A group or call that is refused for one of these has changed nothing."""


def count_statuses(statuses: bytes | bytearray) -> dict[str, int]:
    """How many elements have each status, by its name."""
    left = len(statuses)
    found: dict[str, int] = {}
    for reason in Reason:
        if not left:
            break
        number = statuses.count(reason)
        if number:
            found[reason.name] = number
            left -= number
    return found


def count_ops(ops: bytes, count: int) -> dict[str, int]:
    """How many of each operation a group has, by its name in lower case."""
    if len(ops) == 1:
        kinds = distinct_ops(ops)
        return {kind.name.lower(): count for kind in kinds}
    return {kind.name.lower(): ops.count(kind) for kind in sorted(distinct_ops(ops))}


class Line:
    """One group on its way: ``told`` of each part of its outcome, and closed once."""

    __slots__ = (
        "_auditor",
        "_call",
        "_count",
        "_decision",
        "_mutates",
        "_opened",
        "_operation",
        "_ops",
        "_statuses",
    )

    def __init__(
        self,
        auditor: Auditor,
        call: Call,
        opened: Authorized[OpenMap],
        operation: str,
        ops: bytes,
        count: int,
        *,
        mutates: bool,
    ) -> None:
        self._auditor = auditor
        self._call = call
        self._opened = opened
        # Now: another policy may be in force when the group has ended.
        self._decision = call.authorizer.policy.decider.decide(
            call.principal.name, opened.verbs, opened.subject
        )
        self._operation = operation
        self._ops = ops
        self._count = count
        self._mutates = mutates
        self._statuses: list[bytes | bytearray] = []

    def told(self, statuses: bytes | bytearray) -> None:
        """What became of the elements, or of the next of them."""
        self._statuses.append(statuses)

    def close(self, error: BaseException | None = None) -> None:
        """It has ended. ``error``: why it was refused or broken off; a refusal's own line is ``Auditor.refused``'s."""
        log = self._auditor.log
        assert log is not None
        statuses = count_statuses(b"".join(self._statuses))
        if error is not None and self._mutates and not _nothing_done(error):
            statuses["OUTCOME_UNKNOWN"] = self._count - sum(statuses.values())
        withheld = Reason.POLICY.name in statuses
        if not statuses or not (self._mutates or withheld or self._auditor.reads):
            if self._mutates:
                log.release()
            return
        event = "mutation" if self._mutates else "read"
        if withheld and len(statuses) == 1:
            event = "refusal"
        log.write(self._entry(event, statuses, withheld=withheld), reserved=self._mutates)

    def _entry(self, event: str, statuses: dict[str, int], *, withheld: bool) -> Entry:
        call, decision = self._call, self._decision
        target = self._opened.target
        return Entry(
            event=event,
            principal=call.principal.name,
            attested_by=call.caller.attested_by,
            method=call.method,
            operation=self._operation,
            map_id=target.facts.id,
            map=target.name or target.facts.info.name,
            pin=_short(target.pin_path),
            map_type=target.facts.type_name,
            ops=count_ops(self._ops, self._count),
            count=self._count,
            statuses=statuses,
            reason=Reason.POLICY.name if withheld else "",
            policy=decision.version,
            rule=_rules(decision),
        )


class Auditor:
    """Writes one daemon's lines. Without a log it does nothing.

    Args:
        reads: groups and calls that only read leave lines too; none of them is ever refused for want of one.
        handles: what handles in requests stand for.
    """

    def __init__(
        self, log: AuditLog | None = None, *, reads: bool = False, handles: HandleTable | None = None
    ) -> None:
        self.log: Final = log
        self.reads: Final = reads
        self._handles = handles

    def begin(
        self, call: Call, opened: Authorized[OpenMap], operation: str, ops: bytes, count: int
    ) -> Line | None:
        """A group that is about to run; None where nothing of it will be told.

        Raises:
            MapError: AUDIT, it would change something, and that could not be told.
        """
        if self.log is None:
            return None
        mutates = not MUTATES.isdisjoint(distinct_ops(ops))
        if mutates:
            self.log.reserve()
        elif not self.reads and opened.grants is None:
            return None
        return Line(self, call, opened, operation, ops, count, mutates=mutates)

    @contextmanager
    def group(
        self, call: Call, opened: Authorized[OpenMap], operation: str, ops: bytes, count: int
    ) -> Generator[Line | None]:
        """The same for the length of a block. Raises as ``begin``."""
        line = self.begin(call, opened, operation, ops, count)
        if line is None:
            yield None
            return
        try:
            yield line
        except BaseException as error:
            line.close(error)
            raise
        line.close()

    @contextmanager
    def call(self, call: Call, request: Any) -> Generator[dict[str, Any]]:
        """A call that is no group. The block puts the answer into the dictionary under "answer".

        Raises:
            MapError: AUDIT, it would change something, and that could not be told.
        """
        answer: dict[str, Any] = {}
        word = CHANGES.get(call.method)
        changes = word is not None
        if self.log is None or not (changes or (self.reads and call.method in READS)):
            yield answer
            return
        about = _named(call, request, self._handles)
        if changes:
            self.log.reserve()
        status = "DONE"
        try:
            yield answer
        except BaseException as error:
            if not changes or _nothing_done(error):
                if changes:
                    self.log.release()
                raise
            status = Reason.OUTCOME_UNKNOWN.name
            self._tell(call, word or READS[call.method], about, status, changes=changes)
            raise
        made = answer.get("answer")
        if getattr(made, "created", True) is False:
            self.log.release()  # it was there, and was opened
            return
        about |= _answered(made)
        self._tell(call, word or READS[call.method], about, status, changes=changes)

    def _tell(self, call: Call, word: str, about: dict[str, Any], status: str, *, changes: bool) -> None:
        assert self.log is not None
        entry = Entry(
            event="mutation" if changes else "read",
            principal=call.principal.name,
            attested_by=call.caller.attested_by,
            method=call.method,
            operation=word,
            count=1,
            statuses={status: 1},
            policy=call.authorizer.policy.policy.version,
            **about,
        )
        self.log.write(entry, reserved=changes)

    def expired(self, lease: LeaseId, ended: Ended) -> None:
        """A lease has ended by itself; a line for each map that was unpinned. Nobody waits for a place for it."""
        for path, map_id in ended.pins if self.log is not None else ():
            assert self.log is not None
            self.log.write(
                Entry(
                    event="mutation",
                    operation="expire",
                    map=f"lease:{lease}/{path.rpartition('/')[2]}",
                    map_id=map_id,
                    pin=path,
                    count=1,
                    statuses={"DONE": 1},
                )
            )

    def refused(self, call: Call, error: BaseException) -> None:
        """A call or a group was refused: told, if for something that the trail is about."""
        if self.log is not None and isinstance(error, MapError):
            self.refusal(
                error.refusal,
                decision_of(error),
                principal=call.principal.name,
                attested_by=call.caller.attested_by,
                method=call.method,
                policy=call.authorizer.policy.policy.version,
            )

    def refusal(
        self,
        refusal: Refusal,
        decision: Decision | None,
        *,
        principal: str,
        attested_by: str,
        method: str,
        policy: str,
    ) -> None:
        """The same for a caller who may be nobody."""
        if self.log is None:
            return
        hidden = decision is not None and refusal.reason is Reason.MAP_NOT_FOUND
        if not hidden and refusal.reason not in REFUSALS:
            return
        asked: frozenset[Verb] = frozenset()
        if decision is not None:
            asked = decision.missing or decision.asked
        about = refusal.metadata
        entry = Entry(
            event="refusal",
            principal=principal,
            attested_by=attested_by,
            method=method,
            operation=about.get("operation", ""),
            map=_short(about.get("map", "")),
            map_type=about.get("map_type", ""),
            reason=Reason.POLICY.name if hidden else refusal.reason.name,
            told=refusal.reason.name if hidden else "",
            verbs=[verb.name.lower() for verb in sorted(asked)],
            policy=policy if decision is None else decision.version,
            rule=_rules(decision),
        )
        self.log.write(entry)


OFF: Final = Auditor()
"""No trail."""


def decision_of(error: BaseException) -> Decision | None:
    """What the policy decided, where that is why a call was refused."""
    found = getattr(error, "decision", None)
    return found if isinstance(found, Decision) else None


def _nothing_done(error: BaseException) -> bool:
    """Whether an end of this kind says that nothing was changed."""
    return isinstance(error, MapError) and error.reason in _NOT_DONE


def _rules(decision: Decision | None) -> str:
    return "" if decision is None else ", ".join(rule.label for rule in decision.rules)


def _short(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}..."


def _named(call: Call, request: Any, handles: HandleTable | None) -> dict[str, Any]:
    """What a request says about the map it is for."""
    descriptor = getattr(request, "DESCRIPTOR", None)
    if descriptor is None:
        return {}
    about: dict[str, Any] = {}
    fields = descriptor.fields_by_name
    if "map" in fields:
        about = _referred(call, request.map, handles)
    if "named" in fields:
        about["map"] = _short(request.named.name)
    if "lease" in fields and fields["lease"].message_type is None:
        about["map"] = f"lease:{_short(request.lease)}"
    if "new_name" in fields:
        about["map"] = f"{_short(request.name)} -> {_short(request.new_name)}"
    if "path" in fields:
        about["pin"] = _short(request.path)
    return about


def _referred(call: Call, ref: Any, handles: HandleTable | None) -> dict[str, Any]:
    match ref.WhichOneof("ref"):
        case "handle":
            handle = None if handles is None else handles.find(ref.handle, call.principal)
            return {} if handle is None else _opened(handle.opened)
        case "name":
            return {"map": _short(ref.name)}
        case "pin":
            return {"pin": _short(ref.pin)}
        case "id":
            return {"map_id": int(ref.id)}
        case _:
            return {}


def _opened(opened: OpenMap) -> dict[str, Any]:
    facts = opened.facts
    return {
        "map_id": facts.id,
        "map": opened.name or facts.info.name,
        "pin": _short(opened.pin_path),
        "map_type": facts.type_name,
    }


def _answered(answer: Any) -> dict[str, Any]:
    """What the answer to CreateMap says of the map."""
    info = getattr(answer, "info", None)
    if info is None:
        return {}
    name = info.name or f"lease:{info.lease.id}/{info.pin_path.rpartition('/')[2]}"
    return {"map_id": info.id, "map": name, "pin": info.pin_path}

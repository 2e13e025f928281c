"""A daemon without authorisation in one (RPC, op): what the matrix must find out. In the test's own process.

Every decision of the daemon is one of ``Decider``'s about a principal; what may be known of is ``Authorizer.view``'s.
While a call of the chosen method, with the chosen operation, is decided on, both take the caller for the admin.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from mapd.access.authorize import Authorizer, View
from mapd.access.policy.decide import Decider, Grants
from mapd.access.policy.model import Subject
from mapd.access.principal import ADMIN, Principal
from mapd.maps.groups import distinct_ops
from mapd.rpc import apply
from mapd.rpc.guard import Call, Guard, Handler
from mapd_api import contract
from mapd_api.contract import MethodAccess
from mapd_api.ops import Op
from tests.e2e.rights.cells import Action

_METHOD: ContextVar[str] = ContextVar("method", default="")
_OPS: ContextVar[frozenset[Op]] = ContextVar("ops", default=frozenset())


@dataclass(slots=True)
class Removed:
    """From what authorisation is removed at this moment; None: from nothing.

    Attributes:
        skipped: decisions that were made for the admin instead of the caller.
    """

    action: Action | None = None
    skipped: int = 0

    def here(self) -> bool:
        """Whether the call that asks is one of those."""
        action = self.action
        if action is None or _METHOD.get() != contract.full_name(action.method):
            return False
        if action.op is not None and _OPS.get() != frozenset({action.op}):
            return False
        self.skipped += 1
        return True


def removable(patch: pytest.MonkeyPatch) -> Removed:
    """Make daemons whose authorisation can be removed, until the test ends."""
    removed = Removed()
    wrap, kind_of = Guard.wrap, apply.kind_of
    grants, view = Decider.grants, Authorizer.view

    def marked(
        self: Guard, name: str, access: MethodAccess, identify: Any, handler: Handler, **more: Any
    ) -> Handler:
        async def noted(call: Call, request: Any) -> Any:
            _METHOD.set(name)
            return await handler(call, request)

        return wrap(self, name, access, identify, noted, **more)

    def told(column: bytes) -> apply.Kind:
        found = kind_of(column)
        _OPS.set(frozenset(distinct_ops(column)))
        return found

    def decided(self: Decider, principal: str, subject: Subject | None) -> Grants:
        return grants(self, ADMIN if removed.here() else principal, subject)

    def seen(self: Authorizer, principal: Principal) -> View | None:
        return None if removed.here() else view(self, principal)

    patch.setattr(Guard, "wrap", marked)
    patch.setattr(apply, "kind_of", told)
    patch.setattr(Decider, "grants", decided)
    patch.setattr(Authorizer, "view", seen)
    return removed


def table(rows: Sequence[tuple[Action, int, int]]) -> str:
    """What was removed, how often it was not asked, and how many cells told."""
    lines = [f"{'authorisation removed from':32} {'decisions':>9} {'wrongly admitted':>17}"]
    lines += [f"{action.name:32} {skipped:9} {caught:17}" for action, skipped, caught in rows]
    return "\n".join(lines)

"""What the services of this daemon cannot do all of their work without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mapd.isolation import Isolation
from mapd.rpc.health import SERVICES, Dependency
from mapd.runtime.audit_log import AuditLog
from mapd_api import contract

_WITH_MAPS: Final = frozenset(SERVICES) - {contract.HOST_SERVICE.full_name}
"""All that open maps: by name, pin or id. What is held already is still served without an opener."""

_CHANGING: Final = _WITH_MAPS - {contract.ACCESS_SERVICE.full_name}


def dependencies(isolation: Isolation | None, audit: AuditLog | None) -> Mapping[str, Dependency]:
    """What is to be looked at while the daemon runs, by a name for the log.

    Args:
        audit: where a change that cannot be told is refused; None: there is no such trail.
    """
    found: dict[str, Dependency] = {}
    if isolation is not None and (ended := isolation.ended) is not None:
        found["opener"] = Dependency(lambda: "it has ended" if ended.poll(0) else "", _WITH_MAPS)
    if audit is not None:
        found["audit"] = Dependency(lambda: audit.failure, _CHANGING)
    return found

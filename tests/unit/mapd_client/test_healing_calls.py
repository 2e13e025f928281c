"""Calls by handle that are made again: what is told where one of the tries was lost."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2
from mapd_client import healing, methods
from mapd_client.codec import Bytes
from mapd_client.errors import MapdError, NotSent, OutcomeUnknown
from mapd_client.failures import Asked
from mapd_client.held import Grip, Held
from mapd_client.link import Link
from mapd_client.patience import Patience
from mapd_client.refs import Name
from mapd_client.replies import map_info
from tests.unit.mapd_client import daemon as described

FREEZE = Asked("freeze", "flows", mutates=True, repeatable=True)


class Script:
    """A link on which every try ends as it is written here."""

    def __init__(self, *ends: MapdError) -> None:
        self.ends = list(ends)

    def patience(self, asked: Asked, timeout: float | None = None) -> Patience:
        return Patience(asked, 5.0 if timeout is None else timeout)

    async def call(self, *_: Any, **__: Any) -> Any:
        raise self.ends.pop(0)

    async def tenure(self, _timeout: float | None = None) -> Any:
        raise self.ends.pop(0)


async def test_a_map_that_cannot_be_opened_again_does_not_settle_what_was_lost_before() -> None:
    lost = OutcomeUnknown(
        "freeze flows: the connection broke; asked again: stale", reason=Reason.STALE_HANDLE
    )
    script = Script(lost, NotSent("open flows: nobody there; nothing was executed"))
    held = Held(Grip(1, ref=Name("flows")), map_info(described.map_info("ns/flows")), "flows", Bytes(4))
    with pytest.raises(OutcomeUnknown, match=r"the connection broke.*asked again.*nobody there"):
        await healing.by_handle(
            cast("Link", script), methods.FREEZE_MAP, maps_pb2.FreezeMapRequest, FREEZE, held
        )
    assert not script.ends

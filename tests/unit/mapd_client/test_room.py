"""How many calls may wait, and what that costs."""

from __future__ import annotations

import pytest

from mapd_api.ops import Op
from mapd_client.groups import Bulk
from tests.unit.mapd_client.pipes import World, connected, held, key, sent, terms


async def test_the_queue_is_walked_a_few_times_however_many_calls_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once for the first, and whenever as many more have come."""
    pipeline, _ = connected(World(), slots=1)
    asked = terms(held(1))
    _ = pipeline.single(asked, Op.LOOKUP, key(1))
    sent(pipeline)
    queued = [pipeline.bulk(asked, Op.UPDATE, 1, b"", bytes(4 << 20)) for _ in range(2)]
    walks = 0
    drop_done = Bulk.drop_done

    def counted(group: Bulk) -> None:
        nonlocal walks
        walks += 1
        drop_done(group)

    monkeypatch.setattr(Bulk, "drop_done", counted)
    assert all(pipeline.room(100) is not None for _ in range(10_000))
    assert 0 < walks <= 15 * len(queued)

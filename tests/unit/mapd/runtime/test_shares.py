"""Shares: what is held is counted until it is given back, against the policy of the moment."""

from __future__ import annotations

import pytest

from mapd.access.policy.file import parse
from mapd.access.policy.holder import PolicyHolder
from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.access.quotas import Dimension, in_force
from mapd.maps.errors import MapError
from mapd.runtime.shares import Share, Shares
from mapd_api.reasons import Reason

EDGE = Principal(name="edge", namespace="edge")
WEB = Principal(name="web", namespace="web")


def shares(**quotas: int) -> Shares:
    return Shares(lambda _principal: Quotas(**quotas))


def test_the_last_of_its_share_is_had_and_the_next_is_refused_with_both_numbers() -> None:
    found = shares(dumps=2)
    for _ in range(2):
        found.take(EDGE, Dimension.DUMPS, "dump")
    with pytest.raises(
        MapError, match="dump: edge has 2 dumps running, its limit is 2: wait for one to end"
    ) as caught:
        found.take(EDGE, Dimension.DUMPS, "dump")
    assert caught.value.reason is Reason.QUOTA
    assert caught.value.refusal.retry_after_s == 1.0
    assert caught.value.refusal.metadata == {
        "operation": "dump", "principal": "edge", "quota": "dumps", "used": "2", "asked": "1", "limit": "2",
    }  # fmt: skip
    found.give_back(EDGE, Dimension.DUMPS)
    found.take(EDGE, Dimension.DUMPS, "dump")


def test_one_principal_takes_nothing_of_anothers_share() -> None:
    found = shares(handles=1)
    found.take(EDGE, Dimension.HANDLES, "open")
    found.take(WEB, Dimension.HANDLES, "open")
    assert found.held(WEB, Dimension.HANDLES) == 1


def test_what_is_held_for_a_block_is_given_back_however_it_ends() -> None:
    found = shares(streams=1)
    with pytest.raises(ZeroDivisionError), found.hold(EDGE, Dimension.STREAMS, "load"):
        raise ZeroDivisionError
    assert found.held(EDGE, Dimension.STREAMS) == 0


def test_a_principal_without_anything_is_forgotten() -> None:
    found = shares()
    with found.hold(EDGE, Dimension.STREAMS, "load"):
        pass
    assert not any(found._held.values())  # pyright: ignore[reportPrivateUsage]


def test_the_quotas_are_those_of_the_policy_in_force_at_the_time() -> None:
    holder = PolicyHolder(parse(b"[principals.edge.quotas]\nhandles = 1\n", "one"))
    found = Shares(in_force(holder))
    found.take(EDGE, Dimension.HANDLES, "open")
    with pytest.raises(MapError):
        found.take(EDGE, Dimension.HANDLES, "open")
    holder.decider = type(holder.decider)(parse(b"[principals.edge.quotas]\nhandles = 2\n", "two"))
    found.take(EDGE, Dimension.HANDLES, "open")


def test_less_than_is_held_takes_nothing_away_and_refuses_the_next() -> None:
    quotas = Quotas(handles=3)
    found = Shares(lambda _principal: quotas)
    for _ in range(3):
        found.take(EDGE, Dimension.HANDLES, "open")
    quotas = Quotas(handles=1)
    assert found.of(EDGE)[Dimension.HANDLES] == Share(3, 1)
    with pytest.raises(MapError, match="has 3 handles open, its limit is 1"):
        found.take(EDGE, Dimension.HANDLES, "open")


def test_whom_the_policy_does_not_know_has_nothing_to_take() -> None:
    found = Shares(in_force(PolicyHolder(parse(b"", "empty"))))
    for dimension in Dimension:
        with pytest.raises(MapError, match="its limit is 0"):
            found.take(EDGE, dimension, "open")


def test_all_that_one_has_is_told_with_its_limits() -> None:
    found = shares(handles=4, maps=8)
    found.take(EDGE, Dimension.HANDLES, "open")
    found.measure(Dimension.CONNECTIONS, lambda principal: 3 if principal == EDGE else 0)
    told = found.of(EDGE)
    assert set(told) == set(Dimension)
    assert told[Dimension.HANDLES] == Share(1, 4)
    assert told[Dimension.CONNECTIONS] == Share(3, None)

"""The matrix finds every authorisation that is missing: removed from each (RPC, op) in turn, each removal is caught."""

from __future__ import annotations

from typing import Any

import pytest

from mapd.daemon import running
from mapd.rpc import admit
from mapd_api.reasons import Reason
from tests.e2e.rights import cells
from tests.e2e.rights.cells import Action
from tests.e2e.rights.matrix import OWNER, Matrix, Report, callers
from tests.e2e.rights.unguarded import removable, table
from tests.e2e.rights.world import KINDS, Resource, made_world
from tests.support.daemon import Place, client_sources

HELD = [kind for kind in KINDS if kind.name in ("no rules at all", "namespace of another", OWNER)]
REFUSED = [kind for kind in HELD if kind.name != OWNER]
"""Whose cells here are all refused."""

ASKED = [action for action in cells.actions() if action.verbs]
FREE = {action.name for action in cells.actions() if not action.verbs}


TELLING = ("GetMap", "OpenMap", "Lookup", "Dump", "Apply UPDATE", "Session LOOKUP", "UnpinMap")


def two_names(resource: Resource) -> bool:
    """A map that is hidden by one of its names, and a place like it where there is none."""
    return resource.label in (
        "map of two names by name team/public",
        "map of two names by name secret/alias",
        "missing by name team/missing",
        "missing by name secret/missing",
    )


def ours(resource: Resource) -> bool:
    """A few maps, and the places where there is none."""
    return resource.of is None or resource.label in (
        "own map by name team/flows",
        "own map by id",
        "foreign pin by pin",
        "queue by name team/jobs",
        "leased map by pin",
    )


def test_what_takes_no_rights_is_known() -> None:
    """Methods for every admitted principal have no authorisation that could be missing."""
    assert sorted(FREE) == ["CloseMap", "GetServerInfo", "WhoAmI"]


async def test_every_removed_authorisation_is_found_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = removable(monkeypatch)
    rows: list[tuple[Action, int, int]] = []
    unfound: list[str] = []
    spread: list[str] = []
    with client_sources() as sources, made_world(place) as world:
        async with (
            running(place.config(policy=world.policy)),
            callers(world, sources, HELD) as agents,
        ):

            async def look(action: Action) -> Report:
                return await Matrix(world, agents).run(REFUSED, [action], ours)

            for number, action in enumerate(ASKED):
                guarded = await look(action)
                assert not guarded.faults(), guarded.faults()
                removed.action, removed.skipped = action, 0
                found = await look(action)
                rows.append((action, removed.skipped, len(found.wrongly_admitted)))
                if not found.wrongly_admitted:
                    unfound.append(action.name)
                # Of that one alone: its neighbour is guarded as ever.
                other = ASKED[number - 1]
                spread += (await look(other)).faults()
                removed.action = None
    print(f"\n{table(rows)}")
    assert not unfound, f"nobody noticed that these are not authorised: {unfound}"
    assert not spread, spread
    assert len(rows) == len(ASKED)


async def test_a_refusal_that_tells_is_found_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One letter more where a map is hidden than where there is none, and the matrix sees it."""
    twofold = next(kind for kind in KINDS if kind.name == "denied by a second name")
    actions = [action for action in cells.actions() if action.name in TELLING]
    assert len(actions) == len(TELLING)
    with client_sources() as sources, made_world(place) as world:
        async with (
            running(place.config(policy=world.policy)),
            callers(world, sources, [twofold]) as agents,
        ):
            before = await Matrix(world, agents).run([twofold], actions, two_names)
            assert not before.faults(), before.faults()
            made = admit.Withheld.__init__

            def wordier(
                self: admit.Withheld, reason: Reason, message: str, *more: Any, **metadata: Any
            ) -> None:
                # Of what is there alone; in a folder where nothing may be known, nothing is looked at.
                there = metadata.get("map") in ("team/public", "secret/alias")
                made(self, reason, f"{message}." if there else message, *more, **metadata)

            monkeypatch.setattr(admit.Withheld, "__init__", wordier)
            after = await Matrix(world, agents).run([twofold], actions, two_names)
    assert {wrong.action for wrong in after.told} == set(TELLING)
    assert not after.wrongly_admitted

"""What a call has made, and how it is unmade if the call fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mapd_client.errors import MapdError, MapNotFound
from mapd_client.map import Map
from mapd_client.refs import Name, Pin

if TYPE_CHECKING:
    from mapd_client.client import Client


@dataclass(slots=True, eq=False)
class Step:
    """A name or a pin that was made.

    Attributes:
        ref: as it is called now.
        held: the map; its handle is given back before the name is removed.
    """

    ref: Name | Pin
    held: Map[Any, Any]


class Undoing:
    """Names and pins that were made, the last one last."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._steps: list[Step] = []

    def made(self, ref: Name | Pin, held: Map[Any, Any]) -> Step:
        """Remember a name or a pin."""
        step = Step(ref, held)
        self._steps.append(step)
        return step

    def last(self) -> Step:
        """What was made last."""
        return self._steps[-1]

    async def now(self, step: Step) -> None:
        """Undo one step.

        Raises:
            MapdError: it is still there, and is still remembered.
        """
        await self._remove(step)
        self._steps.remove(step)

    async def all(self) -> str:
        """Undo everything, the last first; a sentence that says what is gone and what is not."""
        gone: list[str] = []
        stay: list[str] = []
        while self._steps:
            step = self._steps.pop()
            try:
                await self._remove(step)
            except MapNotFound:
                gone.append(str(step.ref))
            except MapdError as error:
                stay.append(f"{step.ref} ({error})")
            else:
                gone.append(str(step.ref))
        told = [f"removed again: {', '.join(gone)}"] if gone else []
        if stay:
            told.append(f"still there: {', '.join(stay)}")
        return "; ".join(told) or "nothing had been created"

    async def _remove(self, step: Step) -> None:
        await step.held.aclose()
        async with self._client.open_map(step.ref) as there:
            if there.info.id == step.held.info.id:  # else somebody has put another one there
                await self._client.unpin_map(step.ref)

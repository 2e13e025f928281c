"""The maps that ``create_from_object`` has created or found: by name and by index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mapd_client.errors import MapNotFound
from mapd_client.map import Map


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMap:
    """What became of one map that an object declares.

    Attributes:
        declared: its name in the object: the C identifier, or the section of a data map (".rodata").
        kernel_name: as a loader gives it to the kernel, at most 15 characters.
        index: its place in the object: ``map_fd[index]`` of samples/bpf.
        created: by this call; False: it was there, and was left as it is.
        name: mapd's name for it; "" where it was found by its pin.
        pin: the path that the object asks for; "" for none.
        btf_refused: why the map has no type information though the object has, "" otherwise. Types that take none are
            not told of: that is so for every such map.
    """

    declared: str
    kernel_name: str
    index: int
    created: bool
    name: str
    pin: str
    btf_refused: str = ""


class ObjectMaps:
    """The open maps of an object, in its order; from ``Client.create_from_object``.

    ``maps["flows"]`` by the declared or the kernel name, ``maps[0]`` as ``map_fd[0]``; maps of data sections come
    after the others. Keys and values are bytes (one for each CPU in per-CPU maps); ``await maps["flows"].typed()``
    makes fields of them. ``async with`` and ``aclose`` give the handles back; the maps stay.

    Attributes:
        convention: "samples", "tc" or "libbpf": how the object was read.
        rule: the sentence that says why it was read so.
        declared: what became of each map, in the object's order.
        left_out: what the object asks for beside maps and was not done, a sentence each: programs in slots of a
            PROG_ARRAY, for mapd loads none.
    """

    convention: str
    rule: str
    declared: Sequence[ObjectMap]
    left_out: Sequence[str]

    def __init__(
        self,
        convention: str,
        rule: str,
        declared: Sequence[ObjectMap],
        maps: Sequence[Map[Any, Any]],
        left_out: Sequence[str],
    ) -> None:
        self.convention = convention
        self.rule = rule
        self.declared = tuple(declared)
        self.left_out = tuple(left_out)
        self._maps = tuple(maps)
        self._places = {one.kernel_name: at for at, one in enumerate(self.declared)}
        self._places.update({one.declared: at for at, one in enumerate(self.declared)})

    def __getitem__(self, which: str | int) -> Map[Any, Any]:
        """One open map.

        Raises:
            MapNotFound: the object declares no such map; the message lists those that it does.
        """
        return self._maps[self.place(which)]

    def place(self, which: str | int) -> int:
        """The index of a map, in ``declared`` too; raises MapNotFound as ``maps[which]``."""
        at = self._places.get(which, -1) if isinstance(which, str) else which
        if not 0 <= at < len(self._maps):
            names = ", ".join(repr(one.declared) for one in self.declared) or "no maps"
            raise MapNotFound(f"maps[{which!r}]: the object declares {names}")
        return at

    def __iter__(self) -> Iterator[Map[Any, Any]]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return f"<ObjectMaps {self.convention} {', '.join(one.declared for one in self.declared)}>"

    async def __aenter__(self) -> ObjectMaps:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give all handles back; the maps stay. Idempotent. Cancelled: they go with the session."""
        for one in self._maps:
            await one.aclose()

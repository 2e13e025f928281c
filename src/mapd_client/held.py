"""What element operations know of an open map: its handle, how to open it again, what its groups have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mapd_api.ops import MUTATES, Op
from mapd_client import replies
from mapd_client.codec import Codec
from mapd_client.errors import MapdError
from mapd_client.failures import Asked
from mapd_client.info import MapInfo
from mapd_client.refs import MapRef

if TYPE_CHECKING:
    from mapd_client.pipeline import Pipeline

ELEMENT_COST: Final = 256
"""Bytes of one waiting call beside its key and value: its future, its places in lists."""


class Tenure:
    """How long handles live: from the opening of a session to its end.

    A session outlives its streams; a daemon that forgot it, or another start of the daemon, ends the tenure
    and begins another.

    Attributes:
        session: what OpenMap and CreateMap are given.
        epoch: the daemon start it belongs to.
        boot: of the daemon's host, by which alone ids and names mean the same map; "" until known.
        ended: its handles are closed, or soon will be.
    """

    __slots__ = ("boot", "ended", "epoch", "session")

    def __init__(self, session: str, epoch: str) -> None:
        self.session = session
        self.boot = ""
        self.epoch = epoch
        self.ended = False


@dataclass(frozen=True, slots=True)
class Grip:
    """How an open map is held, as its opening gave it.

    Attributes:
        handle: the daemon's number for it.
        tenure: what the handle lives by; None where nobody told.
        ref: how to open it again; None where it has no name, pin or id to be found by.
        read_only: as it was opened.
        taken: told, once, who holds the map.
    """

    handle: int
    tenure: Tenure | None = None
    ref: MapRef | None = None
    read_only: bool = False
    taken: Callable[[Held], None] | None = None


class Held:
    """One open map, as the messages that name it see it; all views of it (``Map.typed``) share it.

    Attributes:
        handle: the daemon's number for it; another one once it was opened again.
        tenure, ref, read_only: as of Grip; the tenure is another one once it was opened again.
        info: the map as it was when it was opened.
        name: how the caller names it.
        shown_as: the codec that messages show keys by.
        closed: by its owner; it is not opened again.
        pipe: the pipeline of the event loop that asked last: nothing of it is looked up again for each call.
    """

    __slots__ = ("closed", "handle", "info", "name", "pipe", "read_only", "ref", "shown_as", "tenure")

    def __init__(self, grip: Grip, info: MapInfo, name: str, shown_as: Codec[Any]) -> None:
        self.handle = grip.handle
        self.info = info
        self.name = name
        self.shown_as = shown_as
        self.tenure = grip.tenure
        self.ref = grip.ref
        self.read_only = grip.read_only
        self.closed = False
        self.pipe: Pipeline | None = None
        if grip.taken is not None:
            grip.taken(self)

    def asked(self, op: int) -> Asked:
        """The operation, for messages."""
        kind = Op(op)
        return Asked(replies.asked_op(kind), self.name, mutates=kind in MUTATES)

    def element_error(
        self, op: int, status: int, errno: int, key: bytes, shown_as: Codec[Any] | None = None
    ) -> MapdError:
        """The exception for one element; ``shown_as`` is the codec of a view that shows keys by its own."""
        shown = f"key: {replies.key_text(key, shown_as or self.shown_as)}" if key else ""
        return replies.element_error(
            status, errno=errno, key=key, shown=shown, asked=self.asked(op), info=self.info
        )


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What the elements of one group have in common. Kept by the open map: groups compare them by identity.

    Attributes:
        held: the map.
        codec: of the values that are answered; None: as (status, bytes).
        value_bytes: of one answered value.
        map_id: of the map; what is asked of one map keeps its order.
        limit: elements of one group, whatever their operations; 0 where one may not fit into a message.
        weight: bytes of one element in a message, there or back, whichever is more.
        flags: BPF_F_LOCK or 0.
        touch: lookups refresh recency.
        cpu: this CPU's slot alone.
        field: offset and size of what atomics work on.
        create: atomics create absent keys.
        shown_as: the codec that messages show keys by; None: that of the map.
        cost: bytes that one element counts for while it waits to leave.
    """

    held: Held
    codec: Codec[Any] | None
    value_bytes: int
    map_id: int
    limit: int
    weight: int
    flags: int = 0
    touch: bool = False
    cpu: int | None = None
    field: tuple[int, int] | None = None
    create: bool = False
    shown_as: Codec[Any] | None = None
    cost: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cost", self.weight + ELEMENT_COST)

"""Handles: the numbers by which clients hold open maps, and who owns each."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from mapd.access.authorize import Authorized
from mapd.access.policy.model import Quotas, Subject
from mapd.access.principal import Principal
from mapd.access.quotas import Dimension, always
from mapd.maps.errors import MapError
from mapd.maps.opened import OpenMap
from mapd.runtime.shares import Shares
from mapd_api import limits
from mapd_api.ops import Verb
from mapd_api.reasons import Reason

_DEFAULT: Final = Quotas(handles=limits.HANDLES, streams=limits.SESSIONS)


@dataclass(slots=True, eq=False)
class Session:
    """A client's conversation; what it opened is closed when it ends."""

    id: str
    principal: Principal
    handles: set[int] = field(default_factory=set[int])


class Keep(Protocol):
    """Keeps an open map in the room that was reserved for it; its handle. ``by_id``: it was opened by kernel id."""

    def __call__(self, authorized: Authorized[OpenMap], *, by_id: bool = False) -> int:
        """Once."""
        ...


@dataclass(slots=True, eq=False)
class Handle:
    """One open map that a client holds.

    Attributes:
        rights: what was granted on it to its principal, by what was asked for; gone when it is closed. Taken by
            ``rights_under``.
        policy: the version of the policy that granted them.
        subject: the map as it is judged: all that it is called, as far as that was last looked at.
        by_id: it was opened by its kernel id.
        replaced: the kernel id of another map that the name or pin it was opened by leads to now; 0: none does.
        unpinned: the map had no pin when that was last looked at: it is judged by those that it had.
        used: clock when the last use ended.
        borrowers: uses under way.
    """

    opened: OpenMap
    principal: Principal
    session: Session | None
    used: float
    borrowers: int = 0
    rights: dict[frozenset[Verb], Authorized[OpenMap]] = field(
        default_factory=dict[frozenset[Verb], "Authorized[OpenMap]"]
    )
    policy: str = ""
    subject: Subject = field(default_factory=Subject)
    by_id: bool = False
    replaced: int = 0
    unpinned: bool = False

    def judge_as(self, subject: Subject) -> None:
        """The map is called so now: what was granted on it is decided anew where that is something else."""
        if subject != self.subject:
            self.subject = subject
            self.rights.clear()

    def rights_under(self, policy: str) -> dict[frozenset[Verb], Authorized[OpenMap]]:
        """What the policy of this version has granted; what another one did is forgotten."""
        if self.policy != policy:
            self.rights.clear()
            self.policy = policy
        return self.rights


class HandleTable:
    """Open maps by handle. Handles belong to one daemon start, one principal, and to one session if any.

    Args:
        shares: what each principal has and may have; this table counts handles and sessions there.
        clock: time.monotonic, or a test's.
    """

    def __init__(
        self,
        *,
        shares: Shares | None = None,
        idle_s: float = limits.HANDLE_IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handles: dict[int, Handle] = {}
        self._sessions: dict[str, Session] = {}
        self.shares: Final = shares or Shares(always(_DEFAULT))
        self._opened: Counter[Principal] = Counter()
        self._maps: Counter[int] = Counter()
        self._lent: set[Handle] = set()
        self._idle_s = idle_s
        self._clock = clock

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def sessions(self) -> int:
        """How many conversations are open."""
        return len(self._sessions)

    def open_session(self, principal: Principal) -> Session:
        """Begin a conversation; ``close_session`` ends it.

        Raises:
            MapError: QUOTA, the principal has all the streams that it may.
        """
        self.shares.take(principal, Dimension.STREAMS, "session")
        session = Session(secrets.token_hex(8), principal)
        self._sessions[session.id] = session
        return session

    def close_session(self, session: Session) -> None:
        """End it and close what it opened."""
        if self._sessions.pop(session.id, None) is not None:
            self.shares.give_back(session.principal, Dimension.STREAMS)
        for number in list(session.handles):
            self._close(number)

    def session(self, name: str, principal: Principal) -> Session | None:
        """The session a request names; None where it names none."""
        if not name:
            return None
        session = self._sessions.get(name)
        if session is None or session.principal != principal:
            raise MapError(
                Reason.STALE_HANDLE,
                f"session {name} is not open here (it ended, or the daemon was restarted); open a new one",
                operation="open",
            )
        return session

    @contextmanager
    def reserve(self, principal: Principal, session: Session | None) -> Generator[Keep]:
        """Room for one handle until the block ends, taken before anything is made for it.

        Gives the function that keeps a map there, once: ``add`` that no quota refuses any more.

        Raises:
            MapError: QUOTA, the principal holds all the handles it may, with both numbers.
        """
        self.shares.take(principal, Dimension.HANDLES, "open")
        with ExitStack() as room:
            room.callback(self.shares.give_back, principal, Dimension.HANDLES)
            yield partial(self._keep, session, room)

    def add(self, authorized: Authorized[OpenMap], session: Session | None) -> int:
        """Keep an open map; the table owns its fd from here on. Closes it if it cannot be kept."""
        try:
            with self.reserve(authorized.principal, session) as keep:
                return keep(authorized)
        except MapError:
            authorized.target.fd.close()
            raise

    def _keep(
        self,
        session: Session | None,
        room: ExitStack,
        authorized: Authorized[OpenMap],
        *,
        by_id: bool = False,
    ) -> int:
        """Raises STALE_HANDLE, and closes the map, where the session has ended. ``room`` is the handle's from here."""
        opened, principal = authorized.target, authorized.principal
        if session is not None and session.id not in self._sessions:
            opened.fd.close()
            raise MapError(Reason.STALE_HANDLE, f"session {session.id} ended while the map was opened")
        number = secrets.randbits(63) | 1
        kept = Handle(opened, principal, session, self._clock(), by_id=by_id)
        if authorized.subject is not None:
            kept.subject = authorized.subject
        self._handles[number] = kept
        self._maps[opened.facts.id] += 1
        room.pop_all()
        if session is not None:
            session.handles.add(number)
        return number

    def find(self, number: int, principal: Principal) -> Handle | None:
        """A handle, to look at in this turn of the loop; None also for another principal's."""
        handle = self._handles.get(number)
        return handle if handle is not None and handle.principal == principal else None

    def take(self, number: int, principal: Principal) -> Handle:
        """A handle to use until it is given back.

        Raises:
            MapError: STALE_HANDLE, also for another principal's handle.
        """
        handle = self.find(number, principal)
        if handle is None:
            raise MapError(
                Reason.STALE_HANDLE,
                f"handle {number:#x} is not open here: it was closed, its session ended, or the daemon was restarted; "
                "open the map again",
                operation="resolve",
            )
        handle.borrowers += 1
        return handle

    def give_back(self, handle: Handle) -> None:
        """End a use; the handle may have been closed meanwhile."""
        handle.borrowers -= 1
        handle.used = self._clock()

    @contextmanager
    def borrow(self, number: int, principal: Principal) -> Generator[Handle]:
        """A handle in use until the block ends. Raises as ``take``."""
        handle = self.take(number, principal)
        try:
            yield handle
        finally:
            self.give_back(handle)

    @contextmanager
    def lend(
        self, opened: OpenMap, principal: Principal, subject: Subject, *, by_id: bool
    ) -> Generator[Handle]:
        """A map that was opened for one call, as a handle without a number; closed when the block ends."""
        handle = Handle(opened, principal, None, self._clock(), subject=subject, by_id=by_id)
        self._lent.add(handle)
        try:
            yield handle
        finally:
            self._lent.discard(handle)
            opened.fd.close()

    def held(self) -> list[Handle]:
        """Every handle, and every map that is open for a call."""
        return [*self._handles.values(), *self._lent]

    @contextmanager
    def opening(self, principal: Principal) -> Generator[None]:
        """Count a map that is opened for one call, until the block ends.

        Raises:
            MapError: QUOTA, so many calls of the principal have one open already.
        """
        open_now = self._opened[principal]
        most = self.shares.limit(principal, Dimension.HANDLES)
        if most is not None and open_now >= most:
            raise MapError(
                Reason.QUOTA,
                f"open: {principal.name} has {open_now} calls under way that opened a map each, its limit is "
                f"{most}; open the map once and use its handle, or make fewer calls at once",
                operation="open",
                principal=principal.name,
                quota=Dimension.HANDLES.value,
                used=open_now,
                limit=most,
            )
        with _counted(self._opened, principal):
            yield

    def close(self, number: int, principal: Principal) -> None:
        """Give a handle back; one that is not open is none."""
        handle = self._handles.get(number)
        if handle is not None and handle.principal == principal:
            self._close(number)

    def close_idle(self) -> int:
        """Close handles without a session that no call used for ``idle_s``, and none is using; how many."""
        limit = self._clock() - self._idle_s
        idle = [
            number
            for number, handle in self._handles.items()
            if handle.session is None and not handle.borrowers and handle.used < limit
        ]
        for number in idle:
            self._close(number)
        return len(idle)

    def close_of(self, principal: Principal) -> None:
        """Close every handle of a principal. A use that is under way is finished first, as by ``close``."""
        for number in [number for number, held in self._handles.items() if held.principal == principal]:
            self._close(number)

    def holds(self, map_id: int) -> bool:
        """Whether a handle is open on this map; for any thread."""
        return map_id in self._maps

    def close_all(self) -> None:
        """Close every handle (the daemon stops)."""
        for number in list(self._handles):
            self._close(number)

    def __iter__(self) -> Iterator[OpenMap]:
        return iter([handle.opened for handle in self._handles.values()])

    def _close(self, number: int) -> None:
        handle = self._handles.pop(number)
        map_id = handle.opened.facts.id
        self._maps[map_id] -= 1
        if not self._maps[map_id]:
            del self._maps[map_id]
        self.shares.give_back(handle.principal, Dimension.HANDLES)
        handle.rights.clear()
        if handle.session is not None:
            handle.session.handles.discard(number)
        handle.opened.fd.close()


@contextmanager
def _counted(counts: Counter[Principal], principal: Principal) -> Generator[None]:
    """One more of the principal's in the block; who has none is forgotten."""
    counts[principal] += 1
    try:
        yield
    finally:
        counts[principal] -= 1
        if not counts[principal]:
            del counts[principal]

"""How the operations on an open map leave: in the session's messages, or as calls of their own.

They travel in the session where the daemon has the feature "session-apply"; an older one is asked by Apply, a call
for each message, and de-duplicates nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple

from mapd_api import limits
from mapd_api.ops import ATOMICS, Op
from mapd_api.uapi import ElementFlag
from mapd_api.v1 import elements_pb2
from mapd_client import batches, fates, methods, replies, requests, waiting
from mapd_client.batches import Batch
from mapd_client.codec import Codec
from mapd_client.errors import MapdError, Misuse, Unsupported
from mapd_client.groups import Bulk, Group, Singles
from mapd_client.healing import heals, renew
from mapd_client.held import Held, Terms
from mapd_client.info import ServerInfo
from mapd_client.link import Link, Links
from mapd_client.patience import TRIES
from mapd_client.pipeline import Pipeline
from mapd_client.replies import Outcome

_LEAST_S: Final = 0.001
"""What is left of a call's time when it is over: the daemon's answer or the connection's trouble is to say so."""

_OF_PROGRAMS: Final = ATOMICS | {Op.COMPARE_UPDATE}
"""Operations that need the feature "atomics"."""

_LOCKLESS: Final = ATOMICS | {Op.DELETE}
"""Operations that take no BPF_F_LOCK."""


class How(NamedTuple):
    """One operation and what else is asked with it.

    Attributes:
        op: the operation.
        lock: hold the bpf_spin_lock; None: where there is one.
        touch: let lookups refresh recency.
        cpu: this CPU's slot alone.
        field: offset and size of what atomics work on.
        create: atomics create absent keys.
        raw: answer (status, bytes) instead of what the map's codec makes of it.
    """

    op: Op
    lock: bool | None = None
    touch: bool = False
    cpu: int | None = None
    field: tuple[int, int] | None = None
    create: bool = False
    raw: bool = True


class Asking:
    """One open map, as its operations see it."""

    def __init__(self, links: Links, held: Held, answers: Codec[Any] | None = None) -> None:
        """``answers``: the codec of the values that operations answer."""
        self._links = links
        self._held = held
        self._shown_as = held.shown_as
        self._answers = answers
        # The terms of what was asked: nothing of this is looked up again for each call.
        self._plain: dict[int, Terms] = {}
        self._known: dict[How, Terms] = {}
        self._terms: dict[tuple[object, ...], Terms] = {}

    async def _link(self) -> Link:
        if self._held.closed:
            raise Misuse(f"{self._held.name}: this map is closed")
        return await self._links.current()

    def _ask(self, op: int, key: bytes, value: bytes = b"", timeout: float | None = None) -> Awaitable[Any]:
        """One element without further wishes: its decoded value, None where it is absent; else its status."""
        if timeout is not None:
            self._check_timeout(op, timeout)
        pipe = self._held.pipe
        if (
            pipe is not None
            and op in self._plain
            and pipe.home is asyncio.get_running_loop()
            and pipe.open_to_all
        ):
            return pipe.single(self._plain[op], op, key, value, timeout)
        return self._ask_slowly(How(Op(op), raw=False), key, value, timeout)

    async def _ask_as(self, how: How, key: bytes, value: bytes, timeout: float | None = None) -> Any:
        """One element; what is answered depends on ``how.raw``."""
        if timeout is not None:
            self._check_timeout(how.op, timeout)
        pipe = self._held.pipe
        terms = self._known.get(how)
        if (
            terms is not None
            and pipe is not None
            and pipe.home is asyncio.get_running_loop()
            and pipe.open_to_all
        ):
            return await pipe.single(terms, how.op, key, value, timeout)
        return await self._ask_slowly(how, key, value, timeout)

    async def _ask_slowly(self, how: How, key: bytes, value: bytes, timeout: float | None) -> Any:
        """The same where something has to be found out first, or waited for."""
        link = await self._link()
        call = _Clock(link.timeout if timeout is None else timeout)
        terms = self._terms_for(how, await link.server(call.left()))
        pipe = await link.pipeline(self._held.asked(how.op), call.left())
        if pipe is None:
            one = waiting.future()
            single = Singles(terms, 0, 0)
            single.add(how.op, key, value, one)
            await self._call(link, single, how.op, call.left())
            return await one
        if how._replace(op=Op.LOOKUP) == How(Op.LOOKUP, raw=False):
            self._plain[how.op] = terms
        self._held.pipe = pipe
        await self._room(pipe, terms, how.op, terms.cost, call)
        return await pipe.single(terms, how.op, key, value, call.left())

    def _ask_many(
        self, link: Link, how: How, batch: Batch, timeout: float | None = None
    ) -> asyncio.Future[Outcome]:
        """Many elements of one operation, as many as fit into a message."""
        pipe = self._held.pipe
        terms = self._known.get(how)
        if (
            terms is not None
            and pipe is not None
            and pipe.home is asyncio.get_running_loop()
            and pipe.open_to_all
        ):
            return pipe.bulk(terms, how.op, batch.count, batch.keys, batch.values, timeout)
        return waiting.begin(self._ask_many_slowly(link, how, batch, timeout))

    async def _ask_many_slowly(self, link: Link, how: How, batch: Batch, timeout: float | None) -> Outcome:
        """The same where something has to be found out first, or waited for."""
        call = _Clock(link.timeout if timeout is None else timeout)
        terms = self._known.get(how)
        if terms is None:
            terms = self._terms_for(how, await link.server(call.left()))
        pipe = await link.pipeline(self._held.asked(how.op), call.left())
        if pipe is None:
            all_of_it: asyncio.Future[Outcome] = waiting.future()
            bulk = Bulk(terms, 0, 0, how.op, batch.count, batch.keys, batch.values, all_of_it)
            await self._call(link, bulk, how.op, call.left())
            return await all_of_it
        self._held.pipe = pipe
        await self._room(pipe, terms, how.op, len(batch.keys) + len(batch.values), call)
        return await pipe.bulk(terms, how.op, batch.count, batch.keys, batch.values, call.left())

    async def _room(self, pipe: Pipeline, terms: Terms, op: Op, cost: int, call: _Clock) -> None:
        """Wait until what is queued is within its bound."""
        waiting = pipe.room(cost)
        if waiting is None:
            return
        timeout = call.left()
        try:
            async with asyncio.timeout(timeout):
                await waiting
        except TimeoutError:
            why = f"{pipe.queued} bytes of this client's calls wait to leave"
            raise fates.late(pipe.target, timeout, written=False, why=why)(terms.held.asked(op)) from None
        finally:
            pipe.come(waiting, cost)

    async def _call(self, link: Link, group: Group, op: Op, timeout: float) -> None:
        """A group as a call of its own; a map whose handle is stale is opened again."""
        asked = self._held.asked(op)
        patience = link.patience(asked, timeout)
        for tries in range(TRIES):
            handle, left = self._held.handle, patience.left()
            request = elements_pb2.ApplyRequest()
            group.write(request.groups.add(), requests.remaining_ms(left))
            response = await link.call(methods.APPLY, request, asked, left)
            if len(response.results) != 1:
                raise MapdError(f"{asked}: the daemon answered {len(response.results)} groups for 1")
            result = response.results[0]
            stale = result.HasField("error") and heals(replies.refusal(result.error, asked), self._held)
            if not stale or tries == TRIES - 1:
                group.take(result)
                return
            await renew(link, self._held, handle, asked, patience.left())

    # What is asked

    def _check_timeout(self, op: int, timeout: float) -> None:
        requests.seconds(f"{self._held.asked(op)}: timeout", timeout)

    def _terms_for(self, how: How, server: ServerInfo) -> Terms:
        """What operations of this kind have in common; checks what the daemon offers.

        Raises:
            Unsupported: not by this daemon, or not of this map.
            SizeMismatch: an element that no message carries.
        """
        asked = self._held.asked(how.op)
        if how.touch:
            requests.check_touch(server, self._held.name)
        if how.cpu is not None:
            requests.check_cpu(server, how.cpu, asked)
        if how.op in _OF_PROGRAMS:
            requests.check_atomics(server, asked)
        batches.message_elements(how.op, self._held.info, server.limits, asked)
        lock = self._locks(how.op, how.lock)
        value = self._value_bytes(how.cpu) if how.field is None else how.field[1]
        taken = 2 * value if how.op in batches.TAKES_TWO else value
        same = (lock, how.touch, how.cpu, how.field, how.create, how.raw, taken)
        terms = self._terms.get(same)
        if terms is None:
            weight = max(self._held.info.key_stride + taken, 1 + value)
            budget = min(limits.COLUMN_BYTES, server.limits.message_bytes - batches.ENVELOPE)
            terms = self._terms[same] = Terms(
                self._held,
                None if how.raw else self._answers,
                value,
                self._held.info.id,
                min(server.limits.batch_elements, budget // weight),
                weight,
                flags=ElementFlag.LOCK if lock else 0,
                touch=how.touch,
                cpu=how.cpu,
                field=how.field,
                create=bool(how.create),
                shown_as=self._shown_as,
            )
        self._known[how] = terms
        return terms

    def _value_bytes(self, cpu: int | None) -> int:
        """Bytes of one value on the wire: all of it, or one CPU's slot."""
        return self._held.info.value_stride if cpu is None else self._held.info.value_size

    def _locks(self, op: Op, lock: bool | None) -> bool:
        """Whether an operation holds the bpf_spin_lock: where there is one, unless told otherwise."""
        if lock and not self._held.info.has_lock:
            asked = self._held.asked(op)
            raise Unsupported(
                f"{asked}: lock=True, and the map has no lock: it was not created with BTF of a value with a "
                "bpf_spin_lock",
                operation=asked.operation,
                map=asked.map,
            )
        return self._held.info.has_lock and op not in _LOCKLESS if lock is None else lock


class _Clock:
    """The time of one call, which begins now."""

    __slots__ = ("_end",)

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Seconds that are left, for each of its steps."""
        return max(self._end - time.monotonic(), _LEAST_S)

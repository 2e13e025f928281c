"""One call of every method of the contract, by the contract's own messages; some of them given up in the middle."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mapd_api import contract
from mapd_api.ops import Op
from mapd_api.v1 import access_pb2, host_pb2, leases_pb2
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MAP_TYPE_ARRAY_OF_MAPS, MAP_TYPE_HASH, VERB_READ, Columns, MapRef
from tests.support.rawsession import RawSession, group

METHODS: Final = {method.name: method for service in contract.SERVICES for method in service.methods}

ELEMENTS: Final = 2_000
"""In the map that is dumped: a chunk has less of it than all."""

KEY, VALUE = (1).to_bytes(4, "little"), (2).to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Names:
    """Of one round, so that several clients can go round beside each other.

    Attributes:
        mine: a map that the round makes, renames and takes the name of.
        pins: a folder of pins.
        session: that its handles end with.
    """

    mine: str
    pins: str
    session: str = ""

    def ref(self) -> MapRef:
        """The round's own map."""
        return MapRef(name=self.mine)


STANDING: Final = MapRef(name="standing")
OUTER: Final = MapRef(name="outer")


def _create(name: str, *, session: str = "", max_entries: int = 16) -> maps.CreateMapRequest:
    return maps.CreateMapRequest(
        type=MAP_TYPE_HASH,
        key_size=4,
        value_size=8,
        max_entries=max_entries,
        named=maps.Named(name=name),
        session=session,
    )


def _outer() -> maps.CreateMapRequest:
    named = maps.Named(name="outer")
    kind = MAP_TYPE_ARRAY_OF_MAPS
    return maps.CreateMapRequest(
        type=kind, key_size=4, value_size=4, max_entries=1, named=named, inner=STANDING
    )


def _lease(names: Names) -> str:
    return f"lease-{names.mine}"


def _leased(names: Names) -> maps.CreateMapRequest:
    lease = maps.Lease(id=_lease(names), ttl=Duration(seconds=60), name=f"{names.mine}-l")
    return maps.CreateMapRequest(
        type=MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=16, lease=lease, session=names.session
    )


def _loaded() -> list[Message]:
    keys = b"".join(number.to_bytes(4, "little") for number in range(ELEMENTS))
    columns = Columns(count=ELEMENTS, keys=keys, values=VALUE * ELEMENTS)
    return [pb.LoadRequest(map=STANDING), pb.LoadRequest(columns=columns)]


Build = Callable[[Names], Message | Sequence[Message]]

ROUND: Final[Sequence[tuple[str, Build]]] = (
    ("GetServerInfo", lambda _: maps.GetServerInfoRequest()),
    ("WhoAmI", lambda _: access_pb2.WhoAmIRequest()),
    ("Explain", lambda _: access_pb2.ExplainRequest(verb=VERB_READ, map=STANDING)),
    ("GetHostInfo", lambda _: host_pb2.GetHostInfoRequest(all_devices=True)),
    ("CreateMap", lambda names: _create(names.mine, session=names.session)),
    ("OpenMap", lambda names: maps.OpenMapRequest(map=names.ref(), session=names.session)),
    ("GetMap", lambda names: maps.GetMapRequest(map=names.ref())),
    ("Update", lambda names: pb.UpdateRequest(map=names.ref(), key=KEY, value=VALUE)),
    ("Lookup", lambda names: pb.LookupRequest(map=names.ref(), key=KEY)),
    ("Apply", lambda names: pb.ApplyRequest(groups=[group(names.ref(), Op.LOOKUP, KEY, KEY)])),
    ("GetNextKey", lambda _: pb.GetNextKeyRequest(map=STANDING)),
    ("CountEntries", lambda _: pb.CountEntriesRequest(map=STANDING)),
    ("Delete", lambda names: pb.DeleteRequest(map=names.ref(), key=KEY)),
    ("UpdateReference", lambda names: pb.UpdateReferenceRequest(map=OUTER, key=bytes(4), inner=names.ref())),
    ("ListMaps", lambda _: maps.ListMapsRequest(pins=True)),
    ("ListMapStats", lambda _: maps.ListMapStatsRequest()),
    ("PinMap", lambda names: maps.PinMapRequest(map=names.ref(), path=f"{names.pins}/{names.mine}")),
    ("UnpinMap", lambda names: maps.UnpinMapRequest(map=MapRef(pin=f"{names.pins}/{names.mine}"))),
    ("RenameMap", lambda names: maps.RenameMapRequest(name=names.mine, new_name=f"{names.mine}-2")),
    ("RenameMap", lambda names: maps.RenameMapRequest(name=f"{names.mine}-2", new_name=names.mine)),
    ("GetBtf", lambda names: maps.GetBtfRequest(map=names.ref())),
    ("FreezeMap", lambda names: maps.FreezeMapRequest(map=names.ref())),
    ("Load", lambda _: _loaded()),
    ("Dump", lambda _: pb.DumpRequest(map=STANDING)),
    ("Session", lambda _: [pb.SessionRequest(open=pb.SessionOpen())]),
    ("CreateMap", _leased),
    ("LeaseKeepAlive", lambda names: leases_pb2.LeaseKeepAliveRequest(lease=_lease(names))),
    ("LeaseTimeToLive", lambda names: leases_pb2.LeaseTimeToLiveRequest(lease=_lease(names))),
    ("LeaseRevoke", lambda names: leases_pb2.LeaseRevokeRequest(lease=_lease(names))),
    ("CloseMap", lambda _: maps.CloseMapRequest(handle=1)),
    ("UnpinMap", lambda names: maps.UnpinMapRequest(map=names.ref())),
)
"""In an order in which each finds what it needs, unless one before it was given up."""


LIGHT: Final[Sequence[tuple[str, Callable[[Names], Message]]]] = (
    ("GetServerInfo", lambda _: maps.GetServerInfoRequest()),
    ("WhoAmI", lambda _: access_pb2.WhoAmIRequest()),
    ("Lookup", lambda _: pb.LookupRequest(map=STANDING, key=KEY)),
    ("Update", lambda _: pb.UpdateRequest(map=STANDING, key=KEY, value=VALUE)),
    ("Apply", lambda _: pb.ApplyRequest(groups=[group(STANDING, Op.LOOKUP, KEY, KEY)])),
)

TOGETHER: Final = 16


def left_out() -> set[str]:
    """Methods of the contract that a round has no call of."""
    return METHODS.keys() - {name for name, _ in ROUND}


@dataclass(slots=True)
class Rounds:
    """Goes round over one connection.

    Attributes:
        cancels: which part of the calls is given up.
        between: calls of the light methods in each round, besides.
        answered: how often each method ended with each status.
        calls: made so far.
    """

    channel: grpc.aio.Channel
    choice: random.Random
    cancels: float = 0.0
    between: int = 0
    answered: Counter[tuple[str, grpc.StatusCode]] = field(
        default_factory=Counter[tuple[str, grpc.StatusCode]]
    )
    calls: int = 0

    async def prepare(self) -> None:
        """What every round finds: a map with elements, and one of maps."""
        await self.call("CreateMap", [_create("standing", max_entries=2 * ELEMENTS)])
        await self.call("Load", _loaded())
        await self.call("CreateMap", [_outer()])
        assert set(self.answered) == {(name, grpc.StatusCode.OK) for name in ("CreateMap", "Load")}, (
            self.answered
        )

    async def go(self, names: Names) -> None:
        """Each method once; handles live as long as the round."""
        session = await RawSession.open(self.channel)
        try:
            await self._go(replace(names, session=session.opened.session))
        finally:
            await session.stream.done_writing()
            while await session.stream.read() is not grpc.aio.EOF:
                pass

    async def _go(self, names: Names) -> None:
        for name, build in ROUND:
            made = build(names)
            given_up = self.choice.random() < self.cancels
            turns = self.choice.randrange(20) if given_up else None
            await self.call(name, [made] if isinstance(made, Message) else made, cancel_after=turns)
        for _ in range(self.between // TOGETHER):
            chosen = [self.choice.choice(LIGHT) for _ in range(TOGETHER)]
            await asyncio.gather(*(self.call(name, [build(names)]) for name, build in chosen))
        # What a round that was given up in the middle has left behind.
        for name in (names.mine, f"{names.mine}-2"):
            await self.call("UnpinMap", [maps.UnpinMapRequest(map=MapRef(name=name))])
        await self.call("UnpinMap", [maps.UnpinMapRequest(map=MapRef(pin=f"{names.pins}/{names.mine}"))])
        await self.call("LeaseRevoke", [leases_pb2.LeaseRevokeRequest(lease=_lease(names))])

    async def call(self, name: str, requests: Sequence[Message], *, cancel_after: int | None = None) -> None:
        """One call to its end, or given up after so many turns of the loop."""
        method = METHODS[name]
        self.calls += 1
        call = begin(self.channel, method, requests)
        reading = asyncio.ensure_future(_until_end(call, streamed=method.server_streaming))
        if cancel_after is not None:
            for _ in range(cancel_after):
                await asyncio.sleep(0)
            call.cancel()
        try:
            await reading
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            if cancel_after is None:
                raise
        self.answered[name, await call.code()] += 1


def begin(channel: grpc.aio.Channel, method: Any, requests: Sequence[Message]) -> Any:
    """A call of any kind."""
    kinds: Mapping[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    answer: Any = GetMessageClass(method.output_type)
    made = kinds[method.client_streaming, method.server_streaming](
        contract.full_name(method),
        request_serializer=_encoded,
        response_deserializer=answer.FromString,
    )
    return made(iter_of(requests) if method.client_streaming else requests[0], timeout=30)


def _encoded(message: Message) -> bytes:
    return message.SerializeToString()


def iter_of(requests: Sequence[Message]) -> Iterator[Message]:
    """The messages of a stream, which ends behind them."""
    return iter(requests)


async def _until_end(call: Any, *, streamed: bool) -> None:
    if not streamed:
        await call
        return
    async for _ in call:
        pass

"""A pipeline without I/O: a clock that the test sets, and a daemon that is a function over dicts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, errors_pb2
from mapd_client import replies
from mapd_client.codec import U32, U64, Codec
from mapd_client.held import Grip, Held, Tenure, Terms
from mapd_client.pipeline import Pipeline
from mapd_client.refs import Name
from tests.unit.mapd_client.daemon import map_info

TIMEOUT = 30.0


class World:
    """What a pipeline needs, and what it asked for."""

    def __init__(self) -> None:
        self.time = 100.0
        self.roused = 0
        self.alarms: list[float] = []
        self.to_reopen: list[Held] = []

    def now(self) -> float:
        return self.time

    def rouse(self) -> None:
        self.roused += 1

    def alarm(self, when: float) -> None:
        self.alarms.append(when)

    def reopen(self, held: Held) -> None:
        self.to_reopen.append(held)


def held(number: int, tenure: Tenure | None = None) -> Held:
    info = map_info(f"ns/map{number}")
    info.id = number
    grip = Grip(1000 + number, tenure, Name(f"map{number}"))
    return Held(grip, replies.map_info(info), f"map{number}", U32)


def terms(of: Held, *, limit: int = 100, codec: Codec[int] | None = U64) -> Terms:
    return Terms(of, codec, 8, of.info.id, limit, 12)


@dataclass
class Scripted:
    """A daemon: executes a message when it arrives, and keeps the answer."""

    maps: dict[int, dict[bytes, bytes]] = field(default_factory=dict[int, dict[bytes, bytes]])
    executed: list[tuple[int, Op, bytes]] = field(default_factory=list[tuple[int, Op, bytes]])

    def arrive(self, request: elements_pb2.SessionRequest) -> elements_pb2.ApplyResponse:
        answer = elements_pb2.ApplyResponse(stamp=request.apply.stamp)
        for group in request.apply.groups:
            self._group(group, answer.results.add())
        return answer

    def _group(self, group: elements_pb2.OpGroup, result: elements_pb2.GroupResult) -> None:
        data = self.maps.setdefault(group.map.handle, {})
        ops = group.ops * (group.count if len(group.ops) == 1 else 1)
        statuses, answers, taken = bytearray(), bytearray(), 0
        for at, byte in enumerate(ops):
            op, key, value = Op(byte), group.keys[at * 4 : at * 4 + 4], b""
            if op in TAKES_VALUE:
                value = group.values[taken * 8 : taken * 8 + 8]
                taken += 1
            self.executed.append((group.map.handle, op, key))
            status, answer = _element(data, op, key, value)
            statuses.append(status)
            if op in ANSWERS_VALUE:
                answers += answer or bytes(8)
        assert taken * 8 == len(group.values)
        assert len(ops) == group.count
        result.statuses, result.values = bytes(statuses), bytes(answers)


def _element(data: dict[bytes, bytes], op: Op, key: bytes, value: bytes) -> tuple[Reason, bytes]:
    match op:
        case Op.UPDATE_NOEXIST if key in data:
            return Reason.KEY_EXISTS, b""
        case Op.UPDATE_EXIST if key not in data:
            return Reason.KEY_MISSING, b""
        case Op.UPDATE | Op.UPDATE_NOEXIST | Op.UPDATE_EXIST:
            data[key] = value
            return Reason.DONE, b""
        case _ if key not in data:
            return Reason.KEY_ABSENT, b""
        case Op.LOOKUP:
            return Reason.DONE, data[key]
        case _:
            return Reason.DONE, data.pop(key)


def connected(world: World, *, slots: int = 2) -> tuple[Pipeline, Tenure]:
    """A pipeline whose stream is open."""
    pipeline = Pipeline(world, asyncio.get_running_loop(), "unix:/x", TIMEOUT)
    tenure = Tenure("s1", "e1")
    pipeline.begun(tenure, slots)
    return pipeline, tenure


def key(number: int) -> bytes:
    return U32.encode(number)


def value(number: int) -> bytes:
    return U64.encode(number)


def groups(request: elements_pb2.SessionRequest | None) -> list[tuple[int, int, bytes]]:
    assert request is not None
    return [(group.map.handle, group.count, group.ops) for group in request.apply.groups]


def sent(pipeline: Pipeline) -> elements_pb2.SessionRequest:
    request = pipeline.next()
    assert request is not None
    return request


def refusal(request: elements_pb2.SessionRequest, reason: Reason) -> elements_pb2.ApplyResponse:
    answer = elements_pb2.ApplyResponse(stamp=request.apply.stamp)
    answer.error.reason = errors_pb2.Reason.Name(int(reason))  # type: ignore[assignment]  # by its name
    answer.error.message = "no"
    return answer

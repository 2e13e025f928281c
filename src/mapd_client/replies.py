"""The daemon's answers, read into plain values. Sans-I/O: a blocking client shares it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from mapd_api.ops import Op
from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import MapFlag, MapType
from mapd_api.v1 import elements_pb2, errors_pb2, maps_pb2, types_pb2
from mapd_client import failures
from mapd_client.chunk import Chunk
from mapd_client.codec import Bytes, Codec
from mapd_client.errors import BatchFailed, DumpIncomplete, MapdError
from mapd_client.failures import Asked
from mapd_client.info import (
    Count,
    Lease,
    Limits,
    MapInfo,
    MapPage,
    ProcessHolder,
    ProgramHolder,
    ServerInfo,
    Trailer,
    TypeAnswer,
)
from mapd_client.requests import DumpColumns

_ITERATION: Final[Mapping[int, str]] = MappingProxyType(
    {
        types_pb2.ITERATION_EXACT: "exact",
        types_pb2.ITERATION_BEST_EFFORT: "best_effort",
        types_pb2.ITERATION_NONE: "none",
    }
)


_TYPE_ANSWERS: Final[Mapping[int, TypeAnswer]] = MappingProxyType(
    {maps_pb2.TRIAL_ANSWER_OK: "ok", maps_pb2.TRIAL_ANSWER_REFUSED: "refused"}
)


def server_info(message: maps_pb2.ServerInfo) -> ServerInfo:
    """As it came; a limit that the daemon does not name is this library's own."""
    limits = message.limits
    own = Limits()
    return ServerInfo(
        version=message.version,
        epoch=message.epoch,
        boot_id=message.boot_id,
        node=message.node,
        kernel_release=message.kernel_release,
        byteorder="big" if message.byteorder == "big" else "little",
        possible_cpus=message.possible_cpus,
        features=frozenset(message.features),
        limits=Limits(
            message_bytes=limits.message_bytes or own.message_bytes,
            chunk_bytes=limits.chunk_bytes or own.chunk_bytes,
            batch_elements=limits.batch_elements or own.batch_elements,
            groups=limits.groups or own.groups,
            handles=limits.handles or own.handles,
        ),
        profile=message.profile,
        backend=message.backend,
        principal=message.principal,
        namespace=message.namespace,
        pin_root=message.pin_root,
        types=MappingProxyType(
            {
                MapType(number).name.lower(): _TYPE_ANSWERS.get(int(one.answer), "unknown")
                for one in message.types
                if (number := int(one.type)) in MapType.__members__.values()
            }
        ),
        programs=frozenset(message.programs),
    )


def map_info(message: types_pb2.MapInfo) -> MapInfo:
    """As it came; a map type that is newer than this library stays a number."""
    number = int(message.type)
    known = number in MapType.__members__.values()
    return MapInfo(
        id=message.id,
        type=MapType(number) if known else number,
        key_size=message.key_size,
        value_size=message.value_size,
        max_entries=message.max_entries,
        flags=MapFlag(message.map_flags),
        frozen=message.frozen,
        name=message.name,
        kernel_name=message.kernel_name,
        pin_path=message.pin_path,
        key_stride=message.key_stride,
        value_stride=message.value_stride,
        map_extra=message.map_extra,
        btf_id=message.btf_id,
        btf_key_type_id=message.btf_key_type_id,
        btf_value_type_id=message.btf_value_type_id,
        memlock_bytes=message.memlock_bytes,
        supported_operations=frozenset(message.supported_operations),
        iteration=_ITERATION.get(int(message.iteration), ""),
        pins=tuple(message.pins),
        has_lock=message.has_lock,
        holders=tuple(holder(one) for one in message.holders),
        lease=lease(message.lease) if message.HasField("lease") else None,
    )


def lease(message: types_pb2.MapLease) -> Lease:
    """What keeps a map that has no name."""
    return Lease(message.ttl.ToMilliseconds() / 1_000, message.id)


def holder(message: types_pb2.Holder) -> ProcessHolder | ProgramHolder:
    """Who keeps a map alive."""
    if message.HasField("process"):
        return ProcessHolder(pid=message.process.pid, comm=message.process.comm)
    return ProgramHolder(id=message.program.id, name=message.program.name)


def count(message: elements_pb2.CountEntriesResponse) -> Count:
    """As it came."""
    return Count(entries=message.entries, exact=message.exact, method=message.method)


def map_page(message: maps_pb2.ListMapsResponse) -> MapPage:
    """One page of a listing."""
    return MapPage(
        maps=tuple(map_info(one) for one in message.maps),
        sources=tuple(message.sources),
        not_looked_at=tuple(message.not_looked_at),
        next_token=message.next_page_token,
    )


def reason(number: int) -> Reason:
    """A reason by its number; one that is newer than this library reads as INTERNAL."""
    return Reason(number) if number in Reason.__members__.values() else Reason.INTERNAL


def refusal(error: errors_pb2.Error, asked: Asked) -> MapdError:
    """The exception for an Error inside an answer."""
    retry = error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None
    found = Refusal(reason(int(error.reason)), error.message, dict(error.metadata))
    return failures.of_refusal(found, asked, retry_after=retry)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one group.

    Attributes:
        statuses: a Reason a byte for each element.
        values: value_stride bytes for each element, where the operation answers values.
        errnos: Linux's numbers, for the first sixteen elements that failed.
    """

    statuses: bytes
    values: bytes
    errnos: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def absent(self) -> int:
        """How many keys were not there."""
        return self.statuses.count(Reason.KEY_ABSENT)

    def failed(self) -> list[int]:
        """The elements that were refused, in order; a key that is not there is no failure."""
        if self.statuses.count(Reason.DONE) + self.absent == len(self.statuses):
            return []
        answers = (Reason.DONE, Reason.KEY_ABSENT)
        return [at for at, status in enumerate(self.statuses) if status not in answers]


def outcome(response: elements_pb2.ApplyResponse, *, count: int, value_bytes: int, asked: Asked) -> Outcome:
    """The result of the only group of a message.

    Args:
        response: the answer.
        count: elements that were sent.
        value_bytes: value_stride if the operation answers values, else 0.
        asked: for the message of an error.

    Raises:
        MapdError: the class of the group's refusal; or an answer that does not fit the question.
    """
    if len(response.results) != 1:
        raise MapdError(f"{asked}: the daemon answered {len(response.results)} groups for 1")
    result = response.results[0]
    if result.HasField("error"):
        raise refusal(result.error, asked)
    if len(result.statuses) != count or len(result.values) != count * value_bytes:
        raise MapdError(
            f"{asked}: the daemon answered {len(result.statuses)} statuses and {len(result.values)} bytes "
            f"of values for {count} elements of {value_bytes}",
            operation=asked.operation,
            map=asked.map,
        )
    errnos = {one.index: one.errno for one in result.errors}
    return Outcome(result.statuses, result.values, errnos)


_ELEMENT_TEXT: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.KEY_ABSENT: "no such key",
        Reason.KEY_EXISTS: 'the key exists and flags="noexist"',
        Reason.KEY_MISSING: 'no such key and flags="exist"',
        Reason.MAP_FULL: "full, {max_entries} of max_entries={max_entries}; remove elements or create a larger map",
        Reason.BAD_COLUMNS: "the kernel refuses this key or value{hint}",
        Reason.BAD_FLAGS: "lock=True needs a bpf_spin_lock in the value, and its BTF",
        Reason.KERNEL_MEMORY: "the kernel has no memory for another element",
        Reason.INDEX_OUT_OF_RANGE: "index out of range: max_entries={max_entries}, so indexes go from 0 to {last}",
        Reason.MAP_FROZEN: "the map is frozen: no writes from user space",
        Reason.READ_ONLY: "it was opened read-only",
        Reason.OPERATION_UNSUPPORTED: "not with a map of type {type}",
        Reason.BUSY: "the kernel was busy three times; nothing was executed",
        Reason.EXPIRED: "the time was over before it was executed",
        Reason.OUTCOME_UNKNOWN: "it may have been executed",
        Reason.POLICY: "the policy does not allow you this key, and nothing was executed; whoami() says who you are",
    }
)


def key_text(key: bytes, codec: Codec[Any]) -> str:
    """A key for a message: as the caller writes it, and its bytes; cut where it is long."""
    shown = _cut(key.hex(), 32)
    if isinstance(codec, Bytes):
        return shown
    try:
        return f"{_cut(repr(codec.decode(key)), 60)} ({shown})"
    except Exception:  # a codec of the caller's own; the message is about something else
        return shown


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[:width]}..."


def element_error(
    status: int, *, errno: int, key: bytes, asked: Asked, info: MapInfo, shown: str = ""
) -> MapdError:
    """The exception for one element.

    Args:
        status: its byte of the status column.
        errno: Linux's number, 0 if it was not told.
        key: the element's key, for the message.
        asked: operation and map.
        info: the map, for its numbers.
        shown: what the message says of the key.
    """
    why = reason(status)
    text = _ELEMENT_TEXT.get(why, why.name.lower().replace("_", " "))
    text = text.format(
        max_entries=info.max_entries, last=info.max_entries - 1, type=info.type_name, hint=_hint(info)
    )
    name = f" [{failures.errno_name(errno)}]" if errno else ""
    return failures.CLASSES[why](
        f"{asked}: {text}{f'; {shown}' if shown else ''}{name}",
        reason=why,
        errno=errno or None,
        operation=asked.operation,
        map=asked.map,
        metadata={"key": key.hex(), "max_entries": str(info.max_entries), "map_type": info.type_name},
    )


def _hint(info: MapInfo) -> str:
    """What EINVAL most likely is about."""
    if info.type == MapType.LPM_TRIE:
        return f"; is the prefix longer than {(info.key_size - 4) * 8} bits?"
    return ""


def load_result(response: elements_pb2.LoadResponse, asked: Asked, info: MapInfo) -> int:
    """How many elements were written; raises BatchFailed if some were not."""
    if not response.failed:
        return response.applied
    errors = {
        one.index: element_error(int(one.reason), errno=one.errno, key=b"", asked=asked, info=info)
        for one in response.errors
    }
    raise batch_failed(response.applied, errors, asked, failed=response.failed)


def load_stopped(error: MapdError, asked: Asked) -> BatchFailed | None:
    """The exception for a load that was refused in the middle, None if nothing had been done before.

    The daemon says in the refusal's metadata how many elements it had written and refused by then.
    """
    if isinstance(error, BatchFailed):  # not the daemon's: the source raised it
        return None
    applied, failed = (_number(error.metadata.get(name, "")) for name in ("applied", "failed"))
    if not applied + failed:
        return None
    return batch_failed(applied, {}, asked, failed=failed, cause=error, sent=applied + failed)


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) else 0


def batch_failed(
    applied: int,
    errors: Mapping[int, MapdError],
    asked: Asked,
    *,
    failed: int | None = None,
    cause: MapdError | None = None,
    sent: int | None = None,
) -> BatchFailed:
    """The exception for a batch of which some elements failed; names the first.

    Args:
        applied: elements written.
        errors: by the elements' places.
        asked: operation and map.
        failed: elements not written; as many as ``errors`` if None.
        cause: what ended the call before its end.
        sent: elements that left this process; all that are counted if None.
    """
    number = len(errors) if failed is None else failed
    total = applied + number if sent is None else sent
    at, first = next(iter(errors.items()), (0, None))
    text = f"{asked}: {number} elements failed, {applied} were written"
    if first is not None and first is not cause:
        text += f"; element {at}: {first}"
    if cause is not None:
        text += f"; nothing after element {total - 1} was sent, because of {type(cause).__name__}: {cause}"
    return BatchFailed(
        text,
        applied=applied,
        errors=errors,
        failed=number,
        cause=cause,
        sent=total,
        operation=asked.operation,
        map=asked.map,
        metadata={"applied": str(applied), "failed": str(number)},
    )


def _when(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def trailer(message: elements_pb2.DumpTrailer) -> Trailer:
    """As it came."""
    return Trailer(
        entries=message.entries,
        complete=message.complete,
        incomplete_reason=message.incomplete_reason,
        method=message.method,
        restarts=message.restarts,
        duplicates_suppressed=message.duplicates_suppressed,
        started_at=_when(message.started_at),
        ended_at=_when(message.ended_at),
        map_id=message.map_id,
        epoch=message.epoch,
    )


class DumpReader:
    """A dump's messages in order: header, chunks, trailer.

    Attributes:
        trailer: None until it came.
        started: whether anything came.
    """

    trailer: Trailer | None
    started: bool

    def __init__(
        self,
        asked: Asked,
        *,
        columns: DumpColumns = "both",
        key_stride: int,
        value_stride: int,
        key: Codec[Any] | None = None,
        value: Codec[Any] | None = None,
    ) -> None:
        """Bytes of the strides where there are no codecs."""
        self._asked = asked
        self._columns = columns
        self._key_stride = key_stride
        self._key = key or Bytes(key_stride)
        self.expect(value_stride, value or Bytes(value_stride))
        self.trailer = None
        self.started = False

    def expect(self, value_stride: int, value: Codec[Any]) -> None:
        """Values of so many bytes and this codec, before anything has come."""
        self._value_stride = value_stride
        self._value = value

    def feed(self, message: elements_pb2.DumpResponse) -> Chunk | None:
        """The chunk in a message, if it is one; raises MapdError for columns of another length."""
        self.started = True
        match message.WhichOneof("message"):
            case "header":
                self._check_header(message.header)
                return None
            case "chunk":
                return self._chunk(message.chunk)
            case "trailer":
                self.trailer = trailer(message.trailer)
                return None
            case _:
                return None

    def incomplete(self, token: bytes) -> DumpIncomplete | None:
        """The exception for the stream's end, None if the daemon calls the dump complete."""
        if self.trailer is None:
            return self.broken("the stream ended without a trailer", token)
        if self.trailer.complete:
            return None
        why = self.trailer.incomplete_reason or "the daemon did not say why"
        return DumpIncomplete(
            f"{self._asked}: incomplete after {self.trailer.entries} elements: {why}; "
            "partial_ok=True accepts that",
            trailer=self.trailer,
            token=token,
            operation=self._asked.operation,
            map=self._asked.map,
        )

    def broken(self, why: str, token: bytes) -> DumpIncomplete:
        """The exception for a stream that broke."""
        hint = "; resume=token goes on after the last whole chunk" if token else ""
        return DumpIncomplete(
            f"{self._asked}: {why}{hint}",
            token=token,
            operation=self._asked.operation,
            map=self._asked.map,
        )

    def _check_header(self, message: elements_pb2.DumpHeader) -> None:
        """Values of the width that was asked for; an older daemon does not say."""
        if message.value_bytes not in (0, self._value_stride):
            raise MapdError(
                f"{self._asked}: the daemon announced values of {message.value_bytes} bytes, {self._value_stride} are "
                "due"
            )

    def _chunk(self, message: elements_pb2.DumpChunk) -> Chunk:
        columns = message.columns
        keys, values = columns.keys, columns.values
        # Nothing, where a column was not asked for.
        for column, stride in (
            (keys, 0 if self._columns == "values" else self._key_stride),
            (values, 0 if self._columns == "keys" else self._value_stride),
        ):
            if len(column) != columns.count * stride:
                raise MapdError(
                    f"{self._asked}: the daemon sent a column of {len(column)} bytes for {columns.count} "
                    f"elements of {stride}"
                )
        return Chunk(
            count=columns.count,
            keys=memoryview(keys),
            values=memoryview(values),
            key_stride=self._key_stride,
            value_stride=self._value_stride,
            token=message.token,
            key_codec=self._key,
            value_codec=self._value,
        )


def asked_op(op: Op) -> str:
    """An operation as messages call it: "update" and "push" whatever their flag."""
    return op.name.lower().removesuffix("_noexist").removesuffix("_exist")

import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from mapd_api.v1 import errors_pb2 as _errors_pb2
from mapd_api.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Op(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OP_UNSPECIFIED: _ClassVar[Op]
    OP_LOOKUP: _ClassVar[Op]
    OP_UPDATE: _ClassVar[Op]
    OP_UPDATE_NOEXIST: _ClassVar[Op]
    OP_UPDATE_EXIST: _ClassVar[Op]
    OP_DELETE: _ClassVar[Op]
    OP_LOOKUP_AND_DELETE: _ClassVar[Op]
    OP_PUSH: _ClassVar[Op]
    OP_PUSH_EXIST: _ClassVar[Op]
    OP_POP: _ClassVar[Op]
    OP_PEEK: _ClassVar[Op]
    OP_ADD: _ClassVar[Op]
    OP_CONTAINS: _ClassVar[Op]
    OP_LOOKUP_EXACT: _ClassVar[Op]
    OP_FETCH_ADD: _ClassVar[Op]
    OP_FETCH_AND: _ClassVar[Op]
    OP_FETCH_OR: _ClassVar[Op]
    OP_FETCH_XOR: _ClassVar[Op]
    OP_EXCHANGE: _ClassVar[Op]
    OP_COMPARE_EXCHANGE: _ClassVar[Op]
    OP_COMPARE_UPDATE: _ClassVar[Op]

class UpdateFlag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPDATE_FLAG_UNSPECIFIED: _ClassVar[UpdateFlag]
    UPDATE_FLAG_ANY: _ClassVar[UpdateFlag]
    UPDATE_FLAG_NOEXIST: _ClassVar[UpdateFlag]
    UPDATE_FLAG_EXIST: _ClassVar[UpdateFlag]

class DumpColumns(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DUMP_COLUMNS_UNSPECIFIED: _ClassVar[DumpColumns]
    DUMP_COLUMNS_KEYS: _ClassVar[DumpColumns]
    DUMP_COLUMNS_VALUES: _ClassVar[DumpColumns]

class ReductionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCTION_KIND_UNSPECIFIED: _ClassVar[ReductionKind]
    REDUCTION_KIND_SUM: _ClassVar[ReductionKind]
    REDUCTION_KIND_MIN: _ClassVar[ReductionKind]
    REDUCTION_KIND_MAX: _ClassVar[ReductionKind]
OP_UNSPECIFIED: Op
OP_LOOKUP: Op
OP_UPDATE: Op
OP_UPDATE_NOEXIST: Op
OP_UPDATE_EXIST: Op
OP_DELETE: Op
OP_LOOKUP_AND_DELETE: Op
OP_PUSH: Op
OP_PUSH_EXIST: Op
OP_POP: Op
OP_PEEK: Op
OP_ADD: Op
OP_CONTAINS: Op
OP_LOOKUP_EXACT: Op
OP_FETCH_ADD: Op
OP_FETCH_AND: Op
OP_FETCH_OR: Op
OP_FETCH_XOR: Op
OP_EXCHANGE: Op
OP_COMPARE_EXCHANGE: Op
OP_COMPARE_UPDATE: Op
UPDATE_FLAG_UNSPECIFIED: UpdateFlag
UPDATE_FLAG_ANY: UpdateFlag
UPDATE_FLAG_NOEXIST: UpdateFlag
UPDATE_FLAG_EXIST: UpdateFlag
DUMP_COLUMNS_UNSPECIFIED: DumpColumns
DUMP_COLUMNS_KEYS: DumpColumns
DUMP_COLUMNS_VALUES: DumpColumns
REDUCTION_KIND_UNSPECIFIED: ReductionKind
REDUCTION_KIND_SUM: ReductionKind
REDUCTION_KIND_MIN: ReductionKind
REDUCTION_KIND_MAX: ReductionKind

class Field(_message.Message):
    __slots__ = ("offset", "size")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    size: int
    def __init__(self, offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class OpGroup(_message.Message):
    __slots__ = ("map", "count", "ops", "keys", "values", "flags", "remaining_ms", "touch", "cpu", "field", "create")
    MAP_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    count: int
    ops: bytes
    keys: bytes
    values: bytes
    flags: int
    remaining_ms: int
    touch: bool
    cpu: int
    field: Field
    create: bool
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., count: _Optional[int] = ..., ops: _Optional[bytes] = ..., keys: _Optional[bytes] = ..., values: _Optional[bytes] = ..., flags: _Optional[int] = ..., remaining_ms: _Optional[int] = ..., touch: bool = ..., cpu: _Optional[int] = ..., field: _Optional[_Union[Field, _Mapping]] = ..., create: bool = ...) -> None: ...

class GroupResult(_message.Message):
    __slots__ = ("error", "statuses", "values", "errors")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    error: _errors_pb2.Error
    statuses: bytes
    values: bytes
    errors: _containers.RepeatedCompositeFieldContainer[_errors_pb2.ElementError]
    def __init__(self, error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ..., statuses: _Optional[bytes] = ..., values: _Optional[bytes] = ..., errors: _Optional[_Iterable[_Union[_errors_pb2.ElementError, _Mapping]]] = ...) -> None: ...

class Stamp(_message.Message):
    __slots__ = ("session", "epoch", "slot", "sequence", "acknowledged")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    session: str
    epoch: str
    slot: int
    sequence: int
    acknowledged: int
    def __init__(self, session: _Optional[str] = ..., epoch: _Optional[str] = ..., slot: _Optional[int] = ..., sequence: _Optional[int] = ..., acknowledged: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("stamp", "groups")
    STAMP_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    stamp: Stamp
    groups: _containers.RepeatedCompositeFieldContainer[OpGroup]
    def __init__(self, stamp: _Optional[_Union[Stamp, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[OpGroup, _Mapping]]] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("stamp", "results", "error")
    STAMP_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    stamp: Stamp
    results: _containers.RepeatedCompositeFieldContainer[GroupResult]
    error: _errors_pb2.Error
    def __init__(self, stamp: _Optional[_Union[Stamp, _Mapping]] = ..., results: _Optional[_Iterable[_Union[GroupResult, _Mapping]]] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("map", "key", "flags", "touch")
    MAP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    key: bytes
    flags: int
    touch: bool
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., key: _Optional[bytes] = ..., flags: _Optional[int] = ..., touch: bool = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    def __init__(self, value: _Optional[bytes] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("map", "key", "value", "flag", "lock")
    MAP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    LOCK_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    key: bytes
    value: bytes
    flag: UpdateFlag
    lock: bool
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., flag: _Optional[_Union[UpdateFlag, str]] = ..., lock: bool = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("map", "key")
    MAP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    key: bytes
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., key: _Optional[bytes] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("existed",)
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    existed: bool
    def __init__(self, existed: bool = ...) -> None: ...

class UpdateReferenceRequest(_message.Message):
    __slots__ = ("map", "key", "flag", "inner", "program", "device", "cpu")
    MAP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    key: bytes
    flag: UpdateFlag
    inner: _types_pb2.MapRef
    program: ProgramRef
    device: DeviceRef
    cpu: CpuQueue
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., key: _Optional[bytes] = ..., flag: _Optional[_Union[UpdateFlag, str]] = ..., inner: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., program: _Optional[_Union[ProgramRef, _Mapping]] = ..., device: _Optional[_Union[DeviceRef, _Mapping]] = ..., cpu: _Optional[_Union[CpuQueue, _Mapping]] = ...) -> None: ...

class UpdateReferenceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProgramRef(_message.Message):
    __slots__ = ("id", "pin")
    ID_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    id: int
    pin: str
    def __init__(self, id: _Optional[int] = ..., pin: _Optional[str] = ...) -> None: ...

class DeviceRef(_message.Message):
    __slots__ = ("ifindex", "name", "program")
    IFINDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    ifindex: int
    name: str
    program: ProgramRef
    def __init__(self, ifindex: _Optional[int] = ..., name: _Optional[str] = ..., program: _Optional[_Union[ProgramRef, _Mapping]] = ...) -> None: ...

class CpuQueue(_message.Message):
    __slots__ = ("size", "program")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    size: int
    program: ProgramRef
    def __init__(self, size: _Optional[int] = ..., program: _Optional[_Union[ProgramRef, _Mapping]] = ...) -> None: ...

class CountEntriesRequest(_message.Message):
    __slots__ = ("map",)
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ...) -> None: ...

class CountEntriesResponse(_message.Message):
    __slots__ = ("entries", "exact", "method")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    entries: int
    exact: bool
    method: str
    def __init__(self, entries: _Optional[int] = ..., exact: bool = ..., method: _Optional[str] = ...) -> None: ...

class GetNextKeyRequest(_message.Message):
    __slots__ = ("map", "key")
    MAP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    key: bytes
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., key: _Optional[bytes] = ...) -> None: ...

class GetNextKeyResponse(_message.Message):
    __slots__ = ("next_key",)
    NEXT_KEY_FIELD_NUMBER: _ClassVar[int]
    next_key: bytes
    def __init__(self, next_key: _Optional[bytes] = ...) -> None: ...

class Reduction(_message.Message):
    __slots__ = ("offset", "size", "signed", "kind")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    offset: int
    size: int
    signed: bool
    kind: ReductionKind
    def __init__(self, offset: _Optional[int] = ..., size: _Optional[int] = ..., signed: bool = ..., kind: _Optional[_Union[ReductionKind, str]] = ...) -> None: ...

class ByteRange(_message.Message):
    __slots__ = ("offset", "size")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    size: int
    def __init__(self, offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class DumpRequest(_message.Message):
    __slots__ = ("map", "columns", "prefix", "limit", "resume_token", "covered_by", "nonzero_values", "reductions", "value_range")
    MAP_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COVERED_BY_FIELD_NUMBER: _ClassVar[int]
    NONZERO_VALUES_FIELD_NUMBER: _ClassVar[int]
    REDUCTIONS_FIELD_NUMBER: _ClassVar[int]
    VALUE_RANGE_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    columns: DumpColumns
    prefix: bytes
    limit: int
    resume_token: bytes
    covered_by: bytes
    nonzero_values: bool
    reductions: _containers.RepeatedCompositeFieldContainer[Reduction]
    value_range: ByteRange
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., columns: _Optional[_Union[DumpColumns, str]] = ..., prefix: _Optional[bytes] = ..., limit: _Optional[int] = ..., resume_token: _Optional[bytes] = ..., covered_by: _Optional[bytes] = ..., nonzero_values: bool = ..., reductions: _Optional[_Iterable[_Union[Reduction, _Mapping]]] = ..., value_range: _Optional[_Union[ByteRange, _Mapping]] = ...) -> None: ...

class DumpResponse(_message.Message):
    __slots__ = ("header", "chunk", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: DumpHeader
    chunk: DumpChunk
    trailer: DumpTrailer
    def __init__(self, header: _Optional[_Union[DumpHeader, _Mapping]] = ..., chunk: _Optional[_Union[DumpChunk, _Mapping]] = ..., trailer: _Optional[_Union[DumpTrailer, _Mapping]] = ...) -> None: ...

class DumpHeader(_message.Message):
    __slots__ = ("info", "value_bytes")
    INFO_FIELD_NUMBER: _ClassVar[int]
    VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    info: _types_pb2.MapInfo
    value_bytes: int
    def __init__(self, info: _Optional[_Union[_types_pb2.MapInfo, _Mapping]] = ..., value_bytes: _Optional[int] = ...) -> None: ...

class DumpChunk(_message.Message):
    __slots__ = ("columns", "token")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    columns: _types_pb2.Columns
    token: bytes
    def __init__(self, columns: _Optional[_Union[_types_pb2.Columns, _Mapping]] = ..., token: _Optional[bytes] = ...) -> None: ...

class DumpTrailer(_message.Message):
    __slots__ = ("entries", "complete", "incomplete_reason", "method", "restarts", "duplicates_suppressed", "started_at", "ended_at", "map_id", "epoch")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    INCOMPLETE_REASON_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_SUPPRESSED_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    entries: int
    complete: bool
    incomplete_reason: str
    method: str
    restarts: int
    duplicates_suppressed: int
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    map_id: int
    epoch: str
    def __init__(self, entries: _Optional[int] = ..., complete: bool = ..., incomplete_reason: _Optional[str] = ..., method: _Optional[str] = ..., restarts: _Optional[int] = ..., duplicates_suppressed: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., map_id: _Optional[int] = ..., epoch: _Optional[str] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("map", "flag", "columns")
    MAP_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    flag: UpdateFlag
    columns: _types_pb2.Columns
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., flag: _Optional[_Union[UpdateFlag, str]] = ..., columns: _Optional[_Union[_types_pb2.Columns, _Mapping]] = ...) -> None: ...

class LoadResponse(_message.Message):
    __slots__ = ("applied", "failed", "errors")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    applied: int
    failed: int
    errors: _containers.RepeatedCompositeFieldContainer[_errors_pb2.ElementError]
    def __init__(self, applied: _Optional[int] = ..., failed: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[_errors_pb2.ElementError, _Mapping]]] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ("session", "epoch")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session: str
    epoch: str
    def __init__(self, session: _Optional[str] = ..., epoch: _Optional[str] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("session", "epoch", "slots", "resumed", "resume_within")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    RESUME_WITHIN_FIELD_NUMBER: _ClassVar[int]
    session: str
    epoch: str
    slots: int
    resumed: bool
    resume_within: _duration_pb2.Duration
    def __init__(self, session: _Optional[str] = ..., epoch: _Optional[str] = ..., slots: _Optional[int] = ..., resumed: bool = ..., resume_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: _errors_pb2.Reason
    message: str
    def __init__(self, reason: _Optional[_Union[_errors_pb2.Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("open", "apply")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    APPLY_FIELD_NUMBER: _ClassVar[int]
    open: SessionOpen
    apply: ApplyRequest
    def __init__(self, open: _Optional[_Union[SessionOpen, _Mapping]] = ..., apply: _Optional[_Union[ApplyRequest, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("opened", "apply", "goodbye", "error")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    APPLY_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    opened: SessionOpened
    apply: ApplyResponse
    goodbye: Goodbye
    error: _errors_pb2.Error
    def __init__(self, opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., apply: _Optional[_Union[ApplyResponse, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ...) -> None: ...

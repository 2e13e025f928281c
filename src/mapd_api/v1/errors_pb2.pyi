import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_KEY_ABSENT: _ClassVar[Reason]
    REASON_MAP_NOT_FOUND: _ClassVar[Reason]
    REASON_KEY_SIZE_MISMATCH: _ClassVar[Reason]
    REASON_VALUE_SIZE_MISMATCH: _ClassVar[Reason]
    REASON_BAD_FLAGS: _ClassVar[Reason]
    REASON_BAD_COLUMNS: _ClassVar[Reason]
    REASON_BAD_SPEC: _ClassVar[Reason]
    REASON_KEY_EXISTS: _ClassVar[Reason]
    REASON_KEY_MISSING: _ClassVar[Reason]
    REASON_MAP_FULL: _ClassVar[Reason]
    REASON_KERNEL_MEMORY: _ClassVar[Reason]
    REASON_INDEX_OUT_OF_RANGE: _ClassVar[Reason]
    REASON_MAP_FROZEN: _ClassVar[Reason]
    REASON_READ_ONLY: _ClassVar[Reason]
    REASON_OPERATION_UNSUPPORTED: _ClassVar[Reason]
    REASON_MAP_EXISTS: _ClassVar[Reason]
    REASON_INCOMPATIBLE: _ClassVar[Reason]
    REASON_DAEMON_CAPABILITY: _ClassVar[Reason]
    REASON_POLICY: _ClassVar[Reason]
    REASON_QUOTA: _ClassVar[Reason]
    REASON_BUSY: _ClassVar[Reason]
    REASON_DRAINING: _ClassVar[Reason]
    REASON_STALE_HANDLE: _ClassVar[Reason]
    REASON_EPOCH_CHANGED: _ClassVar[Reason]
    REASON_OUTCOME_UNKNOWN: _ClassVar[Reason]
    REASON_MAP_REPLACED: _ClassVar[Reason]
    REASON_EXPIRED: _ClassVar[Reason]
    REASON_INTERNAL: _ClassVar[Reason]
    REASON_UNAUTHENTICATED: _ClassVar[Reason]
    REASON_AUDIT: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_KEY_ABSENT: Reason
REASON_MAP_NOT_FOUND: Reason
REASON_KEY_SIZE_MISMATCH: Reason
REASON_VALUE_SIZE_MISMATCH: Reason
REASON_BAD_FLAGS: Reason
REASON_BAD_COLUMNS: Reason
REASON_BAD_SPEC: Reason
REASON_KEY_EXISTS: Reason
REASON_KEY_MISSING: Reason
REASON_MAP_FULL: Reason
REASON_KERNEL_MEMORY: Reason
REASON_INDEX_OUT_OF_RANGE: Reason
REASON_MAP_FROZEN: Reason
REASON_READ_ONLY: Reason
REASON_OPERATION_UNSUPPORTED: Reason
REASON_MAP_EXISTS: Reason
REASON_INCOMPATIBLE: Reason
REASON_DAEMON_CAPABILITY: Reason
REASON_POLICY: Reason
REASON_QUOTA: Reason
REASON_BUSY: Reason
REASON_DRAINING: Reason
REASON_STALE_HANDLE: Reason
REASON_EPOCH_CHANGED: Reason
REASON_OUTCOME_UNKNOWN: Reason
REASON_MAP_REPLACED: Reason
REASON_EXPIRED: Reason
REASON_INTERNAL: Reason
REASON_UNAUTHENTICATED: Reason
REASON_AUDIT: Reason

class Error(_message.Message):
    __slots__ = ("reason", "message", "metadata", "retry_after")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    message: str
    metadata: _containers.ScalarMap[str, str]
    retry_after: _duration_pb2.Duration
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ElementError(_message.Message):
    __slots__ = ("index", "reason", "errno")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: Reason
    errno: int
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ..., errno: _Optional[int] = ...) -> None: ...

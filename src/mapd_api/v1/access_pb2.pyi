from mapd_api.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("principal", "namespace", "attested_by", "roles", "policy_version", "contact", "shares")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ATTESTED_BY_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTACT_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    principal: str
    namespace: str
    attested_by: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    policy_version: str
    contact: str
    shares: Shares
    def __init__(self, principal: _Optional[str] = ..., namespace: _Optional[str] = ..., attested_by: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., policy_version: _Optional[str] = ..., contact: _Optional[str] = ..., shares: _Optional[_Union[Shares, _Mapping]] = ...) -> None: ...

class Shares(_message.Message):
    __slots__ = ("maps", "map_bytes", "handles", "streams", "dumps", "connections", "ops_per_second")
    MAPS_FIELD_NUMBER: _ClassVar[int]
    MAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    DUMPS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    OPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    maps: Share
    map_bytes: Share
    handles: Share
    streams: Share
    dumps: Share
    connections: Share
    ops_per_second: Share
    def __init__(self, maps: _Optional[_Union[Share, _Mapping]] = ..., map_bytes: _Optional[_Union[Share, _Mapping]] = ..., handles: _Optional[_Union[Share, _Mapping]] = ..., streams: _Optional[_Union[Share, _Mapping]] = ..., dumps: _Optional[_Union[Share, _Mapping]] = ..., connections: _Optional[_Union[Share, _Mapping]] = ..., ops_per_second: _Optional[_Union[Share, _Mapping]] = ...) -> None: ...

class Share(_message.Message):
    __slots__ = ("limit", "used")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    limit: int
    used: int
    def __init__(self, limit: _Optional[int] = ..., used: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("verb", "map", "principal", "key")
    VERB_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    verb: _types_pb2.Verb
    map: _types_pb2.MapRef
    principal: str
    key: bytes
    def __init__(self, verb: _Optional[_Union[_types_pb2.Verb, str]] = ..., map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., principal: _Optional[str] = ..., key: _Optional[bytes] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("allowed", "by_key", "text", "policy_version")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    BY_KEY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    by_key: bool
    text: str
    policy_version: str
    def __init__(self, allowed: bool = ..., by_key: bool = ..., text: _Optional[str] = ..., policy_version: _Optional[str] = ...) -> None: ...

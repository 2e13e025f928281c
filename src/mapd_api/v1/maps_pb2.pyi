import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from mapd_api.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrialAnswer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRIAL_ANSWER_UNSPECIFIED: _ClassVar[TrialAnswer]
    TRIAL_ANSWER_OK: _ClassVar[TrialAnswer]
    TRIAL_ANSWER_REFUSED: _ClassVar[TrialAnswer]
    TRIAL_ANSWER_UNKNOWN: _ClassVar[TrialAnswer]
TRIAL_ANSWER_UNSPECIFIED: TrialAnswer
TRIAL_ANSWER_OK: TrialAnswer
TRIAL_ANSWER_REFUSED: TrialAnswer
TRIAL_ANSWER_UNKNOWN: TrialAnswer

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server",)
    SERVER_FIELD_NUMBER: _ClassVar[int]
    server: ServerInfo
    def __init__(self, server: _Optional[_Union[ServerInfo, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("message_bytes", "chunk_bytes", "batch_elements", "groups", "handles")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCH_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    chunk_bytes: int
    batch_elements: int
    groups: int
    handles: int
    def __init__(self, message_bytes: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., batch_elements: _Optional[int] = ..., groups: _Optional[int] = ..., handles: _Optional[int] = ...) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "epoch", "boot_id", "node", "kernel_release", "byteorder", "possible_cpus", "features", "limits", "profile", "backend", "principal", "namespace", "pin_root", "types", "programs")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_RELEASE_FIELD_NUMBER: _ClassVar[int]
    BYTEORDER_FIELD_NUMBER: _ClassVar[int]
    POSSIBLE_CPUS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PIN_ROOT_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    version: str
    epoch: str
    boot_id: str
    node: str
    kernel_release: str
    byteorder: str
    possible_cpus: int
    features: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    profile: str
    backend: str
    principal: str
    namespace: str
    pin_root: str
    types: _containers.RepeatedCompositeFieldContainer[TypeTrial]
    programs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., epoch: _Optional[str] = ..., boot_id: _Optional[str] = ..., node: _Optional[str] = ..., kernel_release: _Optional[str] = ..., byteorder: _Optional[str] = ..., possible_cpus: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., profile: _Optional[str] = ..., backend: _Optional[str] = ..., principal: _Optional[str] = ..., namespace: _Optional[str] = ..., pin_root: _Optional[str] = ..., types: _Optional[_Iterable[_Union[TypeTrial, _Mapping]]] = ..., programs: _Optional[_Iterable[str]] = ...) -> None: ...

class TypeTrial(_message.Message):
    __slots__ = ("type", "answer", "errno")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    type: _types_pb2.MapType
    answer: TrialAnswer
    errno: str
    def __init__(self, type: _Optional[_Union[_types_pb2.MapType, str]] = ..., answer: _Optional[_Union[TrialAnswer, str]] = ..., errno: _Optional[str] = ...) -> None: ...

class Named(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "ttl", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    ttl: _duration_pb2.Duration
    name: str
    def __init__(self, id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class CreateMapRequest(_message.Message):
    __slots__ = ("type", "key_size", "value_size", "max_entries", "map_flags", "kernel_name", "map_extra", "numa_node", "inner", "btf", "named", "lease", "exist_ok", "exclusive_program_hash", "session", "btf_vmlinux_value_type_id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_SIZE_FIELD_NUMBER: _ClassVar[int]
    VALUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MAP_FLAGS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MAP_EXTRA_FIELD_NUMBER: _ClassVar[int]
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    BTF_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_PROGRAM_HASH_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BTF_VMLINUX_VALUE_TYPE_ID_FIELD_NUMBER: _ClassVar[int]
    type: _types_pb2.MapType
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    kernel_name: str
    map_extra: int
    numa_node: int
    inner: _types_pb2.MapRef
    btf: _types_pb2.Btf
    named: Named
    lease: Lease
    exist_ok: bool
    exclusive_program_hash: bytes
    session: str
    btf_vmlinux_value_type_id: int
    def __init__(self, type: _Optional[_Union[_types_pb2.MapType, str]] = ..., key_size: _Optional[int] = ..., value_size: _Optional[int] = ..., max_entries: _Optional[int] = ..., map_flags: _Optional[int] = ..., kernel_name: _Optional[str] = ..., map_extra: _Optional[int] = ..., numa_node: _Optional[int] = ..., inner: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., btf: _Optional[_Union[_types_pb2.Btf, _Mapping]] = ..., named: _Optional[_Union[Named, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., exist_ok: bool = ..., exclusive_program_hash: _Optional[bytes] = ..., session: _Optional[str] = ..., btf_vmlinux_value_type_id: _Optional[int] = ...) -> None: ...

class CreateMapResponse(_message.Message):
    __slots__ = ("handle", "info", "created")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    handle: int
    info: _types_pb2.MapInfo
    created: bool
    def __init__(self, handle: _Optional[int] = ..., info: _Optional[_Union[_types_pb2.MapInfo, _Mapping]] = ..., created: bool = ...) -> None: ...

class OpenMapRequest(_message.Message):
    __slots__ = ("map", "read_only", "session")
    MAP_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    read_only: bool
    session: str
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., read_only: bool = ..., session: _Optional[str] = ...) -> None: ...

class OpenMapResponse(_message.Message):
    __slots__ = ("handle", "info")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    handle: int
    info: _types_pb2.MapInfo
    def __init__(self, handle: _Optional[int] = ..., info: _Optional[_Union[_types_pb2.MapInfo, _Mapping]] = ...) -> None: ...

class GetMapRequest(_message.Message):
    __slots__ = ("map",)
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ...) -> None: ...

class GetMapResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _types_pb2.MapInfo
    def __init__(self, info: _Optional[_Union[_types_pb2.MapInfo, _Mapping]] = ...) -> None: ...

class ListMapsRequest(_message.Message):
    __slots__ = ("glob", "page_size", "page_token", "pins", "ids", "holders")
    GLOB_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    glob: str
    page_size: int
    page_token: str
    pins: bool
    ids: bool
    holders: bool
    def __init__(self, glob: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., pins: bool = ..., ids: bool = ..., holders: bool = ...) -> None: ...

class ListMapsResponse(_message.Message):
    __slots__ = ("maps", "next_page_token", "sources", "not_looked_at")
    MAPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    NOT_LOOKED_AT_FIELD_NUMBER: _ClassVar[int]
    maps: _containers.RepeatedCompositeFieldContainer[_types_pb2.MapInfo]
    next_page_token: str
    sources: _containers.RepeatedScalarFieldContainer[str]
    not_looked_at: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, maps: _Optional[_Iterable[_Union[_types_pb2.MapInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., sources: _Optional[_Iterable[str]] = ..., not_looked_at: _Optional[_Iterable[str]] = ...) -> None: ...

class ListMapStatsRequest(_message.Message):
    __slots__ = ("glob", "page_size", "page_token", "pins", "ids")
    GLOB_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    glob: str
    page_size: int
    page_token: str
    pins: bool
    ids: bool
    def __init__(self, glob: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., pins: bool = ..., ids: bool = ...) -> None: ...

class ListMapStatsResponse(_message.Message):
    __slots__ = ("stats", "next_page_token", "not_looked_at", "epoch", "uptime")
    STATS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NOT_LOOKED_AT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[MapStats]
    next_page_token: str
    not_looked_at: _containers.RepeatedScalarFieldContainer[str]
    epoch: str
    uptime: _duration_pb2.Duration
    def __init__(self, stats: _Optional[_Iterable[_Union[MapStats, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., not_looked_at: _Optional[_Iterable[str]] = ..., epoch: _Optional[str] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MapStats(_message.Message):
    __slots__ = ("id", "name", "pin_path", "kernel_name", "type", "max_entries", "memlock_bytes", "entries", "exact", "method", "read_elements", "written_elements")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PIN_PATH_FIELD_NUMBER: _ClassVar[int]
    KERNEL_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MEMLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    READ_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    pin_path: str
    kernel_name: str
    type: _types_pb2.MapType
    max_entries: int
    memlock_bytes: int
    entries: int
    exact: bool
    method: str
    read_elements: int
    written_elements: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., pin_path: _Optional[str] = ..., kernel_name: _Optional[str] = ..., type: _Optional[_Union[_types_pb2.MapType, str]] = ..., max_entries: _Optional[int] = ..., memlock_bytes: _Optional[int] = ..., entries: _Optional[int] = ..., exact: bool = ..., method: _Optional[str] = ..., read_elements: _Optional[int] = ..., written_elements: _Optional[int] = ...) -> None: ...

class CloseMapRequest(_message.Message):
    __slots__ = ("handle",)
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    handle: int
    def __init__(self, handle: _Optional[int] = ...) -> None: ...

class CloseMapResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PinMapRequest(_message.Message):
    __slots__ = ("map", "path")
    MAP_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    path: str
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ..., path: _Optional[str] = ...) -> None: ...

class PinMapResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnpinMapRequest(_message.Message):
    __slots__ = ("map",)
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ...) -> None: ...

class UnpinMapResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenameMapRequest(_message.Message):
    __slots__ = ("name", "new_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class RenameMapResponse(_message.Message):
    __slots__ = ("pin_path",)
    PIN_PATH_FIELD_NUMBER: _ClassVar[int]
    pin_path: str
    def __init__(self, pin_path: _Optional[str] = ...) -> None: ...

class FreezeMapRequest(_message.Message):
    __slots__ = ("map",)
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ...) -> None: ...

class FreezeMapResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetBtfRequest(_message.Message):
    __slots__ = ("map",)
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _types_pb2.MapRef
    def __init__(self, map: _Optional[_Union[_types_pb2.MapRef, _Mapping]] = ...) -> None: ...

class GetBtfResponse(_message.Message):
    __slots__ = ("btf",)
    BTF_FIELD_NUMBER: _ClassVar[int]
    btf: _types_pb2.Btf
    def __init__(self, btf: _Optional[_Union[_types_pb2.Btf, _Mapping]] = ...) -> None: ...

import datetime

from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verb(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERB_UNSPECIFIED: _ClassVar[Verb]
    VERB_LIST: _ClassVar[Verb]
    VERB_READ: _ClassVar[Verb]
    VERB_WRITE: _ClassVar[Verb]
    VERB_DELETE: _ClassVar[Verb]
    VERB_CREATE: _ClassVar[Verb]
    VERB_PIN: _ClassVar[Verb]
    VERB_FREEZE: _ClassVar[Verb]
    VERB_OPEN_BY_ID: _ClassVar[Verb]
    VERB_WATCH: _ClassVar[Verb]
    VERB_CONSUME: _ClassVar[Verb]
    VERB_ADMIN: _ClassVar[Verb]
    VERB_HOST: _ClassVar[Verb]

class MapType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MAP_TYPE_UNSPECIFIED: _ClassVar[MapType]
    MAP_TYPE_HASH: _ClassVar[MapType]
    MAP_TYPE_ARRAY: _ClassVar[MapType]
    MAP_TYPE_PROG_ARRAY: _ClassVar[MapType]
    MAP_TYPE_PERF_EVENT_ARRAY: _ClassVar[MapType]
    MAP_TYPE_PERCPU_HASH: _ClassVar[MapType]
    MAP_TYPE_PERCPU_ARRAY: _ClassVar[MapType]
    MAP_TYPE_STACK_TRACE: _ClassVar[MapType]
    MAP_TYPE_CGROUP_ARRAY: _ClassVar[MapType]
    MAP_TYPE_LRU_HASH: _ClassVar[MapType]
    MAP_TYPE_LRU_PERCPU_HASH: _ClassVar[MapType]
    MAP_TYPE_LPM_TRIE: _ClassVar[MapType]
    MAP_TYPE_ARRAY_OF_MAPS: _ClassVar[MapType]
    MAP_TYPE_HASH_OF_MAPS: _ClassVar[MapType]
    MAP_TYPE_DEVMAP: _ClassVar[MapType]
    MAP_TYPE_SOCKMAP: _ClassVar[MapType]
    MAP_TYPE_CPUMAP: _ClassVar[MapType]
    MAP_TYPE_XSKMAP: _ClassVar[MapType]
    MAP_TYPE_SOCKHASH: _ClassVar[MapType]
    MAP_TYPE_CGROUP_STORAGE: _ClassVar[MapType]
    MAP_TYPE_REUSEPORT_SOCKARRAY: _ClassVar[MapType]
    MAP_TYPE_PERCPU_CGROUP_STORAGE: _ClassVar[MapType]
    MAP_TYPE_QUEUE: _ClassVar[MapType]
    MAP_TYPE_STACK: _ClassVar[MapType]
    MAP_TYPE_SK_STORAGE: _ClassVar[MapType]
    MAP_TYPE_DEVMAP_HASH: _ClassVar[MapType]
    MAP_TYPE_STRUCT_OPS: _ClassVar[MapType]
    MAP_TYPE_RINGBUF: _ClassVar[MapType]
    MAP_TYPE_INODE_STORAGE: _ClassVar[MapType]
    MAP_TYPE_TASK_STORAGE: _ClassVar[MapType]
    MAP_TYPE_BLOOM_FILTER: _ClassVar[MapType]
    MAP_TYPE_USER_RINGBUF: _ClassVar[MapType]
    MAP_TYPE_CGRP_STORAGE: _ClassVar[MapType]
    MAP_TYPE_ARENA: _ClassVar[MapType]

class Iteration(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITERATION_UNSPECIFIED: _ClassVar[Iteration]
    ITERATION_EXACT: _ClassVar[Iteration]
    ITERATION_BEST_EFFORT: _ClassVar[Iteration]
    ITERATION_NONE: _ClassVar[Iteration]
VERB_UNSPECIFIED: Verb
VERB_LIST: Verb
VERB_READ: Verb
VERB_WRITE: Verb
VERB_DELETE: Verb
VERB_CREATE: Verb
VERB_PIN: Verb
VERB_FREEZE: Verb
VERB_OPEN_BY_ID: Verb
VERB_WATCH: Verb
VERB_CONSUME: Verb
VERB_ADMIN: Verb
VERB_HOST: Verb
MAP_TYPE_UNSPECIFIED: MapType
MAP_TYPE_HASH: MapType
MAP_TYPE_ARRAY: MapType
MAP_TYPE_PROG_ARRAY: MapType
MAP_TYPE_PERF_EVENT_ARRAY: MapType
MAP_TYPE_PERCPU_HASH: MapType
MAP_TYPE_PERCPU_ARRAY: MapType
MAP_TYPE_STACK_TRACE: MapType
MAP_TYPE_CGROUP_ARRAY: MapType
MAP_TYPE_LRU_HASH: MapType
MAP_TYPE_LRU_PERCPU_HASH: MapType
MAP_TYPE_LPM_TRIE: MapType
MAP_TYPE_ARRAY_OF_MAPS: MapType
MAP_TYPE_HASH_OF_MAPS: MapType
MAP_TYPE_DEVMAP: MapType
MAP_TYPE_SOCKMAP: MapType
MAP_TYPE_CPUMAP: MapType
MAP_TYPE_XSKMAP: MapType
MAP_TYPE_SOCKHASH: MapType
MAP_TYPE_CGROUP_STORAGE: MapType
MAP_TYPE_REUSEPORT_SOCKARRAY: MapType
MAP_TYPE_PERCPU_CGROUP_STORAGE: MapType
MAP_TYPE_QUEUE: MapType
MAP_TYPE_STACK: MapType
MAP_TYPE_SK_STORAGE: MapType
MAP_TYPE_DEVMAP_HASH: MapType
MAP_TYPE_STRUCT_OPS: MapType
MAP_TYPE_RINGBUF: MapType
MAP_TYPE_INODE_STORAGE: MapType
MAP_TYPE_TASK_STORAGE: MapType
MAP_TYPE_BLOOM_FILTER: MapType
MAP_TYPE_USER_RINGBUF: MapType
MAP_TYPE_CGRP_STORAGE: MapType
MAP_TYPE_ARENA: MapType
ITERATION_UNSPECIFIED: Iteration
ITERATION_EXACT: Iteration
ITERATION_BEST_EFFORT: Iteration
ITERATION_NONE: Iteration
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor
OP_VERBS_FIELD_NUMBER: _ClassVar[int]
op_verbs: _descriptor.FieldDescriptor

class Access(_message.Message):
    __slots__ = ("verbs", "per_op", "everyone")
    VERBS_FIELD_NUMBER: _ClassVar[int]
    PER_OP_FIELD_NUMBER: _ClassVar[int]
    EVERYONE_FIELD_NUMBER: _ClassVar[int]
    verbs: _containers.RepeatedScalarFieldContainer[Verb]
    per_op: bool
    everyone: bool
    def __init__(self, verbs: _Optional[_Iterable[_Union[Verb, str]]] = ..., per_op: bool = ..., everyone: bool = ...) -> None: ...

class MapRef(_message.Message):
    __slots__ = ("handle", "name", "pin", "id")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    handle: int
    name: str
    pin: str
    id: int
    def __init__(self, handle: _Optional[int] = ..., name: _Optional[str] = ..., pin: _Optional[str] = ..., id: _Optional[int] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("count", "keys", "values")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    count: int
    keys: bytes
    values: bytes
    def __init__(self, count: _Optional[int] = ..., keys: _Optional[bytes] = ..., values: _Optional[bytes] = ...) -> None: ...

class Btf(_message.Message):
    __slots__ = ("blob", "key_type_id", "value_type_id")
    BLOB_FIELD_NUMBER: _ClassVar[int]
    KEY_TYPE_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_TYPE_ID_FIELD_NUMBER: _ClassVar[int]
    blob: bytes
    key_type_id: int
    value_type_id: int
    def __init__(self, blob: _Optional[bytes] = ..., key_type_id: _Optional[int] = ..., value_type_id: _Optional[int] = ...) -> None: ...

class MapInfo(_message.Message):
    __slots__ = ("id", "type", "kernel_name", "key_size", "value_size", "max_entries", "map_flags", "map_extra", "key_stride", "value_stride", "frozen", "name", "pin_path", "btf_id", "btf_key_type_id", "btf_value_type_id", "memlock_bytes", "supported_operations", "iteration", "holders", "pins", "has_lock", "lease")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_SIZE_FIELD_NUMBER: _ClassVar[int]
    VALUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MAP_FLAGS_FIELD_NUMBER: _ClassVar[int]
    MAP_EXTRA_FIELD_NUMBER: _ClassVar[int]
    KEY_STRIDE_FIELD_NUMBER: _ClassVar[int]
    VALUE_STRIDE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PIN_PATH_FIELD_NUMBER: _ClassVar[int]
    BTF_ID_FIELD_NUMBER: _ClassVar[int]
    BTF_KEY_TYPE_ID_FIELD_NUMBER: _ClassVar[int]
    BTF_VALUE_TYPE_ID_FIELD_NUMBER: _ClassVar[int]
    MEMLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    SUPPORTED_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    HAS_LOCK_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    id: int
    type: MapType
    kernel_name: str
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    map_extra: int
    key_stride: int
    value_stride: int
    frozen: bool
    name: str
    pin_path: str
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    memlock_bytes: int
    supported_operations: _containers.RepeatedScalarFieldContainer[str]
    iteration: Iteration
    holders: _containers.RepeatedCompositeFieldContainer[Holder]
    pins: _containers.RepeatedScalarFieldContainer[str]
    has_lock: bool
    lease: MapLease
    def __init__(self, id: _Optional[int] = ..., type: _Optional[_Union[MapType, str]] = ..., kernel_name: _Optional[str] = ..., key_size: _Optional[int] = ..., value_size: _Optional[int] = ..., max_entries: _Optional[int] = ..., map_flags: _Optional[int] = ..., map_extra: _Optional[int] = ..., key_stride: _Optional[int] = ..., value_stride: _Optional[int] = ..., frozen: bool = ..., name: _Optional[str] = ..., pin_path: _Optional[str] = ..., btf_id: _Optional[int] = ..., btf_key_type_id: _Optional[int] = ..., btf_value_type_id: _Optional[int] = ..., memlock_bytes: _Optional[int] = ..., supported_operations: _Optional[_Iterable[str]] = ..., iteration: _Optional[_Union[Iteration, str]] = ..., holders: _Optional[_Iterable[_Union[Holder, _Mapping]]] = ..., pins: _Optional[_Iterable[str]] = ..., has_lock: bool = ..., lease: _Optional[_Union[MapLease, _Mapping]] = ...) -> None: ...

class MapLease(_message.Message):
    __slots__ = ("id", "ttl")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    id: str
    ttl: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("process", "program")
    class Process(_message.Message):
        __slots__ = ("pid", "comm")
        PID_FIELD_NUMBER: _ClassVar[int]
        COMM_FIELD_NUMBER: _ClassVar[int]
        pid: int
        comm: str
        def __init__(self, pid: _Optional[int] = ..., comm: _Optional[str] = ...) -> None: ...
    class Program(_message.Message):
        __slots__ = ("id", "name")
        ID_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        id: int
        name: str
        def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    process: Holder.Process
    program: Holder.Program
    def __init__(self, process: _Optional[_Union[Holder.Process, _Mapping]] = ..., program: _Optional[_Union[Holder.Program, _Mapping]] = ...) -> None: ...

from mapd_api.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetHostInfoRequest(_message.Message):
    __slots__ = ("ifindexes", "cgroup_ids", "all_devices", "all_cgroups")
    IFINDEXES_FIELD_NUMBER: _ClassVar[int]
    CGROUP_IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_DEVICES_FIELD_NUMBER: _ClassVar[int]
    ALL_CGROUPS_FIELD_NUMBER: _ClassVar[int]
    ifindexes: _containers.RepeatedScalarFieldContainer[int]
    cgroup_ids: _containers.RepeatedScalarFieldContainer[int]
    all_devices: bool
    all_cgroups: bool
    def __init__(self, ifindexes: _Optional[_Iterable[int]] = ..., cgroup_ids: _Optional[_Iterable[int]] = ..., all_devices: bool = ..., all_cgroups: bool = ...) -> None: ...

class GetHostInfoResponse(_message.Message):
    __slots__ = ("host",)
    HOST_FIELD_NUMBER: _ClassVar[int]
    host: HostInfo
    def __init__(self, host: _Optional[_Union[HostInfo, _Mapping]] = ...) -> None: ...

class HostInfo(_message.Message):
    __slots__ = ("clocks", "devices", "netns", "cgroups", "cgroup_mount", "page_size", "kernel_release", "machine", "boot_id", "not_looked_at")
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    CGROUPS_FIELD_NUMBER: _ClassVar[int]
    CGROUP_MOUNT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_RELEASE_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    NOT_LOOKED_AT_FIELD_NUMBER: _ClassVar[int]
    clocks: Clocks
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    netns: int
    cgroups: _containers.RepeatedCompositeFieldContainer[Cgroup]
    cgroup_mount: str
    page_size: int
    kernel_release: str
    machine: str
    boot_id: str
    not_looked_at: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, clocks: _Optional[_Union[Clocks, _Mapping]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., netns: _Optional[int] = ..., cgroups: _Optional[_Iterable[_Union[Cgroup, _Mapping]]] = ..., cgroup_mount: _Optional[str] = ..., page_size: _Optional[int] = ..., kernel_release: _Optional[str] = ..., machine: _Optional[str] = ..., boot_id: _Optional[str] = ..., not_looked_at: _Optional[_Iterable[str]] = ...) -> None: ...

class Clocks(_message.Message):
    __slots__ = ("realtime_ns", "monotonic_ns", "boottime_ns", "error_ns")
    REALTIME_NS_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_NS_FIELD_NUMBER: _ClassVar[int]
    BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_NS_FIELD_NUMBER: _ClassVar[int]
    realtime_ns: int
    monotonic_ns: int
    boottime_ns: int
    error_ns: int
    def __init__(self, realtime_ns: _Optional[int] = ..., monotonic_ns: _Optional[int] = ..., boottime_ns: _Optional[int] = ..., error_ns: _Optional[int] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("ifindex", "name")
    IFINDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ifindex: int
    name: str
    def __init__(self, ifindex: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class Cgroup(_message.Message):
    __slots__ = ("id", "path")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    id: int
    path: str
    def __init__(self, id: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

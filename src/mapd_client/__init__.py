"""eBPF maps through mapd: the unprivileged asyncio client.

::

    async with mapd_client.connect() as client:
        async with client.open_map("flows", key=U32, value=U64) as flows:
            await flows.update(7, 1)
            async for key, value in flows.items(): ...

Needs no rights, no Linux and no daemon to be imported.
"""

from __future__ import annotations

import logging

from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from mapd_client.arrays import Found
from mapd_client.chunk import Chunk
from mapd_client.classes_maps import describe, instances
from mapd_client.client import Client, connect
from mapd_client.codec import I8, I16, I32, I64, U8, U16, U32, U64, Bytes, Codec
from mapd_client.dump import Dump
from mapd_client.errors import (
    BatchFailed,
    DaemonCapability,
    DeadlineExceeded,
    DumpIncomplete,
    Incompatible,
    IndexOutOfRange,
    KeyExists,
    KeyMissing,
    MapdError,
    MapExists,
    MapFrozen,
    MapFull,
    MapNotFound,
    Misuse,
    NotSent,
    NoTypeInfo,
    OutcomeUnknown,
    PermissionDenied,
    QuotaExceeded,
    Refused,
    RemovalsRefused,
    SizeMismatch,
    TypeMismatch,
    Unavailable,
    Unreachable,
    Unsupported,
)
from mapd_client.facts_codecs import CgroupId, IfIndex, KernelTime, Ktime, KtimeBoot
from mapd_client.fields import Exchanged, Field
from mapd_client.fleet import Fleet, FleetMap
from mapd_client.handle import MapHandle
from mapd_client.hostinfo import HostClocks, HostInfo
from mapd_client.info import (
    Btf,
    Count,
    Lease,
    LeaseState,
    Limits,
    MapInfo,
    ProcessHolder,
    ProgramHolder,
    ServerInfo,
    Trailer,
    UpdateFlag,
)
from mapd_client.keyless import Bloom, Queue
from mapd_client.listing import Listing
from mapd_client.lpm import Lpm
from mapd_client.map import Map
from mapd_client.netcodec import Cidr4, Cidr6, Ipv4, Ipv6, Mac
from mapd_client.objectmaps import ObjectMap, ObjectMaps
from mapd_client.opening import Opening
from mapd_client.percpu import PerCpu
from mapd_client.references import ProgramRef
from mapd_client.refs import Id, MapRef, Name, Pin
from mapd_client.rights import Decision, Principal, Share
from mapd_client.selecting import Reduce
from mapd_client.stats import MapStats, StatsSample
from mapd_client.structcodec import Struct
from mapd_client.syncing.report import SyncReport
from mapd_client.tables.arrays import Arrays
from mapd_client.tables.needs import ArrowTable
from mapd_client.tables.streaming import Batches
from mapd_client.tls import Tls
from mapd_client.typed import Fields
from mapd_client.typed.hints import Port

__all__ = [
    "I8",
    "I16",
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "U64",
    "Arrays",
    "ArrowTable",
    "BatchFailed",
    "Batches",
    "Bloom",
    "Btf",
    "Bytes",
    "CgroupId",
    "Chunk",
    "Cidr4",
    "Cidr6",
    "Client",
    "Codec",
    "Count",
    "DaemonCapability",
    "DeadlineExceeded",
    "Decision",
    "Dump",
    "DumpIncomplete",
    "Exchanged",
    "Field",
    "Fields",
    "Fleet",
    "FleetMap",
    "Found",
    "HostClocks",
    "HostInfo",
    "Id",
    "IfIndex",
    "Incompatible",
    "IndexOutOfRange",
    "Ipv4",
    "Ipv6",
    "KernelTime",
    "KeyExists",
    "KeyMissing",
    "Ktime",
    "KtimeBoot",
    "Lease",
    "LeaseState",
    "Limits",
    "Listing",
    "Lpm",
    "Mac",
    "Map",
    "MapExists",
    "MapFlag",
    "MapFrozen",
    "MapFull",
    "MapHandle",
    "MapInfo",
    "MapNotFound",
    "MapRef",
    "MapStats",
    "MapType",
    "MapdError",
    "Misuse",
    "Name",
    "NoTypeInfo",
    "NotSent",
    "ObjectMap",
    "ObjectMaps",
    "Opening",
    "OutcomeUnknown",
    "PerCpu",
    "PermissionDenied",
    "Pin",
    "Port",
    "Principal",
    "ProcessHolder",
    "ProgramHolder",
    "ProgramRef",
    "Queue",
    "QuotaExceeded",
    "Reason",
    "Reduce",
    "Refused",
    "RemovalsRefused",
    "ServerInfo",
    "Share",
    "SizeMismatch",
    "StatsSample",
    "Struct",
    "SyncReport",
    "Tls",
    "Trailer",
    "TypeMismatch",
    "Unavailable",
    "Unreachable",
    "Unsupported",
    "UpdateFlag",
    "connect",
    "describe",
    "instances",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

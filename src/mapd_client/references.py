"""What an element of a map of kernel objects stands for. Sans-I/O."""

from __future__ import annotations

from typing import TypeAlias

from mapd_api.v1 import elements_pb2, types_pb2
from mapd_client import requests
from mapd_client.codec import U32, Codec
from mapd_client.errors import Misuse
from mapd_client.failures import Asked
from mapd_client.info import MapInfo, UpdateFlag
from mapd_client.refs import MapRef, Pin

ProgramRef: TypeAlias = int | str | Pin
"""A loaded program: the kernel's id of it, or its pin as "pin:/sys/fs/bpf/x" or ``Pin``."""

_U32 = 0xFFFF_FFFF


def update_reference(
    map: types_pb2.MapRef,
    key: bytes,
    flags: UpdateFlag,
    *,
    inner: types_pb2.MapRef | None,
    program: ProgramRef | None,
    device: str | int | None,
    queue: int | None,
) -> elements_pb2.UpdateReferenceRequest:
    """One element.

    Raises:
        Misuse: not exactly one of inner map, device, queue, or program alone; or one that cannot be.
    """
    request = elements_pb2.UpdateReferenceRequest(map=map, key=key, flag=requests.update_flag(flags))
    match inner, device, queue:
        case types_pb2.MapRef(), None, None if program is None:
            request.inner.CopyFrom(inner)
        case None, str() | int(), None:
            request.device.CopyFrom(_device(device))
            if program is not None:
                request.device.program.CopyFrom(_program(program))
        case None, None, int():
            request.cpu.size = _u32("queue", queue)
            if program is not None:
                request.cpu.program.CopyFrom(_program(program))
        case None, None, None if program is not None:
            request.program.CopyFrom(_program(program))
        case _:
            raise Misuse(
                "update_reference: give inner=, program=, device= or queue=; program= may go with the last two"
            )
    return request


def ids(info: MapInfo, asked: Asked) -> Codec[int]:
    """The codec of what ``lookup`` answers for kernel objects.

    Raises:
        Misuse: values of bytes, or of more than an id: they need a codec that the caller chooses.
    """
    if "update_reference" in info.supported_operations and info.value_size == U32.size:
        return U32
    hint = (
        'Struct("=II"): the object, and the id of its program' if info.value_size == 8 else "of their bytes"
    )
    raise Misuse(
        f"{asked}: {info.type_name} values of {info.value_size} bytes are no ids: give value=, a codec {hint}",
        operation=asked.operation,
        map=asked.map,
    )


def inner_map(ref: MapRef | str) -> types_pb2.MapRef:
    """A map to put into a map of maps, by name, pin or id."""
    return requests.by_ref(MapRef.parse(ref) if isinstance(ref, str) else ref)


def _device(device: str | int) -> elements_pb2.DeviceRef:
    if isinstance(device, str):
        return elements_pb2.DeviceRef(name=device)
    return elements_pb2.DeviceRef(ifindex=_u32("device", device))


def _program(program: ProgramRef) -> elements_pb2.ProgramRef:
    if isinstance(program, str):
        if not program.startswith("pin:"):
            raise Misuse(f"program={program!r}: the id as a number, or 'pin:' and the path of its pin")
        program = Pin(program[4:])
    if isinstance(program, Pin):
        return elements_pb2.ProgramRef(pin=program.path)
    return elements_pb2.ProgramRef(id=_u32("program", program))


def _u32(what: str, number: int) -> int:
    if isinstance(number, bool) or not 0 <= number <= _U32:
        raise Misuse(f"{what}={number}: 0 to {_U32}")
    return number

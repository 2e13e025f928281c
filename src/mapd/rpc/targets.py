"""UpdateReference's target: from the message to what the runtime takes. Pure."""

from __future__ import annotations

from mapd.maps.targets import CpuQueue, Device, ProgramId, ProgramPin, ProgramRef, Target
from mapd.rpc.convert import bad_spec
from mapd_api.v1 import elements_pb2 as pb

OPERATION = "update_reference"


def target(request: pb.UpdateReferenceRequest) -> Target | None:
    """What the element is to stand for; None for an inner map, which is opened and authorised like any map.

    Raises:
        MapError: BAD_SPEC, nothing is named, or less than it takes.
    """
    match request.WhichOneof("target"):
        case "inner":
            return None
        case "program":
            return _program(request.program)
        case "device":
            return _device(request.device)
        case "cpu":
            return CpuQueue(frames=request.cpu.size, program=_optional(request.cpu, "program"))
        case _:
            raise bad_spec("the request names no target (inner, program, device or cpu)", OPERATION)


def _device(message: pb.DeviceRef) -> Device:
    program = _optional(message, "program")
    match message.WhichOneof("ref"):
        case "name" if message.name:
            return Device(name=message.name, program=program)
        case "ifindex" if message.ifindex:
            return Device(ifindex=message.ifindex, program=program)
        case "ifindex":
            raise bad_spec("ifindex 0 is no device; delete the key to take its device out", OPERATION)
        case _:
            raise bad_spec("the device has no name (DeviceRef has ifindex or name)", OPERATION)


def _optional(message: pb.DeviceRef | pb.CpuQueue, field: str) -> ProgramRef | None:
    return _program(message.program) if message.HasField(field) else None


def _program(message: pb.ProgramRef) -> ProgramRef:
    match message.WhichOneof("ref"):
        case "id":
            return ProgramId(message.id)
        case "pin":
            return ProgramPin(message.pin)
        case _:
            raise bad_spec("the program has no name (ProgramRef has id or pin)", OPERATION)

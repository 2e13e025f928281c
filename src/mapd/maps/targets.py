"""What an element can stand for, as a request names it."""

from __future__ import annotations

from dataclasses import dataclass

from mapd.maps.opened import OpenMap


@dataclass(frozen=True, slots=True)
class ProgramId:
    """A program by the kernel's id."""

    id: int

    def __str__(self) -> str:
        return f"program {self.id}"


@dataclass(frozen=True, slots=True)
class ProgramPin:
    """A program by the absolute path of its pin."""

    path: str

    def __str__(self) -> str:
        return f"the program at {self.path}"


ProgramRef = ProgramId | ProgramPin


@dataclass(frozen=True, slots=True)
class Inner:
    """A map to put into a map of maps."""

    opened: OpenMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A network device by name or, where that is empty, by index."""

    name: str = ""
    ifindex: int = 0
    program: ProgramRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuQueue:
    """The queue of the CPU that the key names; ``frames`` 0 removes the element."""

    frames: int
    program: ProgramRef | None = None


Target = Inner | ProgramId | ProgramPin | Device | CpuQueue

"""Memory with an address: what a bpf(2) attr points to."""

from __future__ import annotations

import ctypes
from typing import Self


class Buffer:
    """A run of bytes that the kernel may read or write while somebody holds this object.

    The kernel is told an address and no length, so whoever passes one to a command has checked
    ``size`` first.

    Attributes:
        address: of the first byte; 0 for an empty buffer.
        size: in bytes.
        view: the same bytes; read-only where the buffer was made from ``bytes``.
    """

    __slots__ = ("_owner", "address", "size", "view")

    def __init__(self, owner: object, address: int, view: memoryview) -> None:
        self._owner = owner
        self.address = address
        self.size = len(view)
        self.view = view

    @classmethod
    def allocate(cls, size: int) -> Self:
        """``size`` zero bytes, writable."""
        memory = (ctypes.c_char * size)()
        return cls(memory, ctypes.addressof(memory) if size else 0, memoryview(memory).cast("B"))

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The bytes of ``data`` themselves, without a copy; only for commands that read."""
        # A third of the time that ctypes.cast() takes.
        address = ctypes.c_void_p.from_buffer(ctypes.c_char_p(data)).value if data else 0
        return cls(data, address or 0, memoryview(data))

    def take(self, size: int, offset: int = 0) -> bytes:
        """A copy of ``size`` bytes from ``offset``."""
        return bytes(self.view[offset : offset + size])

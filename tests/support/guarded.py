"""Memory between two pages that nobody may touch: an overrun by one byte is a fault and not silence."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

from mapd.bpf import Buffer

PAGE: Final = mmap.PAGESIZE
FILLING: Final = 0xA5
"""What stands before the first byte, from the beginning of its page."""

_PROT_NONE: Final = 0
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.restype = ctypes.c_int
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded(Buffer):
    """A buffer whose last byte lies directly before a page of PROT_NONE. Empty, it begins at that page."""

    __slots__ = ("_before",)

    def __init__(self, owner: object, address: int, view: memoryview, before: memoryview) -> None:
        super().__init__(owner, address, view)
        self._before = before

    @property
    def untouched_before(self) -> bool:
        """Whether what lies before it on its first page is as it was made."""
        return bytes(self._before) == bytes([FILLING]) * len(self._before)


def guarded(data: int | bytes) -> Guarded:
    """So many zero bytes, or these; writable."""
    size = data if isinstance(data, int) else len(data)
    pages = max(1, -(-size // PAGE))
    mapping = mmap.mmap(-1, (pages + 2) * PAGE)
    owner = ctypes.c_char.from_buffer(mapping)
    base = ctypes.addressof(owner)
    for page in (base, base + (pages + 1) * PAGE):
        if _mprotect(page, PAGE, _PROT_NONE):
            number = ctypes.get_errno()
            raise OSError(number, f"mprotect: {os.strerror(number)}")
    end = (pages + 1) * PAGE
    view = memoryview(mapping)
    before = view[PAGE : end - size]
    before[:] = bytes([FILLING]) * len(before)
    found = Guarded(owner, base + end - size, view[end - size : end], before)
    if isinstance(data, bytes):
        found.view[:] = data
    return found

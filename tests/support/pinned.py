"""A pinned map as the kernel has it: read key by key, past daemon and client."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from mapd.bpf import Buffer, Columns, Kernel, LinuxKernel, OpenPin, RawMapInfo, possible_cpus
from mapd_api.layout import value_stride
from mapd_api.ops import Op

KERNEL = LinuxKernel()


@dataclass(frozen=True)
class Snapshot:
    """All that a map is and holds."""

    info: RawMapInfo
    elements: dict[bytes, bytes]


def read_pin(pin: Path, kernel: Kernel = KERNEL) -> Snapshot:
    """A map by its pin, key by key."""
    root = str(pin.parent)
    with kernel.control(OpenPin(root=root, path=str(pin), read_only=True)) as owned, owned.lease() as map_fd:
        return read_open(map_fd, kernel)


def read_open(map_fd: int, kernel: Kernel = KERNEL) -> Snapshot:
    """A map by a descriptor, key by key."""
    info = replace(kernel.info(map_fd), memlock=0)  # of types that grow it follows RCU, not the calls
    stride = value_stride(info.map_type, info.value_size, possible_cpus())
    found: dict[bytes, bytes] = {}
    # A queue has no keys to walk, and answers EINVAL.
    key = kernel.next_key(map_fd, None, info.key_size) if info.key_size else None
    while key is not None:
        columns = Columns(1, Buffer.of(key), info.key_size, Buffer.allocate(stride), stride)
        # Maps of kernel objects walk indexes that hold none, and answer ENOENT.
        (number,) = kernel.each(map_fd, Op.LOOKUP, columns)
        assert number in (0, errno.ENOENT)
        assert columns.values is not None
        found[key] = columns.values.take(stride) if number == 0 else b""
        key = kernel.next_key(map_fd, key, info.key_size)
    return Snapshot(info, found)


@contextlib.contextmanager
def unchanged(*pins: Path) -> Generator[None]:
    """Fail unless the maps at these pins are and hold afterwards what they did before."""
    before = [read_pin(pin) for pin in pins]
    assert before
    yield
    assert [read_pin(pin) for pin in pins] == before

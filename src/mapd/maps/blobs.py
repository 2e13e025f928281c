"""Type information of the maps that this daemon made, kept beside its state.

The kernel gives a map's BTF to CAP_SYS_ADMIN alone (BPF_BTF_GET_FD_BY_ID), to its creator too. So the
blob is written down when a map is made: <folder>/<boot id>/<map id>. Ids belong to one boot and are not
given twice in it, so a file cannot come to be about another map; those of maps that have gone stay until
there is no more room.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
import uuid
from pathlib import Path
from typing import Final

import structlog

_log = structlog.stdlib.get_logger("mapd.maps")

TOTAL_BYTES: Final = 64 << 20
"""All blobs together; a loader's are a few kilobytes each, those of a kernel module up to some hundred."""

_UNFINISHED: Final = ".new"

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")
"""struct btf_header (include/uapi/linux/btf.h). The kernel takes no bytes behind the sections
(kernel/bpf/btf.c, btf_check_sec_info())."""


class BtfBlobs:
    """BTF blobs of one boot by map id. Methods block, and may be called from any thread.

    Files have mode 0600 and are whole or not there: written beside, synced, renamed.

    Args:
        folder: made if it is missing; folders of other boots in it are removed.
        total: bytes; when there are more, those written first go.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, boot_id: uuid.UUID, *, total: int = TOTAL_BYTES) -> None:
        self._folder = folder / str(boot_id)
        self._total = total
        self._lock = threading.Lock()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in folder.iterdir():
            if other != self._folder and _is_boot(other.name):
                shutil.rmtree(other, ignore_errors=True)
        self._sizes: dict[str, int] = {}
        for _, name, size in sorted(self._found()):
            self._sizes[name] = size
        self._make_room(0)

    def _found(self) -> list[tuple[int, str, int]]:
        """(written at, name, bytes) of each blob; what was not finished is removed."""
        found: list[tuple[int, str, int]] = []
        for path in self._folder.iterdir():
            if path.name.endswith(_UNFINISHED):
                path.unlink(missing_ok=True)
                continue
            status = path.stat()
            found.append((status.st_mtime_ns, path.name, status.st_size))
        return found

    def keep(self, map_id: int, blob: bytes) -> None:
        """Write a new map's blob down. Where that fails the log says so, and the map is made all the same."""
        name = str(map_id)
        with self._lock:
            try:
                if not self._make_room(len(blob)):
                    return
                self._write(name, blob)
            except OSError as error:
                _log.warning(
                    "a map's types could not be kept; only a daemon with CAP_SYS_ADMIN can give them",
                    map=map_id,
                    file=str(self._folder / name),
                    error=str(error),
                )
            else:
                self._sizes[name] = len(blob)

    def _write(self, name: str, blob: bytes) -> None:
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        unfinished.unlink(missing_ok=True)
        try:
            fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self._folder / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def _make_room(self, wanted: int) -> bool:
        """Remove the oldest until ``wanted`` bytes more fit; False if they never do."""
        while self._sizes and sum(self._sizes.values()) + wanted > self._total:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest]
            (self._folder / oldest).unlink(missing_ok=True)
        return wanted <= self._total

    def path_of(self, map_id: int) -> Path:
        """Where a map's blob is, if there is one."""
        return self._folder / str(map_id)

    def find(self, map_id: int) -> bytes | None:
        """The blob of a map that was made in this boot; None if there is none to read, or it is damaged."""
        with contextlib.suppress(OSError):
            blob = self.path_of(map_id).read_bytes()
            return blob if _is_whole(blob, len(blob)) else None
        return None

    def is_damaged(self, map_id: int) -> bool:
        """Whether a map's blob is there and is not what was written: it has another length than its header says.

        About 15 us: the header alone is read.
        """
        with contextlib.suppress(OSError), self.path_of(map_id).open("rb") as file:
            return not _is_whole(file.read(_HEADER.size), os.fstat(file.fileno()).st_size)
        return False


def _is_whole(beginning: bytes, size: int) -> bool:
    """Whether a blob of so many bytes has its header and both of its sections, and nothing behind them."""
    if len(beginning) < _HEADER.size:
        return False
    magic, _, _, header, type_at, type_bytes, text_at, text_bytes = _HEADER.unpack_from(beginning)
    return bool(magic == _MAGIC and size == header + max(type_at + type_bytes, text_at + text_bytes))


def _is_boot(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False

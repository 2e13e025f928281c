"""A snapshot's file, as it is written: beside its place, then moved into it. Blocking.

A zip archive: rows as packed columns, deflated, each member with a CRC-32, the manifest with a SHA-256 of each at the
end. What is at the path is the old file or the whole new one, whenever the process or the host ends. A file that a
killed process left beside it is not locked any more, and the next one that writes there removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from mapd_client.errors import Misuse
from mapd_client.snapshots.manifest import MEMBER, MOST, Manifest, Part

_SUFFIX: Final = ".partial"
_LEVEL: Final = 1
"""zlib's fastest: counters of 8 bytes shrink to a fifth at 144 MB/s; level 6 has the same size at 14 MB/s."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest that zip knows; when it was taken says the manifest."""


class Writer:
    """One file that comes to be. ``finish`` puts it into its place, ``abandon`` leaves nothing; one of them is due."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sweep()
        self._file, self._beside = _made_beside(path)
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)

    def _sweep(self) -> None:
        """Remove what killed processes have left: files that nobody holds locked."""
        for found in self._path.parent.glob(f".{_literal(self._path.name)}.*{_SUFFIX}"):
            with suppress(OSError):
                handle = os.open(found, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.unlink()
                finally:
                    os.close(handle)

    def add(self, member: str, *columns: bytes | memoryview) -> str:
        """Write a member; the SHA-256 of its bytes."""
        said = zipfile.ZipInfo(member, _EPOCH)
        said.compress_type = zipfile.ZIP_DEFLATED
        digest = hashlib.sha256()
        with self._archive.open(said, "w") as file:
            for column in columns:
                digest.update(column)
                file.write(column)
        return digest.hexdigest()

    def rows(self, member: str, keys: memoryview, values: memoryview, count: int) -> Part:
        """Write a member of rows."""
        return Part(member=member, rows=count, sha256=self.add(member, keys, values))

    def finish(self, manifest: Manifest) -> int:
        """Put the whole file into its place; how many bytes it has. Misuse: its manifest is too long to be read."""
        said = manifest.encoded()
        if len(said) > MOST:
            raise Misuse(
                f"snapshot {self._path}: its {MEMBER} has {len(said)} bytes, at most {MOST} are read: take fewer maps"
            )
        self.add(MEMBER, said)
        self._archive.close()
        self._file.flush()
        size = self._file.tell()
        os.fsync(self._file.fileno())
        self._beside.replace(self._path)
        self._file.close()
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size

    def abandon(self) -> None:
        """Leave nothing behind; what is at the path stays."""
        self._beside.unlink(missing_ok=True)
        self._archive.fp = None  # else it would end what has no place any more, now or when it is collected
        self._file.close()


def _made_beside(path: Path) -> tuple[BinaryIO, Path]:
    """A locked file in the path's folder, for its owner alone to read: it has what was in the maps."""
    while True:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return os.fdopen(handle, "w+b"), Path(beside)
        os.close(handle)  # somebody swept it before it was locked


def _literal(name: str) -> str:
    """The name as a pattern of glob that means itself."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)

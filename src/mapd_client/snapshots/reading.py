"""A snapshot's file, read. Blocking. Nothing of it is believed before all of it was checked."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mapd_client.errors import MapNotFound
from mapd_client.info import Btf
from mapd_client.layouts import MapLayout
from mapd_client.snapshots.manifest import MEMBER, MOST, BadSnapshot, Kept, Manifest, Part, decoded

_PIECE: Final = 1 << 20
"""Bytes that are hashed at a time."""

_MOST: Final = 64 << 20
"""Bytes of one member: a part of a dump has at most 1 MiB and one element more."""

_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others' decoders take as much memory as the file says."""


@dataclass(frozen=True, slots=True)
class SnapshotMap:
    """One map of a snapshot: what it is, and its rows as they are read from the file.

    Attributes:
        kept: its spec and how its dump went.
        btf: its type information, None where it had none.
        snapshot: whose map it is.
    """

    kept: Kept
    btf: Btf | None
    snapshot: Snapshot

    def chunks(self) -> Iterator[tuple[memoryview, memoryview, int]]:
        """Packed keys, packed values and their number, part after part.

        Raises:
            BadSnapshot: the file is another one by now.
        """
        for part in self.kept.parts:
            data = memoryview(self.snapshot.member(part.member, part.sha256))
            cut = part.rows * self.kept.key_stride
            yield data[:cut], data[cut:], part.rows

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Each key with its value; of a per-CPU map every CPU's, padded to 8 bytes. Raises as ``chunks``."""
        key, value = self.kept.key_stride, self.kept.value_stride
        for keys, values, count in self.chunks():
            for at in range(count):
                yield bytes(keys[at * key : at * key + key]), bytes(values[at * value : at * value + value])

    def layout(self) -> MapLayout | None:
        """What key and value are made of, by its type information; None without. Raises BadBtf."""
        if self.btf is None:
            return None
        from mapd_client.agreeing import layouts

        return layouts(self.btf, f"snapshot {self.snapshot.path}")


class Snapshot:
    """An open snapshot; from ``read``. A context manager; ``close`` gives the file back.

    Attributes:
        path: of the file.
        taken_at: by the clock of who wrote it, ISO 8601, UTC.
        host: node, kernel, boot_id, byteorder and possible_cpus of the daemon's host.
        maps: in the order they were asked for.
    """

    path: Path
    taken_at: str
    host: Mapping[str, Any]
    maps: Sequence[SnapshotMap]

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        said = self._said(MEMBER)
        if said is None:
            raise BadSnapshot(f"{path}: a zip archive without {MEMBER} is no snapshot")
        manifest = self._manifest(self._bytes(said, MOST))
        self.taken_at, self.host = manifest.taken_at, manifest.host
        self.maps = [SnapshotMap(one, self._btf(one), self) for one in manifest.maps]

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back. Idempotent."""
        self._archive.close()

    def __getitem__(self, label: str) -> SnapshotMap:
        """One map, by its name or as it was asked for; raises MapNotFound."""
        for one in self.maps:
            if label in (one.kept.name, one.kept.label, one.kept.name.rpartition("/")[2]):
                return one
        there = ", ".join(one.kept.label for one in self.maps)
        raise MapNotFound(f"{self.path}: the snapshot has no map {label!r}; it has {there}")

    def member(self, name: str, sha256: str) -> bytes:
        """A member whose bytes are what they were; raises BadSnapshot."""
        said = self._said(name)
        if said is None:
            raise BadSnapshot(f"{self.path}: {name} is missing")
        data = self._bytes(said)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadSnapshot(f"{self.path}: {name} is not what was written (SHA-256)")
        return data

    def check(self) -> None:
        """Read all of it; raises BadSnapshot at the first member that is not what was written."""
        seen: set[str] = set()
        for one in self.maps:
            kept = one.kept
            for part in kept.parts:
                if part.member in seen:
                    raise BadSnapshot(f"{self.path}: {part.member} is named twice")
                seen.add(part.member)
                self._check_part(kept, part)

    def _check_part(self, kept: Kept, part: Part) -> None:
        said = self._said(part.member)
        due = part.rows * (kept.key_stride + kept.value_stride)
        size = due if said is None else said.file_size
        if size == due:  # what a member has beyond what it says is not read
            self.member(part.member, part.sha256)
        else:
            raise BadSnapshot(
                f"{self.path}: {part.member} has {size} bytes, {part.rows} elements of {kept.label} have {due}"
            )

    def _said(self, name: str) -> zipfile.ZipInfo | None:
        try:
            return self._archive.getinfo(name)
        except KeyError:
            return None

    def _bytes(self, said: zipfile.ZipInfo, most: int = _MOST) -> bytes:
        if said.file_size > most:
            raise BadSnapshot(
                f"{self.path}: {said.filename} says it has {said.file_size} bytes, at most {most} are read"
            )
        if said.compress_type not in _METHODS:
            raise BadSnapshot(f"{self.path}: {said.filename} is neither stored nor deflated")
        try:
            with self._archive.open(said) as file:
                return b"".join(iter(lambda: file.read(_PIECE), b""))
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
            ValueError,  # a name that is no UTF-8, a place before the file's start
        ) as error:
            raise BadSnapshot(f"{self.path}: {said.filename} cannot be read: {error}") from None

    def _manifest(self, data: bytes) -> Manifest:
        try:
            return decoded(data)
        except BadSnapshot as error:
            raise BadSnapshot(f"{self.path}: {error.message}") from None

    def _btf(self, one: Kept) -> Btf | None:
        if one.types is None:
            return None
        blob = self.member(one.types.member, one.types.sha256)
        return Btf(blob, one.types.key_type_id, one.types.value_type_id)


def read(path: str | Path) -> Snapshot:
    """Open a snapshot and check all of it.

    Raises:
        BadSnapshot: no such file, no snapshot, one that is cut, changed, or of a newer version; says where.
    """
    path = Path(path)
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise BadSnapshot(f"{path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        # What zipfile says speaks of its own format, which nobody who has a snapshot need know.
        raise BadSnapshot(f"{path}: no snapshot that mapctl took, or one that was cut or changed") from None
    try:
        found = Snapshot(path, archive)
        found.check()
    except BaseException:
        archive.close()
        raise
    return found

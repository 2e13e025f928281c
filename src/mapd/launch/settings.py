"""What an opener is told on its command line, once and for all. Standard library alone: both sides import it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

ROOT: Final = str(Path(__file__).resolve().parents[2])
"""The folder with the package mapd."""

ENVIRONMENT: Final = MappingProxyType({"MALLOC_ARENA_MAX": "1"})
"""All of an opener's. glibc makes one heap for all its threads: with one for each, requests that are refused leave
30 MiB more behind."""

_BEGIN: Final = (
    "import sys; sys.path += sys.argv[2:]; from mapd.launch.openerprocess import main; main(sys.argv[1])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenerSettings:
    """All that an opener goes by.

    Attributes:
        fd: its end of the socket to the front.
        uid, gid: whom to become; -1: who starts it.
        profile: names of ``mapd.sandbox.profiles``.
        bpffs, names_root: where names are pinned.
        limits: fields of ``mapd.opener.Limits``, beside the root for names.
        with_front: it is the front's child: signals of the terminal are the front's business.
        cgroup: folder of the cgroup that it enters, "": it stays where it is.
        private_bpffs: a bpffs that PID 1 does not see will do.
    """

    fd: int
    uid: int
    gid: int
    profile: Sequence[str]
    bpffs: str
    names_root: str
    limits: dict[str, Any]
    with_front: bool
    cgroup: str = ""
    private_bpffs: bool = False

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote."""
        return cls(**json.loads(text))


def command(settings: OpenerSettings) -> list[str]:
    """A fresh interpreter that is the opener.

    Nothing of the starting process is in it: neither its memory and its layout, nor its environment (-I), nor
    what .pth files of site-packages would run (-S).
    """
    import mapd_api

    roots = dict.fromkeys((ROOT, str(Path(mapd_api.__file__).resolve().parents[1])))
    return [sys.executable, "-I", "-S", "-B", "-c", _BEGIN, settings.to_json(), *roots]


def python_files() -> tuple[str, ...]:
    """Folders and files that an interpreter reads: its library, packages, shared objects."""
    said = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, ROOT, *sys.path)
    system = (
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
    )
    paths = (str(Path(path).resolve()) for path in (*said, *system) if path)
    return tuple(dict.fromkeys(path for path in paths if path != "/" and Path(path).exists()))

"""Where the daemon is: the argument, MAPD_ADDRESS, /run/mapd/mapd.sock, /run/mapd/*/mapd.sock.

Only looks; blocking, a few system calls.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from mapd_client import logins, tls
from mapd_client.errors import Misuse, Unavailable
from mapd_client.tls import Tls

RUN_DIR: Final = Path("/run/mapd")
SOCKET_NAME: Final = "mapd.sock"
VARIABLE: Final = "MAPD_ADDRESS"
PATH_BYTES: Final = 107
"""sockaddr_un has 108 for a path and its NUL (unix(7))."""


_DENIED: Final = "permission denied"
CLOSED_SHOWN: Final = 8
"""Sockets of others that a message lists; a host may have a thousand principals."""

_TCP: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/\s\[\]]+):([0-9]{1,5})")


def parse_target(target: str) -> str:
    """``"unix:/path"`` or ``"/path"`` as ``"unix:/path"``, the path as it is; ``"host:port"`` as it is.

    Raises:
        Misuse: anything else, or a path longer than a socket's can be.
    """
    path = target.removeprefix("unix://") if target.startswith("unix:///") else target.removeprefix("unix:")
    if path.startswith("/") and "\0" not in path:
        size = len(os.fsencode(path))
        if size > PATH_BYTES:
            raise Misuse(
                f"{path!r} has {size} bytes, the path of a socket at most {PATH_BYTES}: use a shorter link to it"
            )
        return f"unix:{path}"
    if not target.startswith("unix:"):
        found = _TCP.fullmatch(target)
        if found is not None and 0 < int(found[2]) < 1 << 16:
            return target
    raise Misuse(
        f"{target!r} is no address: 'unix:/run/mapd/mapd.sock', an absolute path, or 'host:port' with tls="
    )


def tls_for(target: str, given: Tls | None, environ: Mapping[str, str] | None = None) -> Tls | None:
    """The certificates for a parsed target: those ``given``, else the environment's; None for a socket.

    Raises:
        Misuse: TCP without certificates, or certificates for a socket.
    """
    if target.startswith("unix:"):
        if given is not None:
            raise Misuse(f"{target}: tls= is for 'host:port'; a socket of this host needs no certificates")
        return None
    found = given if given is not None else tls.from_environment(environ)
    if found is None:
        variables = ", ".join(tls.VARIABLES.values())
        raise Misuse(
            f"{target}: over TCP a daemon speaks TLS only, with certificates on both sides: give "
            f"tls=Tls(ca=..., certificate=..., key=...), or set {variables}"
        )
    return found


def uri(target: str) -> str:
    """``target`` as gRPC wants it: it reads an address as a URI, in which "%", "#" and "?" mean something."""
    if not target.startswith("unix:"):
        return f"dns:///{target}"
    return f"unix:{quote(os.fsencode(target.removeprefix('unix:')))}"


def discover(run_dir: Path = RUN_DIR, environ: Mapping[str, str] | None = None) -> str:
    """The daemon's address when none was given, as ``parse_target`` returns it.

    Raises:
        Unavailable: none was found, or several and none is this user's; lists each place and what is
            there.
        Misuse: MAPD_ADDRESS is no address.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(VARIABLE)
    if named:
        try:
            return parse_target(named)
        except Misuse as error:
            raise Misuse(f"{VARIABLE}: {error}") from None
    looked = [f"${VARIABLE}: not set"]
    default = run_dir / SOCKET_NAME
    problem = examine(default)
    if problem is None:
        return f"unix:{default}"
    looked.append(f"{default}: {problem}")
    usable: list[Path] = []
    closed = 0
    for path in _principals(run_dir, looked):
        problem = examine(path)
        if problem is None:
            usable.append(path)
        elif problem.startswith(_DENIED) and logins.stale_group(path.parent) is None:
            closed += 1
            if closed > CLOSED_SHOWN:
                continue
        looked.append(f"{path}: {problem or 'open to you'}")
    if closed > CLOSED_SHOWN:
        looked.append(f"{closed - CLOSED_SHOWN} more below {run_dir}: permission denied")
    return f"unix:{_choose(usable, looked)}"


def sockets(run_dir: Path = RUN_DIR) -> list[tuple[Path, str | None]]:
    """The daemon's sockets on this host that ``discover`` would look at, each with why it is none to talk to.

    None: it is open to this user. Of those of others as many as a message lists. Blocks.
    """
    paths = [run_dir / SOCKET_NAME, *_principals(run_dir, [])]
    found = [(path, examine(path)) for path in paths]
    there = [(path, problem) for path, problem in found if problem != "no such file"]
    mine = [one for one in there if one[1] is None or not one[1].startswith(_DENIED)]
    return mine + [one for one in there if one not in mine][:CLOSED_SHOWN]


def examine(path: Path) -> str | None:
    """Why ``path`` is no socket to talk to, None if it is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "no such file"
    except PermissionError:
        return _denied(path)
    except OSError as error:
        return f"{error.strerror}"
    if not stat.S_ISSOCK(mode):
        return "not a socket"
    if not os.access(path, os.W_OK):
        return _denied(path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return "a socket that nobody listens on"
        except BlockingIOError:
            return None  # its queue is full: somebody is there
        except PermissionError:
            return _denied(path)
        except OSError as error:
            return f"{error.strerror or error}"
    return None


def _denied(path: Path) -> str:
    stale = logins.stale_group(path.parent)
    return f"{_DENIED} for {_who()}" + (f": {stale}" if stale else "")


def _principals(run_dir: Path, looked: list[str]) -> list[Path]:
    try:
        # Names with a dot are no principals': the daemon's own.
        folders = sorted(each for each in run_dir.iterdir() if each.is_dir() and each.name[0] != ".")
    except FileNotFoundError:
        looked.append(f"{run_dir}/*/{SOCKET_NAME}: no such folder")
        return []
    except OSError as error:
        looked.append(f"{run_dir}/*/{SOCKET_NAME}: {error.strerror} for {_who()}")
        return []
    if not folders:
        looked.append(f"{run_dir}/*/{SOCKET_NAME}: no folders")
    return [folder / SOCKET_NAME for folder in folders]


def _choose(usable: list[Path], looked: list[str]) -> Path:
    if len(usable) == 1:
        return usable[0]
    # Root may open all of them, and is the admin.
    for name in (_user_name(), *(["admin"] if os.getuid() == 0 else [])):
        mine = [path for path in usable if path.parent.name == name]
        if mine:
            return mine[0]
    places = "".join(f"\n  {line}" for line in looked)
    if usable:
        raise Unavailable(f"several daemon sockets are open to you; name one in {VARIABLE}:{places}")
    raise Unavailable(f"no daemon found; is mapd running, and may {_who()} use it? Looked at:{places}")


def _user_name() -> str:
    with suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    return ""


def _who() -> str:
    if not hasattr(os, "getuid"):
        return "this user"
    groups = ",".join(str(gid) for gid in sorted({os.getgid(), *os.getgroups()}))
    return f"uid {os.getuid()}, groups {groups}"

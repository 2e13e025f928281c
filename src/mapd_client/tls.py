"""Certificates for TCP: where they are, what is in them, and whether they have changed. Without grpc; reads files."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mapd_client.errors import Misuse

VARIABLES: Final[Mapping[str, str]] = {
    "ca": "MAPD_TLS_CA",
    "certificate": "MAPD_TLS_CERT",
    "key": "MAPD_TLS_KEY",
}

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h): Python has no name for it."""

_State = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files (PEM) for a daemon that is reached over TCP. When they change, the client goes on with the new ones.

    Attributes:
        ca: the authorities of which one signed the daemon's certificate.
        certificate: this client's certificate, behind it those between it and its authority.
        key: its key, without a password.
        server_name: a name in the daemon's certificate, where it is not the host that is connected to.
    """

    ca: str | os.PathLike[str]
    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What one reading of the files found."""

    tls: Tls
    ca: bytes
    certificate: bytes
    key: bytes
    state: _State


def from_environment(environ: Mapping[str, str] | None = None) -> Tls | None:
    """MAPD_TLS_CA, MAPD_TLS_CERT and MAPD_TLS_KEY; None if none of them is set.

    Raises:
        Misuse: some are set and some are not.
    """
    environ = os.environ if environ is None else environ
    found = {key: environ.get(name, "") for key, name in VARIABLES.items()}
    missing = [VARIABLES[key] for key, value in found.items() if not value]
    if len(missing) == len(VARIABLES):
        return None
    if missing:
        raise Misuse(f"{', '.join(missing)}: not set; TLS needs {', '.join(VARIABLES.values())}")
    return Tls(**found)


def read(tls: Tls) -> Material:
    """The files' content, which fits together.

    Raises:
        Misuse: a file cannot be read or used; says which and why.
    """
    paths = _paths(tls)
    state = _look(paths)
    contents: list[bytes] = []
    for what, path in paths.items():
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise _unreadable(what, path, error) from None
    _check(paths)
    ca, certificate, key = contents
    return Material(tls=tls, ca=ca, certificate=certificate, key=key, state=state)


def changed(now: Material) -> Material | None:
    """The content where it is another than ``now``, else None.

    Raises:
        Misuse: as ``read``.
    """
    paths = _paths(now.tls)
    if _look(paths) == now.state:
        return None
    new = read(now.tls)
    if _look(paths) != new.state:
        return None  # in the middle of being replaced: the next one to ask reads them in peace
    return new


def _paths(tls: Tls) -> Mapping[str, Path]:
    return {"ca": Path(tls.ca), "certificate": Path(tls.certificate), "key": Path(tls.key)}


def _look(paths: Mapping[str, Path]) -> _State:
    found: list[tuple[int, int, int, int]] = []
    for what, path in paths.items():
        try:
            seen = path.stat()
        except OSError as error:
            raise _unreadable(what, path, error) from None
        found.append((seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


def _unreadable(what: str, path: Path, error: OSError) -> Misuse:
    who = f" for uid {os.getuid()}" if isinstance(error, PermissionError) and hasattr(os, "getuid") else ""
    return Misuse(f"tls: {what} {path}: {error.strerror}{who}")


def _context(paths: Mapping[str, Path], protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    # Without a password given, OpenSSL would ask for one at the terminal.
    context.load_cert_chain(paths["certificate"], paths["key"], password="")
    return context


def _check(paths: Mapping[str, Path]) -> None:
    """Raises Misuse."""
    certificate, key = paths["certificate"], paths["key"]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=paths["ca"])
    except (ssl.SSLError, OSError) as error:
        raise Misuse(f"tls: ca {paths['ca']}: no certificates in PEM form ({_reason(error)})") from None
    try:
        _context(paths)
    except (ssl.SSLError, OSError) as error:
        reason = _reason(error)
        if reason == "KEY_VALUES_MISMATCH":
            raise Misuse(f"tls: key {key} is not the key of the certificate in {certificate}") from None
        raise Misuse(
            f"tls: certificate {certificate} and key {key} cannot be used ({reason}); both are PEM files, the key "
            "without a password"
        ) from None


def _reason(error: OSError) -> str:
    return (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or str(error)


def own_certificate(tls: Tls) -> str:
    """What this client shows, for messages: its names and days, and whether these are over. Takes about 2 ms."""
    try:
        facts = _decoded(_paths(tls))
    except (ssl.SSLError, OSError):
        return f"the certificate in {os.fspath(tls.certificate)}"
    names = ", ".join(f"{kind} {name}" for kind, name in facts["subjectAltName"]) or "no names"
    begins, ends = facts["notBefore"], facts["notAfter"]
    shown = f"the certificate in {os.fspath(tls.certificate)} ({names}; from {begins} to {ends})"
    if ssl.cert_time_to_seconds(ends) < time.time():
        return f"{shown}, WHICH HAS ENDED: get a new one"
    if ssl.cert_time_to_seconds(begins) > time.time():
        return f"{shown}, which does not hold yet: is this host's clock right?"
    return shown


def _decoded(paths: Mapping[str, Path]) -> Mapping[str, Any]:
    """Python reads certificates only of the other side of a connection, so both sides of one are made here."""
    reader, shower = _context(paths, ssl.PROTOCOL_TLS_SERVER), _context(paths)
    reader.verify_mode = ssl.CERT_REQUIRED
    reader.load_verify_locations(cafile=paths["certificate"])
    reader.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    shower.check_hostname = False
    shower.verify_mode = ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    shows = shower.wrap_bio(there, back)
    reads = reader.wrap_bio(back, there, server_side=True)
    for _ in range(4):
        for side in (shows, reads):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = reads.getpeercert()
    assert found is not None
    return {"subjectAltName": (), **found}

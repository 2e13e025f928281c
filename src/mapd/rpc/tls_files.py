"""The daemon's certificate, its key and the authorities of clients: read, checked, and read again when they change.

Asked at every TLS handshake, on threads of gRPC's, and at calls, once a second. The content is read only where one of
the three files changed. Whatever is wrong with a change, the last good content stays in force: a daemon does not
become unreachable, nor open to others, by a half-written file.
"""

from __future__ import annotations

import datetime
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

_log = structlog.stdlib.get_logger("mapd.tls")

FILE_BYTES: Final = 1 << 20
"""More is no certificate."""


class TlsError(Exception):
    """The files cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What one reading of the three files found.

    Attributes:
        generation: counts from 0.
        certificate: the chain, as PEM.
        key: as PEM.
        client_ca: as PEM.
        authorities: those in ``client_ca``.
        ends: when the daemon's own certificate does.
    """

    generation: int
    certificate: bytes
    key: bytes
    client_ca: bytes
    authorities: Sequence[x509.Certificate]
    ends: datetime.datetime


_State = tuple[tuple[int, int, int, int], ...]


class TlsFiles:
    """Three files, and the last good content of them. Every method may be called from any thread.

    Args:
        certificate, key, client_ca: paths.

    Raises:
        TlsError: they cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()
        self._state = self._look()
        self._material = self._read(0)
        self._removed: Sequence[x509.Certificate] = ()
        self._said = ""

    @property
    def material(self) -> Material:
        """The last good content, without looking."""
        return self._material

    def current(self) -> Material:
        """The content, read again if a file changed; the last good one if it cannot be used now (logged once)."""
        try:
            state = self._look()
        except TlsError as error:
            self._complain(str(error))
            return self._material
        with self._lock:
            if state != self._state:
                self._change(state)
            return self._material

    def _change(self, state: _State) -> None:
        try:
            new = self._read(self._material.generation + 1)
            if self._look() != state:
                return  # changed under the reading: the next one to ask reads them in peace
        except TlsError as error:
            # Nothing but another change could make it good.
            self._state = state
            self._complain(str(error))
            return
        gone = [each for each in self._material.authorities if each not in new.authorities]
        self._removed = [each for each in (*self._removed, *gone) if each not in new.authorities]
        self._state, self._material, self._said = state, new, ""
        _log.info("certificates read again", ends=new.ends.isoformat(), authorities=len(new.authorities))

    def _complain(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _log.error("certificates changed and cannot be used; the last good ones stay", reason=text)

    def admits(self, certificate: x509.Certificate) -> bool:
        """Whether the authority that signed it has not been taken out since the daemon started.

        TLS verified it when its connection was made, maybe before. An authority between it and those of the file
        is not known any more, so that what such a one signed is admitted until its connection is too old.
        """
        return not any(_signed(each, certificate) for each in self._removed) or any(
            _signed(each, certificate) for each in self._material.authorities
        )

    def _look(self) -> _State:
        found: list[tuple[int, int, int, int]] = []
        for path in (self._certificate, self._key, self._client_ca):
            try:
                seen = path.stat()
            except OSError as error:
                raise TlsError(f"{path}: {error.strerror}") from None
            found.append((seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino))
        return tuple(found)

    def _read(self, generation: int) -> Material:
        certificate = _content(self._certificate)
        key = _content(self._key, secret=True)
        client_ca = _content(self._client_ca)
        chain = _certificates(self._certificate, certificate)
        _check_key(self._key, key, self._certificate, chain[0])
        return Material(
            generation=generation,
            certificate=certificate,
            key=key,
            client_ca=client_ca,
            authorities=_certificates(self._client_ca, client_ca),
            ends=chain[0].not_valid_after_utc,
        )


def _content(path: Path, *, secret: bool = False) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}; mapd runs as uid {os.geteuid()}") from None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise TlsError(f"{path}: not a regular file")
        if secret:
            _check_secret(path, found)
        try:
            content = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise TlsError(f"{path}: {error.strerror}") from None
    if len(content) > FILE_BYTES:
        raise TlsError(f"{path}: more than {FILE_BYTES} bytes, which no certificates have")
    return content


def _check_secret(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise TlsError(
            f"{path}: the key is uid {found.st_uid}'s, who may change it; chown {os.geteuid()} {path} (mapd's user)"
        )
    if found.st_mode & 0o077:
        raise TlsError(
            f"{path}: others than its owner may use the key (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 "
            f"{path}, and take a new key if somebody may have read it"
        )


def _certificates(path: Path, content: bytes) -> Sequence[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(content)
    except (ValueError, x509.InvalidVersion) as error:
        raise TlsError(f"{path}: no certificates in PEM form ({error})") from None
    return found


def _check_key(path: Path, content: bytes, certificate_path: Path, certificate: x509.Certificate) -> None:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise TlsError(
            f"{path}: the key is encrypted, and nobody is there to type its password; store it without one "
            f"(openssl pkey -in {path} -out ...), mode 600"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"{path}: no private key in PEM form ({error})") from None
    try:
        wanted = _public(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(
            f"{certificate_path}: a certificate whose key cannot be used ({error}); take an RSA key, or one of the "
            "curve P-256 or P-384"
        ) from None
    if _public(key.public_key()) != wanted:
        raise TlsError(
            f"{path}: not the key of the certificate in {certificate_path}; replace both, each in one step (rename)"
        )


def _public(key: object) -> bytes:
    encode = getattr(key, "public_bytes", None)
    assert encode is not None, "every public key has it"
    found: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True

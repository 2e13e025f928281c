"""A small certificate authority for tests: EC keys, made in memory, written where a test wants them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR: Final = datetime.timedelta(hours=1)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    return x509.DNSName(text)


LOCALHOST: Final[Sequence[x509.GeneralName]] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
)


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate, its key and the authority of the other side, on disk."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its chain, and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, ca: bytes, key_mode: int = 0o600) -> Files:
        """Replace what is in ``folder``, each file in one step, the key first."""
        folder.mkdir(exist_ok=True)
        files = Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        put(files.key, self.key, key_mode)
        put(files.certificate, self.certificate)
        put(files.ca, ca)
        return files


def put(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


class Authority:
    """A root, or an authority below another one."""

    def __init__(self, name: str = "test root", above: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._above = above
        signer = self if above is None else above
        begin = _now() - HOUR
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(signer._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + 48 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(signer._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: x509.GeneralName,
        common_name: str = "test",
        lasts: datetime.timedelta = HOUR,
        began: datetime.timedelta = -HOUR,
    ) -> Issued:
        """A certificate for ``names`` (subject alternative names), that ends ``lasts`` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = _now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(common_name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now + began, now + lasts - HOUR))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        chain = b"" if self._above is None else self.pem
        return Issued(
            certificate + chain,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

"""The file of contexts: read whole and checked, changed without losing its comments. Blocking."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from mapd_client.errors import Misuse
from mapd_client.tls import Tls


class Certificates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files (PEM), relative to the configuration's folder."""

    ca: str
    certificate: str
    key: str
    server_name: str | None = None


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One daemon, or those of several hosts.

    Attributes:
        address: a socket, or host:port.
        hosts: addresses of several daemons, or names in ``hosts_file``.
        hosts_file: the daemons of several hosts.
        timeout: seconds that any one call may take.
        certificates: for host:port; in the file it is called ``tls``.
        folder: of the configuration; the file cannot say it.
    """

    address: str | None = None
    hosts: tuple[str, ...] = ()
    hosts_file: str | None = None
    timeout: float | None = None
    certificates: Certificates | None = msgspec.field(default=None, name="tls")

    def where(self) -> str:
        """What it names, in a line."""
        if self.address is not None:
            return self.address
        return " ".join(self.hosts) or self.hosts_file or "-"

    @property
    def tls(self) -> Tls | None:
        """The certificates, as ``connect`` takes them."""
        if self.certificates is None:
            return None
        one = self.certificates
        return Tls(ca=one.ca, certificate=one.certificate, key=one.key, server_name=one.server_name)

    def below(self, folder: Path) -> Context:
        """The same, its paths made absolute."""
        one = self.certificates
        if one is not None:
            one = msgspec.structs.replace(
                one, **{name: str(folder / getattr(one, name)) for name in ("ca", "certificate", "key")}
            )
        hosts_file = None if self.hosts_file is None else str(folder / self.hosts_file)
        return msgspec.structs.replace(self, certificates=one, hosts_file=hosts_file)


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    current: str | None = None
    contexts: dict[str, Context] = msgspec.field(default_factory=dict[str, Context])

    def named(self, name: str, path: Path) -> Context:
        """One context.

        Raises:
            Misuse: there is none; names those that are there.
        """
        if name not in self.contexts:
            there = ", ".join(self.contexts) or "none"
            raise Misuse(f"context {name!r}: {path} has no such context, it has {there}")
        return self.contexts[name].below(path.parent)


def read(path: Path) -> Configuration:
    """The file, checked.

    Raises:
        Misuse: it cannot be read, is no TOML, has other keys or types; says which and where.
    """
    try:
        return msgspec.toml.decode(_bytes(path), type=Configuration)
    except msgspec.DecodeError as error:
        raise Misuse(f"{path}: {error}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misuse(f"{path}: {error.strerror}; a context is [contexts.NAME] with address = ...") from None


def make_current(path: Path, name: str) -> None:
    """Write ``current = name``; the file is replaced as a whole, its comments stay.

    Raises:
        Misuse: no such context, a file that cannot be read or written.
    """
    import tomlkit

    read(path).named(name, path)
    document = tomlkit.parse(_bytes(path).decode())
    if "current" in document:
        document["current"] = name
    else:  # keys of the document go before its first table
        text = f'current = "{name}"\n' + document.as_string()
        document = tomlkit.parse(text)
    target = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(document.as_string())
                os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Misuse(f"context use {name}: {path} cannot be written: {error.strerror}") from None

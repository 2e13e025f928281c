"""Which hosts there are: a TOML file of one's own, or the JSON that Prometheus' file_sd reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from mapd_client.discovery import parse_target
from mapd_client.errors import Misuse
from mapd_client.tls import Tls

_TLS: Final = {"ca", "certificate", "key", "server_name"}
_HOST: Final = {"address", "labels", "tls"}


@dataclass(frozen=True, slots=True)
class Host:
    """One daemon.

    Attributes:
        name: how results call it.
        address: a socket, or host:port.
        labels: what is known of it beside, to choose by.
        tls: certificates for host:port; None: those of the fleet, or the environment's.
    """

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    tls: Tls | None = None


def from_toml(path: str | Path) -> Sequence[Host]:
    """Hosts of a file, read once.

    ::

        [tls]                      # for all that have none of their own
        ca = "ca.pem"
        certificate = "me.pem"
        key = "me.key"

        [hosts.edge1]
        address = "edge1.example:7443"
        labels = { dc = "fra" }

    Paths of certificates are relative to the file.

    Raises:
        Misuse: a file that cannot be read, an unknown key, no address; says where.
    """
    path = Path(path)
    said = _toml(path)
    _known(said, {"tls", "hosts"}, str(path))
    common = _tls(said.get("tls"), path, "tls")
    hosts = _table(said.get("hosts", {}), f"{path}: hosts")
    return [_host(name, _table(one, f"{path}: hosts.{name}"), common, path) for name, one in hosts.items()]


def _host(name: str, said: Mapping[str, Any], common: Tls | None, path: Path) -> Host:
    where = f"{path}: hosts.{name}"
    _known(said, _HOST, where)
    address = said.get("address")
    if not isinstance(address, str):
        raise Misuse(f'{where}: an address is needed, as in address = "edge1.example:7443"')
    return Host(
        name,
        _address(address, where),
        _labels(said.get("labels", {}), where),
        _tls(said.get("tls"), path, f"hosts.{name}.tls") or common,
    )


def from_file_sd(path: str | Path) -> Sequence[Host]:
    """Hosts of a file as Prometheus' file_sd reads it: ``[{"targets": ["edge1:7443"], "labels": {"dc": "fra"}}]``.

    A host is called as its target is written.

    Raises:
        Misuse: a file that cannot be read, or of another form; a target twice.
    """
    path = Path(path)
    try:
        said: Any = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise Misuse(f"{path}: no JSON: {error}") from None
    if not isinstance(said, list):
        raise Misuse(f'{path}: a list of {{"targets": [...], "labels": {{...}}}} is needed')
    found: list[Host] = []
    for at, group in enumerate(cast("Sequence[Any]", said)):
        where = f"{path}: group {at}"
        table = _table(group, where)
        labels = _labels(table.get("labels", {}), where)
        found += [Host(one, _address(one, where), labels) for one in _strings(table.get("targets"), where)]
    return unique(found)


def read(path: str | Path) -> Sequence[Host]:
    """A file of either kind, by its name: ``.json`` is file_sd. Raises as these."""
    return from_file_sd(path) if Path(path).suffix == ".json" else from_toml(path)


def unique(hosts: Iterable[Host]) -> Sequence[Host]:
    """The hosts; raises Misuse where two have one name, or one address: it would be counted twice."""
    found = list(hosts)
    for what, all_of_them in (
        ("name", [one.name for one in found]),
        ("address", [_plain(one) for one in found]),
    ):
        counted = Counter(all_of_them)
        twice = [one for one in counted if counted[one] > 1]
        if twice:
            raise Misuse(f"hosts: {', '.join(twice[:8])}: two of one {what}")
    return found


def _plain(host: Host) -> str:
    """The address, however it was written."""
    return host.address.removeprefix("unix:")


def _address(text: str, where: str) -> str:
    try:
        return parse_target(text)
    except Misuse as error:
        raise Misuse(f"{where}: {error.message}") from None


def _tls(said: object, path: Path, where: str) -> Tls | None:
    if said is None:
        return None
    table = _table(said, f"{path}: {where}")
    _known(table, _TLS, f"{path}: {where}")
    missing = sorted({"ca", "certificate", "key"} - table.keys())
    if missing or not all(isinstance(one, str) for one in table.values()):
        raise Misuse(f"{path}: {where}: {', '.join(missing) or 'its values'} must be paths")
    files = {name: path.parent / table[name] for name in ("ca", "certificate", "key")}
    return Tls(**files, server_name=table.get("server_name"))


def _labels(said: object, where: str) -> Mapping[str, str]:
    table = _table(said, f"{where}: labels")
    if not all(isinstance(one, str) for one in table.values()):
        raise Misuse(f"{where}: labels are strings")
    return dict(table)


def _strings(said: object, where: str) -> Sequence[str]:
    listed = cast("Sequence[object]", said) if isinstance(said, list) else [None]
    found = [one for one in listed if isinstance(one, str)]
    if len(found) != len(listed):
        raise Misuse(f'{where}: "targets" must be a list of strings')
    return found


def _known(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(table.keys() - keys)
    if unknown:
        raise Misuse(f"{where}: unknown {', '.join(unknown)}; there may be {', '.join(sorted(keys))}")


def _table(said: object, where: str) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise Misuse(f"{where}: a table is needed, not {said!r}")
    return cast("Mapping[str, Any]", said)


def _toml(path: Path) -> Mapping[str, Any]:
    import tomllib  # for who has such a file

    try:
        return tomllib.loads(_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misuse(f"{path}: no TOML: {error}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misuse(f"{path}: {error.strerror or error}") from None

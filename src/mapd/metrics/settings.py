"""Table [metrics] of the configuration. Read before the process locks itself in: nothing but msgspec is imported."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal

import msgspec

METRIC: Final = re.compile(r"[a-z][a-z0-9_]{0,99}")
LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
OWN: Final = ("mapd_", "process_", "python_")
"""How the daemon's own metrics begin."""

PORT: Final = 9433
"""By which the documentation means a daemon's metrics; nothing is bound to it."""

Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
Width = Annotated[int, msgspec.Meta(ge=1, le=256)]

INTEGERS: Final = frozenset({1, 2, 4, 8})
"""Sizes of integers, in bytes."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The integer in a map's value that a metric has.

    Attributes:
        offset: of it in the value, in bytes.
        size: 1, 2, 4 or 8 bytes.
        signed: in two's complement.
        scale: what it is multiplied by: 1e-9 makes seconds of nanoseconds.
    """

    offset: Offset = 0
    size: int = 8
    signed: bool = False
    scale: float = 1.0


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A field of the key, or of the value, that becomes a label.

    Attributes:
        of: where it lies.
        offset: of it there, and size, in bytes.
        decoder: uint and int (1, 2, 4 or 8 bytes); ip (4 or 16); mac (6); string, which ends at its first NUL; hex.
        order: of an integer's bytes: host, little, big.
        static_map: what is said instead of what the decoder makes; of a value that is not in it, "unknown:" and that.
    """

    name: str
    of: Literal["key", "value"] = "key"
    offset: Offset = 0
    size: Width
    decoder: Literal["uint", "int", "ip", "mac", "string", "hex"] = "uint"
    order: Literal["host", "little", "big"] = "host"
    static_map: dict[str, str] = {}


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A metric that is made of a map's elements. Those with the same labels are added up.

    Attributes:
        map: a name, or the absolute path of a pin.
        name: of the metric; a counter's ends with _total.
        cpu: the label of the CPU, for a map with a value for each; "": they are added up.
        max_series: of more, none is told: half of a metric is no metric.
    """

    map: str
    name: str
    help: str
    type: Literal["counter", "gauge"]
    value: Value = Value()
    labels: tuple[Label, ...] = ()
    cpu: str = ""
    max_series: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 1_000


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [metrics]: counters for Prometheus, by HTTP at /metrics.

    Whoever can connect reads them all, and any user of this host can connect to a loopback port; so they are off
    unless an address is given, and say nothing of any map unless it is named.

    Attributes:
        listen: an address with a port, "127.0.0.1:9433" or "[::1]:9433"; "": they are off.
        beyond_loopback: the address may be one that other hosts reach. There is no TLS, and nobody is asked who he is.
        maps: of maps whose names match one of these patterns: elements, most elements, memory, reads and writes.
        every_s: maps are looked at at most once in so many seconds, however many ask.
        contents: metrics made of maps' elements.
    """

    listen: str = ""
    beyond_loopback: bool = False
    maps: tuple[str, ...] = ()
    every_s: Annotated[float, msgspec.Meta(ge=0.1, le=3_600)] = 5.0
    contents: tuple[Content, ...] = ()

    @property
    def port(self) -> int | None:
        """To listen on; None: metrics are off."""
        return int(self.listen.rpartition(":")[2]) if self.listen else None


def address_of(listen: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: it is no IP address with a port.
    """
    host, _, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        six = ipaddress.ip_address(bare).version == 6
    except ValueError:
        six = None
    if six is (bare != host) and port.isascii() and port.isdecimal() and int(port) < 1 << 16:
        return bare, int(port)
    raise ValueError(
        f"listen: {listen!r} is no IP address with a port, as '127.0.0.1:{PORT}' and '[::1]:{PORT}' are"
    )


def check(metrics: MetricsConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        ValueError: the key, what it is, and what is accepted.
    """
    if metrics.listen:
        host, _ = address_of(metrics.listen)
        if not ipaddress.ip_address(host).is_loopback and not metrics.beyond_loopback:
            raise ValueError(
                f"listen: {metrics.listen!r} is reached by other hosts, without TLS and whoever asks: listen on "
                f"'127.0.0.1:{PORT}', or set beyond_loopback = true"
            )
    seen: set[str] = set()
    for content in metrics.contents:
        _check_content(content, seen)


def _check_content(content: Content, seen: set[str]) -> None:
    where = f"contents {content.name!r}:"
    if METRIC.fullmatch(content.name) is None or content.name.startswith(OWN):
        raise ValueError(
            f"{where} a metric's name is of a-z, 0-9 and '_', and begins with none of {', '.join(OWN)}"
        )
    if content.name.endswith("_total") is not (content.type == "counter"):
        raise ValueError(f"{where} the name of a counter ends with _total, and no other name does")
    if content.name in seen:
        raise ValueError(f"{where} there is another metric of that name")
    seen.add(content.name)
    if not content.map.startswith("/") and content.map.count("/") != 1:
        raise ValueError(
            f"{where} map = {content.map!r} is neither 'namespace/name' nor a pin's absolute path"
        )
    if content.value.size not in INTEGERS:
        raise ValueError(f"{where} a value has 1, 2, 4 or 8 bytes, and size is {content.value.size}")
    names = [label.name for label in content.labels] + ([content.cpu] if content.cpu else [])
    for name in names:
        if LABEL.fullmatch(name) is None or names.count(name) > 1 or name == "le":
            raise ValueError(f"{where} label {name!r}: of a-z, 0-9 and '_', not 'le', and no two alike")
    for label in content.labels:
        _check_label(where, label)


def _check_label(where: str, label: Label) -> None:
    fits = {"uint": INTEGERS, "int": INTEGERS, "ip": {4, 16}, "mac": {6}}.get(label.decoder)
    if fits is not None and label.size not in fits:
        sizes = " or ".join(map(str, sorted(fits)))
        raise ValueError(
            f"{where} label {label.name!r}: {label.decoder} has {sizes} bytes, and size is {label.size}"
        )

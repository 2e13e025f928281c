"""What maps hold, as metrics: elements with the same labels are added up, and their labels decoded.

Rows are added up by numpy, page by page; Python sees one row for each series.
"""

from __future__ import annotations

import sys
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mapd.access.authorize import Authorizer
from mapd.access.principal import Principal
from mapd.maps import traits
from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts, OpenMap
from mapd.maps.scan import Page, ScanOptions
from mapd.maps.store import NameRef, PinRef
from mapd.metrics.settings import Content, Label, Value
from mapd.runtime.host import MapHost
from mapd_api.ops import Verb

_log = structlog.stdlib.get_logger("mapd.metrics")

_READ: Final = frozenset({Verb.READ})

Bytes = npt.NDArray[np.uint8]


class Unfit(Exception):
    """This metric cannot be made of this map; says why."""


def check(content: Content, facts: MapFacts) -> None:
    """Refuse fields that the map's elements do not have.

    Raises:
        Unfit: with both sizes.
    """
    sizes = {"key": facts.info.key_size, "value": facts.info.value_size}
    value = content.value
    wanted: list[tuple[str, str, int]] = [("the value", "value", value.offset + value.size)]
    wanted += [(f"label {label.name!r}", label.of, label.offset + label.size) for label in content.labels]
    for what, of, end in wanted:
        if end > sizes[of]:
            raise Unfit(f"{what} ends at byte {end}, and a {of} of {facts.label} has {sizes[of]}")
    if content.cpu and not is_per_cpu(facts):
        raise Unfit(f"label {content.cpu!r} is the CPU's, and {facts.label} has one value for all")


def is_per_cpu(facts: MapFacts) -> bool:
    """Whether there is a value for each CPU."""
    return facts.traits is not None and facts.traits.value is traits.Value.PER_CPU


@dataclass(slots=True)
class Sums:
    """One metric while its map is read: the sum of each row of label bytes. For one thread at a time.

    A column more, of two bytes, has the CPU where that is a label.
    """

    content: Content
    facts: MapFacts
    rows: dict[bytes, float] = field(default_factory=dict[bytes, float])

    def add(self, page: Page) -> None:
        """Add up one page. Blocks.

        Raises:
            Unfit: there are more series than there may be.
        """
        if not page.count:
            return
        keys = np.frombuffer(page.keys, np.uint8).reshape(page.count, -1)
        values = np.frombuffer(page.values, np.uint8).reshape(page.count, -1)
        cpus: Bytes | None = None
        if is_per_cpu(self.facts):
            slots = values.shape[1] // self.facts.slot_stride
            values = values.reshape(page.count * slots, self.facts.slot_stride)
            keys = np.repeat(keys, slots, axis=0)
            if self.content.cpu:
                numbers = np.tile(np.arange(slots, dtype="<u2"), page.count)
                cpus = numbers.view(np.uint8).reshape(-1, 2)
        numbers = integers(values, self.content.value)
        labels = self._labels(keys, values, cpus)
        if not labels.shape[1]:
            self.rows[b""] = self.rows.get(b"", 0.0) + float(numbers.sum())
            return
        rows, inverse = np.unique(labels.view(f"V{labels.shape[1]}").reshape(-1), return_inverse=True)
        sums = np.bincount(inverse.reshape(-1), weights=numbers, minlength=len(rows))
        for row, total in zip(rows.tolist(), sums.tolist(), strict=True):
            self.rows[row] = self.rows.get(row, 0.0) + total
        if len(self.rows) > self.content.max_series:
            raise Unfit(
                f"it has more than max_series = {self.content.max_series} series: give it fewer labels, or raise that"
            )

    def _labels(self, keys: Bytes, values: Bytes, cpus: Bytes | None) -> Bytes:
        """The bytes of all labels, side by side."""
        found = [
            (keys if label.of == "key" else values)[:, label.offset : label.offset + label.size]
            for label in self.content.labels
        ]
        if cpus is not None:
            found.append(cpus)
        if not found:
            return np.empty((len(keys), 0), np.uint8)
        return np.ascontiguousarray(np.concatenate(found, axis=1))

    def family(self) -> Metric:
        """The metric. Rows that are spelt alike, such as strings with rubbish behind their end, are added up."""
        content = self.content
        series: dict[tuple[str, ...], float] = {}
        for row, total in self.rows.items():
            spelt = tuple(self._spelt(row))
            series[spelt] = series.get(spelt, 0.0) + total
        names = [label.name for label in content.labels] + ([content.cpu] if content.cpu else [])
        kind = CounterMetricFamily if content.type == "counter" else GaugeMetricFamily
        family: Metric = kind(content.name, content.help, labels=names)
        for spelt, total in series.items():
            family.add_sample(content.name, dict(zip(names, spelt, strict=True)), total * content.value.scale)
        return family

    def _spelt(self, row: bytes) -> Iterable[str]:
        at = 0
        for label in self.content.labels:
            yield decode(label, row[at : at + label.size])
            at += label.size
        if self.content.cpu:
            yield str(int.from_bytes(row[at:], "little"))


def integers(values: Bytes, value: Value) -> npt.NDArray[np.float64]:
    """One integer of each row, in this host's byte order: exact up to 2**53, as Prometheus' numbers are."""
    field_bytes = np.ascontiguousarray(values[:, value.offset : value.offset + value.size])
    kind = f"{'i' if value.signed else 'u'}{value.size}"
    return field_bytes.view(kind).reshape(-1).astype(np.float64)


def decode(label: Label, raw: bytes) -> str:
    """What one label says."""
    text = _decoded(label, raw)
    if label.static_map:
        return label.static_map.get(text, f"unknown:{text}")
    return text


def _decoded(label: Label, raw: bytes) -> str:
    match label.decoder:
        case "uint" | "int":
            order = sys.byteorder if label.order == "host" else label.order
            return str(int.from_bytes(raw, order, signed=label.decoder == "int"))
        case "ip":
            return str(ip_address(raw))
        case "mac":
            return raw.hex(":")
        case "string":
            return raw.partition(b"\0")[0].decode("utf-8", "replace")
        case "hex":
            return raw.hex()


class Contents:
    """Reads the maps of all such metrics, as the admin: who wrote the configuration says what is told.

    Args:
        thread: where pages are added up.
    """

    def __init__(
        self,
        host: MapHost,
        authorizer: Authorizer,
        admin: Principal,
        contents: Sequence[Content],
        thread: Executor,
    ) -> None:
        self._host = host
        self._authorizer = authorizer
        self._admin = admin
        self._contents = contents
        self._thread = thread
        self._told: dict[str, str] = {}

    async def __call__(self) -> Sequence[Metric]:
        """Look now: one dump of each map. What cannot be told is left out, as a whole, and the log says once why."""
        up = GaugeMetricFamily(
            "mapd_content_up", "1: the metric could be made of its map.", labels=("metric",)
        )
        found: list[Metric] = []
        for content in self._contents:
            why = ""
            try:
                found.append(await self._read(content))
            except (MapError, Unfit) as error:
                why = str(error)
            if why and why != self._told.get(content.name):
                _log.warning("a map's content is not told", metric=content.name, map=content.map, why=why)
            self._told[content.name] = why
            up.add_metric((content.name,), int(not why))
        return [*found, up]

    async def _read(self, content: Content) -> Metric:
        """Raises MapError, Unfit."""
        ref = PinRef(content.map) if content.map.startswith("/") else NameRef(*content.map.split("/"))
        reached = await self._host.open(ref, None, _READ, read_only=True, operation="metrics")
        opened: OpenMap = reached.opened
        try:
            check(content, opened.facts)
            authorized = self._authorizer.authorize_map(self._admin, _READ, opened, reached.subject)
            sums, loop = Sums(content, opened.facts), get_running_loop()
            dump = self._host.dump(authorized, ScanOptions())
            trailer = await dump.run(_begin, partial(_add, loop, self._thread, sums))
            if not trailer.complete:
                raise Unfit(f"it was not read to its end: {trailer.incomplete_reason}")
            return await loop.run_in_executor(self._thread, sums.family)
        finally:
            opened.fd.close()


async def _begin() -> None:
    """Nothing is said before the first page."""


async def _add(loop: AbstractEventLoop, thread: Executor, sums: Sums, page: Page) -> None:
    await loop.run_in_executor(thread, sums.add, page)

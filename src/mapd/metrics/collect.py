"""The daemon's own metrics: what its parts have counted, as families that prometheus-client writes."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from mapd.access.quotas import Dimension
from mapd.bpf import Kernel
from mapd.maps.programs import MOST as MOST_PROGRAMS
from mapd.metrics.counts import BOUNDS_S, Calls, Histogram
from mapd.metrics.parts import Parts
from mapd.metrics.syscalls import CountingKernel
from mapd.rpc.guard import Guard
from mapd.rpc.health import SERVICES
from mapd.rpc.server_info import Facts
from mapd.runtime.adopting import Adopting
from mapd.runtime.audit_log import AuditLog
from mapd.runtime.leases import Leases
from mapd.runtime.pool import Lane, SyscallPool
from mapd_api import __version__

Source: TypeAlias = Callable[[], Iterable[Metric]]
"""Looked at in the event loop, at each scrape; blocks for less than a millisecond."""

_Labels = TypeVar("_Labels", bound=tuple[str, ...])

_BOUNDS: Final = (*(f"{bound:g}" for bound in BOUNDS_S), "+Inf")


def sources(parts: Parts) -> tuple[Source, ...]:
    """Everything that is told of the daemon itself."""
    process = ProcessCollector(registry=None)
    return (
        lambda: [_build(parts.facts)],
        lambda: _calls(parts.guard.counts),
        lambda: _services(parts.guard),
        lambda: _syscalls(parts.store.kernel),
        lambda: _lanes(parts.pool),
        lambda: _streams(parts),
        lambda: _pins(parts.adopting),
        lambda: _leases(parts.leases),
        lambda: _audit(parts.audit),
        process.collect,
    )


def _build(facts: Facts) -> Metric:
    about = {
        "version": __version__,
        "epoch": facts.epoch,
        "backend": facts.backend,
        "profile": facts.profile,
        "kernel_release": facts.kernel_release,
        "python": platform.python_version(),
    }
    return InfoMetricFamily("mapd_build", "This start of the daemon; epoch is random at each.", value=about)


def _calls(counts: Calls) -> Iterator[Metric]:
    calls = HistogramMetricFamily(
        "mapd_rpc_duration_seconds",
        "Calls that have ended, by what they were told: OK, the reason of a refusal, or CANCELLED by the client.",
        labels=("service", "method", "reason"),
    )
    for (name, reason), histogram in list(counts.handled.items()):
        service, method = name.removeprefix("/").split("/")
        calls.add_metric((service, method, reason), *_histogram(histogram))
    yield calls
    messages = HistogramMetricFamily(
        "mapd_session_message_duration_seconds",
        "Messages of sessions, from when one was read to when it was answered.",
    )
    messages.add_metric((), *_histogram(counts.messages))
    yield messages
    yield _counter(
        "mapd_groups_refused",
        "Groups of elements that were refused as a whole.",
        ("reason",),
        {(reason,): count for reason, count in counts.groups.items()},
    )
    yield _counter("mapd_quota_refusals", "Refusals for a quota.", ("principal", "quota"), counts.quotas)
    yield _counter(
        "mapd_slow_consumers_cut",
        "Streams that were ended because their client took nothing.",
        ("method",),
        {(name.rpartition("/")[2],): count for name, count in counts.cuts.items()},
    )


def _histogram(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """As the library takes it: cumulated."""
    total, found = 0, list[tuple[str, float]]()
    for bound, count in zip(_BOUNDS, histogram.buckets, strict=True):
        total += count
        found.append((bound, total))
    return found, histogram.total_s


def _services(guard: Guard) -> Iterator[Metric]:
    draining = guard.draining.is_set()
    yield _gauge(
        "mapd_service_serving",
        "1: health says SERVING.",
        ("service",),
        {(name,): int(not draining and guard.services.serving(name)) for name in SERVICES},
    )
    yield GaugeMetricFamily(
        "mapd_rpc_running", "Calls, and messages of sessions, that are being served.", value=guard.running
    )


def _syscalls(kernel: Kernel) -> Iterator[Metric]:
    counts: Mapping[tuple[str, str], int] = kernel.counts() if isinstance(kernel, CountingKernel) else {}
    yield _counter(
        "mapd_syscalls",
        "Calls into the kernel, or requests to the opener, by command and errno (OK: none).",
        ("operation", "errno"),
        counts,
    )


def _lanes(pool: SyscallPool) -> Iterator[Metric]:
    lanes = {(lane.value,): pool.counts(lane) for lane in Lane}
    for name, text, count in (
        ("hops", "Hops to a thread; calls over hops is how many one hop carried.", "hops"),
        ("calls", "Calls that a thread has begun.", "jobs"),
        ("calls_dropped", "Calls that were cancelled before a thread had begun them.", "dropped"),
        ("calls_refused", "Calls that found the lane's queue full, and were answered BUSY.", "refused"),
    ):
        values = {lane: getattr(counts, count) for lane, counts in lanes.items()}
        yield _counter(f"mapd_lane_{name}", text, ("lane",), values)
    queued = {lane: counts.queued for lane, counts in lanes.items()}
    yield _gauge("mapd_lane_queue_depth", "Calls that wait for a thread now.", ("lane",), queued)
    threads = {(lane.value,): pool.threads(lane) for lane in Lane}
    yield _gauge("mapd_lane_threads", "Threads of a lane.", ("lane",), threads)


def _streams(parts: Parts) -> Iterator[Metric]:
    host, sessions = parts.host, parts.sessions
    replaced = sum(bool(one.replaced) for one in host.handles.held())
    for name, text, value in (
        ("sessions", "Sessions, with those that wait to be resumed.", len(sessions)),
        ("sessions_detached", "Sessions whose stream broke, and that wait to be resumed.", sessions.detached),
        ("dumps_running", "Dumps that are being read.", host.shares.total(Dimension.DUMPS)),
        ("dump_bytes_free", "Memory that dumps may still take, in bytes.", parts.budget.free),
        ("handles", "Handles that are open.", len(host.handles)),
        ("handles_replaced", "Open handles whose name or pin leads to another map by now.", replaced),
        (
            "programs_loaded",
            "Programs in the cache; of more than programs_limit one is closed.",
            parts.store.programs.loaded,
        ),
        ("programs_limit", "Programs that the cache holds at most.", MOST_PROGRAMS),
    ):
        yield GaugeMetricFamily(f"mapd_{name}", text, value=value)
    for name, text, value in (
        ("elements_read", "Elements that clients have read.", host.traffic.read),
        ("elements_written", "Elements that clients have written or deleted.", host.traffic.written),
    ):
        yield CounterMetricFamily(f"mapd_{name}", text, value=value)


def _pins(adopting: Adopting) -> Iterator[Metric]:
    counts = adopting.counts
    for name, text, value in (
        ("served", "Names that are served, as they were last looked at.", counts.adopted),
        ("quarantined", "Names and folders that are not served, and left as they are.", counts.quarantined),
    ):
        yield GaugeMetricFamily(f"mapd_pins_{name}", text, value=value)
    for name, text, value in (
        ("mended", "What was quarantined and is served, or gone, since.", counts.mended),
        ("replaced", "Pins of maps held open, behind which another map was found.", counts.replaced),
        ("unanswered", "Pins about which the kernel said nothing in time.", counts.unanswered),
    ):
        yield CounterMetricFamily(f"mapd_pins_{name}", text, value=value)


def _leases(leases: Leases) -> Iterator[Metric]:
    counts = leases.counts
    yield GaugeMetricFamily("mapd_leases", "Leases that are kept.", value=len(leases))
    for name, text, value in (
        ("adopted", "Leases that were there when the daemon started.", counts.adopted),
        ("granted", "Leases that were granted.", counts.granted),
        ("kept_alive", "Times that a lease was kept alive by its client.", counts.kept_alive),
        ("expired", "Leases whose time was over, and whose pins were removed.", counts.expired),
        ("paused", "Times that the daemon stood still, and all leases began anew.", counts.paused),
    ):
        yield CounterMetricFamily(f"mapd_leases_{name}", text, value=value)


def _audit(audit: AuditLog | None) -> Iterator[Metric]:
    if audit is None:
        return
    yield GaugeMetricFamily(
        "mapd_audit_writable", "1: the audit trail can be written.", int(not audit.failure)
    )
    yield CounterMetricFamily("mapd_audit_lines_lost", "Lines that found no place.", audit.dropped)


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[_Labels, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[_Labels, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family

"""Codecs of values that mean something on the daemon's host alone: times, network devices, cgroups. Sans-I/O.

They speak of the *daemon's* host, never of the client's. A map that is opened or typed with one gives it the facts
(``on``); without them, or without the right ``host``, values are the numbers that they are, and ``why`` says why.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from mapd_client.codec import Buffer, Codec, Int
from mapd_client.errors import TypeMismatch
from mapd_client.facts import Clock, HostFacts
from mapd_client.info import ByteOrder
from mapd_client.percpu import PerCpu

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class KernelTime(datetime):
    """A moment in UTC that a program took by bpf_ktime_get_ns() or bpf_ktime_get_boot_ns().

    A datetime has microseconds, the kernel's clock nanoseconds: the rest is cut off here and not lost, for ``ktime`` is
    the number as it was, and is written back as that.

    Attributes:
        ktime: nanoseconds of the kernel's clock; None where it was made by arithmetic or by hand.
    """

    ktime: int | None = None

    @classmethod
    def of(cls, ktime: int, zero: int) -> KernelTime:
        """``zero``: what CLOCK_REALTIME was, in nanoseconds, when the kernel's clock was 0."""
        moment = _EPOCH + timedelta(microseconds=(zero + ktime) // 1_000)
        moment.ktime = ktime
        return moment

    def __reduce_ex__(self, protocol: Any) -> Any:
        """With ``ktime``, which datetime's own would leave out."""
        reduced: Any = super().__reduce_ex__(protocol)
        return reduced[0], reduced[1], {"ktime": self.ktime}

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelTime:
        return self


_EPOCH: Final = KernelTime(1970, 1, 1, tzinfo=UTC)


class HostCodec(Codec[Any]):
    """A number that stands for something on the daemon's host."""

    name: ClassVar[str]

    def __init__(self, size: int) -> None:
        self.size = size
        self._number: Codec[int] = Int(size, signed=False)
        self.facts: HostFacts | None = None

    @property
    def why(self) -> str:
        """Why values are numbers; "" where they are not."""
        return "no map was opened with it" if self.facts is None else self.facts.why

    def on(self, facts: HostFacts) -> Self:
        """This codec with facts of one host."""
        found = copy.copy(self)
        found.facts = facts
        return found

    def __repr__(self) -> str:
        return self.name if self.facts is None or not self.why else f"{self.name} (numbers: {self.why})"

    @property
    def dtype(self) -> DTypeLike | None:
        """Of the number: arrays have those."""
        return self._number.dtype

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        found: Any = copy.copy(self)
        found._number = self._number.bind(byteorder, possible_cpus)  # noqa: SLF001 - its own copy
        return found  # type: ignore[no-any-return]

    def encode(self, value: Any) -> bytes:
        """A number as it is; a name by the facts. Raises TypeMismatch for one that the host does not have."""
        return self._number.encode(value if isinstance(value, int) else self._to_number(value))

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        numbers = self._number.decode_many(column)
        return numbers if self.facts is None else self._from_numbers(numbers, self.facts)

    @abstractmethod
    def _to_number(self, value: Any) -> int: ...

    @abstractmethod
    def _from_numbers(self, numbers: list[int], facts: HostFacts) -> list[Any]: ...

    def _unknown(self, value: object, takes: str) -> TypeMismatch:
        return TypeMismatch(f"{self.name} takes {takes}, not {type(value).__name__} {value!r}")

    def _absent(self, value: str, what: str) -> TypeMismatch:
        reason = self.why or "the daemon's host has none of that name"
        return TypeMismatch(f"{self.name}: no {what} {value!r} is known: {reason}; give its number")


class KernelClock(HostCodec):
    """A time of one of the kernel's clocks."""

    def __init__(self, clock: Clock, name: str) -> None:
        super().__init__(8)
        self.name = name  # type: ignore[misc]  # of each of the two
        self._clock: Clock = clock

    @property
    def zero(self) -> int | None:
        """What CLOCK_REALTIME was, in nanoseconds, when this clock was 0; None where it is not known."""
        return None if self.facts is None else self.facts.zero(self._clock)

    def _from_numbers(self, numbers: list[int], facts: HostFacts) -> list[Any]:
        zero = facts.zero(self._clock)
        return [*numbers] if zero is None else [KernelTime.of(number, zero) for number in numbers]

    def _to_number(self, value: Any) -> int:
        if not isinstance(value, datetime):
            raise self._unknown(value, "an aware datetime, or nanoseconds as an int")
        if isinstance(value, KernelTime) and value.ktime is not None:
            return value.ktime
        if value.tzinfo is None:
            raise TypeMismatch(f"{self.name} takes datetimes with a time zone; {value} has none")
        zero = self.zero
        if zero is None:
            raise TypeMismatch(f"{self.name}: {value} cannot be told in the daemon's time: {self._no_clock}")
        return (value - _EPOCH) // timedelta(microseconds=1) * 1_000 - zero

    @property
    def _no_clock(self) -> str:
        return f"{self.why or 'the daemon does not know its clocks'}; give nanoseconds as an int"

    def parse(self, text: str) -> datetime | int:
        """ISO 8601 with a time zone, or nanoseconds.

        Raises:
            TypeMismatch: neither.
        """
        try:
            return int(text) if text.strip().isdecimal() else datetime.fromisoformat(text)
        except ValueError:
            raise TypeMismatch(f"{self.name}: {text!r} is no time; as in 2026-01-31T12:00:00+00:00") from None


class _IfIndex(HostCodec):
    """A network device."""

    name = "IfIndex"

    def _from_numbers(self, numbers: list[int], facts: HostFacts) -> list[Any]:
        return _named(numbers, facts.device)

    def _to_number(self, value: Any) -> int:
        if not isinstance(value, str):
            raise self._unknown(value, "a device's name or index")
        found = None if self.facts is None else self.facts.ifindex(value)
        if found is None:
            raise self._absent(value, "network device")
        return found


class _CgroupId(HostCodec):
    """A cgroup."""

    name = "CgroupId"

    def _from_numbers(self, numbers: list[int], facts: HostFacts) -> list[Any]:
        return _named(numbers, facts.cgroup)

    def _to_number(self, value: Any) -> int:
        if not isinstance(value, str):
            raise self._unknown(value, "a cgroup's path or id")
        found = None if self.facts is None else self.facts.cgroup_id(value)
        if found is None:
            raise self._absent(value, "cgroup")
        return found


def _named(numbers: list[int], name: Any) -> list[Any]:
    """A column has few different ones: each is looked up once."""
    names = {number: name(number) for number in set(numbers)}
    return [names[number] for number in numbers]


Ktime: Final[Codec[Any]] = KernelClock("monotonic", "Ktime")
"""bpf_ktime_get_ns(), 8 bytes: a KernelTime (a datetime in UTC). Takes aware datetimes, and nanoseconds as an int.

True for times since the daemon's host was last suspended, and for as long as nobody sets its clock; times before a
suspension come out later than they were, by its length. KtimeBoot has no such gap.
"""
KtimeBoot: Final[Codec[Any]] = KernelClock("boottime", "KtimeBoot")
"""bpf_ktime_get_boot_ns(), as ``Ktime``; the clock goes on while the host is suspended."""
IfIndex: Final[Codec[Any]] = _IfIndex(4)
"""Index of a network device, 4 bytes in the host's order: its name on the daemon's host; the number of none."""
CgroupId: Final[Codec[Any]] = _CgroupId(8)
"""bpf_get_current_cgroup_id(), 8 bytes: the cgroup's path below the mount; the number where none is known."""

NAMES: Final[Mapping[str, Codec[Any]]] = {
    "ktime": Ktime,
    "ktime_boot": KtimeBoot,
    "ifindex": IfIndex,
    "cgroup_id": CgroupId,
}
"""By the names that hints use."""


def needs_facts(codecs: Iterable[Codec[Any]]) -> bool:
    """Whether any of them is worth asking the daemon for facts."""
    return any(isinstance(_inside(one), HostCodec) for one in codecs)


def with_facts(codec: Codec[Any], facts: HostFacts) -> Codec[Any]:
    """The codec, or that inside of a per-CPU value, with facts of one host; any other as it is."""
    inside = _inside(codec)
    if not isinstance(inside, HostCodec):
        return codec
    return inside.on(facts) if inside is codec else PerCpu(inside.on(facts))


def why_numbers(codecs: Iterable[Codec[Any]]) -> str:
    """Why fields that hints speak of are numbers; "" where they are not, or none is of the host."""
    for codec in codecs:
        inside: Any = _inside(codec)
        hints: Mapping[str, Codec[Any]] = getattr(inside, "hints", {})
        for path, hint in hints.items():
            if isinstance(hint, HostCodec) and hint.why:
                return f"{path} is a number: {hint.why}"
    return ""


def _inside(codec: Codec[Any]) -> Codec[Any]:
    per_cpu: Any = codec
    return per_cpu.inner if isinstance(codec, PerCpu) else codec

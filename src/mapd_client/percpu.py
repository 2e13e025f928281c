"""Codecs of per-CPU values: a slot for each possible CPU. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, cast

from mapd_api.layout import round_up8
from mapd_client.codec import Buffer, Codec, Int
from mapd_client.errors import Misuse, SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.selecting import Reduce, Reducing

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

T = TypeVar("T")

_WIDEST: Final = 8
"""Bytes of the largest integer, and of the daemon's sums that are this library's."""


class PerCpu(Codec[list[T]]):
    """A per-CPU value: one element for each possible CPU, CPU 0 first.

    ``PerCpu(U64)`` is a list of as many ints as the daemon's host has possible CPUs (an update needs
    just as many); ``PerCpu(U64).sum()``, ``.min()`` and ``.max()`` are one int for all, for reading.
    """

    def __init__(self, inner: Codec[T], possible_cpus: int | None = None) -> None:
        if isinstance(inner, (PerCpu, PerCpuReduced)):
            raise TypeMismatch(f"PerCpu({inner!r}): a value is per CPU once")
        self.inner = inner
        self.size = inner.size
        self._cpus = possible_cpus

    def __repr__(self) -> str:
        return f"PerCpu({self.inner!r})"

    @property
    def dtype(self) -> DTypeLike | None:
        """Of one CPU's element; an array of values has an axis of CPUs."""
        return self.inner.dtype

    @property
    def stride(self) -> int:
        """Bytes of one element in a column: a slot of round_up(size, 8) for each possible CPU.

        Raises:
            Misuse: not bound yet.
        """
        return round_up8(self.size) * self._bound

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> PerCpu[T]:
        """As Codec.bind; fixes the number of slots."""
        return PerCpu(self.inner.bind(byteorder, possible_cpus), possible_cpus)

    def sum(self: PerCpu[int]) -> Codec[int]:
        """The sum over all CPUs, as one int. Reads only: a sum cannot be written back.

        Exact for integers of 1, 2 and 4 bytes; of 8 bytes modulo 2 to the 64, as the kernel's own counters are. Dumps
        of these, and of ``min`` and ``max``, have it done by the daemon: one integer travels instead of one for each
        CPU.
        """
        return PerCpuReduced(self, "sum")

    def min(self: PerCpu[int]) -> Codec[int]:
        """The least of all CPUs' integers; as ``sum``."""
        return PerCpuReduced(self, "min")

    def max(self: PerCpu[int]) -> Codec[int]:
        """The greatest of all CPUs' integers; as ``sum``."""
        return PerCpuReduced(self, "max")

    def encode(self, value: list[T]) -> bytes:
        """Every CPU's slot; raises SizeMismatch unless there is one element per possible CPU."""
        given = cast("object", value)  # as a caller without a type checker may pass it
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes, bytearray)):
            raise TypeMismatch(f"{self!r} takes a list, an element for each CPU, not {type(given).__name__}")
        if len(value) != self._bound:
            raise SizeMismatch(f"{len(value)} elements given, {self._bound} needed: one per possible CPU")
        padding = bytes(round_up8(self.size) - self.size)
        return b"".join(self.inner.encode(one) + padding for one in value)

    def decode_many(self, column: Buffer) -> list[list[T]]:  # noqa: D102 - as Codec
        flat = self._flat(column)
        cpus = self._bound
        return [flat[at : at + cpus] for at in range(0, len(flat), cpus)]

    @property
    def _bound(self) -> int:
        if self._cpus is None:
            raise Misuse(f"{self!r} is used before a map was opened with it: the number of CPUs is unknown")
        return self._cpus

    def _flat(self, column: Buffer) -> list[T]:
        view = self._whole(column)
        slot = round_up8(self.size)
        if slot == self.size:
            return self.inner.decode_many(view)
        picked = b"".join(view[at : at + self.size] for at in range(0, view.nbytes, slot))
        return self.inner.decode_many(picked)


class PerCpuReduced(Codec[int]):
    """One int for the integers of all CPUs: ``PerCpu(U64).sum()``, ``.min()``, ``.max()``."""

    def __init__(self, per_cpu: PerCpu[int], kind: Reducing) -> None:
        self.per_cpu = per_cpu
        self.kind: Reducing = kind
        self.size = per_cpu.size

    def __repr__(self) -> str:
        return f"{self.per_cpu!r}.{self.kind}()"

    @property
    def stride(self) -> int:
        """As PerCpu.stride."""
        return self.per_cpu.stride

    @property
    def reduction(self) -> Reduce | None:
        """What has a daemon answer the same; None where only Python's integers do.

        The daemon's sums wrap at the integer's size, as those of 8 bytes do here.
        """
        inner = self.per_cpu.inner
        if not isinstance(inner, Int) or (self.kind == "sum" and inner.size < _WIDEST):
            return None
        return Reduce(self.kind, 0, inner.size, inner.signed)

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> PerCpuReduced:
        """As Codec.bind."""
        return PerCpuReduced(self.per_cpu.bind(byteorder, possible_cpus), self.kind)

    def encode(self, value: int) -> bytes:
        """Raises TypeMismatch: a sum does not say what each CPU is to hold."""
        raise TypeMismatch(f"{self!r} only reads: write {value} through {self.per_cpu!r}, one int per CPU")

    def decode_many(self, column: Buffer) -> list[int]:  # noqa: D102 - as Codec
        values = self.per_cpu.decode_many(column)
        if self.kind == "min":
            return [min(slots) for slots in values]
        if self.kind == "max":
            return [max(slots) for slots in values]
        sums = [sum(slots) for slots in values]
        return sums if self.reduction is None else [self._wrapped(number) for number in sums]

    def _wrapped(self, number: int) -> int:
        """Modulo 2 to the 64, in the codec's own range."""
        low = -(1 << 63) if cast("Int", self.per_cpu.inner).signed else 0
        return (number - low) % (1 << 64) + low


def has_slots(codec: Codec[Any]) -> TypeGuard[PerCpu[Any]]:
    """Whether its elements are each CPU's slots; a sum of them is none."""
    return isinstance(codec, PerCpu)


def of_one_cpu(codec: Codec[Any]) -> Codec[Any] | None:
    """The codec of one CPU's slot, None where the codec knows no slots."""
    if isinstance(codec, PerCpuReduced):
        return codec.per_cpu.inner
    return codec.inner if has_slots(codec) else None


def is_per_cpu(codec: Codec[Any]) -> bool:
    """Whether the codec reads every CPU's slot."""
    return isinstance(codec, (PerCpu, PerCpuReduced))

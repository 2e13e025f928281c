"""What of a map's elements a dump is to bring. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, cast

from mapd_api.v1 import elements_pb2
from mapd_client.errors import Misuse, TypeMismatch

Reducing = Literal["sum", "min", "max"]

_KINDS: Final = MappingProxyType(
    {
        "sum": elements_pb2.REDUCTION_KIND_SUM,
        "min": elements_pb2.REDUCTION_KIND_MIN,
        "max": elements_pb2.REDUCTION_KIND_MAX,
    }
)
_U32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Reduce:
    """One integer of a per-CPU value, over all CPUs, on the daemon's side.

    Attributes:
        kind: "sum" (modulo the integer's size), "min" or "max".
        offset: bytes from the beginning of a CPU's value.
        size: 1, 2, 4 or 8 bytes, in the byte order of the daemon's host.
        signed: two's complement; of "min" and "max".

    Raises:
        Misuse: a kind or size that there is not; an offset that is negative.
        TypeMismatch: an offset that is no int.
    """

    kind: Literal["sum", "min", "max"]
    offset: int = 0
    size: int = 8
    signed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise Misuse(f'Reduce({self.kind!r}): "sum", "min" or "max"')
        if self.size not in (1, 2, 4, 8):
            raise Misuse(f"Reduce(size={self.size!r}): integers have 1, 2, 4 or 8 bytes")
        _check_bytes("Reduce: offset", self.offset, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Which elements, and what of their values.

    Attributes:
        nonzero: only elements whose value has a byte other than zero.
        reduce: integers over all CPUs; what is beside them comes as zeros.
        value_range: (offset, size) in bytes.
    """

    nonzero: bool = False
    reduce: Sequence[Reduce] = ()
    value_range: tuple[int, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether it is everything."""
        return not (self.nonzero or self.reduce or self.value_range)

    def check(self) -> None:
        """Raises Misuse or TypeMismatch for a range that is none."""
        if self.value_range is not None:
            try:
                offset, size = self.value_range
            except (TypeError, ValueError):
                raise TypeMismatch(f"value_range={self.value_range!r}: (offset, size) in bytes") from None
            _check_bytes("value_range: offset", offset, 0)
            _check_bytes("value_range: size", size, 1)

    def write(self, request: elements_pb2.DumpRequest) -> None:
        """Into a request."""
        request.nonzero_values = self.nonzero
        for one in self.reduce:
            request.reductions.add(offset=one.offset, size=one.size, signed=one.signed, kind=_KINDS[one.kind])
        if self.value_range is not None:
            request.value_range.offset, request.value_range.size = self.value_range


EVERYTHING: Final = Selected()


def reductions(given: object) -> tuple[Reduce, ...]:
    """What was given as reduce=; raises TypeMismatch for what is no iterable of Reduce."""
    found: tuple[object, ...] | None = None
    if isinstance(given, Iterable):
        found = tuple(cast("Iterable[object]", given))
    if found is None or not all(isinstance(one, Reduce) for one in found):
        raise TypeMismatch(f"reduce={given!r}: a list of Reduce, such as [Reduce('sum')]")
    return cast("tuple[Reduce, ...]", found)


def _check_bytes(what: str, number: object, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeMismatch(f"{what} {number!r}: an int, not {type(number).__name__}")
    if not least <= number <= _U32:
        raise Misuse(f"{what} {number}: {least} to {_U32} bytes")

"""A part of a dump as it came. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mapd_client import arrays
from mapd_client.codec import Codec
from mapd_client.errors import Misuse

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a dump as packed columns, not decoded.

    Attributes:
        count: elements.
        keys: count * key_stride bytes; empty if keys were not asked for.
        values: count * value_stride bytes; empty if values were not asked for.
        key_stride: bytes of one key.
        value_stride: bytes of one value: all CPUs' slots for per-CPU types.
        token: resumes a dump after this chunk; b"" where only a later chunk can.
        key_codec: codec of the keys.
        value_codec: codec of the values.
    """

    count: int
    keys: memoryview
    values: memoryview
    key_stride: int
    value_stride: int
    token: bytes
    key_codec: Codec[Any] = field(repr=False)
    value_codec: Codec[Any] = field(repr=False)

    @property
    def keys_array(self) -> NDArray[Any]:
        """The keys as a numpy array over ``keys``: read-only, and nothing is copied.

        Integers, in the byte order of the daemon's host; a record for a ``Struct`` and a Cidr; a row of uint8
        for ``Bytes`` and addresses.

        Raises:
            Misuse: no keys were asked for.
            Unsupported: the codec has no dtype, or numpy is not installed.
        """
        return self._array("keys", self.keys, self.key_codec)

    @property
    def values_array(self) -> NDArray[Any]:
        """The values as ``keys_array`` has the keys; for per-CPU values with an axis of CPUs.

        Raises:
            Misuse: no values were asked for.
            Unsupported: as ``keys_array``; ``PerCpu(...).sum()`` is no array either.
        """
        return self._array("values", self.values, self.value_codec)

    def _array(self, what: str, column: memoryview, codec: Codec[Any]) -> NDArray[Any]:
        if self.count and not column.nbytes:
            raise Misuse(f"{what}_array: this dump asked for no {what}")
        return arrays.over(column, codec, self.count)

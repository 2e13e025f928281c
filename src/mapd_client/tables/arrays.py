"""All of a map as two numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mapd_client import arrays
from mapd_client.chunk import Chunk
from mapd_client.codec import Codec
from mapd_client.dump import Dump
from mapd_client.info import Trailer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Arrays(tuple["NDArray[Any]", "NDArray[Any]"]):
    """``(keys, values)``, the caller's own and writable: ``keys, values = await m.to_numpy()``.

    Attributes:
        trailer: what the daemon said at the dump's end.
    """

    trailer: Trailer

    def __new__(cls, keys: NDArray[Any], values: NDArray[Any], trailer: Trailer) -> Self:
        """Both arrays have as many elements."""
        made = super().__new__(cls, (keys, values))
        made.trailer = trailer
        return made

    @property
    def keys(self) -> NDArray[Any]:
        """The keys."""
        return self[0]

    @property
    def values(self) -> NDArray[Any]:
        """The values, in the order of their keys; of per-CPU maps with an axis of CPUs."""
        return self[1]


async def gathered(dump: Dump[Chunk], key: Codec[Any], value: Codec[Any]) -> Arrays:
    """A dump in one piece of memory for keys and one for values.

    Both grow as chunks come. Memory of this size is moved by the kernel's page tables (mremap), not copied, so that
    there is one copy of each byte: out of its message.
    """
    for codec in (key, value):
        arrays.dtype_of(codec)
    keys, values, count = bytearray(), bytearray(), 0
    async with dump:
        async for chunk in dump:
            keys += chunk.keys
            values += chunk.values
            count += chunk.count
    assert dump.trailer is not None  # else it had raised
    return Arrays(arrays.over(keys, key, count), arrays.over(values, value, count), dump.trailer)

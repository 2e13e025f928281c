"""The packages that tables need: found, or the line that installs them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, Protocol, TypeAlias, TypeGuard

from mapd_client.batches import Batch
from mapd_client.codec import Codec
from mapd_client.errors import Unsupported
from mapd_client.info import ByteOrder

ArrowArray: TypeAlias = Any
"""A pyarrow.Array. The stubs of pyarrow are not of its making and know half of it: inside this package, where each
value is checked as it runs, its objects have no static types; what users are given has."""

ArrowType: TypeAlias = Any
"""A pyarrow.DataType."""

_EXTRAS: Final = {
    "numpy": "bpf-mapd[numpy]",
    "pyarrow": "bpf-mapd[arrow]",
    "grpc_health": "grpcio-health-checking",
}
"""What pip installs them by; others by their own names."""


class ArrowTable(Protocol):
    """What has Arrow's C stream interface: pyarrow's tables, batches and readers, frames of pandas and polars."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """As https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html."""
        ...


def is_table(source: object) -> TypeGuard[ArrowTable]:
    """Whether it is a table of columns. Imports nothing."""
    return hasattr(type(source), "__arrow_c_stream__")


def packed(
    source: ArrowTable, key: Codec[Any], value: Codec[Any], byteorder: ByteOrder, per_message: int
) -> Iterator[Batch]:
    """A table's rows packed for a map with these codecs, a message at a time.

    Raises:
        BadElement: a row that does not fit, or columns that are not the map's.
        Unsupported: pyarrow is not installed.
    """
    need("load of a table", "numpy", "pyarrow")
    from mapd_client.tables.loading import of_table
    from mapd_client.tables.plan import plan

    return of_table(source, plan(key, value, byteorder), per_message)


def need(what: str, *packages: str) -> None:
    """See to it that ``packages`` can be imported.

    Args:
        what: what they are for, as messages call it: "to_pandas".
        packages: their names.

    Raises:
        Unsupported: some are not installed; with the line that installs them.
    """
    missing: list[str] = []
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            missing.append(package)
    if not missing:
        return
    wanted = [_EXTRAS.get(package, package) for package in missing]
    if "pyarrow" in missing:
        wanted = [one for one in wanted if one != _EXTRAS["numpy"]]  # Arrow's extra brings it
    which = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    verb = "is" if len(missing) == 1 else "are"
    line = " ".join(f"'{one}'" if "[" in one else one for one in wanted)
    raise Unsupported(f"{what} needs {which}, which {verb} not installed: pip install {line}")


def need_arrow(what: str) -> None:
    """Both numpy and pyarrow; raises as ``need``."""
    need(what, "numpy", "pyarrow")


def arrow() -> Any:
    """The package pyarrow, which ``need`` has found."""
    return import_module("pyarrow")


def compute() -> Any:
    """The functions of pyarrow."""
    return import_module("pyarrow.compute")

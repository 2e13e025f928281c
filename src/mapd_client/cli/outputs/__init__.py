"""What mapctl writes to stdout: elements as they come, and all other records. One schema of records in every format.

``Document`` has elements, of one host or of several; ``records`` has everything else. Each is loaded when it is asked
for: who prints a record does not pay for elements.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mapd_client.cli.outputs.documents import Document, Sink, elements
    from mapd_client.cli.outputs.kinds import Output
    from mapd_client.cli.outputs.listed import Field, records
    from mapd_client.cli.outputs.percpu import PerCpuForm

__all__ = ["Document", "Field", "Output", "PerCpuForm", "Sink", "elements", "records"]

_WHERE: Final = {
    "Document": "documents",
    "Sink": "documents",
    "elements": "documents",
    "Output": "kinds",
    "Field": "listed",
    "records": "listed",
    "PerCpuForm": "percpu",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)

"""The formats that -o takes."""

from __future__ import annotations

from typing import Final, Literal, TextIO

from mapd_client.errors import Misuse

Output = Literal["table", "json", "ndjson", "csv", "arrow", "parquet"]
"""``table`` is for people; ``json`` one document, ``ndjson`` a line each; ``arrow`` the IPC stream format."""

BINARY: Final = frozenset({"arrow", "parquet"})


def fit_for(output: str, file: TextIO) -> None:
    """Refuse to write bytes to a terminal; raises Misuse."""
    if output in BINARY and file.isatty():
        raise Misuse(f"-o {output} writes bytes, and stdout is a terminal: write it to a file, > x.{output}")

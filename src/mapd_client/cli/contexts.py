"""Contexts: which daemon is meant, kept in a file, as kubectl keeps its own; and the verbs of it.

The file is ``$XDG_CONFIG_HOME/mapd/config.toml`` (default ``~/.config``), or what ``MAPD_CONFIG`` names::

    current = "prod"

    [contexts.prod]
    address = "edge1.example:7443"
    timeout = 5
    tls = { ca = "ca.pem", certificate = "me.pem", key = "me.key" }

    [contexts.edges]
    hosts_file = "edges.toml"

What the command line says goes before the environment, the environment before a context.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from mapd_client.cli import outcomes, render
from mapd_client.cli.completion import context_names
from mapd_client.cli.options import Format
from mapd_client.cli.outputs import Field, records
from mapd_client.errors import Misuse

if TYPE_CHECKING:
    from mapd_client.cli.contextfile import Configuration, Context

VARIABLE: Final = "MAPD_CONFIG"
CHOSEN: Final = "MAPD_CONTEXT"

CONTEXT: Final = (
    Field("name"),
    Field("current", bool),
    Field("address"),
    Field("hosts", list),
    Field("hosts_file"),
    Field("timeout", float),
    Field("tls"),
)

context = App(name="context", help="Which daemon is meant where no address is given: list, use, show.")


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the configuration lies, whether it is there or not."""
    environ = os.environ if environ is None else environ
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    folder = environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "mapd" / "config.toml"


def chosen(name: str | None, environ: Mapping[str, str] | None = None) -> Context | None:
    """The context of that name, else of ``MAPD_CONTEXT``, else the file's current one; None where there is none.

    Raises:
        Misuse: no such context, a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    path, name = config_path(environ), name or environ.get(CHOSEN) or None
    if name is None and not path.exists():
        return None
    found = _read(path)
    name = name or found.current
    return None if name is None else found.named(name, path)


def _read(path: Path) -> Configuration:
    from mapd_client.cli.contextfile import read

    return read(path)


@context.command(name="list")
def list_(*, output: Format = "table") -> int:
    """The contexts of the configuration, the current one with a star.

    Args:
        output: table, json, ndjson, csv, arrow or parquet.
    """
    path = config_path()
    if not path.exists():
        sys.stderr.write(f"mapctl: no contexts: {path} does not exist\n")
        return outcomes.OK
    found = _read(path)
    if output == "table":
        for name, one in found.contexts.items():
            sys.stdout.write(f"{'*' if name == found.current else ' '} {name}  {one.where()}\n")
        return outcomes.OK
    rows = [_record(name, one, current=name == found.current) for name, one in found.contexts.items()]
    records(rows, columns=CONTEXT, output=output, file=sys.stdout)
    return outcomes.OK


@context.command
def show(
    name: Annotated[str | None, Parameter(completer=context_names)] = None, /, *, output: Format = "table"
) -> int:
    """One context.

    Args:
        name: of the context; the current one without it.
        output: table, json, ndjson, csv, arrow or parquet.
    """
    path = config_path()
    found = _read(path)
    name = name or found.current
    if name is None:
        raise Misuse(f"context show: {path} names no current context: see 'mapctl context list'")
    record = _record(name, found.named(name, path), current=name == found.current)
    if output == "table":
        render.write_fields(
            {key: str(value) for key, value in record.items() if value is not None}, sys.stdout
        )
    else:
        records([record], columns=CONTEXT, output=output, file=sys.stdout, one=True)
    return outcomes.OK


@context.command
def use(name: Annotated[str, Parameter(completer=context_names)], /) -> int:
    """Make a context the current one; nothing else of the file changes.

    Args:
        name: of the context.
    """
    from mapd_client.cli.contextfile import make_current

    path = config_path()
    make_current(path, name)
    sys.stderr.write(f"mapctl: {name} is the current context of {path}\n")
    return outcomes.OK


def _record(name: str, one: Context, *, current: bool) -> dict[str, Any]:
    return {
        "name": name,
        "current": current,
        "address": one.address,
        "hosts": list(one.hosts),
        "hosts_file": one.hosts_file,
        "timeout": one.timeout,
        "tls": None if one.tls is None else str(one.tls.certificate),
    }

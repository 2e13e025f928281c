"""What mapctl says when something went wrong, on stderr: a line of what and a line of what to do, or a JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from mapd_client.cli import outcomes
from mapd_client.errors import MapdError

if TYPE_CHECKING:
    from cyclopts import CycloptsError

HOST: Final[ContextVar[str]] = ContextVar("host", default="")
"""The host that is spoken to, of several: complaints begin with it."""

_SHORT = "-o"
_LONG = "--output"


def complain(
    what: str, advice: str, code: int, *, as_json: bool = False, error: MapdError | None = None
) -> int:
    """Say what is wrong and what to do about it; the exit code."""
    host = HOST.get()
    if host:
        what = f"{host}: {what}"
    if as_json:
        sys.stderr.write(json.dumps({"error": record(what, advice, code, error)}) + "\n")
    else:
        sys.stderr.write(f"mapctl: {what}\n" + (f"{advice}\n" if advice else ""))
    return code


def record(what: str, advice: str, code: int, error: MapdError | None = None) -> dict[str, object]:
    """A failure, as ``-o json`` and ``-o ndjson`` tell it."""
    reason = None if error is None or error.reason is None else error.reason.name
    return {
        "message": what,
        "hint": advice,
        "exit_code": code,
        "reason": reason,
        "errno": None if error is None else error.errno,
        "operation": (error.operation if error is not None else "") or None,
        "map": (error.map if error is not None else "") or None,
    }


def failed(error: MapdError, *, as_json: bool = False) -> int:
    """Say what the library says, and what to do about it; the exit code."""
    code, advice = outcomes.of_error(error)
    return complain(str(error), advice, code, as_json=as_json, error=error)


def usage(error: CycloptsError, *, as_json: bool = False) -> int:
    """Say what is wrong with the command line itself; the exit code."""
    text = _text(error)
    verb = " ".join(error.command_chain or ())
    return complain(text, f"see 'mapctl {verb} --help'".replace("  ", " "), outcomes.USAGE, as_json=as_json)


def _text(error: CycloptsError) -> str:
    from cyclopts import UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        extra = " ".join(map(repr, error.unused_tokens))
        return f"{extra}: more than it takes"
    return " ".join(str(error).split())


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for JSON, however it is wrong otherwise."""
    for at, one in enumerate(arguments):
        if one == "--":
            return False
        value = None
        if one in (_SHORT, _LONG):
            value = next(iter(arguments[at + 1 : at + 2]), None)
        elif one.startswith(f"{_LONG}="):
            value = one.removeprefix(f"{_LONG}=")
        elif one.startswith(_SHORT) and not one.startswith("--"):
            value = one.removeprefix(_SHORT).removeprefix("=")
        if value in ("json", "ndjson"):
            return True
    return False


def summary(failed: int, asked: int) -> None:
    """Say how many hosts of a fan-out did not answer."""
    sys.stderr.write(f"mapctl: {failed} of {asked} hosts failed\n")

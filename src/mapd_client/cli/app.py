"""The table of mapctl's verbs, each loaded when it is called. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, cast

from cyclopts import App, CycloptsError, Group, Parameter

import mapd_api
from mapd_client.cli import outcomes, references
from mapd_client.cli.complaints import complain, failed, usage, wants_json
from mapd_client.cli.completion import context_names
from mapd_client.cli.options import Colour, Options
from mapd_client.errors import MapdError, Misuse

VERBS: Final = (
    ("list", "listing:list_"),
    ("create", "creating:create"),
    ("show", "listing:show"),
    ("rename", "listing:rename"),
    ("lookup get", "reading_verbs:lookup"),
    ("dump", "reading_verbs:dump"),
    ("count", "reading_verbs:count"),
    ("update set", "writing:update"),
    ("delete del", "writing:delete"),
    ("load", "loading:load"),
    ("push", "queues:push"),
    ("pop", "queues:pop"),
    ("peek", "queues:peek"),
    ("pin", "pins:pin"),
    ("unpin", "pins:unpin"),
    ("freeze", "pins:freeze"),
    ("lease", "leases:lease"),
    ("top", "top:top"),
    ("snapshot", "snapshots:snapshot"),
    ("restore", "snapshots:restore_"),
    ("hosts", "hosts:hosts"),
    ("whoami", "rights:whoami"),
    ("can", "rights:can"),
    ("sync", "sync:sync"),
    ("diff", "diff:diff"),
    ("doctor", "doctoring:doctor"),
    ("health", "service:health"),
    ("context", "contexts:context"),
    ("socket", "addresses:socket"),
    ("completion", "completion:completion"),
)
"""Names of a verb, separated by blanks, its own first; and the function behind it."""

_HELP = """eBPF maps through mapd.

MAP is a name ("flows", "ns/flows"), "pin:/sys/fs/bpf/x" or "id:42".
KEY and VALUE are hex:0a00 or 0x0a00 (bytes as in memory), u32:7 (u8 to u64, i8 to i64),
7 (an integer of the map's size), 10.0.0.1, 10.0.0.0/8 (keys of LPM tries; a host is 10.0.0.1/32)
or 02:00:5e:10:00:01; and, where the map's types are known, fields as JSON: {"saddr": 7, "dport": 443}.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 permission, 5 unavailable or too late,
6 conflict, 7 some hosts failed, 8 differs, 130 interrupted, 141 the reader went away.
"""

_NO_ONE_CALL: Final = frozenset({"diff", "top"})

_HELP_WORDS: Final = frozenset({"--help", "-h"})


def _default(value: object) -> str | None:
    """A default as the help shows it; None for what nobody has to be told."""
    return None if value is None or value is False or value in ((), "") else str(value)


app = App(
    name="mapctl",
    help=_HELP,
    version=mapd_api.__version__,
    result_action="return_value",
    default_parameter=Parameter(negative="", show_default=_default),
)
_EVERY: Final = Group("Options of every verb", sort_key=9)
for _names, _where in VERBS:
    _name, *_aliases = _names.split()
    app.command(f"mapd_client.cli.{_where}", name=_name, alias=_aliases)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    address: Annotated[str | None, Parameter(group=_EVERY)] = None,
    context: Annotated[str | None, Parameter(group=_EVERY, completer=context_names)] = None,
    timeout: Annotated[float | None, Parameter(group=_EVERY)] = None,
    hosts: Annotated[tuple[str, ...], Parameter(group=_EVERY, name=["--host", "-H"])] = (),
    hosts_file: Annotated[Path | None, Parameter(group=_EVERY, name="--hosts")] = None,
    quiet: Annotated[bool, Parameter(group=_EVERY, name=["--quiet", "-q"])] = False,
    yes: Annotated[bool, Parameter(group=_EVERY, name=["--yes", "-y"])] = False,
    color: Annotated[Colour, Parameter(group=_EVERY)] = "auto",
    grpcurl: Annotated[bool, Parameter(group=_EVERY, name="--print-grpcurl")] = False,
    wait: Annotated[bool, Parameter(group=_EVERY)] = False,
) -> int:
    """Run one verb.

    Args:
        tokens: the verb and its arguments.
        address: the daemon's socket, or host:port with $MAPD_TLS_CA, $MAPD_TLS_CERT and $MAPD_TLS_KEY; default: the
            context that is named, $MAPD_ADDRESS, the current context, /run/mapd.
        context: a context of the configuration: see 'mapctl context'.
        timeout: seconds that any one call may take; default: the context's, 30.
        hosts: the daemon of one host, by address or by its name in --hosts; for several, once for each.
        hosts_file: the daemons of several hosts: TOML, or the JSON of Prometheus' file_sd.
        quiet: neither progress nor remarks on stderr.
        yes: do not ask before something is destroyed.
        color: auto: on a terminal, unless $NO_COLOR is set.
        grpcurl: print the call as grpcurl takes it, and do not make it.
        wait: wait for a daemon that is not there yet, for the timeout; one that is restarted meanwhile is waited for
            in any case.
    """
    del color  # that is read before
    tokens = tuple(references.one_token_each(tokens))
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    asks_help = not tokens or not _HELP_WORDS.isdisjoint(tokens)
    if grpcurl and not asks_help and (not ignored or tokens[0] in _NO_ONE_CALL):
        raise Misuse(f"{tokens[0]}: --print-grpcurl: no one call does what this verb does")
    options = Options(address, timeout, hosts, hosts_file, context, quiet, yes, grpcurl, wait=wait)
    result: Any = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, options))
    return result if isinstance(result, int) else outcomes.OK


def _colour(arguments: Sequence[str]) -> None:
    """Tell rich and textual (https://no-color.org, https://force-color.org), before any console is made."""
    for word, following in pairwise([*arguments, ""]):
        wanted = following if word == "--color" else word.removeprefix("--color=")
        if wanted in ("always", "never") and word.startswith("--color"):
            os.environ.pop("NO_COLOR", None)
            os.environ["NO_COLOR" if wanted == "never" else "FORCE_COLOR"] = "1"


def load_all() -> None:
    """Load every verb, for what tells of all of them: the help, completion, their documentation."""
    for names, _ in VERBS:
        _ = app[names.split()[0]]


def _prepare_help(arguments: Sequence[str]) -> None:
    """Load what only the help needs: rich, 22 ms of the 250 until the first call; and all verbs, for their list."""
    from mapd_client.cli.console import QuietConsole

    app.console = QuietConsole()
    if not arguments or arguments[0] in _HELP_WORDS:
        load_all()


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    # A path that the locale cannot write is no reason to fail.
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    _colour(arguments)
    if not arguments or not _HELP_WORDS.isdisjoint(arguments):
        _prepare_help(arguments)
    as_json = wants_json(arguments)
    try:
        code: int = app.meta(list(arguments), exit_on_error=False, print_error=False) or outcomes.OK
        sys.stdout.flush()
    except CycloptsError as error:
        return usage(error, as_json=as_json)
    except MapdError as error:
        return failed(error, as_json=as_json)
    except BrokenPipeError:
        _drop_output()
        return outcomes.BROKEN_PIPE
    except OSError as error:  # behind MapdError, of which some are OSErrors too
        _drop_output()
        return complain(f"cannot write: {error.strerror or error}", "", outcomes.FAILURE, as_json=as_json)
    except KeyboardInterrupt:
        return outcomes.INTERRUPTED
    return code


def _drop_output() -> None:
    """Let what Python still wants to flush at its end go nowhere, in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

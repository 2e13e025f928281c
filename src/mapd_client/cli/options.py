"""What stands before or after any verb of mapctl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mapd_client.cli.outputs.kinds import Output
from mapd_client.tls import Tls

Colour = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said of every verb.

    Attributes:
        address: the daemon's socket, or host:port; None: as the context, the environment and discovery say.
        timeout: seconds that any one call may take; None: as the context says, or 30.
        hosts: addresses of several daemons, or names in ``hosts_file``.
        hosts_file: the daemons of several hosts; TOML, or the JSON of Prometheus' file_sd.
        context: the name of a context of the configuration; None: the current one.
        quiet: neither progress nor remarks on stderr; errors stay.
        yes: what destroys is not asked about.
        wait: a daemon that is not there yet is waited for.
        grpcurl: the call is printed, as grpcurl takes it, and not made.
        tls: certificates of the one host in ``hosts``, where a file of hosts has some.
    """

    address: str | None = None
    timeout: float | None = None
    hosts: Sequence[str] = ()
    hosts_file: Path | None = None
    context: str | None = None
    quiet: bool = False
    yes: bool = False
    grpcurl: bool = False
    tls: Tls | None = None
    wait: bool = False


Given = Annotated[Options, Parameter(parse=False)]
Format = Annotated[Output, Parameter(name=["--output", "-o"])]

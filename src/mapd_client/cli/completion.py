"""Completion for bash, zsh and fish, with the names of the maps that are there; and the verb that prints it.

cyclopts writes the script; where a map is due, that calls ``mapctl __complete`` back. A completion that fails is
silent: nobody who presses Tab wants to read an error.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from mapd_client.cli import outcomes

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

    from mapd_client.cli.options import Options

_BUDGET_S: Final = 0.5
"""How long a shell may wait for the daemon; longer feels stuck."""


_ZSH_END: Final = """
if [[ "$funcstack[1]" == (_mapctl|_cyclopts_mapctl) ]]; then
  _cyclopts_mapctl "$@"
else
  compdef _cyclopts_mapctl mapctl
fi
"""
"""cyclopts 5.4 only defines the function. A file of $fpath is to be the function; one that is sourced, to name it."""


def map_names(context: CompletionContext) -> Sequence[str]:
    """The maps that the caller may see and whose names begin as what was typed; [] where that cannot be told.

    Those of the caller's own namespace without it, unless the typed part has one.
    """
    from mapd_client.cli.options import Options

    options = Options(address=_said(context, "address"), context=_said(context, "context"))
    try:
        return asyncio.run(asyncio.wait_for(_names(options, context.incomplete), _BUDGET_S))
    except Exception:  # whatever it is, the shell has no place for it
        return []


def _said(context: CompletionContext, name: str) -> str | None:
    """What the command line says of an option so far."""
    return context[name].raw


def context_names(context: CompletionContext) -> Sequence[str]:
    """The contexts of the configuration; [] where there are none, or it cannot be read."""
    from mapd_client.cli.contextfile import read
    from mapd_client.cli.contexts import config_path
    from mapd_client.errors import Misuse

    del context
    try:
        return list(read(config_path()).contexts)
    except Misuse:
        return []


async def _names(options: Options, begun: str) -> Sequence[str]:
    from mapd_client.cli.running import reached
    from mapd_client.client import connect

    where = reached(options)
    async with connect(where.address, tls=where.tls, timeout=_BUDGET_S) as client:
        own = f"{(await client.whoami()).namespace}/"
        names = [info.name async for info in client.list_maps(f"*{_literal(begun)}*") if info.name]
    if "/" not in begun:
        names = [name.removeprefix(own) for name in names]
    return sorted(name for name in names if name.startswith(begun))


def _literal(text: str) -> str:
    """The text as a shell pattern that means itself."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in text)


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the completion script of a shell.

    bash: source <(mapctl completion bash), in ~/.bashrc. zsh: mapctl completion zsh > a file _mapctl in a folder of
    $fpath. fish: mapctl completion fish > ~/.config/fish/completions/mapctl.fish.

    Args:
        shell: bash, zsh or fish.
    """
    from mapd_client.cli.app import app, load_all

    load_all()
    script = app.meta.generate_completion(prog_name="mapctl", shell=shell)
    sys.stdout.write(script + (_ZSH_END if shell == "zsh" else ""))
    return outcomes.OK

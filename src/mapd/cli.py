"""``mapd``: starting the daemon. The standard library's argparse: the privileged side stays small."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mapd import config as configuration
from mapd import logs, policy_cli
from mapd.access.policy.file import PolicyError
from mapd.daemon import serve
from mapd.doctor.report import examine, text
from mapd.rpc.sockets import SocketError
from mapd.start import StartError
from mapd_api import __version__
from mapd_api.contract import ContractError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="mapd", description="eBPF maps as a service")
    root.add_argument("--version", action="version", version=f"mapd {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="run the daemon in the foreground until SIGTERM or Ctrl-C")
    doctor = commands.add_parser(
        "doctor", help="what this host and these rights permit, per map type, and what mends each refusal"
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    for command in (serving, doctor):
        command.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help=f"TOML configuration (default: {configuration.DEFAULT_PATH} if it exists)",
        )
    serving.add_argument(
        "--backend",
        choices=("kernel", "memory"),
        help="where maps are: in the kernel, or in the daemon's memory, for tests (default: as configured; kernel)",
    )
    serving.add_argument(
        "--runtime-dir",
        metavar="FOLDER",
        help="where the sockets are made (default: as configured; /run/mapd)",
    )
    serving.add_argument(
        "--until-stdin-ends",
        action="store_true",
        help="stop also when standard input, a pipe, is closed: with the program that started it",
    )
    policy_cli.add_commands(commands)
    return root


def run(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a clean stop, 1 where it could not start, 2 for a wrong command line or file.

    Of doctor: 0 where a daemon could start, 1 where it could not. Of policy: as ``policy_cli.run``.
    """
    chosen = parser().parse_args(arguments)
    if chosen.command == "policy":
        return policy_cli.run(chosen)
    try:
        config = _override(configuration.load(chosen.config), chosen)
    except configuration.ConfigError as error:
        sys.stderr.write(f"mapd: {error}\n")
        return 2
    if chosen.command == "doctor":
        report = examine(config)
        sys.stdout.write((report.json() if chosen.json else text(report)) + "\n")
        return 0 if report.can_serve else 1
    logs.configure(config.daemon.log_format, config.daemon.log_level)
    try:
        asyncio.run(serve(config, until_stdin_ends=chosen.until_stdin_ends))
    except PolicyError as error:
        for line in error.faults:
            sys.stderr.write(f"mapd: {line}\n")
        return 2
    except (StartError, SocketError, ContractError) as error:
        sys.stderr.write(f"mapd: cannot start: {error}\n")
        return 1
    return 0


def _override(config: configuration.Config, chosen: argparse.Namespace) -> configuration.Config:
    """What the command line says goes before what the file says."""
    said = {
        name: value
        for name in ("backend", "runtime_dir")
        if (value := getattr(chosen, name, None)) is not None
    }
    return msgspec.structs.replace(config, daemon=msgspec.structs.replace(config.daemon, **said))

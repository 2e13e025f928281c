"""``mapd``: starting the daemon. The standard library's argparse: the privileged side stays small.

What a command needs is imported when it runs: ``serve`` locks its process in before grpc or numpy is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mapd import audit_cli
from mapd import config as configuration
from mapd.launch import LaunchError
from mapd.sandbox import SandboxError
from mapd_api import __version__


def parser(*, policy: bool = True) -> argparse.ArgumentParser:
    """The command line. Without ``policy`` its commands are not read further: they import numpy."""
    root = argparse.ArgumentParser(prog="mapd", description="eBPF maps as a service")
    root.add_argument("--version", action="version", version=f"mapd {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="run the daemon in the foreground until SIGTERM or Ctrl-C")
    doctor = commands.add_parser(
        "doctor", help="what this host and these rights permit, per map type, and what mends each refusal"
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    opener = commands.add_parser(
        "opener", help="the process that holds the capabilities, on a connection that systemd accepted"
    )
    for command in (serving, doctor, opener):
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
    serving.add_argument(
        "--opener",
        metavar="SOCKET",
        help="use the opener that listens there, instead of starting one (default: as configured)",
    )
    serving.add_argument(
        "--supervise",
        action="store_true",
        help="start the daemon again when a process of it dies; for where no systemd or the like does it",
    )
    serving.add_argument(
        "--single-process",
        action="store_true",
        help="for debugging: one process with all rights, and no sandbox",
    )
    audit_cli.add_commands(commands)
    if policy:
        from mapd import policy_cli

        policy_cli.add_commands(commands)
    else:
        commands.add_parser("policy", add_help=False)
    return root


def run(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a clean stop, 1 where it could not start, 2 for a wrong command line or file.

    3 where it served, its opener died, and so it stopped.

    Of doctor: 0 where a daemon could start, 1 where it could not. Of policy: as ``policy_cli.run``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser(policy="serve" not in words[:1] and "opener" not in words[:1]).parse_args(words)
    if chosen.command == "audit":
        return audit_cli.run(chosen)
    if chosen.command == "policy":
        from mapd import policy_cli

        return policy_cli.run(chosen)
    try:
        config = _override(configuration.load(chosen.config), chosen)
    except configuration.ConfigError as error:
        sys.stderr.write(f"mapd: {error}\n")
        return 2
    if chosen.command == "doctor":
        return _doctor(config, as_json=chosen.json)
    from mapd.launch import front

    if chosen.command == "serve" and chosen.supervise:
        return _supervise(words, until_stdin_ends=chosen.until_stdin_ends)
    try:
        if chosen.command == "opener":
            front.become_opener(config)
        return front.serve(
            config,
            chosen.config,
            until_stdin_ends=chosen.until_stdin_ends,
            single_process=chosen.single_process,
        )
    except (LaunchError, SandboxError) as error:
        sys.stderr.write(f"mapd: cannot start: {error}\n")
        return 1


def _supervise(words: Sequence[str], *, until_stdin_ends: bool) -> int:
    """The configuration was read above: what is wrong with it is told once, and nothing is started."""
    from mapd.launch.supervisor import supervise

    passed = [word for word in words[1:] if word not in {"--supervise", "--until-stdin-ends"}]
    try:
        return supervise(passed, until_stdin_ends=until_stdin_ends)
    except LaunchError as error:
        sys.stderr.write(f"mapd: cannot start: {error}\n")
        return 1


def _doctor(config: configuration.Config, *, as_json: bool) -> int:
    from mapd.doctor.report import examine, text

    report = examine(config)
    sys.stdout.write((report.json() if as_json else text(report)) + "\n")
    return 0 if report.can_serve else 1


def _override(config: configuration.Config, chosen: argparse.Namespace) -> configuration.Config:
    """What the command line says goes before what the file says."""
    said = {
        name: value
        for name in ("backend", "runtime_dir")
        if (value := getattr(chosen, name, None)) is not None
    }
    opener = getattr(chosen, "opener", None)
    if opener is not None:
        config = msgspec.structs.replace(config, opener=msgspec.structs.replace(config.opener, socket=opener))
    return msgspec.structs.replace(config, daemon=msgspec.structs.replace(config.daemon, **said))

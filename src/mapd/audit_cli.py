"""``mapd audit``: checking what the daemon has written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapd.access.audit import Chain


def add_commands(commands: Any) -> None:
    """``audit verify FILE...`` below the root parser's subcommands."""
    audit = commands.add_parser("audit", help="check the audit trail that the daemon writes")
    what = audit.add_subparsers(dest="audit_command", required=True, metavar="COMMAND")
    verify = what.add_parser(
        "verify", help="walk the hash chain and name the first line that does not fit", description=VERIFY
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the oldest first")


VERIFY = (
    "Walks the chain of hashes through the files, the oldest first. Status 0: every line is where it was written; 1: a "
    "line was changed, removed or inserted, and the first place that shows it is named; 2: a file cannot be read."
)


def run(chosen: argparse.Namespace) -> int:
    """Exit status, as ``VERIFY`` says."""
    from mapd.access.audit import (
        Chain,  # which imports grpc's codes: not before `mapd serve` has locked itself in
    )

    chain = Chain()
    for path in chosen.files:
        try:
            unbroken = _check(chain, path)
        except OSError as error:
            sys.stderr.write(f"mapd audit verify: {path}: {error.strerror}\n")
            return 2
        if not unbroken:
            break
    verdict = chain.end()
    for note in verdict.notes:
        sys.stdout.write(f"note: {note}\n")
    if verdict.broken:
        sys.stdout.write(f"broken: {verdict.broken}\n")
        return 1
    sys.stdout.write(f"{verdict.lines} lines, unbroken; the last one's digest is {verdict.last}\n")
    return 0


def _check(chain: Chain, path: Path) -> bool:
    """Whether a file fits, line by line: it may be larger than memory."""
    rest = b""

    def lines() -> Iterator[bytes]:
        nonlocal rest
        for line in stream:
            if line.endswith(b"\n"):
                yield line[:-1]
            else:
                rest = line

    with path.open("rb") as stream:
        unbroken = chain.check(str(path), lines())
    if unbroken and rest:
        chain.torn_end(str(path), len(rest))
    return unbroken

"""``mapd policy``: check a policy, explain a decision, add a rule. Needs no daemon and no rights but to the file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from mapd.access.policy import check, edit, explain, holder, roles
from mapd.access.policy.decide import grants
from mapd.access.policy.file import PolicyError
from mapd.access.policy.hosts import LocalHost
from mapd.access.policy.model import Policy, Subject
from mapd.access.principal import ADMIN
from mapd_api.names import split_name
from mapd_api.uapi import MapType

_TYPES: Final = {kind.name.lower(): kind.value for kind in MapType if kind}


def add_commands(commands: Any) -> None:
    """``mapd policy`` with its own commands, below ``mapd``'s (argparse's sub-parsers, whose class is private)."""
    policy: argparse.ArgumentParser = commands.add_parser(
        "policy", help="check the policy, explain its decisions, add a rule"
    )
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")

    checking = actions.add_parser(
        "check", help="whether a file can be used, and what in it is probably not meant"
    )
    checking.add_argument("file", type=Path, nargs="?", default=holder.DEFAULT_PATH, metavar="FILE")
    checking.add_argument("--strict", action="store_true", help="status 1 where there are warnings")

    explaining = actions.add_parser(
        "explain", help="whether somebody may do something with a map, and by which rule"
    )
    explaining.add_argument("--as", dest="principal", required=True, metavar="PRINCIPAL")
    explaining.add_argument("verb", choices=tuple(roles.VERBS), metavar="VERB", help=", ".join(roles.VERBS))
    explaining.add_argument(
        "map", metavar="MAP", help="a name (namespace/name), or the absolute path of a pin"
    )
    explaining.add_argument(
        "--also", action="append", default=[], metavar="MAP", help="another name or pin of the same map"
    )
    explaining.add_argument(
        "--type", choices=tuple(_TYPES), metavar="TYPE", help="of the map, as bpftool spells it"
    )
    explaining.add_argument(
        "--key", type=_hex, metavar="HEX", help="of an element, where rights depend on it"
    )

    allowing = actions.add_parser(
        "allow", help="add a rule to the file, after a check of what it makes of it"
    )
    allowing.add_argument("principal", metavar="PRINCIPAL")
    allowing.add_argument("role", choices=tuple(roles.ROLES), metavar="ROLE", help=", ".join(roles.ROLES))
    allowing.add_argument(
        "selector",
        metavar="SELECTOR",
        help="'web/*' (names), '/sys/fs/bpf/x/*' (pins), 'type:hash', 'owner:self', or 'every-map'",
    )
    allowing.add_argument(
        "--key-prefix", action="append", default=[], metavar="HEX", help="only for keys that begin with it"
    )
    allowing.add_argument("--dry-run", action="store_true", help="show the change, and make none")

    for action in (explaining, allowing):
        action.add_argument(
            "--policy",
            type=Path,
            default=holder.DEFAULT_PATH,
            metavar="FILE",
            help=f"default: {holder.DEFAULT_PATH}",
        )


def run(chosen: argparse.Namespace) -> int:
    """Exit status: 0 for yes (usable, allowed, done or so already), 2 where the file or the command is wrong.

    Of check: 1 with ``--strict`` where there are warnings. Of explain: 1 where it is denied, or depends on what was
    not said.
    """
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "check": _check,
        "explain": _explain,
        "allow": _allow,
    }
    try:
        return actions[chosen.action](chosen)
    except (PolicyError, edit.EditError, ValueError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"mapd: {line}\n")
        return 2


def _check(chosen: argparse.Namespace) -> int:
    policy = holder.load(chosen.file)
    warnings = check.warnings(policy, LocalHost())
    for line in warnings:
        sys.stderr.write(f"mapd: {line}\n")
    counts = (
        f"{ADMIN} and {_count(len(policy.members) - 1, 'principal')}, {_count(len(policy.rules), 'rule')}, "
        f"{_count(len(warnings), 'warning')}"
    )
    sys.stdout.write(f"{chosen.file}: version {policy.version}: {counts}\n")
    return 1 if warnings and chosen.strict else 0


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _explain(chosen: argparse.Namespace) -> int:
    policy = holder.load(chosen.policy)
    subject = _subject(policy, chosen.principal, (chosen.map, *chosen.also), chosen.type)
    verb = roles.VERBS[chosen.verb]
    said = explain.explain(policy, chosen.principal, verb, subject, chosen.map)
    sys.stdout.write(f"{said.text}\n")
    if chosen.key is None or not said.allowed:
        return 0 if said.allowed else 1
    kinds = _TYPES.values() if subject.type is None else [subject.type]
    filters = [
        grants(policy, chosen.principal, replace(subject, type=kind)).filters.get(verb) for kind in kinds
    ]
    yes = all(keys is None or keys.permits(chosen.key) for keys in filters)
    sys.stdout.write(f"key {chosen.key.hex()}: {'yes' if yes else 'no'}\n")
    return 0 if yes else 1


def _subject(policy: Policy, principal: str, places: tuple[str, ...], kind: str | None) -> Subject:
    member = policy.members.get(principal)
    namespace = member.namespace if member else principal
    pins = [place for place in places if place.startswith("/")]
    names = ["/".join(split_name(place, namespace)) for place in places if not place.startswith("/")]
    return Subject.of(None if kind is None else _TYPES[kind], names=names, pins=pins)


def _allow(chosen: argparse.Namespace) -> int:
    content = holder.read(chosen.policy)
    change = edit.allow(
        content, str(chosen.policy), chosen.principal, chosen.role, chosen.selector, tuple(chosen.key_prefix)
    )
    for line in change.notes:
        sys.stderr.write(f"mapd: {line}\n")
    sys.stdout.write(change.diff())
    if change.changes and not chosen.dry_run:
        edit.write(chosen.policy, change)
    return 0


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not hexadecimal, two digits a byte") from None

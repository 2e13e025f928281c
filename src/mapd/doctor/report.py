"""The whole report: as text of 100 columns, or as JSON."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from mapd.bpf import Kernel, LinuxKernel, effective_capabilities, possible_cpus
from mapd.config import Config
from mapd.doctor.attempts import ProfileReport, attempts
from mapd.doctor.host import Check, apart, can_serve, checks
from mapd.maps.traits import TypeTraits
from mapd.maps.trials import Answer, Trial, served, try_types
from mapd.maps.types import type_name
from mapd.rpc.server_info import profile_of
from mapd_api import __version__
from mapd_api.ops import ATOMICS

WIDTH: Final = 100
_NAME: Final = 28
_TYPE: Final = 24
_ANSWER: Final = 9
_UPDATES: Final = ("update_noexist", "update_exist", "push_exist")
"""Told by their plain form: a type has them with it."""
_ATOMICS: Final = frozenset(op.name.lower() for op in ATOMICS)
"""Told together: a type has all of them or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeReport:
    """One map type on this host.

    Attributes:
        create: ok, refused by this kernel, or unknown for want of rights.
        errno: of the refusal.
        operations: what may be asked of such a map here.
        lacks: what the table has and this kernel has not.
        refused: why operations that the kernel may have are not offered.
        fix: what would let one be created, "" where one was.
    """

    type: str
    create: Answer
    errno: str
    operations: Sequence[str]
    lacks: Sequence[str]
    refused: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found."""

    version: str
    kernel: str
    machine: str
    possible_cpus: int
    uid: int
    profile: str
    can_serve: bool
    checks: Sequence[Check]
    types: Sequence[TypeReport]
    profiles: Sequence[ProfileReport] = ()

    def json(self) -> str:
        """One object, indented."""
        return json.dumps(asdict(self), indent=2)


def examine(config: Config, kernel: Kernel | None = None) -> Report:
    """Look at this host with the rights of this process. Blocks."""
    asked = kernel or LinuxKernel()
    capabilities = effective_capabilities()
    found = [*checks(asked, config.daemon, capabilities), *apart(config)]
    system = os.uname()
    trials = try_types(asked, possible_cpus())
    return Report(
        version=__version__,
        kernel=f"{system.sysname} {system.release}",
        machine=system.machine,
        possible_cpus=possible_cpus(),
        uid=os.geteuid(),
        profile=profile_of(capabilities),
        can_serve=can_serve(found),
        checks=found,
        types=types(trials),
        profiles=attempts(config.opener.user),
    )


def types(trials: Mapping[int, Trial]) -> list[TypeReport]:
    """The table of types as it is here."""
    return [_type(traits, trials[number]) for number, traits in sorted(served(trials).items())]


def _type(traits: TypeTraits, trial: Trial) -> TypeReport:
    return TypeReport(
        type=type_name(traits.type),
        create=trial.answer,
        errno=trial.errno,
        operations=traits.operations,
        lacks=sorted(op.name.lower() for op in trial.lacks),
        refused=traits.refused,
        fix=_fix(traits, trial),
    )


def _fix(traits: TypeTraits, trial: Trial) -> str:
    if trial.answer is Answer.OK:
        return ""
    if trial.answer is Answer.REFUSED:
        return "a kernel that has this type"
    if trial.errno != "EPERM":
        return "memory, or file descriptors: the host had none left"
    needed = dict.fromkeys(("CAP_BPF", traits.capability))
    return f"AmbientCapabilities={' '.join(needed)} in the opener's unit, or start as root"


def text(report: Report) -> str:
    """For people: at most 100 columns."""
    place = f"{report.kernel} {report.machine}, {report.possible_cpus} possible CPUs"
    lines = [
        *_wrapped("", f"mapd {report.version} on {place}, uid {report.uid}, profile {report.profile}"),
        "",
        *_host(report.checks),
        "",
        f"{'map type':<{_TYPE}}{'create':<{_ANSWER}}operations",
    ]
    for one in report.types:
        lines += _type_lines(one)
    lines += ["", *_profiles(report.profiles), *_verdict(report)]
    return "\n".join(lines)


def _host(found: Sequence[Check]) -> Iterator[str]:
    for check in found:
        word = "ok" if check.ok else "MISSING" if check.needed else "no"
        yield from _wrapped(f"{check.name:<{_NAME}}{word:<{_ANSWER}}", check.found)
        if check.fix:
            yield from _wrapped(f"{'':<{_NAME}}{'fix:':<{_ANSWER}}", check.fix)


def _type_lines(one: TypeReport) -> Iterator[str]:
    words = dict.fromkeys(
        "atomics" if name in _ATOMICS else name for name in one.operations if name not in _UPDATES
    )
    answer = one.create.value
    yield from _wrapped(f"{one.type:<{_TYPE}}{answer:<{_ANSWER}}", " ".join(words))
    margin = " " * (_TYPE + _ANSWER)
    if one.errno:
        yield from _wrapped(f"{'':<{_TYPE}}{'fix:':<{_ANSWER}}", f"{one.fix} [{one.errno}]")
    if one.lacks:
        yield from _wrapped(margin, f"not on this kernel: {' '.join(one.lacks)}")
    if one.refused:
        yield from _wrapped(margin, one.refused)


def _profiles(found: Sequence[ProfileReport]) -> Iterator[str]:
    if not found:
        return
    yield f"{'profile':<{_TYPE}}what it gives on this host"
    margin = " " * _TYPE
    every = max((len(one.creates) + len(one.refused) for one in found), default=0)
    for one in found:
        yield from _wrapped(f"{one.profile:<{_TYPE}}", f"{one.gives} ({' '.join(one.capabilities)})")
        if not one.tried:
            yield from _wrapped(margin, f"not tried: {one.why}")
        else:
            ids = "maps by id" if one.ids else "no maps by id"
            yield from _wrapped(margin, f"creates {len(one.creates)} of {every} types; {ids}; {one.pins}")
        if one.refused:
            words = " ".join(f"{kind} [{errno}]" for kind, errno in one.refused.items())
            network = "; profile network creates those with EPERM" if "EPERM" in one.refused.values() else ""
            yield from _wrapped(margin, f"not created: {words}{network}")
        yield from _wrapped(f"{margin}to have it: ", one.fix)
    yield ""


def _verdict(report: Report) -> Iterator[str]:
    if report.can_serve:
        made = sum(one.create is Answer.OK for one in report.types)
        yield f"A daemon can serve here; it can create {made} of {len(report.types)} map types."
        if any(one.create is Answer.UNKNOWN for one in report.types):
            yield "Maps of the others can be used where somebody else has created and pinned them."
        return
    yield "A daemon cannot start here:"
    for check in report.checks:
        if check.needed and not check.ok:
            yield from _wrapped("  ", f"{check.found}; {check.fix}")


def _wrapped(begin: str, words: str) -> list[str]:
    """Words behind a beginning, and behind as many blanks on the lines that follow."""
    if not words:
        return [begin.rstrip()]
    return textwrap.wrap(
        words,
        WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )

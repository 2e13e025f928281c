"""What a profile gives on this host: tried with its capabilities and no other, in a process of its own for each.

Changes nothing: the maps of the trials are closed at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mapd.bpf import LinuxKernel, NextMapId, SyscallError, possible_cpus
from mapd.maps.trials import Answer, Trial, try_types
from mapd.maps.types import TYPES, type_name
from mapd.sandbox import PROFILES, Account, account, bits_of, held
from mapd.sandbox.capabilities import SandboxError, give_up, names_of
from mapd.sandbox.profiles import GIVES

ATTEMPT_S: Final = 30.0

_BEGIN: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from mapd.doctor.attempts import main; "
    "main(*json.loads(sys.argv[2]))"
)

PINS: Final[Mapping[str, str]] = {
    "pins-ro": "read any pin below the pin roots",
    "pins-rw": "read and write any pin below the pin roots",
}
"""What a profile adds to what the modes of others' pins admit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport:
    """One profile.

    Attributes:
        creates, refused: map types that can be made with it here, and those that cannot, each with its errno.
        ids: whether maps can be listed and opened by id.
        pins: whose pins can be opened.
        tried: whether this was tried; else why it could not be, and nothing is known of types.
        fix: the line that gives this profile.
    """

    profile: str
    capabilities: Sequence[str]
    gives: str
    creates: Sequence[str]
    refused: Mapping[str, str]
    ids: bool
    pins: str
    tried: bool
    why: str
    fix: str


def attempts(user: str | int) -> list[ProfileReport]:
    """Every profile, as the opener's ``user`` where this process may become it. Blocks, for 0.5 s each."""
    return [_attempt(name, user) for name in PROFILES]


def _attempt(name: str, user: str | int) -> ProfileReport:
    lacking = [one for one in PROFILES[name] if not held().permitted & bits_of({one})]
    if lacking:
        return _report(
            name,
            {},
            ids=False,
            why=f"this process has no {' '.join(sorted(lacking))}: run mapd doctor as root",
        )
    known = account(user) if held().effective & bits_of({"CAP_SETUID"}) else None
    who = None if known is None else (known.uid, known.gid)
    done = subprocess.run(  # noqa: S603 - this interpreter, and our own words
        [sys.executable, "-I", "-c", _BEGIN, json.dumps(sys.path), json.dumps([name, who])],
        capture_output=True,
        text=True,
        timeout=ATTEMPT_S,
        check=False,
    )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return _report(name, {}, ids=False, why=f"the trial ended: {last}")
    return _report(name, said["types"], ids=said["ids"])


def _report(name: str, types: Mapping[str, str], *, ids: bool, why: str = "") -> ProfileReport:
    fix = f'profile = "{name}" below [opener] in mapd.toml'
    if name != "minimal":
        fix += f"; under systemd {name}.conf in mapd-opener@.service.d"
    return ProfileReport(
        profile=name,
        capabilities=sorted(PROFILES[name]),
        gives=GIVES[name],
        creates=[kind for kind, errno in types.items() if not errno],
        refused={kind: errno for kind, errno in types.items() if errno},
        ids=ids,
        pins=PINS.get(name, "pins whose modes admit the opener's user"),
        tried=not why,
        why=why,
        fix=fix,
    )


def main(name: str, who: Sequence[int] | None) -> None:
    """In the process of its own: give up all else, try, and print what was found."""
    try:
        give_up(bits_of(PROFILES[name]), None if who is None else Account(*who))
    except SandboxError as error:
        raise SystemExit(str(error)) from None
    kernel = LinuxKernel()
    trials = try_types(kernel, possible_cpus())
    try:
        kernel.control(NextMapId(map_id=0))
        ids = True
    except SyscallError:
        ids = False
    types = {type_name(TYPES[number].type): _refusal(trials[number]) for number in sorted(TYPES)}
    sys.stdout.write(json.dumps({"types": types, "ids": ids, "held": names_of(held().effective)}))


def _refusal(trial: Trial) -> str:
    return "" if trial.answer is Answer.OK else trial.errno

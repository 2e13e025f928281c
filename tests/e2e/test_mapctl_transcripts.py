"""What every verb of mapctl prints, says and returns, as files to read: tests/e2e/transcripts/.

``MAPD_REWRITE=1 ./dev test tests/e2e/test_mapctl_transcripts.py`` writes them anew; the difference is read before it is
committed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from mapd_client.cli import outcomes
from mapd_client.cli.app import VERBS
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, Result, mapctl

__all__ = ["mapctl"]

FILES: Final = Path(__file__).parent / "transcripts"
NAMES: Final = [names.split()[0] for names, _ in VERBS]

SCRIPTS: Final[Mapping[str, Sequence[str]]] = {
    "list": [
        "list '*/list-*'",
        "list '*/list-*' -o json",
        "list '*/list-*' -o csv",
        "list '*/list-*' -v",
        "list nothing-*",
    ],
    "create": [
        "create made hash --key u32 --value u64 --max-entries 9",
        "create made hash --key u32 --value u64 --max-entries 9",
        "create made hash --key u32 --value u64 --max-entries 8 --exist-ok",
        "create made",
    ],
    "show": ["show show-it", "show show-it -o json", "show nothing", "show id x"],
    "rename": ["rename rename-it renamed", "show renamed -o csv", "rename rename-it renamed"],
    "lookup": [
        "lookup lookup-it 7",
        "get lookup-it 7 -o json",
        "lookup lookup-it key hex 07 00 00 00",
        "lookup lookup-it 8",
        "lookup lookup-it hex:07",
        "lookup lookup-it seven",
        "lookup lookup-it 7 --bpftool-json",
    ],
    "dump": [
        "dump dump-it",
        "dump dump-it -o json",
        "dump dump-it -o ndjson",
        "dump dump-it -o csv",
        "dump dump-it --keys-only",
        "dump dump-it --bpftool-json",
        "dump dump-it -o arrow --limit x",
        "dump nothing -o json",
    ],
    "count": ["count count-it", "count count-it -o json", "count nothing"],
    "update": [
        "update update-it 7 1",
        "set update-it 7 2 noexist",
        "set update-it 8 2 exist",
        "update update-it 7 2 --dry-run",
        "update update-it 7 x",
        "get update-it 7",
    ],
    "delete": ["delete delete-it", "del delete-it 7 --dry-run", "del delete-it 7", "del delete-it 7"],
    "load": ["load load-it {rows}", "get load-it 3", "load load-it {wrong}", "load load-it /nowhere.ndjson"],
    "push": [
        "push push-it 1",
        "push push-it 2",
        "push push-it 3",
        "push push-it 3 --exist",
        "push show-it 1",
    ],
    "pop": ["pop pop-it", "push pop-it 7", "pop pop-it -o json", "pop lookup-it"],
    "peek": ["push peek-it 7", "peek peek-it", "peek peek-it", "peek nothing"],
    "pin": ["pin pin-it {bpffs}/elsewhere", "pin pin-it {bpffs}/elsewhere", "pin pin-it relative"],
    "unpin": ["unpin unpin-it", "unpin unpin-it --dry-run", "unpin unpin-it --yes", "unpin unpin-it --yes"],
    "freeze": ["freeze freeze-it", "freeze freeze-it --yes", "freeze freeze-it --yes", "set freeze-it 7 1"],
    "lease": [
        "lease list",
        "lease list -o json",
        "lease show {lease}",
        "lease show {lease} -o json",
        "lease keep-alive {lease} --once",
        "lease keep-alive nothing --once",
        "lease revoke {lease}",
        "lease revoke {lease} --dry-run",
        "lease revoke {lease} --yes",
        "lease show {lease}",
    ],
    "top": ["top"],
    "snapshot": [
        "snapshot snapshot-it {folder}/x.snap",
        "snapshot pop-it {folder}/q.snap",
        "snapshot nothing {folder}/y",
    ],
    "restore": [
        "snapshot restore-it {folder}/r.snap -q",
        "set restore-it 7 1",
        "restore {folder}/r.snap",
        "restore {folder}/r.snap --dry-run",
        "restore {folder}/r.snap --yes -o json",
        "restore {rows}",
    ],
    "hosts": ["hosts", "-H {socket} -H /nowhere/mapd.sock hosts -o csv"],
    "whoami": ["whoami", "whoami -o json"],
    "can": ["can read can-it", "can write can-it -o json", "can fly can-it", "can read nothing"],
    "sync": [
        "sync sync-it --from {list} --value u64=1 --dry-run",
        "sync sync-it --from {list} --value u64=1 --max-removals 1",
        "sync sync-it --from {list} --value u64=1 -o json",
        "sync sync-it --from {empty} --value u64=1",
    ],
    "diff": ["set diff-it 7 1", "diff diff-it show-it", "diff diff-it diff-it", "diff diff-it nothing"],
    "doctor": ["doctor"],
    "health": ["health", "health -o json"],
    "context": ["context list", "context use nothing", "context show"],
    "socket": ["socket", "--address /x/mapd.sock socket"],
    "completion": ["completion powershell"],
}

ONCE: Final[Mapping[str, str]] = {
    "list": "list",
    "create": "create other hash --key 4 --value 4 --entries 1",
    "show": "show flows",
    "rename": "rename flows flows2",
    "lookup": "lookup flows 7",
    "dump": "dump flows",
    "count": "count flows",
    "update": "update flows 7 1",
    "delete": "delete flows 7",
    "load": "load flows {rows}",
    "push": "push line 1",
    "pop": "pop line",
    "peek": "peek line",
    "pin": "pin flows {bpffs}/x",
    "unpin": "unpin flows --yes",
    "freeze": "freeze flows --yes",
    "lease": "lease keep-alive {lease} --once",
    "snapshot": "snapshot flows {folder}/once.snap",
    "restore": "restore {folder}/kept.snap --yes",
    "hosts": "-H {address} -H /nowhere/mapd.sock hosts",
    "whoami": "whoami",
    "can": "can read flows",
    "sync": "sync flows --from {list} --value u64=1 --max-removals 100%",
    "diff": "diff flows flows",
    "doctor": "doctor",
    "health": "health",
}
"""One call of each verb that asks a daemon; ``top`` needs a terminal, the rest ask nobody."""

POLICY: Final = """
[principals.admin]
users = []
[principals.poor]
users = [0]
[[rules]]
name = "looks-at-names"
who = ["poor"]
verbs = ["list"]
names = ["admin/*"]
"""


class Place:
    """A daemon with the maps that scripts speak of, and files."""

    def __init__(self, daemon: DaemonProcess, folder: Path) -> None:
        self.daemon = daemon
        self.words = {
            "bpffs": str(daemon.place.bpffs),
            "socket": str(daemon.place.socket),
            "folder": str(folder),
            "rows": str(folder / "rows.ndjson"),
            "wrong": str(folder / "wrong.ndjson"),
            "list": str(folder / "list.txt"),
            "empty": str(folder / "empty.txt"),
        }
        (folder / "rows.ndjson").write_text('{"key": 1, "value": 2}\n{"key": 3, "value": 4}\n')
        (folder / "wrong.ndjson").write_text('{"key": 5, "value": 6}\n{"key": 7}\n')
        (folder / "list.txt").write_text("# two\n1\n2\n")
        (folder / "empty.txt").write_text("")

    def plain(self, text: str) -> str:
        """Without what differs from run to run."""
        root = str(self.daemon.place.root)
        for name in ("folder", "bpffs"):
            text = text.replace(self.words[name], name.upper())
        text = text.replace(root, "ROOT")
        for pattern, said in _VARYING:
            text = re.sub(pattern, said, text)
        # The width of a column is that of a path or of an id of this run.
        return "".join(re.sub(r" {3,}", "  ", f"{line.strip()}\n") for line in text.splitlines())


_VARYING: Final = (
    (
        r"(?:did you mean .*\? 'mapctl list' has|see 'mapctl list' for) the maps that",
        "see which are near, or the maps that",
    ),
    (r'("(?:id|btf_id|memlock_bytes)": )\d+', r"\1N"),
    (r"\b(id|map) \d{3,}\b", r"\1 N"),
    (r"(?m)^((?:id|btf_id|memlock_bytes) +)\S+", r"\1N"),
    (r"(?m)^ *\d{4,}(  admin/)", r"N\1"),
    (r"(?m)^\d{4,},", "N,"),
    (r'("(?:true|false)","[^"]*","[^"]*",)\d+,\d+,', r"\1N,N,"),
    (r"(?m)(  (?:no|yes)  +(?:\S+ +)?)\d+[KMG]?$", r"\1N"),
    (r"(?m)^((?:features|types of maps) +ok +).*", r"\1..."),
    (r"Linux [0-9][^, ]*", "Linux N"),
    (r"Python [0-9.]+", "Python N"),
    (r"\bmapd \d+\.\d+\.\d+ on \S+,", "mapd N on NODE,"),
    (r'(check": "mapctl", "state": "ok", "text": ")[^,"]+', r"\1N"),
    (r"\b[0-9a-f]{12}\b", "HASH"),
    (r"\bl[0-9a-f]{16}\b", "LEASE"),
    (r"(remaining\S* +)3\d{3}\.\d+", r"\1N"),
    (r": \d+ bytes\n", ": N bytes\n"),
    (r"\b\d+ of (\d+|unlimited)\b", r"N of \1"),
    (r'"used": \d+', '"used": N'),
    (r'(,"serving",)"[^"]*","[^"]*","[^"]*"', r"\1NODE,N,N"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    """One daemon for all scripts."""
    with private_place() as private, daemon_process(private) as daemon:
        yield Place(daemon, tmp_path_factory.mktemp("files"))


async def _run(mapctl: Mapctl, place: Place, line: str, address: str | None = None) -> Result:
    """One command line; without an address the environment names the daemon, as a user has it."""
    words = shlex.split(line.format(**place.words, address=address or place.words["socket"]))
    environ = {
        "MAPD_ADDRESS": address or place.words["socket"],
        "MAPD_CONFIG": "/nowhere/config.toml",
        "COLUMNS": "100",
    }
    return await mapctl(*words, **environ)


async def _prepared(mapctl: Mapctl, place: Place, verb: str) -> None:
    kind = (
        "queue --value u32 --entries 2"
        if verb in ("push", "pop", "peek")
        else "hash --key u32 --value u64 --entries 9"
    )
    done = await _run(mapctl, place, f"create {verb}-it {kind} --exist-ok")
    assert done.code == 0, done.err
    if verb == "lease":
        await _leased(mapctl, place)
    if "hash" in kind and verb not in ("load", "update"):
        assert (await _run(mapctl, place, f"set {verb}-it 7 9")).code == 0


async def _leased(mapctl: Mapctl, place: Place) -> None:
    """A map with a lease, whose id scripts call ``lease``."""
    done = await _run(mapctl, place, "create --lease 3600 --type hash --key 4 --value 4 --entries 1 -o json")
    assert done.code == 0, done.err
    place.words["lease"] = json.loads(done.out)["lease"]


def test_each_verb_has_a_script() -> None:
    assert SCRIPTS.keys() == set(NAMES)
    assert ONCE.keys() == set(NAMES) - {"top", "context", "socket", "completion"}


@pytest.mark.parametrize("verb", NAMES)
async def test_a_verb_says_what_its_transcript_says(mapctl: Mapctl, place: Place, verb: str) -> None:
    for needed in (
        verb,
        *{"pop": ["lookup"], "push": ["show"], "snapshot": ["pop"], "diff": ["show"]}.get(verb, []),
    ):
        await _prepared(mapctl, place, needed)
    text = ""
    for line in SCRIPTS[verb]:
        done = await _run(mapctl, place, line)
        assert "Traceback" not in done.err
        told = "".join(f"! {one}\n" for one in place.plain(done.err).splitlines())
        text += f"$ mapctl {line}\n{place.plain(done.out)}{told}=> {done.code}\n\n"
    assert text == _kept(FILES / f"{verb}.txt", text)


def _kept(file: Path, text: str) -> str:
    if os.environ.get("MAPD_REWRITE"):
        file.write_text(text)
    return file.read_text()


async def test_exit_codes_are_those_of_the_table(mapctl: Mapctl, tmp_path: Path) -> None:
    """Each verb: done, nobody there, nobody answers, nothing permitted, started again in between."""
    table: dict[str, dict[str, int]] = {verb: {} for verb in ONCE}
    with private_place() as private:
        with daemon_process(private, policy=POLICY) as daemon:
            place = Place(daemon, tmp_path)
            poor = str(private.runtime_dir / "poor" / "mapd.sock")
            await _fill(mapctl, place)
            await _column(table, "nothing permitted", mapctl, place, poor)
            await _column(table, "nobody there", mapctl, place, f"{private.root}/nobody.sock")
            os.kill(daemon.pid, signal.SIGSTOP)
            try:
                await _column(table, "nobody answers", mapctl, place, None, "--timeout 0.1 ")
            finally:
                os.kill(daemon.pid, signal.SIGCONT)
        with daemon_process(private, policy=POLICY) as daemon:
            place.daemon = daemon
            await _column(table, "started again", mapctl, place, None)
    text = json.dumps(table, indent=1) + "\n"
    assert text == _kept(FILES / "exit_codes.json", text)
    for verb, codes in table.items():
        if verb != "hosts":
            assert codes["nobody there"] == codes["nobody answers"] == outcomes.UNAVAILABLE, verb


async def _fill(mapctl: Mapctl, place: Place) -> None:
    for line in (
        "create flows hash --key u32 --value u64 --entries 9",
        "set flows 7 1",
        "create line queue --value u32 --entries 9",
        "push line 1",
        "snapshot flows {folder}/kept.snap -q",
    ):
        done = await _run(mapctl, place, line)
        assert done.code == 0, done.err
    await _leased(mapctl, place)


async def _column(
    table: dict[str, dict[str, int]],
    situation: str,
    mapctl: Mapctl,
    place: Place,
    address: str | None,
    before: str = "",
) -> None:
    last = ("rename", "unpin", "freeze")  # what others need is there until they have run
    for verb in sorted(ONCE, key=lambda one: last.index(one) if one in last else -1):
        line = ONCE[verb]
        if verb == "unpin" and situation == "started again":
            line = "unpin line --yes"
        if verb == "freeze" and situation == "started again":
            line = "freeze flows2 --yes"
        if situation == "nothing permitted":  # it sees the admin's maps, and may do nothing with them
            line = re.sub(r"\b(flows2?|line)\b", r"admin/\1", line)
        done = await _run(mapctl, place, f"{before}{line}", address)
        assert "Traceback" not in done.err
        if done.code and verb != "can":  # whose answer is its data
            assert done.err.startswith("mapctl: "), (verb, done)
            assert len(done.err.splitlines()) > 1 or verb == "diff", f"{verb}: what, and what to do"
        table[verb][situation] = done.code

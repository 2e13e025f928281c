"""mapctl makes, changes and ends maps through a real daemon; what it prints, says and returns."""

from __future__ import annotations

import functools
import json
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any

import pytest

from mapd_client.cli import outcomes
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, Result, mapctl

__all__ = ["mapctl"]


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(served: DaemonProcess, mapctl: Mapctl) -> Run:
    """Mapctl, told where the daemon is."""
    return functools.partial(mapctl, "--address", str(served.place.socket))


def _bpftool(*arguments: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


async def _made(run: Run, name: str, type: str, *more: str) -> dict[str, object]:
    done = await run("create", name, type, *more, "-o", "json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, object] = json.loads(done.out)
    return found


async def test_a_map_is_created_as_it_is_said_and_bpftool_knows_its_types(run: Run) -> None:
    made = await _made(run, "flows", "lru_hash", "--key", "ipv4", "--value", "u64", "--max-entries", "1000")
    assert (made["name"], made["type"], made["key_size"], made["value_size"]) == (
        "admin/flows",
        "lru_hash",
        4,
        8,
    )
    assert (await run("update", "flows", "10.0.0.1", "7")).code == 0
    shown = _bpftool("map", "dump", "id", str(made["id"]))
    assert shown == [
        {
            "key": ["0x0a", "0x00", "0x00", "0x01"],
            "value": ["0x07", *["0x00"] * 7],
            "formatted": {"key": 16777226, "value": 7},
        }
    ]


async def test_bpftools_words_create_a_map_too(run: Run) -> None:
    words = "create words type hash key 4 value 8 entries 10 name kname flags 0x1"
    done = await run(*words.split(), "-o", "json")
    assert done.code == 0, done.err
    made = json.loads(done.out)
    found = [
        made[name]
        for name in ("name", "kernel_name", "type", "key_size", "value_size", "max_entries", "flags")
    ]
    assert found == ["admin/words", "kname", "hash", 4, 8, 10, 1]


async def test_a_per_cpu_map_and_flags_by_name(run: Run) -> None:
    made = await _made(
        run, "pc", "percpu_hash", "--key", "u32", "--value", "u64", "--entries", "4", "--flags", "no_prealloc"
    )
    assert (made["value_size"], made["flags"]) == (8, 1)


async def test_creating_again_is_a_conflict_unless_it_is_the_same(run: Run) -> None:
    same = ("create", "twice", "hash", "--key", "4", "--value", "4", "--entries", "2")
    assert (await run(*same)).code == 0
    assert (await run(*same)).code == outcomes.CONFLICT
    assert (await run(*same, "--exist-ok")).code == 0
    other = await run(*same[:-1], "3", "--exist-ok")
    assert other.code == outcomes.CONFLICT
    assert "max_entries" in other.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("x hash --key foo", "ipv4"),
        ("x nosuch --key 4 --value 4 --entries 1", "nosuch"),
        ("x", "a name and a type are needed"),
        ("x hash --lease 5 --key 4 --value 4 --entries 1", "a name and a type are needed"),
        ("x hash --key 4 --value 4 --entries 1 --flags quick", "no_prealloc"),
        ("x hash --key 4 --value 4", "max_entries is 0"),
        ("x --elf nosuch.o", "leave 'x' out"),
        ("--elf nosuch.o", "nosuch.o"),
    ],
)
async def test_what_cannot_be_created_is_said(run: Run, arguments: str, why: str) -> None:
    done = await run("create", *arguments.split())
    assert (done.code, done.out) == (outcomes.USAGE, "")
    assert why in done.err
    assert "Traceback" not in done.err


async def test_a_queue_is_pushed_peeked_and_popped(run: Run) -> None:
    await _made(run, "q", "queue", "--value", "u32", "--entries", "2")
    for value in ("7", "u32:8"):
        assert await run("push", "q", value) == Result(0, "", "")
    full = await run("push", "q", "9")
    assert full.code == outcomes.FAILURE
    assert "full" in full.err
    assert (await run("push", "q", "9", "--exist")).code == 0, "the oldest, 7, is dropped"
    assert (await run("peek", "q")).out == "08000000 (8)\n"
    assert json.loads((await run("pop", "q", "-o", "json")).out) == {"value": "08000000"}
    assert json.loads((await run("pop", "q", "-o", "ndjson", "--as", "value=ipv4")).out) == {
        "value": "9.0.0.0"
    }
    empty = await run("pop", "q")
    assert (empty.code, empty.out) == (outcomes.NOT_FOUND, "")
    assert "empty" in empty.err


async def test_a_queues_verbs_refuse_another_map(run: Run) -> None:
    await _made(run, "noq", "hash", "--key", "4", "--value", "4", "--entries", "2")
    done = await run("pop", "noq")
    assert done.code == outcomes.FAILURE
    assert "hash" in done.err


async def test_a_pin_leads_to_the_map_until_it_is_removed(run: Run, served: DaemonProcess) -> None:
    await _made(run, "held", "hash", "--key", "4", "--value", "4", "--entries", "2")
    path = f"{served.place.bpffs}/elsewhere"
    assert await run("pin", "held", path) == Result(0, "", "")
    assert (await run("unpin", "held", "--yes")).code == 0
    assert (await run("show", "held")).code == outcomes.NOT_FOUND
    assert (await run("show", "pinned", path)).code == 0, "bpftool's two words"
    assert (await run("unpin", f"pin:{path}", "--yes")).code == 0
    assert (await run("show", f"pin:{path}")).code == outcomes.NOT_FOUND


async def test_a_dry_unpin_says_what_else_keeps_the_map(run: Run, served: DaemonProcess) -> None:
    await _made(run, "alone", "hash", "--key", "4", "--value", "4", "--entries", "2")
    done = await run("unpin", "alone", "--dry-run")
    assert (done.code, "nothing else is seen to hold the map: it would be gone" in done.err) == (0, True), (
        done.err
    )
    path = f"{served.place.bpffs}/second"
    assert (await run("pin", "alone", path)).code == 0
    done = await run("unpin", "alone", "-n")
    assert (done.code, f"the map stays: pinned at {path}; nothing was done" in done.err) == (0, True), (
        done.err
    )


async def test_nothing_is_destroyed_where_nobody_can_be_asked(run: Run) -> None:
    made = await _made(run, "kept", "hash", "--key", "4", "--value", "4", "--entries", "2")
    for verb in ("unpin", "freeze"):
        refused = await run(verb, "kept")
        assert refused.code == outcomes.USAGE
        assert "--yes" in refused.err
        assert (await run(verb, "kept", "--dry-run")).code == 0
    shown = json.loads((await run("show", "kept", "-o", "json")).out)
    assert (shown["id"], shown["frozen"]) == (made["id"], False)
    by_id = await run("unpin", f"id:{made['id']}", "--yes")
    assert by_id.code == outcomes.USAGE
    assert "an id is no name" in by_id.err


@pytest.mark.parametrize(("answer", "frozen"), [("y", True), ("", False)])
async def test_on_a_terminal_it_asks(run: Run, served: DaemonProcess, answer: str, frozen: bool) -> None:
    name = f"asked{answer}"
    await _made(run, name, "hash", "--key", "4", "--value", "4", "--entries", "2")
    said, code = _typed(f"{answer}\n", "freeze", name, "--address", str(served.place.socket))
    assert "can be written from user space any more, for ever. Go on? [y/N]" in said
    assert code == (outcomes.OK if frozen else outcomes.FAILURE)
    assert json.loads((await run("show", name, "-o", "json")).out)["frozen"] is frozen


def _typed(answer: str, *arguments: str) -> tuple[str, int]:
    """Mapctl as a process on a terminal of its own."""
    ours, terminal = pty.openpty()
    main = "from mapd_client.cli import main; main()"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", main, *arguments]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environ) as process:
        os.close(terminal)
        os.write(ours, answer.encode())
        said = b""
        with suppress(OSError):  # EIO: nobody holds the other end any more
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    return said.decode(), process.returncode


async def test_a_frozen_map_stays_frozen(run: Run) -> None:
    await _made(run, "ice", "hash", "--key", "4", "--value", "4", "--entries", "2")
    assert await run("freeze", "ice", "--yes") == Result(0, "", "")
    assert (await run("freeze", "ice")).err == "mapctl: ice is frozen already\n"
    assert (await run("update", "ice", "1", "2")).code == outcomes.CONFLICT


async def test_health_is_for_probes(run: Run, mapctl: Mapctl) -> None:
    assert await run("health") == Result(0, "serving\n", "")
    assert json.loads((await run("health", "-o", "ndjson")).out) == {"status": "SERVING"}
    assert (await mapctl("health", "--address", "/nowhere/mapd.sock")).code == outcomes.UNAVAILABLE


async def test_doctor_says_what_one_has_and_what_mends_the_rest(run: Run, mapctl: Mapctl) -> None:
    done = await run("doctor", "-o", "json")
    assert (done.code, done.err) == (0, "")
    found = {row["check"]: row for row in json.loads(done.out)}
    assert found["you"]["text"].startswith("admin, by socket:")
    assert found["roles"]["state"] == "ok"
    assert all(row["fix"] for row in found.values() if row["state"] != "ok"), "each has a line that mends it"
    assert found["address"]["text"].endswith("as an option or a context says")
    assert found["create maps"]["text"] == "admin may create admin/any: the admin may do everything"
    assert "host-facts" in found["features"]["text"].split()
    table = (await run("doctor")).out.splitlines()
    assert table[0].split() == ["CHECK", "STATE", "WHAT", "IS", "THERE"]
    nobody = await mapctl("doctor", "--address", "/nowhere/mapd.sock")
    assert nobody.code == outcomes.UNAVAILABLE
    assert "/nowhere/mapd.sock" in nobody.err


async def test_a_name_that_is_nowhere_is_told_with_those_that_may_have_been_meant(run: Run) -> None:
    for name in ("near/blocklist", "blockwist"):
        await _made(run, name, "hash", "--key", "u32", "--value", "u64", "--max-entries", "4")
    elsewhere = await run("count", "blocklist")
    assert elsewhere.code == outcomes.NOT_FOUND
    assert "did you mean near/blocklist or admin/blockwist?" in elsewhere.err
    assert "did you mean" not in (await run("count", "nothing-like-it")).err
    told = json.loads((await run("dump", "blokwist", "-o", "json")).err)["error"]
    assert told["hint"].startswith("did you mean admin/blockwist?")


async def test_a_key_of_the_wrong_size_is_told_where_the_sizes_are(run: Run) -> None:
    await _made(run, "sized", "hash", "--key", "u32", "--value", "u64", "--max-entries", "4")
    done = await run("lookup", "sized", "hex:0a")
    assert done.code == outcomes.USAGE
    assert done.err.splitlines() == [
        "mapctl: lookup sized: 'hex:0a' is 1 byte, 4 are needed",
        "see 'mapctl show' for the map's type and sizes",
    ]


async def test_a_leased_map_is_created_listed_with_its_lifetime_and_shown(run: Run) -> None:
    sizes = ("--key", "u32", "--value", "u64", "--max-entries", "8")
    done = await run("create", "--lease", "60", "--type", "hash", *sizes, "-o", "json")
    assert (done.code, done.err) == (0, "")
    made = json.loads(done.out)
    assert (made["name"], made["lease_ttl_s"]) == ("", 60.0)
    assert made["lease"].startswith("admin/")
    pin = f"pin:{made['pin_path']}"
    assert (await run("update", pin, "u32:1", "u64:7")).code == 0
    listed = await run("list")
    title, *lines = listed.out.splitlines()
    assert title.split()[-4:] == ["PIN", "MEMORY", "LEASE", "TTL"]
    (line,) = (line for line in lines if made["lease"] in line)
    assert line.split()[-3:] == [made["lease"], "60", "s"]
    assert made["pin_path"] in line
    shown = await run("show", pin)
    fields = [line.split() for line in shown.out.splitlines()]
    assert ["lease", made["lease"]] in fields
    assert ["lease_ttl_s", "60", "s"] in fields
    assert (await run("unpin", pin, "--yes")).code == 0
    title = (await run("list")).out.splitlines()[0]
    assert "LEASE" not in title

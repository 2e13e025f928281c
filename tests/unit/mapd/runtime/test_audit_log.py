"""The audit trail: whole lines in a chain, safe against what is at its path, and found again after a restart."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mapd.access.audit import Chain, Verdict, digest
from mapd.maps.errors import MapError
from mapd.runtime.audit_file import AuditError
from mapd.runtime.audit_log import AuditLog, Entry
from mapd_api.reasons import Reason

WAIT_S = 20.0


def entry(number: int) -> Entry:
    return Entry(event="mutation", principal="edge", operation="update", map_id=number, count=1)


@contextmanager
def writing(path: Path, **options: Any) -> Generator[AuditLog]:
    log = AuditLog(str(path), epoch=options.pop("epoch", "e1"), **options)
    yield log
    assert log.close(WAIT_S)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def verdict(*paths: Path) -> Verdict:
    chain = Chain()
    for path in paths:
        if not chain.check(path.name, path.read_bytes().split(b"\n")[:-1]):
            break
    return chain.end()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_lines_are_objects_that_name_the_line_before(path: Path) -> None:
    with writing(path) as log:
        for number in range(1, 4):
            log.reserve()
            log.write(entry(number), reserved=True)
    found = lines(path)
    assert [line["event"] for line in found] == ["start", "mutation", "mutation", "mutation", "stop"]
    assert [line["seq"] for line in found] == [1, 2, 3, 4, 5]
    assert [line.get("map_id") for line in found[1:4]] == [1, 2, 3]
    raw = path.read_bytes().splitlines()
    assert [line["prev"] for line in found] == ["", *(digest(line) for line in raw[:-1])]
    assert found[1]["ts"].endswith("Z")
    assert verdict(path) == Verdict(lines=5, last=digest(raw[-1]))


def test_the_file_is_its_owners_alone(path: Path) -> None:
    with writing(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", ["edit", "remove", "insert", "swap"])
def test_a_line_that_is_changed_breaks_the_chain_there(path: Path, change: str) -> None:
    with writing(path) as log:
        for number in range(10):
            log.write(entry(number))
    raw = path.read_bytes().splitlines(keepends=True)
    match change:
        case "edit":
            raw[4] = raw[4].replace(b'"edge"', b'"node"')
        case "remove":
            del raw[4]
        case "insert":
            raw.insert(4, raw[3])
        case _:
            raw[4], raw[5] = raw[5], raw[4]
    path.write_bytes(b"".join(raw))
    broken = verdict(path).broken
    assert broken.startswith(f"audit.jsonl:{ {'edit': 6, 'remove': 5, 'insert': 5, 'swap': 5}[change] }:")


def test_what_is_cut_off_while_the_daemon_runs_shows_in_the_next_line(path: Path) -> None:
    log = AuditLog(str(path), epoch="e1")
    log.write(entry(1))
    until(lambda: len(path.read_bytes().splitlines()) == 2, log)
    with path.open("r+b") as file:
        file.truncate(path.read_bytes().index(b"\n") + 1)
    assert log.close(WAIT_S)
    assert "names" in verdict(path).broken
    assert verdict(path).broken.startswith("audit.jsonl:2:")


def until(true: Any, log: AuditLog) -> None:
    """Wait for the thread; bounded by the test's own limit."""
    while not true():
        assert log._thread.is_alive()  # pyright: ignore[reportPrivateUsage]
        os.sched_yield()


def test_a_daemon_that_starts_again_goes_on_with_the_chain(path: Path) -> None:
    for epoch in ("e1", "e2"):
        with writing(path, epoch=epoch) as log:
            log.write(entry(1))
    found = verdict(path)
    assert (found.lines, found.broken, found.notes) == (6, "", [])


def test_a_killed_daemon_leaves_a_torn_line_that_the_next_one_tells_of(path: Path) -> None:
    with writing(path) as log:
        log.write(entry(1))
    content = path.read_bytes()
    path.write_bytes(content[:-20])  # in the middle of the last line
    chain = Chain()
    assert chain.check("it", path.read_bytes().split(b"\n")[:-1])
    with writing(path, epoch="e2"):
        pass
    assert [line.get("torn") for line in lines_or_none(path)] == [None, None, None, True, None]
    found = verdict(path)
    assert not found.broken
    assert "a torn line, which the daemon's next start tells of" in found.notes[0]


def lines_or_none(path: Path) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            made.append(json.loads(line))
        except ValueError:
            made.append({})
    return made


def test_a_line_that_is_none_is_a_break_where_nobody_tells_of_it(path: Path) -> None:
    with writing(path) as log:
        log.write(entry(1))
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*raw[:1], b"no json\n", *raw[1:]]))
    assert verdict(path).broken.startswith("audit.jsonl:2: this line is no JSON object")


def test_after_rotation_the_first_line_names_the_last_of_the_file_before(path: Path) -> None:
    old = path.with_suffix(".1")
    with writing(path) as log:
        log.write(entry(1))
        until(lambda: path.read_bytes().count(b"\n") == 2, log)
        path.rename(old)
        log.reopen()
        until(path.exists, log)
        log.write(entry(2))
    assert [line["event"] for line in lines(path)] == ["opened", "mutation", "stop"]
    assert lines(path)[0]["prev"] == digest(old.read_bytes().splitlines()[-1])
    assert not verdict(old, path).broken
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    old.write_bytes(old.read_bytes().splitlines(keepends=True)[0])
    assert verdict(old, path).broken.startswith("audit.jsonl:1:")


def test_reopening_where_nothing_was_moved_changes_nothing(path: Path) -> None:
    with writing(path) as log:
        log.reopen()
        log.write(entry(1))
    assert [line["event"] for line in lines(path)] == ["start", "mutation", "stop"]


def test_what_finds_no_place_is_counted_and_the_next_line_says_how_many(path: Path) -> None:
    with writing(path, on_full="count", queue=8) as log:
        with stopped(log):
            for number in range(20):
                log.reserve()
                log.write(entry(number), reserved=True)
        tries = 0

        def found_a_place() -> bool:
            nonlocal tries
            tries, dropped = tries + 1, log.dropped
            log.write(entry(99))
            return log.dropped == dropped

        until(found_a_place, log)
    found = lines(path)
    written = [line["map_id"] for line in found if line["event"] == "mutation" and "map_id" in line]
    assert sum(line.get("dropped", 0) for line in found) == log.dropped
    assert sum(line["event"] == "mutation" for line in found) + log.dropped == 20 + tries
    assert log.dropped >= 12
    assert written[-1] == 99


def test_a_mutation_without_a_place_is_refused_before_it_is_done(path: Path) -> None:
    with writing(path, queue=8) as log, stopped(log):
        taken = 0
        with suppress(MapError):
            while taken < 20:
                log.reserve()
                taken += 1
        assert 7 <= taken <= 8  # the start's own line may have been written by now
        with pytest.raises(MapError, match="8 lines wait to be written") as caught:
            log.reserve()
        assert caught.value.reason is Reason.AUDIT
        assert caught.value.refusal.retry_after_s == 1.0
        log.write(entry(0))  # a refusal's line takes no place that is reserved
        assert log.dropped == 1
        for number in range(taken):
            log.write(entry(number), reserved=True)
    assert sum(line["event"] == "mutation" for line in lines(path)) == taken


def test_a_place_that_was_given_back_is_there_again(path: Path) -> None:
    with writing(path, queue=4) as log:
        for _ in range(100):
            log.reserve()
            log.release()


@contextmanager
def stopped(log: AuditLog) -> Generator[None]:
    """The thread finds nothing to write, as if it never came to run."""
    held = log._drain  # pyright: ignore[reportPrivateUsage]
    log._drain = lambda: None  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        log._drain = held  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
        log.reopen()


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match="name no symbolic link"):
        AuditLog(str(path), epoch="e1")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_others_may_write_is_none(path: Path) -> None:
    path.touch()
    path.chmod(0o622)
    with pytest.raises(AuditError, match="chmod 600"):
        AuditLog(str(path), epoch="e1")


def test_a_pipe_is_no_file(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(AuditError, match="not a regular file"):
        AuditLog(str(path), epoch="e1")


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(AuditError, match=r"\[audit\] path = .*No such file or directory"):
        AuditLog(str(path / "x"), epoch="e1")


def test_two_daemons_do_not_write_one_file(path: Path) -> None:
    with writing(path), pytest.raises(AuditError, match="another daemon writes it"):
        AuditLog(str(path), epoch="e2")


def test_refusals_leave_half_of_the_queue_to_changes(path: Path) -> None:
    with writing(path, queue=16) as log, stopped(log):
        for number in range(100):
            log.write(entry(number))
        assert log.dropped >= 92
        for _ in range(8):
            log.reserve()
        for _ in range(8):
            log.release()


def test_a_thread_that_ends_before_it_is_rung_for_leaves_the_bell_to_be_rung(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks once a second while something is not on the disk, and so may see the end before it is told of it."""
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    log = AuditLog(str(path), epoch="e1")
    (thread,) = (each for each in threading.enumerate() if each.name == "mapd-audit")
    ring = os.eventfd_write

    def ring_late(bell: int, value: int) -> None:
        if threading.current_thread() is not thread:
            thread.join(WAIT_S)
        ring(bell, value)

    while not lines(path):
        pass
    monkeypatch.setattr(os, "eventfd_write", ring_late)
    assert log.close(WAIT_S)
    log.reopen()
    assert [line["event"] for line in lines(path)] == ["start", "stop"]
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_new_file_that_cannot_be_locked_leaves_the_trail_in_the_old_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of the network may have no locks; the thread that writes must not end by it."""
    tried, flock = threading.Event(), fcntl.flock

    def no_locks(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        tried.set()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(fd + how))

    with writing(path) as log:
        old = path.rename(path.with_name("old"))
        monkeypatch.setattr(fcntl, "flock", no_locks)
        log.reopen()
        assert tried.wait(WAIT_S)
        log.reserve()
        log.write(entry(1), reserved=True)
    assert [line["event"] for line in lines(old)] == ["start", "mutation", "stop"]

"""mapd_client without await, through a real daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import assert_type

import pytest

from mapd_client import blocking
from mapd_client.blocking import U32, U64
from tests.support.daemon import SOURCE, DaemonProcess, daemon_process, private_place


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture(scope="module")
def target(served: DaemonProcess) -> str:
    return str(served.place.socket)


@pytest.fixture
def client(target: str) -> Generator[blocking.Client]:
    with blocking.connect(target) as made:
        yield made


@pytest.fixture
def flows(client: blocking.Client) -> Generator[blocking.Map[int, int]]:
    with client.create_map("flows", "hash", key=U32, value=U64, max_entries=100_000) as made:
        yield made
    client.unpin_map("flows")


def test_one_element_is_written_read_and_removed(flows: blocking.Map[int, int]) -> None:
    flows.update(1, 10)
    assert (flows[1], flows.lookup(2), flows.fetch_add(1, 5)) == (10, None, 10)
    with pytest.raises(blocking.KeyMissing):
        flows[2]
    with pytest.raises(blocking.KeyExists):
        flows.update(1, 1, flags="noexist")
    assert (flows.lookup_and_delete(1), flows.delete(1)) == (15, False)


def test_many_elements_go_and_come_in_messages_and_streams(flows: blocking.Map[int, int]) -> None:
    assert flows.update_many({key: key for key in range(40_000)}) == 40_000
    assert flows.load((key, key) for key in range(40_000, 60_000)) == 20_000
    assert flows.lookup_many(range(50_000)) == list(range(50_000))
    assert dict(flows.items()) == {key: key for key in range(60_000)}
    assert flows.to_arrow().num_rows == flows.to_batches().reader().read_all().num_rows == 60_000
    assert flows.delete_many(range(10)) == 10
    assert flows.sync({1: 1, 59_999: 0}, max_removals=1.0).removed == 59_989
    assert flows.count().entries == 2


def test_a_batch_says_what_was_not_written(client: blocking.Client) -> None:
    with client.create_map("few", "hash", key=U32, value=U64, max_entries=4) as few:
        with pytest.raises(blocking.BatchFailed) as failed:
            few.update_many((key, key) for key in range(10))
        assert failed.value.applied == 4
    client.unpin_map("few")


def test_a_queue_is_pushed_to_and_popped(client: blocking.Client) -> None:
    client.create_map("jobs", "queue", key=blocking.Bytes(0), value=U64, max_entries=4).close()
    with client.open_queue("jobs", value=U64) as jobs:
        assert jobs.push_many([1, 2]) == 2
        assert (jobs.pop(), jobs.peek(), jobs.info.type_name) == (1, 2, "queue")
    client.unpin_map("jobs")


def test_a_dump_says_how_it_ended_and_goes_on_from_its_token(flows: blocking.Map[int, int]) -> None:
    flows.update_many((key, key) for key in range(90_000))
    with flows.chunks() as dump:
        first = next(dump)
        token = dump.token
    assert list(dump) == []
    rest = flows.items(resume=token)
    assert sum(1 for _ in rest) + first.count >= 90_000
    assert rest.trailer is not None
    assert rest.trailer.complete


def test_listings_are_iterators(client: blocking.Client, flows: blocking.Map[int, int]) -> None:
    listing = client.list_maps("*flows")
    assert [one.id for one in listing] == [flows.info.id]
    assert listing.sources


def test_closing_twice_is_no_error_and_use_after_it_is_misuse(target: str) -> None:
    client = blocking.connect(target)
    made = client.create_map("gone", "hash", key=U32, value=U64, max_entries=4)
    made.close()
    made.close()
    with pytest.raises(blocking.Misuse, match="this map is closed"):
        made.lookup(1)
    client.unpin_map("gone")
    client.close()
    client.close()
    with pytest.raises(blocking.Misuse, match="the client is closed"):
        client.whoami()


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(blocking.Unavailable):
        blocking.connect(str(tmp_path / "none.sock"))


def test_it_works_where_an_event_loop_runs(flows: blocking.Map[int, int]) -> None:
    async def notebook() -> tuple[int, dict[int, int], int]:
        written = flows.update_many({1: 2, 3: 4})
        found = dict(flows.items())
        return written, found, len(asyncio.all_tasks())

    assert asyncio.run(notebook()) == (2, {1: 2, 3: 4}, 1)


def test_threads_share_a_client(flows: blocking.Map[int, int]) -> None:
    failed: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for turn in range(100):
                flows.update(mine, turn)
                assert flows[mine] == turn
                assert flows.fetch_add(1_000, 1, create=True) is not None or turn == 0
            keys = range(10_000 * mine, 10_000 * mine + 5_000)
            assert flows.update_many((key, key) for key in keys) == 5_000
            assert flows.lookup_many(keys) == list(keys)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(1, 5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []
    assert (flows[1_000] or 0) >= 399


def test_many_threads_may_make_the_first_calls_of_a_client(
    flows: blocking.Map[int, int], target: str
) -> None:
    flows.update(1, 1)
    with blocking.Client(target) as fresh:
        together = threading.Barrier(4)
        opened: list[blocking.Map[int, int]] = []

        def work() -> None:
            together.wait()
            opened.append(fresh.open_map("flows", key=U32, value=U64))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert [one.lookup(1) for one in opened] == [1] * 4


def test_a_client_does_not_survive_a_fork(client: blocking.Client) -> None:
    client.whoami()
    child = os.fork()
    if child == 0:
        try:
            client.whoami()
        except blocking.Misuse as error:
            os._exit(0 if "forked" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.whoami().name == "admin"


def test_the_callers_own_error_ends_a_load(flows: blocking.Map[int, int]) -> None:
    thread: list[int] = []

    def source() -> Iterator[tuple[int, int]]:
        thread.append(threading.get_ident())
        yield 1, 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        flows.load(source())
    assert thread == [threading.get_ident()]
    assert flows.load({2: 2}) == 1


def test_a_daemon_that_does_not_answer_costs_the_timeout(served: DaemonProcess, target: str) -> None:
    with blocking.connect(target, timeout=0.3) as hasty:
        with hasty.create_map("slow", "hash", key=U32, value=U64, max_entries=4) as slow:
            slow.update(1, 1)
            os.kill(served.pid, signal.SIGSTOP)
            try:
                with pytest.raises(blocking.DeadlineExceeded):
                    slow.lookup(1)
                with pytest.raises(blocking.OutcomeUnknown):
                    slow.update(1, 2)
                with pytest.raises(blocking.DeadlineExceeded):
                    next(slow.items())
            finally:
                os.kill(served.pid, signal.SIGCONT)
            assert slow.lookup(1) in (1, 2)
        hasty.unpin_map("slow")


def test_a_dump_that_is_cut_off_is_incomplete_and_goes_on(served: DaemonProcess, target: str) -> None:
    size = 16_384
    with blocking.connect(target, timeout=1.0) as hasty:
        wide = hasty.create_map("wide", "array", key=U32, value=blocking.Bytes(size), max_entries=2_000)
        dump = wide.chunks()
        got = next(dump).count
        os.kill(served.pid, signal.SIGSTOP)  # 32 MB, of which a few are on their way
        try:
            with pytest.raises(blocking.DumpIncomplete) as cut:
                got += sum(chunk.count for chunk in dump)
        finally:
            os.kill(served.pid, signal.SIGCONT)
        with pytest.raises(blocking.DumpIncomplete):
            next(dump)
        rest = wide.chunks(resume=cut.value.token)
        assert 0 < got < 2_000
        assert 0 < sum(chunk.count for chunk in rest) < 2_000
        assert rest.trailer is not None
        assert rest.trailer.complete
        wide.close()
        hasty.unpin_map("wide")


def test_types_are_those_of_what_is_awaited_elsewhere(
    client: blocking.Client, flows: blocking.Map[int, int]
) -> None:
    with client.open_map("flows", key=U32, value=U64) as opened:
        assert_type(opened, blocking.Map[int, int])
        assert_type(opened.lookup(1), int | None)
        assert_type(opened.typed(key=U32, value=U64), blocking.Map[int, int])
        with opened.items() as dump:
            assert_type(dump, blocking.Dump[tuple[int, int]])
            assert isinstance(dump, blocking.Dump)
    with client.open_map("flows") as raw:
        assert_type(raw, blocking.Map[bytes, bytes])
    assert isinstance(raw, blocking.Map)
    assert isinstance(flows, blocking.MapHandle)


INTERRUPTED = """
import signal, sys, threading
from mapd_client import blocking
client = blocking.connect(sys.argv[1])
m = client.create_map("interrupted", "hash", key=blocking.U32, value=blocking.U64, max_entries=8)
m.update(1, 1)
print("ready", flush=True)
sys.stdin.readline()  # the daemon is stopped now
for call in (lambda: m.lookup(1), lambda: next(m.items())):
    threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
sys.stdin.readline()  # it goes on
print(m.lookup(1), dict(m.items()), flush=True)
"""
"""Ends without closing anything."""


def test_ctrl_c_ends_a_call_and_a_dump_and_the_client_goes_on(served: DaemonProcess, target: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    ) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        os.kill(served.pid, signal.SIGSTOP)
        try:
            script.stdin.write("\n")
            script.stdin.flush()
            assert [script.stdout.readline() for _ in range(2)] == ["interrupted\n"] * 2
        finally:
            os.kill(served.pid, signal.SIGCONT)
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.readline() == "1 {1: 1}\n"
        assert script.wait(20) == 0

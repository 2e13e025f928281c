"""The audit trail of a real daemon: a line for each change and each refusal, and no change that could not be told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

import mapd_client
from mapd.access.audit import Chain, Verdict
from mapd.daemon import Ready, running
from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1.types_pb2 import MapRef
from mapd_client import U32, U64, Client, MapdError
from tests.e2e.settling import until
from tests.support.daemon import Place, daemon_process, environment
from tests.support.rawsession import RawSession, group

POLICY = """
[principals.admin]

[principals.owner]
namespace = "team"

[principals.reader]

[principals.stranger]

[principals.some]

[[rules]]
name = "own"
who = ["owner"]
role = "owner"
owners = ["self"]

[[rules]]
name = "look"
who = ["reader"]
role = "viewer"
names = ["team/*"]

[[rules]]
name = "low"
who = ["some"]
verbs = ["list", "read", "write"]
names = ["team/*"]
key_prefixes = ["00"]
"""


def trail(place: Place) -> Path:
    return place.root / "audit.jsonl"


def settings(place: Place, path: Path | None = None, **more: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f"[audit]\npath = '{path or trail(place)}'\n{lines}"


def lines(path: Path) -> list[dict[str, Any]]:
    """Those that are whole: the last may be on its way."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def told(path: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in lines(path) if line["event"] == event]


def verdict(*paths: Path) -> Verdict:
    chain = Chain()
    for path in paths:
        if not chain.check(path.name, path.read_bytes().split(b"\n")[:-1]):
            break
    return chain.end()


def connected(place: Place, principal: str) -> Any:
    return mapd_client.connect(f"unix:{place.runtime_dir / principal / 'mapd.sock'}")


@pytest.fixture
async def ready(place: Place) -> AsyncGenerator[Ready]:
    async with running(place.config(extra=settings(place), policy=POLICY)) as found:
        yield found


async def written(place: Place, event: str, count: int) -> list[dict[str, Any]]:
    """So many lines of one kind, when they are there; and no more than those."""
    assert await until(lambda: len(told(trail(place), event)) >= count)
    return told(trail(place), event)


async def test_what_is_changed_leaves_a_line_each(place: Place, ready: Ready) -> None:
    async with (
        connected(place, "owner") as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=1_000) as flows,
    ):
        await flows.update_many({number: number for number in range(100)})
        assert await flows.lookup(7) == 7
        await flows.delete(7)
        assert await flows.delete(7) is False
        await flows.freeze()
    created, *rest = await written(place, "mutation", 5)
    assert (created["principal"], created["operation"], created["map"]) == ("owner", "create", "team/flows")
    assert created["map_id"] > 0
    assert created["pin"] == f"{place.names}/team/flows"
    assert created["attested_by"] == f"socket:{place.runtime_dir}/owner/mapd.sock"
    update, delete, absent, frozen = rest
    assert (update["ops"], update["count"], update["statuses"]) == ({"update": 100}, 100, {"DONE": 100})
    assert (update["map_id"], update["map"], update["map_type"]) == (created["map_id"], "team/flows", "hash")
    assert update["rule"] == 'rule 1 "own" (line 13)'
    assert update["policy"] == ready.policy.policy.version
    assert delete["statuses"] == {"DONE": 1}
    assert absent["statuses"] == {"KEY_ABSENT": 1}
    assert (frozen["operation"], frozen["map_id"]) == ("freeze", created["map_id"])
    assert told(trail(place), "read") == told(trail(place), "refusal") == []


async def test_no_key_and_no_value_is_written(place: Place, ready: Ready) -> None:
    del ready
    key, value = b"\x5a\xa5secret-key-bytes", b"secret-value-bytes"
    async with (
        connected(place, "owner") as client,
        client.create_map(
            "flows",
            "hash",
            key=mapd_client.Bytes(len(key)),
            value=mapd_client.Bytes(len(value)),
            max_entries=10,
        ) as flows,
    ):
        await flows.update(key, value)
    async with connected(place, "reader") as client, client.open_map("team/flows") as flows:
        with pytest.raises(MapdError):
            await flows.update(key, value)
    await written(place, "refusal", 1)
    content = trail(place).read_bytes()
    assert b"secret" not in content
    assert key.hex().encode() not in content


async def test_each_refusal_leaves_one_line_that_says_who_what_and_by_which_rule(
    place: Place, ready: Ready
) -> None:
    del ready
    async with (
        connected(place, "owner") as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=10) as flows,
    ):
        await flows.update(1, 1)
    async with (
        connected(place, "reader") as client,
        client.open_map("team/flows", key=U32, value=U64) as flows,
    ):
        with pytest.raises(mapd_client.PermissionDenied):
            await flows.update(1, 2)
        with pytest.raises(mapd_client.PermissionDenied):
            await flows.freeze()
    write, freeze = await written(place, "refusal", 2)
    assert (write["principal"], write["reason"], write["verbs"]) == ("reader", "POLICY", ["write"])
    assert "told" not in write
    assert freeze["verbs"] == ["freeze"]
    assert len(told(trail(place), "mutation")) == 2


async def test_what_is_hidden_from_a_caller_is_told_in_the_trail(place: Place, ready: Ready) -> None:
    del ready
    async with (
        connected(place, "owner") as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=10),
    ):
        pass
    async with connected(place, "stranger") as client:
        with pytest.raises(mapd_client.MapNotFound):
            await client.open_map("team/flows")
        with pytest.raises(mapd_client.MapNotFound):
            await client.open_map("team/nothing")
    found = await written(place, "refusal", 1)
    assert {(line["reason"], line["told"]) for line in found} == {("POLICY", "MAP_NOT_FOUND")}
    assert found[0]["map"] == "team/flows"


def channel(place: Place, principal: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"unix:{place.runtime_dir / principal / 'mapd.sock'}", options=[("grpc.use_local_subchannel_pool", 1)]
    )


async def test_groups_of_one_message_leave_a_line_each(place: Place, ready: Ready) -> None:
    """One done, one refused for its right, one with some keys that are not the caller's."""
    del ready
    async with (
        connected(place, "owner") as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=10),
    ):
        pass
    ref, value = MapRef(name="team/flows"), bytes(8)
    async with channel(place, "some") as over:
        talk = await RawSession.open(over)
        answer = await talk.ask(
            0,
            1,
            group(ref, Op.UPDATE, b"\0abc", value=value),
            group(ref, Op.DELETE, b"\0abc"),
            group(ref, Op.UPDATE, b"\0abc", b"\1abc", b"\2abc", value=value),
            group(ref, Op.LOOKUP, b"\1abc"),
        )
        await talk.end()
    assert answer.results[0].statuses == b"\0"
    await written(place, "refusal", 2)
    by_line = [line for line in lines(trail(place)) if line.get("principal") == "some"]
    assert [(line["event"], line.get("statuses", {})) for line in by_line] == [
        ("mutation", {"DONE": 1}),
        ("refusal", {}),
        ("mutation", {"DONE": 1, "POLICY": 2}),
        ("refusal", {"POLICY": 1}),
    ]
    assert [line.get("reason", "") for line in by_line] == ["", "POLICY", "POLICY", "POLICY"]


async def test_one_refused_key_of_a_call_is_one_line(place: Place, ready: Ready) -> None:
    del ready
    async with (
        connected(place, "owner") as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=10),
    ):
        pass
    lookup = pb.LookupRequest(map=MapRef(name="team/flows"), key=b"\1abc")
    update = pb.UpdateRequest(map=MapRef(name="team/flows"), key=b"\1abc", value=bytes(8))
    async with channel(place, "some") as over:
        anything: Any = over
        for name, request in (("Lookup", lookup), ("Update", update)):
            call = anything.unary_unary(
                f"/mapd_api.v1.ElementService/{name}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=bytes,
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await call(request, timeout=10)
    await written(place, "refusal", 2)
    assert Counter(line["event"] for line in lines(trail(place))) == {"start": 1, "mutation": 1, "refusal": 2}


async def test_a_load_leaves_a_line_for_each_message(place: Place, ready: Ready) -> None:
    del ready
    async with (
        connected(place, "owner") as client,
        client.create_map("flows", "hash", key=U64, value=U64, max_entries=300_000) as flows,
    ):
        assert await flows.load((number, number) for number in range(200_000)) == 200_000

    def loaded() -> list[dict[str, Any]]:
        return [line for line in told(trail(place), "mutation") if line["operation"] == "load"]

    def done() -> int:
        return sum(line["statuses"]["DONE"] for line in loaded())

    # The load is answered before its last lines are on the disk.
    assert await until(lambda: done() >= 200_000), done()
    loads = loaded()
    assert done() == 200_000
    assert all(line["count"] == line["ops"]["update"] == line["statuses"]["DONE"] for line in loads)
    assert 1 < len(loads) < 200


async def update_until_refused(flows: Any) -> tuple[int, Any]:
    """How many were made, and the refusal of the next."""
    for number in range(10_000):
        try:
            await flows.update(number, number)
        except MapdError as error:
            return number, error
    raise AssertionError("nothing was refused")


async def test_a_full_disk_refuses_every_change_and_what_was_changed_is_told(
    place: Place, small: Path
) -> None:
    """Each change that was made is in the trail; each that is not was refused, and is not in the map either."""
    path = small / "audit.jsonl"
    async with (
        running(place.config(extra=settings(place, path), policy=POLICY)) as ready,
        connected(place, "owner") as client,
    ):
        flows = await client.create_map("flows", "hash", key=U32, value=U64, max_entries=100_000)
        done, refused = await update_until_refused(flows)
        assert "cannot write its audit trail (No space left on device)" in str(refused)
        assert (refused.reason.name, refused.retry_after) == ("AUDIT", 1.0)
        assert done > 10
        assert await flows.lookup(done) is None, "a change that was refused was made"
        assert await flows.lookup(done - 1) == done - 1
        with pytest.raises(MapdError, match="audit"):
            await client.create_map("more", "hash", key=U32, value=U64, max_entries=10)
        assert not (place.names / "team" / "more").exists()
        log = ready.audit
        assert log is not None
        (small / "ballast").unlink()
        assert await until(lambda: not log.failure)
        await flows.update(done, 1)
        count = await flows.count()
        dropped = log.dropped
    updates = [line for line in told(path, "mutation") if line["operation"] == "update"]
    assert sum(line["statuses"]["DONE"] for line in updates) == count.entries == done + 1
    assert sum(line.get("dropped", 0) for line in lines(path)) == dropped
    assert not verdict(path).broken


async def test_a_full_disk_is_counted_exactly_where_that_is_asked_for(place: Place, small: Path) -> None:
    path = small / "audit.jsonl"
    extra = settings(place, path, on_full="'count'", queue="16")
    async with (
        running(place.config(extra=extra, policy=POLICY)) as ready,
        connected(place, "owner") as client,
    ):
        flows = await client.create_map("flows", "hash", key=U32, value=U64, max_entries=100_000)
        log = ready.audit
        assert log is not None
        made = 0
        while not (log.failure and log.dropped) or made % 50:
            await flows.update(made, made)
            made += 1
        assert log.failure == "No space left on device"
        (small / "ballast").unlink()
        assert await until(lambda: not log.failure)
    updates = [line for line in told(path, "mutation") if line["operation"] == "update"]
    dropped = sum(line.get("dropped", 0) for line in lines(path))
    assert dropped > 0
    assert len(updates) + dropped == made
    assert not verdict(path).broken


@pytest.fixture
def small(place: Place) -> Generator[Path]:
    """A file system of 64 KiB, half of it taken by what can be removed."""
    folder = place.root / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "mapd-test", folder], check=True)
    try:
        (folder / "ballast").write_bytes(bytes(40 << 10))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def audit_verify(*paths: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mapd", "audit", "verify", *paths],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def fill(client: Client) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=100) as flows:
        for number in range(20):
            await flows.update(number, number)


async def test_a_killed_daemon_leaves_a_file_that_can_be_read_and_gone_on_with(place: Place) -> None:
    extra = settings(place)
    with daemon_process(place, extra=extra) as daemon:
        async with connected(place, "admin") as client:
            await fill(client)
            assert await until(lambda: len(told(trail(place), "mutation")) == 21)
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.process.wait()
    status, said = audit_verify(trail(place))
    assert (status, "the last line is not the daemon's stop" in said) == (0, True)
    with trail(place).open("ab") as file:
        file.write(b'{"ts":"2026-01-01T00:00:00.0')  # as a kill in the middle of a write leaves it
    with daemon_process(place, extra=extra):
        pass
    status, said = audit_verify(trail(place))
    assert status == 0
    assert "a torn line, which the daemon's next start tells of" in said
    assert "ended without a stop line" in said


async def test_the_command_names_the_first_line_that_was_changed(place: Place) -> None:
    with daemon_process(place, extra=settings(place)):
        async with connected(place, "admin") as client:
            await fill(client)
    assert audit_verify(trail(place))[0] == 0
    raw = trail(place).read_bytes().splitlines(keepends=True)
    trail(place).write_bytes(b"".join([*raw[:5], raw[5].replace(b"admin", b"nobod", 1), *raw[6:]]))
    status, said = audit_verify(trail(place))
    assert status == 1
    assert f"broken: {trail(place)}:7: this line names" in said
    trail(place).write_bytes(b"".join([*raw[:5], *raw[9:]]))
    assert audit_verify(trail(place))[0] == 1
    assert audit_verify(place.root / "nothing")[0] == 2


async def test_a_hangup_goes_on_in_a_new_file_that_names_the_last_line_of_the_old(place: Place) -> None:
    old = place.root / "audit.jsonl.1"
    with daemon_process(place, extra=settings(place)) as daemon:
        async with connected(place, "admin") as client:
            await fill(client)
            assert await until(lambda: len(told(trail(place), "mutation")) == 21)
            trail(place).rename(old)
            daemon.process.send_signal(signal.SIGHUP)
            assert await until(trail(place).exists)
            async with client.open_map("flows", key=U32, value=U64) as flows:
                await flows.update(1, 1)
    assert audit_verify(old, trail(place))[0] == 0
    assert [line["event"] for line in lines(trail(place))] == ["opened", "mutation", "stop"]
    content = old.read_bytes().splitlines(keepends=True)
    old.write_bytes(b"".join(content[:-3]))
    status, said = audit_verify(old, trail(place))
    assert status == 1
    assert f"broken: {trail(place)}:1:" in said


async def test_a_daemon_does_not_start_on_a_file_that_it_cannot_trust(place: Place) -> None:
    trail(place).symlink_to("/dev/null")
    with contextlib.suppress(FileNotFoundError), pytest.raises(Exception, match="name no symbolic link"):
        async with running(place.config(extra=settings(place))):
            pass

"""The policy on the real kernel, through real sockets: keys, names that others give, pins that others replace."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mapd.bpf import CreateMap, OpenPin, Pin, Unpin
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType
from mapd_client import (
    U32,
    U64,
    BatchFailed,
    Bytes,
    Client,
    Codec,
    DumpIncomplete,
    Map,
    MapdError,
    MapNotFound,
    Misuse,
    PerCpu,
    PermissionDenied,
    connect,
)
from tests.support.daemon import DaemonProcess, Place, daemon_process
from tests.support.pinned import KERNEL, read_pin

POLICY = """
contact = "netops@example.org"

[principals.web]
[principals.keys]

[[rules]]
who = ["web"]
role = "owner"
owners = ["self"]

[[rules]]
who = ["web"]
role = "operator"
pins = ["{bpffs}/tc/*"]

[[rules]]
who = ["keys"]
verbs = ["list", "read", "write", "delete"]
names = ["web/*"]
key_prefixes = ["0a", "200000000a"]

[[rules]]
effect = "deny"
who = ["*"]
role = "admin"
names = ["*/secret-*"]
"""
WAIT_S = 20.0


@dataclass
class Ground:
    """A daemon, and a client of each principal; this process is root, whom every socket admits."""

    place: Place
    daemon: DaemonProcess
    admin: Client
    web: Client
    keys: Client

    def pin(self, path: str, of: Path) -> None:
        """As another program: one more pin of the map that one leads to."""
        with opened(of) as map_fd:
            KERNEL.control(
                Pin(root=str(self.place.bpffs), path=f"{self.place.bpffs}/{path}", mkdir=True), [map_fd]
            )

    def pin_new(self, path: str) -> None:
        """As another program: a map of its own."""
        shape = CreateMap(
            map_type=MapType.HASH, key_size=4, value_size=8, max_entries=64, kernel_name="other"
        )
        with KERNEL.control(shape) as made, made.lease() as map_fd:
            KERNEL.control(
                Pin(root=str(self.place.bpffs), path=f"{self.place.bpffs}/{path}", mkdir=True), [map_fd]
            )

    def unpin(self, path: str) -> None:
        """As another program."""
        KERNEL.control(Unpin(root=str(self.place.bpffs), path=f"{self.place.bpffs}/{path}"))

    def said_more(self, event: str, count: int) -> bool:
        """Whether it has said it more often than that."""
        return len(self.said(event)) > count

    def said(self, event: str) -> list[dict[str, object]]:
        """Lines of the daemon's log."""
        lines = self.daemon.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]


@contextmanager
def opened(pin: Path) -> Generator[int]:
    with KERNEL.control(OpenPin(root=str(pin.parent), path=str(pin))) as owned, owned.lease() as map_fd:
        yield map_fd


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    with daemon_process(place, policy=POLICY.format(bpffs=place.bpffs)) as daemon:

        def of(principal: str) -> str:
            return f"unix:{place.runtime_dir}/{principal}/mapd.sock"

        async with connect(of("admin")) as admin, connect(of("web")) as web, connect(of("keys")) as keys:
            yield Ground(place, daemon, admin, web, keys)


@asynccontextmanager
async def refused(kind: type[MapdError], reason: Reason) -> AsyncGenerator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.reason is reason, caught.value


async def until(true: Callable[[], object]) -> None:
    """Ask again until it is so."""
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - a log file calls nobody
            await asyncio.sleep(0.05)


# ---- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "percpu_hash", "array"])
async def test_elements_of_others_are_neither_read_nor_written_however_they_are_run(
    ground: Ground, kind: str
) -> None:
    """A hash by a vector program, an LRU map by syscalls, per-CPU values by batches; one element by itself."""
    count = 2_000
    codec: Codec[Any] = PerCpu(U64) if kind == "percpu_hash" else U64
    async with (
        ground.web.create_map("flows", kind, key=U32, value=codec, max_entries=4_096) as mine,
        ground.keys.open_map("web/flows", key=U32, value=codec) as theirs,
    ):
        await mine.update_many({number: _value(mine, number) for number in range(count)})
        before = {key: value async for key, value in mine.items()}
        allowed = {key: value for key, value in before.items() if key % 256 == 10}
        assert await theirs.lookup(10) == before[10]
        async with refused(PermissionDenied, Reason.POLICY):
            await theirs.lookup(11)
        async with refused(PermissionDenied, Reason.POLICY):
            await theirs.update(11, _value(mine, 0))
        with pytest.raises(BatchFailed) as caught:
            await theirs.update_many({number: _value(mine, 7) for number in range(count)})
        assert caught.value.applied == len([number for number in range(count) if number % 256 == 10])
        assert caught.value.failed == count - caught.value.applied
        after = {key: value async for key, value in mine.items()}
        assert after == {**before, **{key: _value(mine, 7) for key in allowed if key < count}}
        dump = theirs.items()
        assert {key: value async for key, value in dump} == {key: after[key] for key in allowed}
        assert dump.trailer is not None
        assert (dump.trailer.entries, dump.trailer.complete) == (len(allowed), True)
        async with refused(PermissionDenied, Reason.POLICY):
            await theirs.count()


def _value(of: Map[Any, Any], number: int) -> int | list[int]:
    """Of a per-CPU map a value of each CPU."""
    info = of.info
    return [number] * (info.value_stride // 8) if info.type == MapType.PERCPU_HASH else number


async def test_a_dump_of_a_trie_goes_on_from_tokens_that_name_ones_own_keys_alone(ground: Ground) -> None:
    def key(first: int, number: int) -> bytes:
        return (32).to_bytes(4, "little") + bytes(
            [first, number >> 16 & 255, number >> 8 & 255, number & 255]
        )

    async with (
        ground.web.create_map(
            "routes", "lpm_trie", key=Bytes(8), value=U64, max_entries=60_000, flags=MapFlag.NO_PREALLOC
        ) as mine,
        ground.keys.open_map("web/routes", key=Bytes(8), value=U64) as theirs,
    ):
        await mine.update_many(
            {key(first, number): number for first in (9, 10, 11) for number in range(8_000)}
        )
        found = theirs.keys()
        whole = {each async for each in found}
        assert whole == {key(10, number) for number in range(8_000)}
        tokens = [chunk.token async for chunk in theirs.chunks() if chunk.token]
        assert tokens
        assert all(token[22:] in whole for token in tokens)
        resumed = {each async for each in theirs.keys(resume=tokens[0])}
        assert resumed < whole
        for other in (key(9, 1), key(11, 9_999)):
            with pytest.raises(MapdError) as caught:
                async for _ in theirs.keys(resume=tokens[0][:22] + other):
                    pass
            assert caught.value.reason is Reason.BAD_SPEC


# ---- names and pins of others -----------------------------------------------------------------


async def test_a_name_that_somebody_gives_a_map_denies_it_by_every_other(ground: Ground) -> None:
    names = ground.place.names
    async with ground.web.create_map("flows", "hash", key=U32, value=U64, max_entries=64) as mine:
        await mine.update(1, 2)
        ground.pin("tc/innocent", names / "web/flows")
        innocent = f"pin:{ground.place.bpffs}/tc/innocent"
        async with ground.web.open_map(innocent, key=U32, value=U64) as other:
            assert await other.lookup(1) == 2
        ground.pin("mapd/db/secret-flows", names / "web/flows")
        for ref in ("flows", innocent):
            async with refused(MapNotFound, Reason.MAP_NOT_FOUND), ground.web.open_map(ref):
                pass
        # What is open is looked at once a second.
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await mine.lookup(1)
                except MapNotFound:
                    break
        ground.unpin("mapd/db/secret-flows")
        async with ground.web.open_map("flows", key=U32, value=U64) as again:
            assert await again.lookup(1) == 2


async def test_a_map_whose_pin_was_replaced_is_reported_once_and_never_written(ground: Ground) -> None:
    path = ground.place.names / "web/flows"
    for client in (ground.web, ground.admin):
        async with client.create_map("web/flows", "hash", key=U32, value=U64, max_entries=64) as mine:
            await mine.update(1, 1)
            ground.unpin("mapd/web/flows")
            ground.pin_new("mapd/web/flows")
            old = len(ground.said("a pin was replaced"))
            await until(partial(ground.said_more, "a pin was replaced", old))
            with pytest.raises(MapdError) as caught:
                await mine.update(2, 2)
            assert caught.value.reason is Reason.MAP_REPLACED
            with pytest.raises(MapdError) as caught:
                await mine.freeze()
            assert caught.value.reason is Reason.MAP_REPLACED
            assert await mine.lookup(1) == 1
            assert await mine.lookup(2) is None
            assert read_pin(path).elements == {}
            async with client.open_map("web/flows", key=U32, value=U64) as new:
                await new.update(3, 3)
            assert await mine.lookup(3) is None
        assert len(ground.said("a pin was replaced")) == old + 1
        ground.unpin("mapd/web/flows")


async def test_links_and_dots_lead_to_no_map(ground: Ground) -> None:
    """A link that points at a map of one's own, in a folder where one may do everything."""
    bpffs = ground.place.bpffs
    async with ground.web.create_map("flows", "hash", key=U32, value=U64, max_entries=64):
        pass
    (bpffs / "tc").mkdir()
    (bpffs / "tc/link").symlink_to(ground.place.names / "web/flows")
    (bpffs / "tc/folder").symlink_to(ground.place.names / "web")
    for client in (ground.web, ground.admin):
        for ref in (
            f"pin:{bpffs}/tc/link",
            f"pin:{bpffs}/tc/folder/flows",
            f"pin:{bpffs}/tc/../mapd/web/flows",
        ):
            with pytest.raises(MapdError) as caught:
                async with client.open_map(ref):
                    pass
            assert caught.value.reason in (Reason.BAD_SPEC, Reason.MAP_NOT_FOUND), caught.value
            with pytest.raises(MapdError):
                await client.unpin_map(ref)
        with pytest.raises(Misuse):
            await client.unpin_map("web/..")
    assert (ground.place.names / "web/flows").exists()
    assert (bpffs / "tc/link").is_symlink()
    assert not ground.said("fault")


async def test_a_running_dump_ends_when_a_reload_takes_the_right(ground: Ground) -> None:
    async with ground.web.create_map("flows", "hash", key=U32, value=U64, max_entries=1_000_000) as mine:
        for start in range(0, 600_000, 100_000):
            await mine.update_many({number: number for number in range(start, start + 100_000)})
        dump = mine.items()
        await anext(dump)
        text = ground.place.policy.read_text()
        ground.place.policy.write_text(text.replace('role = "owner"', 'verbs = ["list"]'))
        ground.daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: ground.said("policy reloaded"))
        with pytest.raises(DumpIncomplete, match=r"you are 'web'.*ask netops@example.org for: ") as caught:
            async for _ in dump:
                pass
        assert isinstance(caught.value.__cause__, PermissionDenied)
        assert caught.value.__cause__.reason is Reason.POLICY


async def test_each_principal_lists_what_it_may_see(ground: Ground) -> None:
    for name in ("web/flows", "web/secret-flows", "db/flows"):
        async with ground.admin.create_map(name, "hash", key=U32, value=U64, max_entries=8):
            pass
    assert [info.name async for info in ground.web.list_maps(pins=True)] == ["web/flows"]
    assert [info.name async for info in ground.keys.list_maps()] == ["web/flows"]
    assert len([info async for info in ground.admin.list_maps()]) == 3
    listing = ground.web.list_maps(ids=True)
    async with refused(PermissionDenied, Reason.POLICY):
        async for _ in listing:
            pass
    listing = ground.web.list_maps(holders=True)
    assert not any([info.holders async for info in listing])

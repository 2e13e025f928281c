"""What a killed daemon of an earlier version left is taken over: names, leases, kept types, sockets."""

from __future__ import annotations

import socket
import stat
import uuid
from pathlib import Path

import mapd_client
from mapd.bpf import CreateMap, LinuxKernel, Pin
from mapd_api.uapi import MapType
from mapd_client import U32, U64
from tests.support.daemon import Place, daemon_process

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAMED = "team/flows"
LEASED = "_leases/admin/l7d12b589bebad634-60000ms/map"
PINS_0_1 = (NAMED, LEASED)
"""Below the folder of names, as 0.1 pins them. A version that pins otherwise has a further table here."""
BLOB = bytes.fromhex("9feb01001800000000000000000000000000000001000000") + b"\0"
"""A BTF header, no types, and the empty string."""


def boot() -> str:
    return BOOT_ID.read_text().strip()


def left_by_0_1(place: Place) -> tuple[Path, dict[str, int]]:
    """Folders, pins and files; the file of kept types, and the maps' ids by pin."""
    kernel, ids = LinuxKernel(), dict[str, int]()
    for name in PINS_0_1:
        path = place.names / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        request = CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=4)
        with kernel.control(request) as made, made.lease() as fd:
            kernel.control(Pin(root=str(place.names), path=str(path)), [fd])
            ids[name] = kernel.info(fd).id
    for folder in ("run/.staging", "run/admin", "state"):
        (place.root / folder).mkdir(mode=0o755 if folder != "state" else 0o700, parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket))
    (place.runtime_dir / "mapd.lock").write_text("4711\n")
    now, before = boot(), str(uuid.uuid4())
    for one in (now, before):
        (place.root / "state" / "btf" / one).mkdir(mode=0o700, parents=True)
        (place.root / "state" / "btf" / one / "7").write_bytes(BLOB)
    (place.root / "state" / "btf" / now / "8.new").write_bytes(BLOB[:7])
    return place.root / "state" / "btf" / now / "7", ids


async def test_what_0_1_left_is_served_and_what_is_of_another_boot_is_removed(place: Place) -> None:
    kept, ids = left_by_0_1(place)
    with daemon_process(place) as daemon:
        assert stat.S_ISSOCK(place.socket.stat().st_mode)
        async with (
            mapd_client.connect(str(place.socket)) as client,
            client.open_map(NAMED, key=U32, value=U64) as named,
            client.open_map(f"pin:{place.names / LEASED}", key=U32, value=U64) as leased,
        ):
            assert {NAMED: named.info.id, LEASED: leased.info.id} == ids
            for one in (named, leased):
                await one.update(1, 12)
                assert await one.lookup(1) == 12
        assert daemon.stop() == 0
    assert kept.read_bytes() == BLOB
    assert [path.name for path in kept.parent.parent.iterdir()] == [kept.parent.name]
    assert [path.name for path in kept.parent.iterdir()] == ["7"]
    assert all((place.names / name).exists() for name in PINS_0_1)


async def test_this_version_leaves_what_the_table_says(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with (
            mapd_client.connect(str(place.socket)) as client,
            client.create_map(NAMED, "hash", key=U32, value=U64, max_entries=4),
            client.create_map(None, "hash", key=U32, value=U64, max_entries=4, lease=60.0),
        ):
            pins = sorted(
                str(one.relative_to(place.names)) for one in place.names.rglob("*") if one.is_file()
            )
            assert [shape(pin) for pin in pins] == sorted(shape(pin) for pin in PINS_0_1)
        daemon.process.kill()
        daemon.process.wait()
    assert sorted(one.name for one in place.runtime_dir.iterdir()) == [".staging", "admin", "mapd.lock"]
    assert [one.name for one in (place.root / "state").iterdir()] == ["btf"]
    assert [one.name for one in (place.root / "state/btf").iterdir()] == [boot()]


def shape(pin: str) -> str:
    """A pin's path without the id of its lease."""
    parts = pin.split("/")
    return "/".join(part[0] + part[17:] if part.startswith("l") and "ms" in part else part for part in parts)

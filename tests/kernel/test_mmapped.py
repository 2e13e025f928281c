"""Arrays that are read through mapped memory."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mapd.bpf import Buffer, Columns, FreezeMap, OpenPin, Pin, SyscallError, possible_cpus
from mapd.maps.opened import facts
from mapd.maps.scan import Page, Scan, ScanOptions
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps, TestMap

BOOT = uuid.UUID(int=7)


def array(maps: Maps, value_size: int = 8, max_entries: int = 3_000) -> TestMap:
    return maps.create(MapType.ARRAY, value_size=value_size, max_entries=max_entries, flags=MapFlag.MMAPABLE)


def mappings() -> int:
    return sum("bpf-map" in line for line in Path("/proc/self/maps").read_text().splitlines())


def scan_of(made: TestMap, token: bytes = b"", map_fd: int | None = None) -> Scan:
    info = KERNEL.info(made.fd if map_fd is None else map_fd)
    return Scan(KERNEL, facts(info, possible_cpus()), ScanOptions(token=token), BOOT)


def read(made: TestMap, page_bytes: int, map_fd: int | None = None) -> tuple[Scan, list[Page]]:
    scan, pages = scan_of(made, map_fd=map_fd), list[Page]()
    while not scan.done:
        pages.append(scan.page(made.fd if map_fd is None else map_fd, page_bytes))
    return scan, pages


@pytest.mark.parametrize("value_size", [1, 7, 8, 9, 24, 4_096, 5_000])
@pytest.mark.parametrize("page_bytes", [1, 333, 10_000, 1 << 20])
def test_every_element_comes_in_order_and_nothing_stays_mapped(
    maps: Maps, value_size: int, page_bytes: int
) -> None:
    count = 300
    made = array(maps, value_size, count)
    keys = [made.key(at) for at in range(count)]
    values = [bytes([at % 251]) * value_size for at in range(count)]
    assert not any(made.each(Op.UPDATE, keys, values))
    scan, pages = read(made, page_bytes)
    assert b"".join(page.keys for page in pages) == b"".join(keys)
    assert b"".join(page.values for page in pages) == b"".join(values)
    assert (scan.method, scan.entries, scan.incomplete, mappings()) == ("mmap", count, "", 0)


def test_tokens_are_those_of_lookup_batch(maps: Maps) -> None:
    """A map that is opened again to read alone is resumed from what mapped memory came to."""
    made = array(maps)
    made.fill(3_000)
    _, pages = read(made, 12_000)
    plain = maps.create(MapType.ARRAY, max_entries=3_000)
    plain.fill(3_000)
    _, batches = read(plain, 12_000)
    assert [page.token[2:6] for page in pages] == [KERNEL.info(made.fd).id.to_bytes(4, "little")] * 3
    assert [page.token[22:] for page in pages] == [page.token[22:] for page in batches][:3]
    assert [page.token[:2] for page in pages] == [page.token[:2] for page in batches][:3]
    rest = scan_of(made, pages[0].token)
    assert rest.page(made.fd, 1 << 20).keys == b"".join(page.keys for page in pages[1:])


def test_a_descriptor_that_only_reads_is_read_by_batches_and_the_method_says_so(
    maps: Maps, bpffs: Path
) -> None:
    made = array(maps)
    made.fill(3_000)
    root, path = str(bpffs), str(bpffs / "array")
    KERNEL.control(Pin(root=root, path=path), [made.fd])
    with (
        KERNEL.control(OpenPin(root=root, path=path, read_only=True)) as owned,
        owned.lease() as map_fd,
    ):
        with pytest.raises(SyscallError, match="EINVAL"):
            KERNEL.read_memory(map_fd, 0, 8)
        scan, pages = read(made, 10_000, map_fd)
    assert scan.method == "lookup_batch"
    assert b"".join(page.values for page in pages) == b"".join(made.value(at) for at in range(3_000))


def test_an_array_that_was_not_made_so_is_read_by_batches(maps: Maps) -> None:
    made = maps.create(MapType.ARRAY, max_entries=100)
    made.fill(100)
    assert read(made, 1 << 16)[0].method == "lookup_batch"


def test_a_map_can_be_frozen_while_its_memory_is_read_and_is_read_when_it_is(maps: Maps) -> None:
    made = array(maps)
    made.fill(3_000)
    memory = KERNEL.read_memory(made.fd, 8, 16)
    assert mappings() == 1
    KERNEL.control(FreezeMap(), [made.fd])
    assert bytes(memory) == made.value(1) + made.value(2)
    del memory
    assert mappings() == 0
    scan, pages = read(made, 1 << 20)
    assert (scan.method, len(pages[0].values)) == ("mmap", 8 * 3_000)


def test_memory_behind_the_array_is_not_mapped(maps: Maps) -> None:
    made = array(maps, max_entries=512)
    with pytest.raises(SyscallError, match="EINVAL"):
        KERNEL.read_memory(made.fd, 4_096, 8)
    assert mappings() == 0


def test_what_is_written_is_seen_in_memory_that_is_mapped(maps: Maps) -> None:
    made = array(maps, max_entries=16)
    memory = KERNEL.read_memory(made.fd, 0, 128)
    columns = Columns(1, Buffer.of(made.key(3)), 4, Buffer.of(made.value(77)), 8)
    KERNEL.each(made.fd, Op.UPDATE, columns)
    assert memory[24:32] == made.value(77)
    with pytest.raises(TypeError, match="read-only"):
        memory[0] = 1

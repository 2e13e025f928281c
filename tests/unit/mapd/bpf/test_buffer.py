from __future__ import annotations

import ctypes

import pytest

from mapd.bpf import Buffer


def test_of_bytes_has_their_own_address_and_no_copy() -> None:
    data = b"eight by"
    buffer = Buffer.of(data)
    assert ctypes.string_at(buffer.address, buffer.size) == data
    assert buffer.view.obj is data
    assert buffer.view.readonly


def test_allocate_is_zero_and_writable() -> None:
    buffer = Buffer.allocate(16)
    assert bytes(buffer.view) == bytes(16)
    buffer.view[3] = 7
    assert ctypes.string_at(buffer.address + 3, 1) == b"\x07"


def test_take_copies() -> None:
    buffer = Buffer.allocate(8)
    taken = buffer.take(4, 2)
    buffer.view[2] = 1
    assert taken == bytes(4)
    assert buffer.take(4, 2) == b"\x01\0\0\0"


@pytest.mark.parametrize("buffer", [Buffer.allocate(0), Buffer.of(b"")])
def test_an_empty_buffer_has_no_address(buffer: Buffer) -> None:
    assert (buffer.address, buffer.size) == (0, 0)

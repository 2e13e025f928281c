"""Parsers with a planted fault: a fuzzer that does not find it finds nothing else either."""

from __future__ import annotations

from typing import Final

from tests.fuzz.target import Target


def crash(data: bytes) -> None:
    """Falls over four bytes, one after the other: only who sees branches comes that far."""
    if data[:1] != b"m":
        return
    if data[1:2] != b"a":
        return
    if data[2:3] != b"p":
        return
    if data[3:4] == b"d":
        raise KeyError("planted")


def hang(data: bytes) -> None:
    """Never comes back from an input that begins with h."""
    while data[:1] == b"h":
        pass


def memory(data: bytes) -> None:
    """Takes 8 MiB for each input, and keeps it."""
    _kept.append(bytearray(8 << 20) if data else bytearray())


_kept: list[bytearray] = []

TARGETS: Final = {
    "crash": Target(crash, (b"good",), max_len=8),
    "hang": Target(hang, (b"good",), max_len=8),
    "memory": Target(memory, (b"good",), max_len=8),
}

"""Another process that writes a pinned map as fast as it can: ``churner.py ROOT PATH BOARD STABLE OTHERS``.

In turns it overwrites stable keys (numbers below STABLE, in an order of its own), creates other keys
behind them, and deletes those again, 512 in a batch. BOARD is a file of three words that both sides
map; what it counts there was written when it is counted.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Self

import numpy as np

from mapd.bpf import BatchCommand, Buffer, Columns, LinuxKernel, OpenPin, possible_cpus
from mapd_api.layout import value_stride

RUN = 512
LIFE = 4
"""How many runs of other keys live at a time."""


class Board:
    """Three words in memory that two processes share.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, path: Path) -> Self:
        path.write_bytes(bytes(24))
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._words.release()
        self._map.close()

    @property
    def writes(self) -> int:
        """Elements written so far."""
        return self._words[0]

    @writes.setter
    def writes(self, count: int) -> None:
        self._words[0] = count

    @property
    def wanted(self) -> int:
        """At how many writes a byte is due on the churner's standard output; 0 when it was sent."""
        return self._words[1]

    @wanted.setter
    def wanted(self, count: int) -> None:
        self._words[1] = count

    @property
    def stop(self) -> bool:
        return bool(self._words[2])

    @stop.setter
    def stop(self, value: bool) -> None:
        self._words[2] = value


def values_of(numbers: np.ndarray[tuple[int], np.dtype[np.uint64]], stride: int) -> Buffer:
    """A value column whose every eight bytes tell the key."""
    buffer = Buffer.allocate(len(numbers) * stride)
    np.frombuffer(buffer.view, np.uint64).reshape(len(numbers), -1)[:] = numbers[:, None]
    return buffer


def runs(numbers: np.ndarray[tuple[int], np.dtype[np.uint64]], stride: int) -> list[Columns]:
    """Columns of RUN elements each."""
    return [
        Columns(RUN, Buffer.of(part.tobytes()), 8, None if stride == 0 else values_of(part, stride), stride)
        for start in range(0, len(numbers) - RUN + 1, RUN)
        for part in [numbers[start : start + RUN]]
    ]


def main(root: str, path: str, board_path: str, stable: str, others: str) -> None:
    kernel = LinuxKernel()
    shuffled = np.random.default_rng(7).permutation(np.arange(int(stable), dtype=np.uint64))
    beside = np.arange(int(stable), int(stable) + int(others), dtype=np.uint64)
    with (
        Board(Path(board_path)) as board,
        kernel.control(OpenPin(root=root, path=path)) as owned,
        owned.lease() as map_fd,
    ):
        info = kernel.info(map_fd)
        stride = value_stride(info.map_type, info.value_size, possible_cpus())
        overwritten, created = runs(shuffled, stride), runs(beside, stride)
        gone = runs(beside, 0)
        turn = 0
        while not board.stop:
            at = turn % len(created)
            kernel_batch = [
                (BatchCommand.UPDATE, overwritten[turn % len(overwritten)]),
                (BatchCommand.UPDATE, created[at]),
                (BatchCommand.DELETE, gone[at - LIFE]),
            ]
            for command, columns in kernel_batch:
                # Other keys that are not there yet, in the first turns: ENOENT, and nothing is counted.
                board.writes += kernel.batch(map_fd, command, columns).count
            if board.wanted and board.writes >= board.wanted:
                board.wanted = 0
                sys.stdout.buffer.write(b".")
                sys.stdout.buffer.flush()
            turn += 1


if __name__ == "__main__":
    main(*sys.argv[1:])

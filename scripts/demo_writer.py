"""A process of its own in the demo: creates a map, pins it, and has a BPF program write it.

Knows nothing of mapd's daemon; it uses the package's system call layer only to load a program that was
assembled by hand. Runs the program until its standard input ends; answers "count" with how often it ran.
"""

from __future__ import annotations

import os
import select
import sys

from mapd.bpf import (
    Buffer,
    CreateMap,
    LinuxKernel,
    Pin,
    ProgramType,
    counter_program,
    load_program,
    run_program,
)
from mapd_api.uapi import MapType

KEYS = 8
BURST = 256


def main(path: str) -> None:
    """Create, pin, load, run."""
    kernel = LinuxKernel()
    wanted = CreateMap(map_type=MapType.HASH, key_size=4, value_size=8, max_entries=64, kernel_name="packets")
    with kernel.control(wanted) as owned, owned.lease() as map_fd:
        kernel.control(Pin(root=os.path.dirname(path), path=path), [map_fd])  # noqa: PTH120 - a str is asked for
        with (
            load_program(counter_program(map_fd, 4, 8), ProgramType.SYSCALL, "count") as program,
            program.lease() as prog_fd,
        ):
            print("ready", flush=True)
            run(prog_fd)


def run(prog_fd: int) -> None:
    """Bursts of runs, one key after the other, until there is nobody to run for."""
    context = Buffer.allocate(8)
    runs = 0
    while True:
        for _ in range(BURST):
            context.view[:4] = (runs % KEYS).to_bytes(4, sys.byteorder)
            run_program(prog_fd, context)
            runs += 1
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print(runs, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

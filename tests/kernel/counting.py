"""Another process that counts in a pinned map by a BPF program: ``counting.py ROOT PATH KEY RUNS``."""

from __future__ import annotations

import sys

from mapd.bpf import (
    Buffer,
    LinuxKernel,
    OpenPin,
    ProgramType,
    counter_program,
    load_program,
    run_program,
)


def main(root: str, path: str, key: str, runs: str) -> None:
    kernel = LinuxKernel()
    with kernel.control(OpenPin(root=root, path=path)) as owned, owned.lease() as map_fd:
        info = kernel.info(map_fd)
        code = counter_program(map_fd, info.key_size, info.value_size)
        with load_program(code, ProgramType.SYSCALL, "counter") as program, program.lease() as prog_fd:
            ctx = Buffer.allocate((info.key_size + 7) & ~7)
            ctx.view[: info.key_size] = int(key).to_bytes(info.key_size, "little")
            for _ in range(int(runs)):
                if run_program(prog_fd, ctx) != 0:
                    raise SystemExit("not counted")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A BPF program writes a pinned map as fast as it is run: ``kernel_churner.py ROOT PATH BOARD STABLE FIRST OTHERS``.

As ``tests.e2e.churner``, from the kernel's side: each run overwrites RUN stable keys (numbers below STABLE), creates
RUN others (from FIRST on, OTHERS of them) and deletes as many of those again, by the helpers that programs on a hook
use. BOARD is the same file of three words.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mapd.bpf import Buffer, LinuxKernel, OpenPin, ProgramType, load_program
from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size
from mapd.bpf.program import program_runner
from tests.e2e.churner import LIFE, Board

RUN = 64
KEY = -8


def churning_program(map_fd: int, value_size: int) -> bytes:
    """A SYSCALL program whose context says where the keys to overwrite, to create and to delete begin."""
    value = KEY - value_size
    asm = Assembler()
    asm.mov(Reg.R6, Reg.R1)
    asm.mov(Reg.R7, 0)
    asm.label("next")
    for at, helper in enumerate((Helper.MAP_UPDATE_ELEM, Helper.MAP_UPDATE_ELEM, Helper.MAP_DELETE_ELEM)):
        asm.load(Size.DW, Reg.R8, Reg.R6, 8 * at)
        asm.alu(Alu.ADD, Reg.R8, Reg.R7)
        for offset in (KEY, *range(value, KEY, 8)):
            asm.store(Size.DW, Reg.R10, offset, Reg.R8)  # a value tells its key
        asm.map_pointer(Reg.R1, map_fd)
        asm.mov(Reg.R2, Reg.R10)
        asm.alu(Alu.ADD, Reg.R2, KEY)
        asm.mov(Reg.R3, Reg.R10)
        asm.alu(Alu.ADD, Reg.R3, value)
        asm.mov(Reg.R4, 0)
        asm.call(helper)
    asm.alu(Alu.ADD, Reg.R7, 1)
    asm.jump_if(Jump.LT, Reg.R7, RUN, "next")
    asm.mov(Reg.R0, 0)
    asm.exit()
    return asm.assemble()


def main(root: str, path: str, board_path: str, stable: str, first: str, others: str) -> None:
    kernel = LinuxKernel()
    overwritten = np.random.default_rng(11).permutation(np.arange(0, int(stable) - RUN, RUN)).tolist()
    created = list(range(int(first), int(first) + int(others), RUN))
    context = Buffer.allocate(24)
    words = context.view.cast("Q")
    with (
        Board(Path(board_path)) as board,
        kernel.control(OpenPin(root=root, path=path)) as owned,
        owned.lease() as map_fd,
        load_program(churning_program(map_fd, kernel.info(map_fd).value_size), ProgramType.SYSCALL) as loaded,
        loaded.lease() as prog_fd,
    ):
        run = program_runner(context)
        turn = 0
        while not board.stop:
            at = turn % len(created)
            words[0], words[1] = overwritten[turn % len(overwritten)], created[at]
            words[2] = created[at - LIFE]
            run(prog_fd)
            board.writes += 3 * RUN
            if board.wanted and board.writes >= board.wanted:
                board.wanted = 0
                sys.stdout.buffer.write(b".")
                sys.stdout.buffer.flush()
            turn += 1
        words.release()


if __name__ == "__main__":
    main(*sys.argv[1:])

from __future__ import annotations

import sys

import pytest

from mapd.bpf import counter_program
from mapd.bpf.asm import Alu, Assembler, Atomic, Jump, Reg, Size

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian")


def test_instructions_encode_as_the_standard_says() -> None:
    asm = Assembler()
    asm.mov(Reg.R0, 1)
    asm.mov(Reg.R6, Reg.R1)
    asm.alu(Alu.ADD, Reg.R2, -8)
    asm.load(Size.DW, Reg.R2, Reg.R1, 16)
    asm.store(Size.W, Reg.R10, -4, Reg.R2)
    asm.store(Size.DW, Reg.R10, -8, 5)
    asm.atomic(Atomic.FETCH_ADD, Size.DW, Reg.R0, 8, Reg.R1)
    asm.map_pointer(Reg.R1, 7)
    asm.exit()
    assert asm.assemble().hex(" ", 8).split() == [
        "b700000001000000",
        "bf16000000000000",
        "07020000f8ffffff",
        "7912100000000000",
        "632afcff00000000",
        "7a0af8ff05000000",
        "db10080001000000",
        "1811000007000000",
        "0000000000000000",
        "9500000000000000",
    ]


def test_jumps_count_slots_after_themselves_both_ways() -> None:
    asm = Assembler()
    asm.label("start")
    asm.jump_if(Jump.EQ, Reg.R0, 3, "end")
    asm.jump("start")
    asm.label("end")
    asm.exit()
    assert asm.assemble()[:16].hex(" ", 8) == "1500010003000000 0500feff00000000"


def test_jump_without_label_raises() -> None:
    asm = Assembler()
    asm.jump("nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        asm.assemble()


def test_a_callback_is_an_address_in_slots_after_its_own_first() -> None:
    asm = Assembler()
    asm.callback(Reg.R2, "again")
    asm.callback(Reg.R3, "again")
    asm.exit()
    asm.label("again")
    asm.exit()
    assert asm.assemble()[:32].hex(" ", 8).split() == [
        "1842000004000000",
        "0000000000000000",
        "1843000002000000",
        "0000000000000000",
    ]
    assert asm.callbacks == (5,)


def test_callback_without_label_raises() -> None:
    asm = Assembler()
    asm.callback(Reg.R2, "nowhere")
    for use in (asm.assemble, lambda: asm.callbacks):
        with pytest.raises(ValueError, match="nowhere"):
            use()


def test_label_twice_raises() -> None:
    asm = Assembler()
    asm.label("here")
    with pytest.raises(ValueError, match="here"):
        asm.label("here")


def test_atomic_on_two_bytes_raises() -> None:
    with pytest.raises(ValueError, match="4 or 8"):
        Assembler().atomic(Atomic.ADD, Size.H, Reg.R0, 0, Reg.R1)


@pytest.mark.parametrize(("key_size", "value_size"), [(0, 8), (8, 4), (256, 264)])
def test_counter_program_that_cannot_be_raises(key_size: int, value_size: int) -> None:
    with pytest.raises(ValueError, match="no counter"):
        counter_program(3, key_size, value_size)

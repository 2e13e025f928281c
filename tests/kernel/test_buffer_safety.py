"""No byte beyond a buffer is read or written: not by the kernel on mapd's word, and not on a lie.

Buffers end at a page that nobody may touch (tests/support/guarded.py), in a process for each type.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.bpf import BatchCommand, Buffer, Columns
from mapd.bpf.elements import COMMANDS
from mapd.maps.types import TYPES, type_name
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.uapi import MapType
from tests.kernel import buffer_trial
from tests.kernel.maps import KERNEL

ROOT: Final = Path(__file__).parents[2]
NO_MAP: Final = (1 << 31) - 1
"""A descriptor that is none: a command that gets so far answers EBADF and touches no memory."""


def trial(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", buffer_trial.__name__, name],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("kind", buffer_trial.KINDS, ids=type_name)
def test_no_command_goes_beyond_its_buffers_and_a_byte_too_few_is_efault(kind: MapType) -> None:
    ended = trial(type_name(kind))
    tried = ended.stdout.splitlines()
    last = tried[-1] if tried else "nothing tried"
    assert ended.returncode == 0, f"{type_name(kind)}, {last}: ended {ended.returncode}\n{ended.stderr}"
    assert tried == [f"key_size={key} value_size={value}" for key, value in buffer_trial.pairs(TYPES[kind])]


def test_every_size_is_tried_of_hash_maps() -> None:
    """The list of sizes has not silently become empty."""
    assert len(buffer_trial.pairs(TYPES[MapType.HASH])) == 64
    assert all(buffer_trial.pairs(TYPES[kind]) for kind in buffer_trial.KINDS)


def test_a_write_of_one_byte_beyond_a_guarded_buffer_ends_the_process() -> None:
    ended = trial(buffer_trial.OVERRUN)
    assert (ended.returncode, ended.stdout) == (-signal.SIGSEGV, "one byte within\n")


# ---- columns that are shorter than their count ---------------------------------------------------

lengths = st.integers(0, 24)
counts = st.integers(0, 6) | st.sampled_from([16_384, 2**31, 2**32 - 1])
offsets = st.integers(0, 9) | st.just(2**32)


def read_only(size: int) -> Buffer:
    return Buffer.of(bytes(size))


@st.composite
def columns(draw: st.DrawFn) -> Columns:
    """Any, most of which do not add up; those that do are small."""
    sized = draw(st.sampled_from([Buffer.allocate, read_only]))
    return Columns(
        count=draw(counts),
        keys=sized(draw(lengths)),
        key_stride=draw(st.integers(1, 9)),
        values=draw(st.none() | lengths.map(sized)),
        value_stride=draw(st.integers(1, 9)),
        key_offset=draw(offsets),
        value_offset=draw(offsets),
    )


def fit(
    given: Columns, *, reads: bool = False, writes_keys: bool = False, writes_values: bool = False
) -> bool:
    """Whether every byte that a command may touch is there, and writable where it is written."""
    if given.key_offset + given.count * given.key_stride > len(given.keys.view):
        return False
    if writes_keys and given.keys.view.readonly:
        return False
    if given.count == 0 or not (reads or writes_values):
        return True
    if given.values is None or (writes_values and given.values.view.readonly):
        return False
    return given.value_offset + given.count * given.value_stride <= len(given.values.view)


@settings(max_examples=600, deadline=None)
@given(columns(), st.sampled_from(sorted(COMMANDS)))
def test_each_refuses_columns_shorter_than_their_count(given: Columns, op: Op) -> None:
    if fit(given, reads=op in TAKES_VALUE, writes_values=op in ANSWERS_VALUE):
        assert KERNEL.each(NO_MAP, op, given) == [errno.EBADF] * given.count
        return
    with pytest.raises(ValueError, match=r"exceed|no value column|cannot be written"):
        KERNEL.each(NO_MAP, op, given)


@settings(max_examples=600, deadline=None)
@given(columns(), st.sampled_from(BatchCommand))
def test_batches_refuse_columns_shorter_than_their_count(given: Columns, command: BatchCommand) -> None:
    if fit(given, reads=command is BatchCommand.UPDATE):
        assert KERNEL.batch(NO_MAP, command, given).errno == errno.EBADF
        return
    with pytest.raises(ValueError, match=r"exceed|no value column"):
        KERNEL.batch(NO_MAP, command, given)


@settings(max_examples=600, deadline=None)
@given(columns(), st.booleans())
def test_lookup_batch_refuses_columns_shorter_than_their_count(given: Columns, first: bool) -> None:
    cursor = Buffer.allocate(16)
    if fit(given, writes_keys=True, writes_values=True):
        assert KERNEL.lookup_batch(NO_MAP, cursor, first, given).errno == errno.EBADF
        return
    with pytest.raises(ValueError, match=r"exceed|no value column|cannot be written"):
        KERNEL.lookup_batch(NO_MAP, cursor, first, given)

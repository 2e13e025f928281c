from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

import pytest

from mapd.bpf import elements


def failing(errnos: Iterator[int]) -> int:
    """Fail like a syscall, with the next errno; 0 succeeds."""
    number = next(errnos)
    ctypes.set_errno(number)
    return -1 if number else 0


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        ([errno.ENOENT], errno.ENOENT),
        ([errno.EBUSY, 0], 0),
        ([errno.EINTR, errno.EAGAIN, 0], 0),
        ([errno.EBUSY, errno.E2BIG], errno.E2BIG),
        ([errno.EBUSY] * 3, errno.EBUSY),
    ],
)
def test_a_passing_refusal_is_the_answer_after_three_tries(answers: list[int], result: int) -> None:
    errnos = iter(answers)
    failing(errnos)
    assert elements.retried(lambda: failing(errnos)) == result
    assert next(errnos, None) is None

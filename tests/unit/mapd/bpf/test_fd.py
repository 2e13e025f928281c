from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from mapd.bpf import OwnedFd
from tests.support.counts import nothing_left_behind


def is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def an_fd() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def test_close_closes_the_number() -> None:
    number = an_fd()
    owned = OwnedFd(number)
    owned.close()
    assert owned.closed
    assert not is_open(number)


def test_close_waits_for_the_last_lease() -> None:
    number = an_fd()
    owned = OwnedFd(number)
    first, second = owned.lease(), owned.lease()
    owned.close()
    assert owned.closed
    first.release()
    assert is_open(number)
    second.release()
    assert not is_open(number)


def test_releasing_a_lease_again_gives_nothing_back() -> None:
    with OwnedFd(an_fd()) as owned:
        first, second = owned.lease(), owned.lease()
        first.release()
        first.release()
        owned.close()
        with second as number:
            assert is_open(number)
        assert not is_open(number)


def test_closing_again_does_not_close_a_stranger() -> None:
    number = an_fd()
    owned = OwnedFd(number)
    owned.close()
    stranger = an_fd()
    assert stranger == number
    owned.close()
    assert is_open(stranger)
    os.close(stranger)


def test_a_closed_fd_gives_no_lease() -> None:
    owned = OwnedFd(an_fd())
    owned.close()
    with pytest.raises(OSError, match="closed") as caught:
        owned.lease()
    assert caught.value.errno == errno.EBADF


def test_number_0_is_moved_up() -> None:
    program = (
        "import os; from mapd.bpf import OwnedFd\n"
        "os.close(0); fd = os.open('/dev/null', os.O_RDONLY); assert fd == 0\n"
        "with OwnedFd(fd) as owned, owned.lease() as number:\n"
        "    assert number > 0 and not os.get_inheritable(number)\n"
        "    try: os.fstat(0)\n"
        "    except OSError: print('moved')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "moved\n"


def test_an_fd_that_was_forgotten_is_closed_with_a_warning() -> None:
    number = an_fd()
    with pytest.warns(ResourceWarning, match=f"fd {number} was not closed"):
        OwnedFd(number).__del__()
    assert not is_open(number)


def test_many_threads_leave_one_close() -> None:
    with nothing_left_behind():
        owned = OwnedFd(an_fd())
        barrier = threading.Barrier(8)

        def borrow() -> None:
            barrier.wait()
            for _ in range(200):
                try:
                    with owned.lease() as number:
                        assert is_open(number)
                except OSError:
                    return

        threads = [threading.Thread(target=borrow) for _ in range(7)]
        for thread in threads:
            thread.start()
        barrier.wait()
        owned.close()
        for thread in threads:
            thread.join()

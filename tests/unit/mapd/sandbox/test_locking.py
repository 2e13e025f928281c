"""Locking in, done for real: each time in a process of its own, which cannot come out again. Needs no root."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from mapd.sandbox import abi
from mapd.sandbox.landlock import ABI_NEEDED, missing_of
from tests.support.daemon import environment

BEGIN = """
import errno, json, os, socket, sys, threading
from mapd.sandbox import Account, Rules, SandboxError, held, lock_front, lock_opener
READ = [*sys.path, sys.prefix, sys.base_prefix, "/usr", "/lib", "/proc/self"]
def outcome(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
"""


def run(code: str, *arguments: str) -> dict[str, Any]:
    """What ``code`` put into ``said``, in a fresh interpreter."""
    source = BEGIN + "said = {}\n" + textwrap.dedent(code) + "\nprint(json.dumps(said))"
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def landlock() -> int:
    version = abi()
    if version < ABI_NEEDED:
        pytest.skip(f"this kernel's landlock has ABI {version}")
    return version


def test_the_front_keeps_nothing() -> None:
    said = run(
        """
        lock_front(None, Rules(read=READ))
        thread = threading.Thread(target=lambda: said.update(thread=repr(held())))
        thread.start()
        thread.join()
        import pathlib
        found = held()
        said.update(effective=found.effective, permitted=found.permitted, ambient=found.ambient,
                    inheritable=found.inheritable, seccomp=found.seccomp, no_new_privs=found.no_new_privs,
                    mine=repr(held(pathlib.Path("/proc/self/status"))))
        """
    )
    assert said == {
        "effective": 0,
        "permitted": 0,
        "ambient": 0,
        "inheritable": 0,
        "seccomp": 2,
        "no_new_privs": True,
        "thread": said["mine"],
        "mine": said["mine"],
    }


def test_a_thread_that_is_there_already_refuses_the_lock() -> None:
    said = run(
        """
        stop = threading.Event()
        threading.Thread(target=stop.wait).start()
        try:
            lock_front(None, Rules(read=READ))
        except SandboxError as error:
            said["error"] = str(error)
        said["free"] = held().seccomp
        stop.set()
        """
    )
    assert "2 threads run already" in said["error"]
    assert said["free"] == 0


@pytest.mark.parametrize("package", ["numpy", "grpc"])
def test_a_package_that_starts_threads_refuses_the_lock(package: str) -> None:
    said = run(
        """
        __import__(sys.argv[1])
        for lock in (lambda: lock_front(None, Rules()), lambda: lock_opener(None, frozenset(), Rules())):
            try:
                lock()
            except SandboxError as error:
                said["error"] = said.get("error", "") + str(error)
        """,
        package,
    )
    assert said["error"].count(f"{package} is imported already") == 2


def test_files_are_reached_where_rules_say_and_nowhere_else(tmp_path: Path, landlock: int) -> None:
    assert landlock
    for name in ("read", "write", "names", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    said = run(
        """
        root = sys.argv[1]
        lock_front(None, Rules(read=[*READ, f"{root}/read"], write=[f"{root}/write"], names=[f"{root}/names"],
                               devices=["/dev/null"]))
        for name in ("read", "write", "names", "closed"):
            path = f"{root}/{name}"
            said[name] = " ".join(outcome(call) for call in (
                lambda: os.listdir(path),
                lambda: open(f"{path}/file").read(),
                lambda: open(f"{path}/file", "w").write("y"),
                lambda: os.mkdir(f"{path}/folder"),
                lambda: socket.socket(socket.AF_UNIX).bind(f"{path}/socket"),
                lambda: os.symlink("/etc", f"{path}/link"),
                lambda: os.rename(f"{path}/file", f"{path}/other"),
                lambda: os.unlink(f"{path}/other"),
            ))
        said["out"] = outcome(lambda: os.rename(f"{root}/write/folder", f"{root}/closed/folder"))
        said["null"] = outcome(lambda: open("/dev/null", "w").write("x"))
        said["zero"] = outcome(lambda: open("/dev/zero", "rb").read(1))
        """,
        str(tmp_path),
    )
    assert said == {
        "read": "ok ok EACCES EACCES EACCES EACCES EACCES ENOENT",
        "write": "ok ok ok ok ok EACCES ok ok",
        "names": "ok ok EACCES ok EACCES EACCES ok ok",
        "closed": "EACCES EACCES EACCES EACCES EACCES EACCES EACCES ENOENT",
        "out": "EACCES",
        "null": "ok",
        "zero": "EACCES",
    }


def test_other_processes_and_abstract_sockets_are_out_of_reach(landlock: int) -> None:
    if landlock < 6:
        pytest.skip(f"this kernel's landlock has ABI {landlock}")
    said = run(
        """
        name = f"\\0mapd-test-{os.getpid()}"
        other = socket.socket(socket.AF_UNIX)
        other.bind(name)
        other.listen()
        said["before"] = outcome(lambda: os.kill(os.getppid(), 0))
        lock_front(None, Rules(read=READ))
        said["after"] = outcome(lambda: os.kill(os.getppid(), 0))
        said["self"] = outcome(lambda: os.kill(os.getpid(), 0))
        said["abstract"] = outcome(lambda: socket.socket(socket.AF_UNIX).connect(name))
        """
    )
    assert said == {"before": "ok", "after": "EPERM", "self": "ok", "abstract": "EPERM"}


def test_of_ports_one_can_be_listened_on_and_none_connected_to(landlock: int) -> None:
    if landlock < 4:
        pytest.skip(f"this kernel's landlock has ABI {landlock}")
    said = run(
        """
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        lock_front(None, Rules(read=READ, bind_tcp=[port]), tcp=True)
        listening = socket.socket()
        said["bind"] = outcome(lambda: listening.bind(("127.0.0.1", port)))
        said["listen"] = outcome(lambda: listening.listen())
        said["other"] = outcome(lambda: socket.socket().bind(("127.0.0.1", 0)))
        said["connect"] = outcome(lambda: socket.socket().connect(("127.0.0.1", port)))
        said["udp"] = outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        """
    )
    assert said == {"bind": "ok", "listen": "ok", "other": "EACCES", "connect": "EACCES", "udp": "EPERM"}


def test_what_connects_past_landlock_is_refused_by_the_filter(landlock: int) -> None:
    """MPTCP, and data in the first packet: to a server that is there, and admits both without the lock."""
    if landlock < 4:
        pytest.skip(f"this kernel's landlock has ABI {landlock}")
    said = run(
        """
        server = socket.create_server(("127.0.0.1", 0))
        there = server.getsockname()
        FAST = 0x20000000
        def mptcp():
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as sock:
                sock.connect(there)
        def fast(send):
            with socket.socket() as sock:
                send(sock)
        def all_of():
            return [
                outcome(mptcp),
                outcome(lambda: fast(lambda sock: sock.sendto(b"", FAST, there))),
                outcome(lambda: fast(lambda sock: sock.sendmsg([b""], [], FAST, there))),
            ]
        said["free"] = all_of()
        lock_front(None, Rules(read=READ), tcp=True)
        said["locked in"] = all_of()
        """
    )
    if said["free"] != ["ok"] * 3:
        pytest.skip(f"this host has no MPTCP or no TCP fast open: {said['free']}")
    assert said["locked in"] == ["EPERM"] * 3


def test_the_terminal_that_it_was_started_at_takes_no_keys_from_it() -> None:
    """TIOCSTI: what is pushed is read by the shell of who started it, which is root's."""
    said = run(
        """
        import fcntl, pty, termios
        os.setsid()
        keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        said["asked"] = outcome(lambda: fcntl.ioctl(terminal, termios.TIOCGPGRP, b"1234"))
        lock_front(None, Rules(read=READ))
        said["push"] = outcome(lambda: fcntl.ioctl(terminal, termios.TIOCSTI, b"x"))
        said["size"] = outcome(lambda: fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
        """
    )
    assert said == {"asked": "ok", "push": "EPERM", "size": "ok"}


def test_the_limits_of_other_processes_are_not_its_business() -> None:
    said = run(
        """
        import resource
        limit = resource.RLIMIT_NOFILE
        said["before"] = outcome(lambda: resource.prlimit(os.getppid(), limit))
        lock_front(None, Rules(read=READ))
        said["after"] = outcome(lambda: resource.prlimit(os.getppid(), limit))
        said["own"] = outcome(lambda: resource.setrlimit(limit, resource.getrlimit(limit)))
        """
    )
    assert said == {"before": "ok", "after": "EPERM", "own": "ok"}


@pytest.mark.parametrize("which", ["front", "opener"])
def test_no_program_process_or_user_can_be_had(which: str) -> None:
    said = run(
        """
        if sys.argv[1] == "front":
            lock_front(None, Rules(read=READ))
        else:
            lock_opener(None, frozenset(), Rules(read=READ))
        said["exec"] = outcome(lambda: os.execv("/bin/true", ["true"]))
        said["fork"] = outcome(os.fork)
        said["spawn"] = outcome(lambda: os.posix_spawn("/bin/true", ["true"], {}))
        said["uid"] = outcome(lambda: os.setuid(os.getuid()))
        said["inet"] = outcome(lambda: socket.socket())
        said["unix"] = outcome(lambda: socket.socket(socket.AF_UNIX))
        """,
        which,
    )
    unix = "ok" if which == "front" else "EPERM"
    assert said == dict.fromkeys(("exec", "fork", "spawn", "uid", "inet"), "EPERM") | {"unix": unix}


def test_its_own_descriptors_can_be_looked_at_by_a_process_that_cannot_be_dumped() -> None:
    """mapd.bpf reads /proc/self/fd and fdinfo; of a process without dumps they belong to root."""
    said = run(
        """
        lock_front(None, Rules(read=READ))
        said["fd"] = outcome(lambda: os.listdir("/proc/self/fd"))
        said["link"] = outcome(lambda: os.readlink("/proc/self/fd/1"))
        said["fdinfo"] = outcome(lambda: open("/proc/self/fdinfo/1").read())
        said["status"] = outcome(lambda: open("/proc/thread-self/status").read())
        said["others"] = outcome(lambda: open("/proc/1/status").read())
        """
    )
    assert said == {
        "fd": "ok",
        "link": "ok",
        "fdinfo": "ok",
        "status": "ok",
        "others": "EACCES" if abi() else "ok",
    }


def test_threads_grpc_and_numpy_work_inside() -> None:
    said = run(
        """
        lock_front(None, Rules(read=READ, devices=["/dev/urandom"]))
        import asyncio, grpc.aio, numpy
        said["sum"] = int(numpy.arange(10).sum())
        async def serve():
            server = grpc.aio.server()
            await server.start()
            await server.stop(0)
            return "served"
        said["grpc"] = asyncio.run(serve())
        said["free"] = [status for status in (
            open(f"/proc/self/task/{task}/status").read() for task in os.listdir("/proc/self/task")
        ) if "Seccomp:\\t2" not in status]
        """
    )
    assert said == {"sum": 45, "grpc": "served", "free": []}


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (0, ["files can be reached"]),
        (1, ["files can be reached"]),
        (2, ["truncating", "TCP", "ioctls", "signals"]),
        (5, ["signals"]),
        (6, []),
        (7, []),
    ],
)
def test_what_an_older_kernel_lacks_is_named(version: int, words: list[str]) -> None:
    missing = missing_of(version)
    assert len(missing) == len(words)
    assert all(word in line for word, line in zip(words, missing, strict=True))

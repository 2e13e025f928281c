"""A peer that means no good: ``python -m tests.reliability.hostile ADDRESS TASK COUNT``.

It tells what it did as a line of JSON. A process of its own, so that what it costs is not taken for what the daemon
costs. ADDRESS is a socket's path, or host:port. Tasks that hold connections say so, and let go at the end of their
standard input.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from hyperframe.frame import SettingsFrame

from tests.reliability.hostile import frames

ANSWER_S: Final = 0.2
"""A server that has not closed by then is left; what it makes of the rest is its own affair."""

REPLACED_S: Final = 2.0
"""A server that was ended is back within this."""

SEED: Final = 20_260_101


def connected(address: str) -> socket.socket:
    """A connection that gives up in 10 s. A server that is being replaced is tried again for a moment."""
    until = time.monotonic() + REPLACED_S
    while True:
        try:
            return _connected(address)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise


def _connected(address: str) -> socket.socket:
    if address.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.connect(address)  # with a timeout it would not wait for room in the queue of a busy server
        found.settimeout(10)
        return found
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def say(address: str, parts: Iterable[bytes], answer_s: float = ANSWER_S) -> str:
    """One connection: send everything, then listen for a moment; how it ended."""
    with connected(address) as peer:
        try:
            for part in parts:
                _send(peer, part)
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_WR)
            return _until_closed(peer, answer_s)
        except (BrokenPipeError, ConnectionResetError):
            return "closed"
        except TimeoutError:
            return "not taken"


def _send(peer: socket.socket, data: bytes) -> None:
    """Send, and read what comes meanwhile: a server that cannot answer might stop to read."""
    view = memoryview(data)
    while view:
        readable, writable, _ = select.select([peer], [peer], [], 10)
        if not readable and not writable:
            raise TimeoutError
        if readable and not peer.recv(1 << 16):
            raise ConnectionResetError
        if writable:
            view = view[peer.send(view[: 1 << 16]) :]


def _until_closed(peer: socket.socket, answer_s: float) -> str:
    until = time.monotonic() + answer_s
    while (left := until - time.monotonic()) > 0:
        peer.settimeout(left)
        try:
            if not peer.recv(1 << 16):
                return "closed"
        except TimeoutError:
            break
    return "open"


def classics(address: str, _: int) -> Mapping[str, int]:
    """Each of the classics once."""
    return Counter(say(address, [make()]) for make in frames.CLASSICS.values())


def mutants(address: str, count: int) -> Mapping[str, int]:
    """Mutants of a good exchange, one connection each."""
    return Counter(say(address, [one], 0.002) for one in frames.mutants(SEED, count))


def rapid_reset(address: str, count: int) -> Mapping[str, int]:
    """Calls that are given up at once, on one connection."""
    return {say(address, frames.rapid_reset(count)): count}


def pings(address: str, count: int) -> Mapping[str, int]:
    """Pings without end."""
    return {say(address, frames.flood(frames.PING, count)): count}


def settings(address: str, count: int) -> Mapping[str, int]:
    """Settings without end, each to be acknowledged."""
    return {say(address, frames.flood(SettingsFrame(settings={3: 100}), count)): count}


def _held(address: str, count: int, said: bytes) -> Mapping[str, int]:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connected(address)) for _ in range(count)]
        for peer in peers:
            peer.sendall(said)
        tell({"held": len(peers)})
        sys.stdin.read()
    return {"held": count}


def silent(address: str, count: int) -> Mapping[str, int]:
    """Connections that say nothing."""
    return _held(address, count, b"")


def outwaited(address: str, count: int) -> Mapping[str, int]:
    """Connections that say nothing, until the server has ended them; those that it keeps for 30 s are "kept"."""
    with contextlib.ExitStack() as stack:
        poll, kept = select.poll(), set[int]()
        for _ in range(count):
            peer = stack.enter_context(connected(address))
            poll.register(peer, select.POLLRDHUP)
            kept.add(peer.fileno())
        tell({"held": len(kept)})
        until = time.monotonic() + 30
        while kept and (left := until - time.monotonic()) > 0:
            for number, _ in poll.poll(1_000 * left):
                poll.unregister(number)
                kept.discard(number)
    return {"kept": len(kept)}


def half_open(address: str, count: int) -> Mapping[str, int]:
    """Calls that have begun and send no message, 100 on each connection."""
    headers = frames.hello(*(frames.begun(stream) for stream in range(1, 201, 2)))
    return {name: 100 * number for name, number in _held(address, count // 100, headers).items()}


TASKS: Final[Mapping[str, Callable[[str, int], Mapping[str, int]]]] = {
    task.__name__: task
    for task in (classics, mutants, rapid_reset, pings, settings, silent, outwaited, half_open)
}


def tell(what: Mapping[str, int]) -> None:
    """A line for whoever started this."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    tell(TASKS[sys.argv[2]](sys.argv[1], int(sys.argv[3])))

"""The other ends of this process' TCP connections, looked up while other threads close and open descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from mapd.rpc.connections import peer_of, peer_of_copy, peers_of_open_sockets


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone


def test_the_other_end_of_a_connection_is_among_them_until_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as taken:
            assert peer_of(taken.fileno()) == client.getsockname()
            assert client.getsockname() in peers_of_open_sockets()
            name = client.getsockname()
        assert name not in peers_of_open_sockets()
        assert peer_of(server.fileno()) is None, "it listens"


def a_file() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def a_listening_socket() -> int:
    return socket.create_server(("127.0.0.1", 0)).detach()


@pytest.mark.parametrize(
    ("made", "why"), [(a_file, "Socket operation on non-socket"), (a_listening_socket, "not connected")]
)
def test_a_number_that_is_something_else_by_now_leaves_no_descriptor_open(
    made: Callable[[], int], why: str
) -> None:
    before = descriptors()
    with pytest.raises(OSError, match=why):
        peer_of_copy(made())
    assert descriptors() == before

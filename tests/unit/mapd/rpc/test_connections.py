"""A principal's TCP connections are counted from their first call until their sockets are closed."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.rpc import connections
from mapd.rpc.connections import Connections, Peer, parsed, peers_of_open_sockets
from mapd_api.reasons import Reason

WEB = Principal(name="web", namespace="web")
OTHER = Principal(name="other", namespace="other")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:127.0.0.1:41233", ("127.0.0.1", 41_233)),
        ("ipv6:%5B::1%5D:7", ("::1", 7)),
        ("ipv6:[2001:db8::1]:7", ("2001:db8::1", 7)),
        ("ipv6:%5B::ffff:192.0.2.1%5D:7", ("192.0.2.1", 7)),
        ("ipv6:%5Bfe80::1%25eth0%5D:7", ("fe80::1", 7)),
    ],
)
def test_grpcs_word_for_a_peer_is_an_address_and_a_port(peer: str, expected: Peer) -> None:
    assert parsed(peer) == expected


def test_the_peers_of_open_sockets_are_found_and_no_others() -> None:
    with ExitStack() as stack:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            listener = stack.enter_context(socket.create_server((host, 0), family=family))
            client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
            server = stack.enter_context(listener.accept()[0])
            name = client.getsockname()[:2]
            assert name in peers_of_open_sockets()
            server.close()
            assert name not in peers_of_open_sockets()


def peer(port: int) -> str:
    return f"ipv4:192.0.2.1:{port}"


class Host:
    """Its open sockets, and how often was looked."""

    def __init__(self, *ports: int) -> None:
        self.ports = set(ports)
        self.looks = 0

    def live(self) -> list[Peer]:
        self.looks += 1
        return [("192.0.2.1", port) for port in self.ports]


def test_one_connection_counts_once_however_many_calls_come_over_it() -> None:
    host = Host(1)
    found = Connections(1e9, host.live)
    first = found.seen(peer(1), WEB, 1)
    assert [found.seen(peer(1), WEB, 1) for _ in range(5)] == [first] * 5
    assert (found.count(WEB), host.looks) == (1, 0)


def test_one_connection_too_many_is_refused_and_others_are_not_concerned() -> None:
    found = Connections(1e9, Host(1, 2, 3).live)
    found.seen(peer(1), WEB, 2)
    found.seen(peer(2), WEB, 2)
    with pytest.raises(MapError, match="web has 2 of 2") as caught:
        found.seen(peer(3), WEB, 2)
    assert caught.value.reason is Reason.QUOTA
    found.seen(peer(1), WEB, 2)
    found.seen(peer(3), OTHER, 2)
    assert (found.count(WEB), found.count(OTHER)) == (2, 1)


def test_a_connection_that_was_closed_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_S", 0.0)
    host = Host(1, 2)
    found = Connections(1e9, host.live)
    found.seen(peer(1), WEB, 1)
    with pytest.raises(MapError):
        found.seen(peer(2), WEB, 1)
    host.ports.remove(1)
    found.seen(peer(2), WEB, 1)
    assert found.count(WEB) == 1


def test_refused_connections_do_not_make_the_daemon_look_again_and_again() -> None:
    host = Host(1, 2, 3)
    found = Connections(1e9, host.live)
    found.seen(peer(1), WEB, 1)
    for _ in range(10):
        with pytest.raises(MapError):
            found.seen(peer(2), WEB, 1)
    assert host.looks == 1


def test_nothing_grows_where_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_S", 0.0)
    found = Connections(1e9, Host(9_999).live)
    for port in range(1, 10_000):
        found.seen(peer(port), WEB, None)
    assert found.count(WEB) <= 64


def test_a_port_that_is_used_again_after_the_longest_age_is_another_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr("mapd.rpc.connections.time.monotonic", lambda: clock[0])
    found = Connections(60.0, Host(1).live)
    assert found.seen(peer(1), WEB, 1) == 100.0
    clock[0] += 59
    assert found.seen(peer(1), WEB, 1) == 100.0
    clock[0] += 2
    assert found.seen(peer(1), WEB, 1) == 161.0

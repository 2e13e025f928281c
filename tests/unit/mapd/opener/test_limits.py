"""What an operator writes for an opener, how it counts over time, and what it logs."""

from __future__ import annotations

import io
import json
import socket

import pytest

from mapd.opener import BadLimits, Limits, serve
from mapd.opener.log import EVERY_S, Log
from mapd.opener.meter import Meter
from mapd_api.uapi import MapType


def test_limits_arrive_on_the_command_line_as_they_were() -> None:
    limits = Limits(
        names_root="/sys/fs/bpf/mapd",
        pin_roots=("/sys/fs/bpf/app", "/sys/fs/bpf/x"),
        map_types=frozenset({1, 2}),
        map_bytes=5,
        btf_bytes=6,
        makes=7,
        makes_per_s=8,
        bytes_per_s=9,
        ids=False,
    )
    assert Limits.from_json(limits.to_json()) == limits
    assert Limits.from_json('{"names_root": "/r"}') == Limits(names_root="/r")
    assert Limits(names_root="/r").map_types == set(MapType) - {MapType.UNSPEC}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no object in JSON"),
        ("[]", "no object in JSON"),
        ("{}", "names_root: must be a path"),
        ('{"names_root": 1}', "names_root: must be a path"),
        ('{"names_root": "relative"}', "must be an absolute path"),
        ('{"names_root": "/"}', "and not /"),
        ('{"names_root": "/r", "pin_roots": "/x"}', "pin_roots: no list"),
        ('{"names_root": "/r", "pin_roots": [1]}', "pin_roots: must be a list of str"),
        ('{"names_root": "/r", "pin_roots": ["//"]}', "and not /"),
        ('{"names_root": "/r", "map_types": [true]}', "map_types: must be a list of int"),
        ('{"names_root": "/r", "map_types": [0]}', r"map_types: \[0\] are no types"),
        ('{"names_root": "/r", "map_types": [99]}', r"map_types: \[99\] are no types"),
        ('{"names_root": "/r", "map_bytes": 0}', "map_bytes=0: must be a whole number above 0"),
        ('{"names_root": "/r", "makes_per_s": 1.5}', "makes_per_s=1.5"),
        ('{"names_root": "/r", "makes": true}', "makes=True"),
        ('{"names_root": "/r", "ids": 1}', "ids: must be true or false"),
        ('{"names_root": "/r", "root": "/x"}', "unknown: root; known: "),
    ],
)
def test_limits_that_are_none_are_refused_with_the_field(text: str, why: str) -> None:
    with pytest.raises(BadLimits, match=why):
        Limits.from_json(text)


def test_a_meter_gives_its_burst_and_then_its_rate() -> None:
    clock = [100.0]
    meter = Meter(10, 4, lambda: clock[0])
    assert [meter.take(1) for _ in range(10)] == [0.0] * 10
    assert meter.take(1) == 0.25
    assert meter.take(2) == 0.5
    clock[0] += 0.25
    assert meter.take(1) == 0.0
    assert meter.take(1) == 0.25
    clock[0] += 1_000
    assert meter.take(10) == 0.0
    assert meter.take(1) == 0.25, "it holds no more than its burst"


def test_of_each_kind_of_event_a_line_is_logged_now_and_then() -> None:
    clock, written = [0.0], io.StringIO()
    log = Log(written, lambda: clock[0])
    for _ in range(1_000):
        log.write("warning", "a flood", why="x" * 10_000)
    log.write("error", "something else")
    clock[0] = EVERY_S
    log.write("warning", "a flood", why="again")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["a flood", "something else", "a flood"]
    assert [line.get("left_out") for line in lines] == [None, None, 999]
    assert len(lines[0]["why"]) == 500


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    written = io.StringIO()
    written.close()
    Log(written).write("error", "lost")


def test_a_socket_without_message_boundaries_is_refused() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other, pytest.raises(ValueError, match="SOCK_SEQPACKET"):
        serve(one, Limits(names_root="/r"))

"""Codecs of what means something on the daemon's host alone, and what they know of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest

from mapd_api.v1 import host_pb2
from mapd_client import (
    CgroupId,
    IfIndex,
    KernelTime,
    Ktime,
    KtimeBoot,
    Misuse,
    PerCpu,
    TypeMismatch,
    hostinfo,
)
from mapd_client.codec import U64, Codec
from mapd_client.facts import ABSENT, FRESH_S, RENEW_S, HostFacts
from mapd_client.facts_codecs import HostCodec, needs_facts, with_facts
from mapd_client.hostinfo import HostClocks, HostInfo

NOW = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
REALTIME = int((NOW - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1_000
CLOCKS = HostClocks(realtime=REALTIME, monotonic=50 * 10**9, boottime=80 * 10**9, error=300)


def info(
    devices: Mapping[int, str] = MappingProxyType({2: "eth0"}),
    cgroups: Mapping[int, str] = MappingProxyType({1: "/", 77: "/system.slice"}),
    clocks: HostClocks | None = CLOCKS,
) -> HostInfo:
    return HostInfo(
        clocks=clocks,
        devices=devices,
        netns=1,
        cgroups=cgroups,
        cgroup_mount="/sys/fs/cgroup",
        page_size=4096,
        kernel_release="6.18",
        machine="x86_64",
        boot_id="b",
        not_looked_at=(),
    )


class Clock:
    """Time, and how often somebody was asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.renewed = 0

    def __call__(self) -> float:
        return self.now

    def renew(self) -> None:
        self.renewed += 1


def facts(clock: Clock | None = None, found: HostInfo | None = None) -> HostFacts:
    clock = clock or Clock()
    made = HostFacts(clock.renew, clock)
    made.take(found or info())
    return made


def bound(codec: Codec[Any], known: HostFacts) -> Codec[Any]:
    return with_facts(codec, known).bind("little", 2)


def u64(*numbers: int) -> bytes:
    return U64.encode_many(numbers)


# ---- times --------------------------------------------------------------------------------------------


def test_a_time_of_either_clock_becomes_a_date() -> None:
    assert bound(Ktime, facts()).decode(u64(50 * 10**9)) == NOW
    assert bound(KtimeBoot, facts()).decode(u64(80 * 10**9)) == NOW
    earlier, later = bound(Ktime, facts()).decode_many(u64(49 * 10**9, 51 * 10**9))
    assert (earlier, later) == (NOW - timedelta(seconds=1), NOW + timedelta(seconds=1))


def test_nanoseconds_that_a_date_has_no_place_for_are_cut_off_and_not_lost() -> None:
    codec = bound(Ktime, facts())
    moment = codec.decode(u64(50 * 10**9 + 1_999))
    assert moment == NOW + timedelta(microseconds=1)
    assert moment.ktime == 50 * 10**9 + 1_999
    for same in (moment, pickle.loads(pickle.dumps(moment)), copy.deepcopy(moment), copy.copy(moment)):  # noqa: S301
        assert codec.encode(same) == u64(50 * 10**9 + 1_999)
    # Made by arithmetic it is another moment, whose nanoseconds nobody knows.
    assert codec.encode(moment + timedelta(seconds=1)) == u64(51 * 10**9 + 1_000)


@pytest.mark.parametrize("number", [0, 1, 2**63, 2**64 - 1])
def test_every_number_of_eight_bytes_is_a_time_and_is_written_back(number: int) -> None:
    codec = bound(Ktime, facts())
    assert codec.encode(codec.decode(u64(number))) == u64(number)


def test_a_time_is_given_as_a_date_or_as_a_number() -> None:
    codec = bound(Ktime, facts())
    east = NOW.astimezone(timezone(timedelta(hours=2)))
    assert codec.encode(east) == codec.encode(NOW) == codec.encode(50 * 10**9)
    with pytest.raises(TypeMismatch, match="with a time zone"):
        codec.encode(NOW.replace(tzinfo=None))
    with pytest.raises(TypeMismatch, match="not str 'noon'"):
        codec.encode("noon")


def test_a_time_is_read_from_text() -> None:
    codec: Any = bound(Ktime, facts())
    assert codec.parse("2026-01-31T12:00:00.123456+00:00") == NOW
    assert codec.parse("17") == 17
    with pytest.raises(TypeMismatch, match="'noon' is no time"):
        codec.parse("noon")


def test_where_the_daemon_cannot_tell_its_clocks_times_are_numbers() -> None:
    codec = bound(Ktime, facts(found=info(clocks=None)))
    assert codec.decode(u64(5)) == 5
    with pytest.raises(TypeMismatch, match="does not know its clocks"):
        codec.encode(NOW)


# ---- names --------------------------------------------------------------------------------------------


def test_a_device_is_its_name_and_one_that_is_not_there_its_number() -> None:
    codec = bound(IfIndex, facts())
    assert codec.decode_many((2).to_bytes(4, "little") + (9).to_bytes(4, "little")) == ["eth0", 9]
    assert codec.encode("eth0") == codec.encode(2) == (2).to_bytes(4, "little")
    with pytest.raises(TypeMismatch, match="no network device 'eth1' is known: the daemon's host has none"):
        codec.encode("eth1")


def test_a_cgroup_is_its_path_and_one_that_is_not_there_its_number() -> None:
    codec = bound(CgroupId, facts())
    assert codec.decode_many(u64(77, 78, 1, 77)) == ["/system.slice", 78, "/", "/system.slice"]
    assert codec.encode("/system.slice") == u64(77)


def test_big_endian_hosts_are_read_so() -> None:
    assert with_facts(IfIndex, facts()).bind("big", 2).decode(b"\0\0\0\2") == "eth0"


@pytest.mark.parametrize("codec", [Ktime, KtimeBoot, IfIndex, CgroupId], ids=repr)
def test_without_facts_values_are_the_numbers_that_they_are(codec: Codec[Any]) -> None:
    data = (2).to_bytes(codec.size, "little")
    assert codec.decode(data) == 2
    known = facts()
    known.refuse("host_info: you may not")
    told = bound(codec, known)
    assert told.decode(data) == 2
    assert told.encode(2) == data
    assert isinstance(told, HostCodec)
    assert told.why == "host_info: you may not"
    assert "you may not" in repr(told)
    with pytest.raises(TypeMismatch, match="you may not"):
        told.encode(NOW if codec in (Ktime, KtimeBoot) else "eth0")


def test_values_of_each_cpu_are_told_too() -> None:
    per_cpu = PerCpu(Ktime)
    assert needs_facts((U64, per_cpu))
    assert not needs_facts((U64, PerCpu(U64)))
    assert bound(per_cpu, facts()).decode(u64(50 * 10**9, 0))[0] == NOW
    assert with_facts(U64, facts()) is U64
    plain = PerCpu(U64)
    assert with_facts(plain, facts()) is plain


def test_codecs_of_one_host_leave_the_others_alone() -> None:
    assert bound(IfIndex, facts(found=info(devices={2: "a"}))).decode(b"\2\0\0\0") == "a"
    assert bound(IfIndex, facts(found=info(devices={2: "b"}))).decode(b"\2\0\0\0") == "b"
    assert IfIndex.decode(b"\2\0\0\0") == 2


# ---- renewal ------------------------------------------------------------------------------------------


def test_an_unknown_id_is_asked_for_by_its_number_once_a_second_at_most() -> None:
    clock = Clock()
    known = facts(clock)
    codec = bound(IfIndex, known)
    clock.now += RENEW_S
    for _ in range(3):
        assert codec.decode(b"\7\0\0\0") == 7
    assert bound(CgroupId, known).decode(u64(700)) == 700
    assert clock.renewed == 1
    assert known.begin() == ([7], [700])
    known.take(info({2: "eth0", 7: "veth7"}), ([7], [700]))
    assert codec.decode(b"\7\0\0\0") == "veth7"
    # The cgroup is not there, and is not asked for again so soon.
    clock.now += RENEW_S
    assert bound(CgroupId, known).decode(u64(700)) == 700
    assert clock.renewed == 1
    assert known.begin() == ([], [])


def test_nothing_is_asked_of_ids_that_are_none() -> None:
    clock = Clock()
    known = facts(clock)
    clock.now += RENEW_S
    assert bound(IfIndex, known).decode(bytes(4)) == 0
    assert clock.renewed == 0


def test_facts_in_use_are_renewed_so_that_a_suspended_host_is_noticed() -> None:
    clock = Clock()
    known = facts(clock)
    clock.now += FRESH_S - 0.1
    assert not known.stale
    bound(Ktime, known).decode(u64(1))
    assert clock.renewed == 0
    clock.now += 0.1
    assert known.stale
    bound(Ktime, known).decode_many(u64(1, 2, 3))
    assert clock.renewed == 1
    slept = HostClocks(
        realtime=REALTIME + 3_600 * 10**9, monotonic=50 * 10**9, boottime=3_680 * 10**9, error=1
    )
    known.take(info(clocks=slept))
    assert bound(Ktime, known).decode(u64(50 * 10**9)) == NOW + timedelta(hours=1)
    assert bound(KtimeBoot, known).decode(u64(80 * 10**9)) == NOW


def test_a_right_that_is_given_later_is_noticed_and_one_that_is_taken_too() -> None:
    clock = Clock()
    known = facts(clock)
    codec = bound(IfIndex, known)
    known.refuse("you may not")
    assert codec.decode(b"\2\0\0\0") == 2
    clock.now += FRESH_S
    codec.decode(b"\2\0\0\0")
    assert clock.renewed == 1
    known.take(info())
    assert codec.decode(b"\2\0\0\0") == "eth0"


def test_what_is_remembered_of_unknown_ids_is_bounded() -> None:
    clock = Clock()
    known = facts(clock)
    codec = bound(CgroupId, known)
    for first in range(1_000, 21_000, 2_000):
        clock.now += RENEW_S
        codec.decode_many(u64(*range(first, first + 2_000)))
        asked = known.begin()
        assert len(asked[1]) <= hostinfo.MOST_IDS
        known.take(info(), asked)
    assert 0 < known.remembered <= 2 * ABSENT


# ---- messages -----------------------------------------------------------------------------------------


def test_an_answer_is_read_as_it_came() -> None:
    message = host_pb2.HostInfo(
        clocks=host_pb2.Clocks(realtime_ns=4, monotonic_ns=-3, boottime_ns=2, error_ns=1),
        devices=[host_pb2.Device(ifindex=2, name="eth0")],
        netns=9,
        cgroups=[host_pb2.Cgroup(id=2**64 - 1, path="/a")],
        cgroup_mount="/m",
        not_looked_at=["x"],
    )
    found = hostinfo.host_info(message)
    assert found.clocks == HostClocks(realtime=4, monotonic=-3, boottime=2, error=1)
    assert (found.devices, found.cgroups) == ({2: "eth0"}, {2**64 - 1: "/a"})
    assert (found.netns, found.cgroup_mount, found.not_looked_at) == (9, "/m", ("x",))
    assert hostinfo.host_info(host_pb2.HostInfo()).clocks is None


def test_a_question_that_no_daemon_takes_is_refused_here() -> None:
    asked = hostinfo.request(devices=False, cgroups=False, ifindexes=[2, 2], cgroup_ids=[2**64 - 1])
    assert (list(asked.ifindexes), list(asked.cgroup_ids)) == ([2], [2**64 - 1])
    with pytest.raises(Misuse, match="1025 ifindexes"):
        hostinfo.request(ifindexes=range(1_025))
    with pytest.raises(Misuse, match="no number of 32 bits"):
        hostinfo.request(ifindexes=[2**32])
    with pytest.raises(Misuse, match="no number of 64 bits"):
        hostinfo.request(cgroup_ids=[-1])


def test_a_kernel_time_is_a_datetime_for_whoever_takes_those() -> None:
    moment = KernelTime.of(5_000, REALTIME - 5_000)
    assert isinstance(moment, datetime)
    assert (moment, hash(moment), moment.isoformat()) == (NOW, hash(NOW), NOW.isoformat())
    assert (NOW - moment, moment.astimezone(UTC)) == (timedelta(0), NOW)

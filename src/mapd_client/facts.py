"""What is known of the daemon's host, for codecs, which cannot ask: kept, and renewed behind them. Sans-I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from mapd_client.hostinfo import MOST_IDS, HostInfo

Clock: TypeAlias = Literal["monotonic", "boottime"]
Ids: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""Of devices, and of cgroups."""

RENEW_S: Final = 1.0
"""However many unknown ids are met, the daemon is asked at most so often; it walks its cgroups no oftener either."""
FRESH_S: Final = 30.0
"""Facts in use that are older are asked for again: the host was suspended, its clock set, a device renamed; what is
decoded before the answer is told by the old ones. An id that the daemon did not know is not asked for again before."""
ABSENT: Final = 4_096
"""Ids of a kind that the daemon did not know, and that are remembered as such."""

UNASKED: Final = "the daemon was not asked for facts of its host"


class HostFacts:
    """Names and times on the daemon's host, as far as they are known now.

    Attributes:
        info: the last answer; None where there is none.
        why: for a person, where ``info`` is None: why values stay numbers. Else "".
    """

    def __init__(
        self, renew: Callable[[], None] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``renew`` is called, at most once in RENEW_S, when there is something to ask; it does not wait."""
        self.info: HostInfo | None = None
        self.why = UNASKED
        self._renew = renew
        self._now = now
        self._taken = self._asked = float("-inf")
        self._devices: dict[int, str] = {}
        self._indexes: dict[str, int] = {}
        self._cgroups: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._missed: dict[str, dict[int, None]] = {"device": {}, "cgroup": {}}
        self._absent: dict[str, dict[int, float]] = {"device": {}, "cgroup": {}}

    # What codecs ask

    def device(self, ifindex: int) -> str | int:
        """The name of a device; the number itself where none is known."""
        self._use()
        found = self._devices.get(ifindex)
        return found if found is not None else self._unknown("device", ifindex)

    def cgroup(self, number: int) -> str | int:
        """The path of a cgroup; the number itself where none is known."""
        self._use()
        found = self._cgroups.get(number)
        return found if found is not None else self._unknown("cgroup", number)

    def ifindex(self, name: str) -> int | None:
        """The device of that name."""
        self._use()
        return self._indexes.get(name)

    def cgroup_id(self, path: str) -> int | None:
        """The cgroup of that path."""
        self._use()
        return self._ids.get(path)

    def zero(self, clock: Clock) -> int | None:
        """What CLOCK_REALTIME (ns) was when ``clock`` was 0; None where it is not known."""
        self._use()
        clocks = None if self.info is None else self.info.clocks
        if clocks is None:
            return None
        return clocks.realtime - (clocks.monotonic if clock == "monotonic" else clocks.boottime)

    # What the connection tells

    @property
    def stale(self) -> bool:
        """Whether there is nothing yet, or nothing recent."""
        return self._now() - self._taken >= FRESH_S

    @property
    def remembered(self) -> int:
        """Ids of which it is known that nothing has them, and ids that are to be asked for."""
        return sum(len(ids) for known in (self._absent, self._missed) for ids in known.values())

    def begin(self) -> Ids:
        """Devices and cgroups to ask for by id, beside all: those that were met and not known."""
        self._asked = self._now()
        return list(self._missed["device"]), list(self._missed["cgroup"])

    def take(self, info: HostInfo, asked: Ids = ((), ())) -> None:
        """An answer to ``begin``; what it does not have has gone."""
        self.info, self.why = info, ""
        self._taken = self._now()
        known = {"device": dict(info.devices), "cgroup": dict(info.cgroups)}
        self._devices, self._cgroups = known["device"], known["cgroup"]
        self._indexes = {name: index for index, name in info.devices.items()}
        self._ids = {path: number for number, path in info.cgroups.items()}
        for kind, ids in zip(("device", "cgroup"), asked, strict=True):
            missed, absent = self._missed[kind], self._absent[kind]
            for one in ids:
                missed.pop(one, None)
                if one not in known[kind]:
                    if len(absent) >= ABSENT:
                        absent.clear()
                    absent[one] = self._taken

    def refuse(self, why: str) -> None:
        """There are no facts to be had: values are numbers from now on."""
        self.info, self.why = None, why
        self._taken = self._now()
        self._devices, self._cgroups, self._indexes, self._ids = {}, {}, {}, {}
        for missed in self._missed.values():
            missed.clear()

    def _use(self) -> None:
        if self._renew is not None and self._now() - self._taken >= FRESH_S:
            self._ask()

    def _unknown(self, kind: str, number: int) -> int:
        if self.info is None or not number:  # 0 is no device and no cgroup
            return number
        absent = self._absent[kind].get(number)
        if absent is None or self._now() - absent >= FRESH_S:
            missed = self._missed[kind]
            if len(missed) < MOST_IDS:
                missed[number] = None
            self._ask()
        return number

    def _ask(self) -> None:
        now = self._now()
        if self._renew is not None and now - self._asked >= RENEW_S:
            self._asked = now
            self._renew()

"""One element of an open map: looked up, updated, deleted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Generic, TypeVar, overload

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_client import requests
from mapd_client.asking import How
from mapd_client.coded import Coded
from mapd_client.info import UpdateFlag

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Elements(Coded[K, V], Generic[K, V]):
    """What ``Map`` does with one element."""

    @overload
    async def lookup(self, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None: ...
    @overload
    async def lookup(
        self: Elements[K, list[T]], key: K, *, cpu: int, touch: bool = False, timeout: float | None = None
    ) -> T | None: ...
    async def lookup(
        self, key: K, *, cpu: int | None = None, touch: bool = False, timeout: float | None = None
    ) -> Any:
        """The value of ``key``, None if it is not there.

        Args:
            key: as the map's key codec takes it.
            cpu: of a per-CPU map, this CPU's slot alone.
            touch: let an LRU map count this as a use of the key; the kernel does not by itself.
            timeout: seconds; the client's if None.

        Cancelled: nothing has changed.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key.
            Misuse: a timeout that is not positive and finite.
            IndexOutOfRange: an array has fewer elements.
            Unsupported: ``touch``, and the daemon has not the feature "touch"; ``cpu`` of a map without slots, or
                the feature "one-cpu" is missing.
            Misuse: the daemon's host has no such CPU.
        """
        if cpu is None and not touch:
            return await self._ask(Op.LOOKUP, self._encode_key(Op.LOOKUP, key), b"", timeout)
        if cpu is None:
            how = How(Op.LOOKUP, touch=True, raw=False)
            return await self._ask_as(how, self._encode_key(Op.LOOKUP, key), b"", timeout)
        slot = self._slot(Op.LOOKUP)
        requests.check_cpu_number(cpu, self._asked(Op.LOOKUP))
        found, value = await self._one(
            Op.LOOKUP, self._encode_key(Op.LOOKUP, key), touch=touch, cpu=cpu, timeout=timeout
        )
        return None if found == Reason.KEY_ABSENT else slot.decode(value)

    def __getitem__(self, key: K) -> Awaitable[V]:
        """``await m[key]``: as ``lookup``, but raises KeyMissing if ``key`` is not there."""
        return self._present(key)

    async def _present(self, key: K) -> V:
        found = await self.lookup(key)
        if found is None:
            raise self._element_error(Op.LOOKUP, Reason.KEY_ABSENT, 0, self._encode_key(Op.LOOKUP, key))
        return found

    @overload
    async def update(
        self, key: K, value: V, *, flags: UpdateFlag = "any", lock: bool | None = None
    ) -> None: ...
    @overload
    async def update(
        self: Elements[K, list[T]], key: K, value: T, *, cpu: int, flags: UpdateFlag = "any"
    ) -> None: ...
    async def update(
        self,
        key: K,
        value: Any,
        *,
        cpu: int | None = None,
        flags: UpdateFlag = "any",
        lock: bool | None = None,
    ) -> None:
        """Create or replace one element.

        Args:
            key: as the map's key codec takes it.
            value: as the map's value codec takes it; for per-CPU maps one element per possible CPU, or with
                ``cpu`` that CPU's.
            cpu: write this CPU's slot of a per-CPU map, and no other. Where the element is not there yet it is
                created with zeros for the other CPUs.
            flags: "noexist" only creates, "exist" only replaces.
            lock: hold the bpf_spin_lock in the value while writing (BPF_F_LOCK); None: if it has one.

        Cancelled: the update may still be applied.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key or value; nothing was sent.
            KeyExists, KeyMissing: as ``flags`` asks.
            MapFull, MapFrozen, IndexOutOfRange: as the kernel says.
            Unsupported: ``lock=True`` and the values have none; ``cpu`` as for ``lookup``, or the daemon may load
                no BPF programs.
        """
        op = requests.update_op(flags, map=self._name)
        keys = self._encode_key(op, key)
        codec = self._value if cpu is None else self._slot(op)
        if cpu is not None:
            requests.check_cpu_number(cpu, self._asked(op))
        values = self._encode(op, codec, value, self._value_bytes(cpu), "value")
        if lock is None and cpu is None:
            await self._ask(op, keys, values)
        else:
            await self._one(op, keys, values, lock=lock, cpu=cpu)

    async def delete(self, key: K) -> bool:
        """Remove one element; False if it was not there. Arrays refuse it with Unsupported.

        Cancelled: it may still be removed.

        Raises:
            MapFrozen: no writes from user space any more.
        """
        status = await self._ask(Op.DELETE, self._encode_key(Op.DELETE, key))
        return bool(status != Reason.KEY_ABSENT)

    async def lookup_and_delete(self, key: K) -> V | None:
        """Take one element out: its value, None if it was not there. Atomic in the kernel.

        Cancelled: it may still be removed, and its value is lost then.

        Raises:
            Unsupported: not with this type of map.
        """
        op = Op.LOOKUP_AND_DELETE
        found: V | None = await self._ask(op, self._encode_key(op, key))
        return found

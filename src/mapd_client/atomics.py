"""Atomics of an open map: integers in its values changed by the kernel, not read, computed and written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_client import arrays, batches, requests
from mapd_client.arrays import Found
from mapd_client.batches import Batch
from mapd_client.codec import Codec, Int
from mapd_client.coded import Coded
from mapd_client.errors import Unsupported
from mapd_client.fields import SIZES, Exchanged, Field, Place, place
from mapd_client.replies import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = TypeVar("K")
V = TypeVar("V")


class Atomics(Coded[K, V], Generic[K, V]):
    """What ``Map`` does with integers in its values, for HASH, LRU_HASH and ARRAY.

    Each is one instruction of the daemon's CPU on the kernel's memory: exact beside BPF programs and all other
    writers, whoever they are. The daemon runs them in a BPF program (Linux 5.17, CAP_BPF). On LRU types an atomic
    counts as a use of the key. Where an element is deleted at the same moment, what was added to it may be lost
    with it, or land in the element that took its place, as for BPF programs (a preallocated hash reuses memory).
    """

    async def fetch_add(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None:
        """Add ``operand`` to a field, modulo its size; what it was before, None if ``key`` is not there.

        Args:
            key: as the map's key codec takes it.
            operand: what a field of 4 or 8 bytes holds, signed or not; a negative one subtracts.
            field: which part of the value: by its path in a typed map (``"stats.packets"``, ``"hist[3]"``), or
                ``Field(offset, size)``; None: all of it, where the map's value codec is one integer of 4 or 8 bytes.
            create: make an absent key, as if its value had been zeros; 0 is answered.

        Cancelled: it may still be applied.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key, or an operand that does not fit; nothing was sent.
            Misuse: no such field, or the whole value is no such integer: say which part.
            NoTypeInfo: ``field`` is a name, and the map is not typed.
            MapFull, MapFrozen, IndexOutOfRange, PermissionDenied: as for ``update``.
            Unsupported: the type has no atomics (per-CPU types, tries ...), or the daemon has not the feature
                "atomics"; it may load no BPF programs, or the map is closed to them; the field is the kernel's own
                (a bpf_spin_lock, a timer).
        """
        return await self._fetch_op(Op.FETCH_ADD, key, operand, field, create)

    async def fetch_and(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None:
        """As ``fetch_add``, for ``field &= operand``. What it creates is zeros."""
        return await self._fetch_op(Op.FETCH_AND, key, operand, field, create)

    async def fetch_or(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None:
        """As ``fetch_add``, for ``field |= operand``."""
        return await self._fetch_op(Op.FETCH_OR, key, operand, field, create)

    async def fetch_xor(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None:
        """As ``fetch_add``, for ``field ^= operand``."""
        return await self._fetch_op(Op.FETCH_XOR, key, operand, field, create)

    async def exchange(
        self, key: K, operand: int, *, field: str | Field | None = None, create: bool = False
    ) -> int | None:
        """As ``fetch_add``, for ``field = operand``."""
        return await self._fetch_op(Op.EXCHANGE, key, operand, field, create)

    @overload
    async def compare_exchange(
        self, key: K, expected: V, new: V, *, field: None = None
    ) -> Exchanged[V] | None: ...
    @overload
    async def compare_exchange(
        self, key: K, expected: int, new: int, *, field: str | Field
    ) -> Exchanged[int] | None: ...
    async def compare_exchange(
        self, key: K, expected: Any, new: Any, *, field: str | Field | None = None
    ) -> Exchanged[Any] | None:
        """Write ``new`` if there is ``expected``, in one step; None if ``key`` is not there. Creates nothing.

        Without a field it is about the whole value: where that has a bpf_spin_lock (``info.has_lock``), of up to
        4,096 bytes and while the lock is held, against BPF programs that hold it and writers with BPF_F_LOCK, the
        lock's own bytes left out; else of 4 or 8 bytes.

        Args:
            key: as the map's key codec takes it.
            expected: the field's or value's content that is to be replaced.
            new: what is to be there instead.
            field: as for ``fetch_add``.

        Cancelled: it may still be applied.

        Raises:
            Unsupported: as for ``fetch_add``; a value of another size without a lock, which no kernel compares and
                writes in one step.
            SizeMismatch, TypeMismatch, Misuse, NoTypeInfo, MapFrozen, IndexOutOfRange, PermissionDenied: as for
                ``fetch_add``.
        """
        op, part, codec = self._comparable(field)
        size = self.info.value_stride if part is None else part[1]
        wanted = self._encode(op, codec, expected, size, "expected")
        pair = wanted + self._encode(op, codec, new, size, "new")
        status, old = await self._one(op, self._encode_key(op, key), pair, field=part)
        if status == Reason.KEY_ABSENT:
            return None
        # Of an Operand either sign was taken; a field's own codec reads what was there.
        return Exchanged(old == wanted, (codec if field is None else self._place(op, field).old).decode(old))

    @overload
    async def fetch_add_many(
        self,
        keys: Sequence[K],
        operands: Sequence[int] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> list[int | None]: ...
    @overload
    async def fetch_add_many(
        self,
        keys: NDArray[Any],
        operands: NDArray[Any] | Sequence[int] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> Found: ...
    async def fetch_add_many(
        self,
        keys: Sequence[K] | NDArray[Any],
        operands: Sequence[int] | NDArray[Any] | int,
        *,
        field: str | Field | None = None,
        create: bool = False,
    ) -> list[int | None] | Found:
        """``fetch_add`` on many keys, in order; what each field was before, None for each key that is not there.

        ``operands`` is one for each key, or one int for all. For a numpy array of keys: an array of old values, and
        one that says which keys were there, as ``lookup_many``. Cut into messages, executed in order; a key may come
        several times. Elements that the kernel refuses do not stop the rest.

        Cancelled: any number of them may have been applied.

        Raises:
            BatchFailed: some were not applied (``applied`` counts those that were); what they were is not told.
            SizeMismatch, TypeMismatch: an element of the first message, or not as many operands as keys; nothing
                was sent.
            Misuse, NoTypeInfo, Unsupported, MapFrozen, PermissionDenied: as for ``fetch_add``.
        """
        op = Op.FETCH_ADD
        where = self._place(op, field)
        link, per_message = await self._sizing(op)
        requests.check_atomics(await link.server(), self._asked(op))
        operand: Codec[int] = where.operand
        if arrays.is_array(operands):
            operand = Int(where.field.size, signed=operands.dtype.kind == "i", byteorder=self._byteorder)
        source = batches.of_columns(keys, operands, self._key, operand, per_message, "operand")
        old, statuses = bytearray(), bytearray()

        def read(_: Batch, outcome: Outcome) -> None:
            nonlocal old, statuses
            old += outcome.values
            statuses += outcome.statuses

        await self._mutate(link, op, source, field=where.part, create=create, read=read)
        if arrays.is_array(keys):
            import numpy as np

            present = np.frombuffer(statuses, np.uint8) == Reason.DONE
            return Found(arrays.over(old, where.old, len(statuses)), present)
        numbers = where.old.decode_many(old)
        if not any(statuses):
            return list(numbers)
        return [None if status else number for number, status in zip(numbers, statuses, strict=True)]

    # Inside

    def _place(self, op: Op, field: str | Field | None) -> Place:
        self._check_type(op)
        adds = op is Op.FETCH_ADD
        return place(field, self._value, self.info, self._byteorder, self._asked(op), adds=adds)

    def _check_type(self, op: Op) -> None:
        if self.info.per_cpu:
            asked = self._asked(op)
            raise Unsupported(
                f"{asked}: {self.info.type_name} maps have no atomics: a program counts in the slot of the CPU that "
                "it runs on; update one CPU's slot (cpu=)",
                operation=asked.operation,
                map=asked.map,
            )

    async def _fetch_op(
        self, op: Op, key: K, operand: int, field: str | Field | None, create: bool
    ) -> int | None:
        where = self._place(op, field)
        value = self._encode(op, where.operand, operand, where.field.size, "operand")
        status, old = await self._one(op, self._encode_key(op, key), value, field=where.part, create=create)
        return None if status == Reason.KEY_ABSENT else where.old.decode(old)

    def _comparable(self, field: str | Field | None) -> tuple[Op, tuple[int, int] | None, Codec[Any]]:
        """How something is compared and exchanged: the operation, the part of the value, and its codec."""
        op, size = Op.COMPARE_EXCHANGE, self.info.value_size
        if field is not None:
            where = self._place(op, field)
            return op, where.part, where.operand
        self._check_type(op)
        if self.info.has_lock:
            return Op.COMPARE_UPDATE, None, self._value
        if size in SIZES:
            return op, (0, size), self._value
        asked = self._asked(op)
        raise Unsupported(
            f"{asked}: values of {size} bytes can be compared and exchanged only under a bpf_spin_lock, and this map's "
            "have none; a part of 4 or 8 bytes can be: field=Field(offset, size)",
            operation=asked.operation,
            map=asked.map,
        )

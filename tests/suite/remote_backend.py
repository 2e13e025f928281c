"""A daemon in this process, through its socket and mapd_client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mapd_client
from mapd.bpf import LinuxKernel
from mapd.daemon import running
from mapd.maps.counting import Counted
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES, MapType
from mapd_client import BatchFailed, Btf, Bytes, Client, Map, MapdError, PerCpu, Unsupported
from tests.suite.backend import AnyMap, Backend, Facts, Field, Flag, Pair, Part, Refused, Types
from tests.support.daemon import Place


@contextlib.contextmanager
def _reasons() -> Generator[None]:
    try:
        yield
    except MapdError as error:
        raise Refused(error.reason, str(error)) from error


@contextlib.contextmanager
def _unsupported() -> Generator[None]:
    """What the client itself calls unsupported never reached the daemon, and has no Reason."""
    try:
        yield
    except Refused as error:
        if isinstance(error.__cause__, Unsupported) and error.reason is None:
            raise Refused(Reason.OPERATION_UNSUPPORTED, str(error)) from error
        raise


class RemoteMap:
    """A map without codecs."""

    def __init__(self, inner: Map[bytes, bytes]) -> None:
        self._map = inner

    @property
    def facts(self) -> Facts:
        info = self._map.info
        return Facts(
            id=info.id,
            type=int(info.type),
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
            value_stride=info.value_stride,
            frozen=info.frozen,
            name=info.name,
            pin_path=info.pin_path,
            operations=info.supported_operations,
        )

    async def lookup(self, key: bytes) -> bytes | None:
        with _reasons():
            return await self._map.lookup(key)

    async def update(self, key: bytes, value: bytes, flag: Flag = "any") -> None:
        with _reasons():
            await self._map.update(key, value, flags=flag)

    async def delete(self, key: bytes) -> bool:
        with _reasons():
            return await self._map.delete(key)

    async def lookup_and_delete(self, key: bytes) -> bytes | None:
        with _reasons():
            return await self._map.lookup_and_delete(key)

    async def lookup_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with _reasons():
            return await self._map.lookup_many(keys)

    async def update_many(self, pairs: Sequence[Pair], flag: Flag = "any") -> list[Reason]:
        try:
            with _reasons():
                assert await self._map.update_many(pairs, flags=flag) == len(pairs)
        except Refused as refused:
            failed = refused.__cause__
            if not isinstance(failed, BatchFailed):
                raise
            reasons = [Reason.DONE] * len(pairs)
            for index, error in failed.errors.items():
                assert error.reason is not None
                reasons[index] = error.reason
            assert failed.applied == reasons.count(Reason.DONE)
            return reasons
        return [Reason.DONE] * len(pairs)

    async def delete_many(self, keys: Sequence[bytes]) -> int:
        with _reasons():
            return await self._map.delete_many(keys)

    async def items(self, *, prefix: bytes = b"", limit: int | None = None) -> list[Pair]:
        with _reasons():
            return [pair async for pair in self._map.items(prefix=prefix, limit=limit)]

    async def keys(self, *, prefix: bytes = b"", limit: int | None = None) -> list[bytes]:
        with _reasons():
            return [key async for key in self._map.keys(prefix=prefix, limit=limit)]

    async def values(self, *, limit: int | None = None) -> list[bytes]:
        with _reasons():
            return [value async for value in self._map.values(limit=limit)]

    async def parts(self, *, resume: bytes | None = None) -> list[Part]:
        info = self._map.info
        keys, values = Bytes(info.key_stride), Bytes(info.value_stride)
        with _reasons():
            dump = self._map.chunks(resume=resume)
            return [
                Part(keys.decode_many(chunk.keys), values.decode_many(chunk.values), chunk.token)
                async for chunk in dump
            ]

    async def count(self) -> Counted:
        with _reasons():
            found = await self._map.count()
        return Counted(found.entries, found.exact, found.method)

    async def lookup_exact(self, key: bytes) -> bytes | None:
        try:
            lpm = self._map.lpm
        except Unsupported as error:  # the daemon never answered: no Reason
            raise Refused(Reason.OPERATION_UNSUPPORTED, str(error)) from error
        with _reasons():
            return await lpm.lookup_exact(key)

    async def atomic(
        self, op: Op, key: bytes, operand: int, part: Field, *, expected: int = 0, create: bool = False
    ) -> int | None:
        where = mapd_client.Field(*part)
        with _unsupported(), _reasons():
            if op is Op.COMPARE_EXCHANGE:
                found = await self._map.compare_exchange(key, expected, operand, field=where)
                assert found is None or found.exchanged == (found.old == expected)
                return None if found is None else found.old
            calls = {
                Op.FETCH_ADD: self._map.fetch_add,
                Op.FETCH_AND: self._map.fetch_and,
                Op.FETCH_OR: self._map.fetch_or,
                Op.FETCH_XOR: self._map.fetch_xor,
                Op.EXCHANGE: self._map.exchange,
            }
            return await calls[op](key, operand, field=where, create=create)

    async def fetch_add_many(
        self, keys: Sequence[bytes], operands: Sequence[int], part: Field, *, create: bool = False
    ) -> list[int | None]:
        where = mapd_client.Field(*part)
        with _unsupported(), _reasons():
            return await self._map.fetch_add_many(keys, operands, field=where, create=create)

    async def compare_update(self, key: bytes, expected: bytes, new: bytes) -> bytes | None:
        with _unsupported(), _reasons():
            found = await self._map.compare_exchange(key, expected, new)
        assert found is None or found.exchanged == (found.old == expected)
        return None if found is None else found.old

    async def freeze(self) -> None:
        with _reasons():
            await self._map.freeze()

    async def pin(self, path: Path) -> None:
        with _reasons():
            await self._map.pin(str(path))

    async def close(self) -> None:
        await self._map.aclose()


class RemoteBackend:
    """A client of a daemon."""

    def __init__(self, place: Place, client: Client) -> None:
        self._client = client
        self._place = place
        self.kernel = LinuxKernel()
        self.pins = place.bpffs

    def path_of(self, name: str) -> Path:
        return self._place.names / "admin" / name

    async def create(
        self,
        name: str,
        type: MapType,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        exist_ok: bool = False,
        btf: Types | None = None,
    ) -> AnyMap:
        value: Any = PerCpu(Bytes(value_size)) if type in PER_CPU_TYPES else Bytes(value_size)
        with _reasons():
            created = await self._client.create_map(
                name,
                type,
                key=Bytes(key_size),
                value=value,
                max_entries=max_entries,
                flags=flags,
                exist_ok=exist_ok,
                btf=Btf(btf.blob, btf.key, btf.value) if btf else None,
            )
        await created.aclose()
        return await self.open(name)

    async def open(self, ref: str, *, read_only: bool = False) -> AnyMap:
        with _reasons():
            return RemoteMap(await self._client.open_map(ref, read_only=read_only))

    async def unpin(self, ref: str) -> None:
        with _reasons():
            await self._client.unpin_map(ref)

    async def names(self) -> list[str]:
        with _reasons():
            return [info.name async for info in self._client.list_maps()]


@asynccontextmanager
async def remote_backend(place: Place) -> AsyncGenerator[Backend]:
    async with running(place.config()) as ready, mapd_client.connect(str(ready.socket)) as client:
        yield RemoteBackend(place, client)

"""Codecs of the caller's own: what they make is taken when they make it, and what they do wrong is theirs alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mapd_client import U32, Codec, Field, Map, TypeMismatch, connect, testing
from mapd_client.codec import Buffer


class Own(Codec[int]):
    """Four bytes, as ``make`` gives them; columns as ``pack`` makes them of a list of bytes."""

    size = 4

    def __init__(
        self,
        make: Callable[[int], Any],
        pack: Callable[[list[Any]], Any] = b"".join,
        read: Callable[[Buffer], Any] = U32.decode_many,
    ) -> None:
        self._make = make
        self._pack = pack
        self._read = read

    def __repr__(self) -> str:
        return "Own()"

    def encode(self, value: int) -> bytes:
        made: bytes = self._make(value)
        return made

    def encode_many(self, values: Iterable[int]) -> bytes:
        packed: bytes = self._pack([self._make(value) for value in values])
        return packed

    def decode_many(self, column: Buffer) -> list[int]:
        read: list[int] = self._read(column)
        return read


def packed(value: int) -> bytes:
    return value.to_bytes(4, "little")


async def contents(flows: Map[int, int]) -> dict[int, int]:
    return {key: value async for key, value in flows.items()}


@asynccontextmanager
async def flows(key: Codec[int], value: Codec[int]) -> AsyncGenerator[tuple[Map[int, int], Map[int, int]]]:
    """One map by codecs of the caller's own, and by U32."""
    async with (
        testing.daemon() as target,
        connect(target) as client,
        client.create_map("flows", "hash", key=U32, value=U32, max_entries=64) as plain,
        client.open_map("flows", key=key, value=value) as own,
    ):
        yield own, plain


async def test_a_buffer_that_is_filled_again_and_again_was_read_by_then() -> None:
    keys, values = bytearray(4), bytearray(4)

    def filled(buffer: bytearray) -> Callable[[int], bytearray]:
        def fill(number: int) -> bytearray:
            buffer[:] = packed(number)
            return buffer

        return fill

    async with flows(Own(filled(keys)), Own(filled(values))) as (own, plain):
        await asyncio.gather(*(own.update(number, number * 10) for number in range(32)))
        assert await contents(plain) == {number: number * 10 for number in range(32)}


@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_a_column_may_be_any_buffer(kind: Callable[[bytes], Any]) -> None:
    codec = Own(packed, lambda parts: kind(b"".join(parts)))
    async with flows(codec, codec) as (own, plain):
        assert await own.update_many({1: 2, 3: 4}) == 2
        assert await own.lookup_many([1, 3]) == [2, 4]
        assert await contents(plain) == {1: 2, 3: 4}


@pytest.mark.parametrize("what", ["key", "value"])
async def test_what_is_no_bytes_is_refused_and_nobody_else_waits_for_it(what: str) -> None:
    wrong, right = Own(lambda number: f"{number:4}", "".join), Own(packed)
    async with flows(wrong if what == "key" else right, wrong if what == "value" else right) as (own, plain):
        said = rf"update flows: {what}: Own\(\)\.encode\(\) gave str, not bytes"
        with pytest.raises(TypeMismatch, match=said) as caught:
            await own.update(1, 2)
        assert (caught.value.operation, caught.value.map) == ("update", "flows")
        said = rf"update flows: {what} of element 0: Own\(\)\.encode\(\) gave str, not bytes"
        with pytest.raises(TypeMismatch, match=said):
            await own.update_many({1: 2})
        await plain.update(5, 6)
        assert await contents(plain) == {5: 6}


async def test_a_column_that_is_no_bytes_is_refused() -> None:
    async with flows(Own(packed, list), Own(packed)) as (own, plain):
        with pytest.raises(
            TypeMismatch, match=r"update flows: Own\(\)\.encode_many\(\) gave list, not bytes"
        ):
            await own.update_many({1: 2})
        assert not await contents(plain)


class Odd(BaseException):
    """Nothing that anybody expects."""


def raising(error: BaseException) -> Callable[[Buffer], Any]:
    def read(_: Buffer) -> Any:
        raise error

    return read


def ending(column: Buffer) -> Any:
    """As ``next`` on an iterator that has ended, in the middle of a column."""
    made = iter(U32.decode_many(column)[:1])
    return (next(made) for _ in U32.decode_many(column))


WRONG: dict[str, Callable[[Buffer], Any]] = {
    "None": lambda _: None,
    "too few": lambda column: U32.decode_many(column)[:-1],
    "too many": lambda column: [*U32.decode_many(column), 0],
    "StopIteration": raising(StopIteration()),
    "StopAsyncIteration": raising(StopAsyncIteration()),
    "GeneratorExit": raising(GeneratorExit()),
    "CancelledError": raising(asyncio.CancelledError()),
    "a class of its own": raising(Odd()),
    "KeyError": raising(KeyError("not this one")),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_read_is_told_to_who_asked_and_nobody_else_waits_for_it(wrong: str) -> None:
    kind = KeyError if wrong == "KeyError" else (TypeMismatch, RuntimeError, IndexError, TypeError)
    async with flows(Own(packed), Own(packed, read=WRONG[wrong])) as (own, plain):
        await plain.update_many({1: 10, 2: 20})
        own_calls = [own.lookup(1), own.lookup(2), own.lookup_many([1, 2]), own.lookup_many([1, 99, 2])]
        calls = [*own_calls, plain.lookup(1), plain.update(3, 30), plain.lookup_many([1, 2])]
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*calls, return_exceptions=True)
        assert ends[4:] == [10, None, [10, 20]]
        if wrong == "too many":  # of one element alone the first is taken
            assert ends[:2] == [10, 20]
        else:
            assert all(isinstance(end, kind) for end in ends[:2]), ends
        assert all(isinstance(end, kind) for end in ends[2:4]), ends
        assert await contents(plain) == {1: 10, 2: 20, 3: 30}


@pytest.mark.parametrize("wrong", [*WRONG, "ends early"])
async def test_a_dump_that_cannot_be_read_is_not_taken_for_a_short_one(wrong: str) -> None:
    codec = Own(packed, read=ending if wrong == "ends early" else WRONG[wrong])
    async with flows(codec, codec) as (own, plain):
        await plain.update_many({number: number for number in range(5)})
        for dump in (own.keys(), own.values(), own.items()):
            with pytest.raises((TypeMismatch, RuntimeError, KeyError)):
                async with asyncio.timeout(10):
                    _ = [element async for element in dump]


@pytest.mark.parametrize("create", ["yes", object(), 1 << 70])
async def test_whatever_is_true_creates(create: Any) -> None:
    async with flows(U32, U32) as (own, plain):
        added, other = await asyncio.gather(
            own.fetch_add(7, 1, field=Field(0, 4), create=create), plain.update(1, 2)
        )
        assert (added, other) == (0, None)
        assert await contents(plain) == {1: 2, 7: 1}

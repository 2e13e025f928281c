"""Arguments of another kind than is taken: the exception names operation, map and what was given."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

import mapd_client
from mapd_client import U32, U64, Field, Map, Misuse, PerCpu, Reduce, TypeMismatch, connect, testing

FIELD = Field(0, 8)


@asynccontextmanager
async def flows(kind: str = "hash") -> AsyncGenerator[Map[Any, Any]]:
    value: Any = PerCpu(U64) if kind == "percpu_hash" else U64
    async with (
        testing.daemon() as target,
        connect(target) as client,
        client.create_map("flows", kind, key=U32, value=value, max_entries=8) as created,
    ):
        yield created


def refused(error: mapd_client.MapdError, kind: type[Misuse], operation: str, said: str) -> None:
    assert type(error) is kind
    assert (error.operation, error.map) == (operation, "flows")
    assert str(error).startswith(f"{operation} flows: ")
    assert said in str(error)


Call = Callable[[Map[Any, Any]], Awaitable[Any]]
CALLS: list[tuple[str, Call, type[Misuse], str, str]] = [
    ("lookup int", lambda m: m.lookup_many(5), TypeMismatch, "lookup", "keys: 5 (int)"),  # type: ignore[call-overload]
    ("lookup None", lambda m: m.lookup_many(None), TypeMismatch, "lookup", "keys: None"),  # type: ignore[call-overload]
    ("update None", lambda m: m.update_many(None), TypeMismatch, "update", "pairs: None"),  # type: ignore[arg-type]
    ("delete int", lambda m: m.delete_many(5), TypeMismatch, "delete", "keys: 5 (int)"),  # type: ignore[arg-type]
    ("load int", lambda m: m.load(5), TypeMismatch, "load", "pairs: 5 (int)"),  # type: ignore[arg-type]
    ("flags", lambda m: m.update(1, 2, flags="foo"), Misuse, "update", "flags='foo'"),  # type: ignore[call-overload]
    ("flags list", lambda m: m.update(1, 2, flags=[]), Misuse, "update", "flags=[]"),  # type: ignore[call-overload]
    ("many flags", lambda m: m.update_many({}, flags="foo"), Misuse, "update", "flags='foo'"),  # type: ignore[arg-type]
    ("load flags", lambda m: m.load({}, flags="foo"), Misuse, "load", "flags='foo'"),  # type: ignore[arg-type]
    (
        "no operands",
        lambda m: m.fetch_add_many([1], None, field=FIELD),  # type: ignore[call-overload]
        TypeMismatch,
        "fetch_add",
        "operands: None (NoneType): one int for all keys",
    ),
    (
        "a float",
        lambda m: m.fetch_add_many([1], np.float64(1.5), field=FIELD),  # type: ignore[call-overload]
        TypeMismatch,
        "fetch_add",
        "operands: np.float64(1.5)",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "operation", "said"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS]
)
async def test_what_is_none_of_it_is_refused(
    call: Call, kind: type[Misuse], operation: str, said: str
) -> None:
    async with flows() as opened:
        with pytest.raises(Misuse) as caught:
            await call(opened)
        refused(caught.value, kind, operation, said)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"reduce": Reduce("sum")}, TypeMismatch, "reduce=Reduce(kind='sum'"),
        ({"reduce": ["sum"]}, TypeMismatch, "reduce=['sum']: a list of Reduce"),
        ({"reduce": "sum"}, TypeMismatch, "reduce='sum'"),
        ({"value_range": 5}, TypeMismatch, "value_range=5"),
        ({"value_range": (0, 0)}, Misuse, "value_range: size 0"),
        ({"prefix": "x"}, TypeMismatch, "prefix='x'"),
    ],
)
async def test_a_dump_names_itself_and_its_map(arguments: Any, kind: type[Misuse], said: str) -> None:
    async with flows() as opened:
        with pytest.raises(Misuse) as caught:
            opened.chunks(**arguments)
        refused(caught.value, kind, "dump", said)


@pytest.mark.parametrize(
    ("limit", "kind"), [(-1, Misuse), ("1", TypeMismatch), (np.array([1, 2]), TypeMismatch)]
)
async def test_a_limit_that_is_none_names_the_map(limit: Any, kind: type[Misuse]) -> None:
    async with flows() as opened:
        with pytest.raises(Misuse) as caught:
            opened.items(limit=limit)
        refused(caught.value, kind, "dump", "limit=")


@pytest.mark.parametrize(
    ("cpu", "kind"),
    [("a", TypeMismatch), ([], TypeMismatch), (1.5, TypeMismatch), (True, TypeMismatch), (-1, Misuse)],
)
async def test_a_cpu_that_is_none_is_refused(cpu: Any, kind: type[Misuse]) -> None:
    async with flows("percpu_hash") as opened:
        with pytest.raises(Misuse) as looked_up:
            await opened.lookup(1, cpu=cpu)
        with pytest.raises(Misuse) as updated:
            await opened.update(1, 2, cpu=cpu)
        refused(looked_up.value, kind, "lookup", f"cpu={cpu!r}")
        refused(updated.value, kind, "update", f"cpu={cpu!r}")


def own_error() -> Any:
    class Keys:
        def __iter__(self) -> Any:
            raise TypeError("mine")

    return Keys()


async def test_a_type_error_of_the_callers_own_iter_is_passed_on() -> None:
    async with flows() as opened:
        with pytest.raises(TypeError, match=r"^mine$"):
            await opened.lookup_many(own_error())


@pytest.mark.parametrize("operand", [3, np.int64(3), np.uint8(3), True])
async def test_one_operand_for_all_is_any_integer(operand: Any) -> None:
    async with flows() as opened:
        await opened.update_many({1: 10, 2: 20})
        assert await opened.fetch_add_many([1, 2], operand, field=FIELD) == [10, 20]
        assert await opened.lookup_many([1, 2]) == [10 + int(operand), 20 + int(operand)]


async def test_one_negative_numpy_operand_counts_down() -> None:
    operand: Any = np.int64(-3)
    async with flows() as opened:
        await opened.update_many({1: 10, 2: 20})
        assert await opened.fetch_add_many(np.array([1, 2]), operand, field=FIELD)
        assert await opened.lookup_many([1, 2]) == [7, 17]


@pytest.mark.parametrize("dtype", [np.float64, np.bool_, np.object_, np.uint32])
async def test_an_empty_array_passes_whatever_its_dtype(dtype: Any) -> None:
    none = np.array([], dtype)
    async with flows() as opened:
        await opened.update(1, 2)
        found = await opened.lookup_many(none)
        assert (len(found.values), len(found.present)) == (0, 0)
        assert await opened.update_many((none, none)) == 0
        assert await opened.delete_many(none) == 0
        assert await opened.load((none, none)) == 0
        assert await opened.lookup(1) == 2


@pytest.mark.parametrize("source", [{}, []])
async def test_a_load_of_nothing_writes_nothing(source: Any) -> None:
    async with flows() as opened:
        assert await opened.load(source) == 0


async def test_an_empty_array_of_two_axes_is_refused_as_before() -> None:
    async with flows() as opened:
        with pytest.raises(mapd_client.SizeMismatch, match=r"shape \(0, 2\)"):
            await opened.lookup_many(np.empty((0, 2)))

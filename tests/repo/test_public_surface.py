"""What mapd_client exports is what tests/repo/api/mapd_client.pyi says: a change of it is a line in a diff."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from inspect import Signature
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast, get_args, get_type_hints

import numpy.typing
import pandas
import polars
import pyarrow
import pytest
from google.protobuf.message import Message

import mapd_client
from mapd_api.v1 import types_pb2
from mapd_client.tables.plan import Plan

API = ast.parse((Path(__file__).parent / "api" / "mapd_client.pyi").read_text())

_DUNDERS = ("__init__", "__getitem__", "__anext__", "__aenter__", "__aexit__")

FRAMES = {"pandas": pandas, "polars": polars}

Surface = dict[str, list[str]]


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in _DUNDERS


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    decorators = "".join(f"@{ast.unparse(one)} " for one in node.decorator_list)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{decorators}{word} {node.name}({ast.unparse(node.args)}){returns}"


def _members(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _is_public(node.name):
            yield node.name, _signature(node)
        elif isinstance(node, ast.AnnAssign) and _is_public(name := ast.unparse(node.target)):
            yield name, f"{name}: {ast.unparse(node.annotation)}"


def surface(body: list[ast.stmt]) -> Surface:
    """Public members by name; of an overloaded function the overloads alone."""
    found: Surface = {}
    for name, text in _members(body):
        found.setdefault(name, []).append(text)
    for name, texts in found.items():
        overloads = [text for text in texts if text.startswith("@overload")]
        found[name] = overloads or texts
    return found


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: dict[str, ast.stmt] = {node.name: node for node in tree.body if isinstance(node, named)}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):  # "import X as X" exports X
            found.update({one.name: node for one in node.names if one.asname == one.name})
    return found


DECLARED = _definitions(API)


def test_the_names_are_the_declared_ones() -> None:
    assert sorted(mapd_client.__all__) == sorted(DECLARED)


def _source(thing: type) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _is_inner(thing: type) -> bool:
    """Whether users do not meet a class by itself: it is this library's, and not exported."""
    return thing.__module__.startswith("mapd_client") and thing.__name__ not in mapd_client.__all__


def bases(thing: type) -> list[str]:
    """What users see a class derive from: an inner base counts as its own bases."""
    found: list[str] = []
    for node in _source(thing).bases:
        name = node.value if isinstance(node, ast.Subscript) else node
        base = vars(inspect.getmodule(thing)).get(ast.unparse(name))
        found += bases(base) if isinstance(base, type) and _is_inner(base) else [ast.unparse(node)]
    return list(dict.fromkeys(found))


def members(thing: type) -> Surface:
    """Its own public members and those of its inner bases, which stand under the name of the class."""
    found: Surface = {}
    for one in reversed(thing.__mro__):
        if one is thing or _is_inner(one):
            node = _Renamed(one.__name__, thing.__name__).visit(_source(one))
            found |= surface(node.body)
    return found


class _Renamed(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._new if node.id == self._old else node.id, node.ctx)


def _structured() -> list[str]:
    return [name for name, node in DECLARED.items() if isinstance(node, (ast.ClassDef, ast.FunctionDef))]


@pytest.mark.parametrize("name", _structured())
def test_signatures_are_the_declared_ones(name: str) -> None:
    declared = DECLARED[name]
    built = getattr(mapd_client, name)
    if isinstance(declared, ast.ClassDef):
        assert bases(built) == [ast.unparse(base) for base in declared.bases]
        made, promised = members(built), surface(declared.body)
        if "__init__" not in promised:
            made.pop("__init__", None)
        assert made == promised
    else:
        source = ast.parse(textwrap.dedent(inspect.getsource(built)))
        assert surface(source.body) == surface([declared])


def test_what_an_inner_base_has_stands_under_the_class_that_is_exported() -> None:
    lookup = members(mapd_client.Map)["lookup"]
    assert "lookup" not in vars(mapd_client.Map), "the example has no inner base any more"
    assert "self: Map[K, list[T]]" in lookup[1]


def _parts(annotation: object) -> Iterator[object]:
    """A type and everything that it is made of: arguments of generics, unions, callables; bounds."""
    yield annotation
    inner = cast("list[object]", annotation) if isinstance(annotation, list) else get_args(annotation)
    for one in inner:
        yield from _parts(one)
    if isinstance(annotation, TypeVar) and annotation.__bound__ is not None:
        yield from _parts(annotation.__bound__)


def _public(name: str) -> Iterator[Any]:
    """An exported name, and the public members of a class."""
    thing = getattr(mapd_client, name)
    yield thing
    if isinstance(thing, type):
        inner = [one for one in thing.__mro__ if one is thing or _is_inner(one)]
        for member in (member for one in inner for member in vars(one)):
            if _is_public(member):
                found = inspect.getattr_static(thing, member)
                yield found.fget if isinstance(found, property) else getattr(found, "__func__", found)


def messages_in(thing: Any) -> list[str]:
    """Messages of the proto in a signature or in a class' annotations, however they are called there."""
    if not isinstance(thing, (type, FunctionType)):
        return []
    # Some annotations are imported for type checkers only; what they name is exported too.
    names = {**vars(mapd_client), **vars(numpy.typing), "np": numpy, "pa": pyarrow, "Plan": Plan, **FRAMES}
    hints = get_type_hints(thing, localns=names)
    return [
        repr(part)
        for hint in hints.values()
        for part in _parts(hint)
        if isinstance(part, type) and issubclass(part, Message)
    ]


Hidden = Callable[[list[types_pb2.MapInfo]], int]


def test_a_message_behind_an_alias_is_found() -> None:
    def takes(one: int, other: Hidden | None) -> None:
        del one, other

    assert messages_in(takes) == [repr(types_pb2.MapInfo)]
    assert messages_in(Signature) == []


@pytest.mark.parametrize("name", sorted(mapd_client.__all__))
def test_no_message_of_the_proto_is_in_a_signature(name: str) -> None:
    assert [found for thing in _public(name) for found in messages_in(thing)] == []

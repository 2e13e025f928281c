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

import pytest
from google.protobuf.message import Message

import mapd_client
from mapd_api.v1 import types_pb2

API = ast.parse((Path(__file__).parent / "api" / "mapd_client.pyi").read_text())

_DUNDERS = ("__init__", "__getitem__", "__anext__", "__aenter__", "__aexit__")

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


def _structured() -> list[str]:
    return [name for name, node in DECLARED.items() if isinstance(node, (ast.ClassDef, ast.FunctionDef))]


@pytest.mark.parametrize("name", _structured())
def test_signatures_are_the_declared_ones(name: str) -> None:
    declared = DECLARED[name]
    built = ast.parse(textwrap.dedent(inspect.getsource(getattr(mapd_client, name)))).body[0]
    if isinstance(declared, ast.ClassDef):
        assert isinstance(built, ast.ClassDef)
        assert [ast.unparse(base) for base in built.bases] == [ast.unparse(base) for base in declared.bases]
        made, promised = surface(built.body), surface(declared.body)
        if "__init__" not in promised:
            made.pop("__init__", None)
        assert made == promised
    else:
        assert surface([built]) == surface([declared])


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
        for member in vars(thing):
            if _is_public(member):
                found = inspect.getattr_static(thing, member)
                yield found.fget if isinstance(found, property) else getattr(found, "__func__", found)


def messages_in(thing: Any) -> list[str]:
    """Messages of the proto in a signature or in a class' annotations, however they are called there."""
    if not isinstance(thing, (type, FunctionType)):
        return []
    # Some annotations are imported for type checkers only; what they name is exported too.
    hints = get_type_hints(thing, localns=vars(mapd_client))
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

"""What mapd_client exports is what tests/repo/api/mapd_client.pyi says: a change of it is a line in a diff."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import mapd_client

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


def test_no_message_of_the_proto_is_in_a_signature() -> None:
    assert "pb2" not in ast.unparse(API)

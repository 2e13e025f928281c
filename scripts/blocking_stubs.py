"""Types of ``mapd_client.blocking``, made of the public surface in tests/repo/api/mapd_client.pyi.

    PYTHONPATH=src:. python -m scripts.blocking_stubs

tests/repo/test_blocking_surface.py compares the file with what this writes.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SURFACE: Final = ROOT / "tests/repo/api/mapd_client.pyi"
STUB: Final = ROOT / "src/mapd_client/blocking/__init__.pyi"

_RENAMED: Final = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__anext__": "__next__",
    "AsyncIterator": "Iterator",
    "AbstractAsyncContextManager": "AbstractContextManager",
}
_UNWRAPPED: Final = ("Opening", "Awaitable")
"""What callers await: here they get what is in it."""

_OMITTED: Final = ("Opening", "Fleet", "FleetMap")
_CLOSED: Final = ("Client", "MapHandle")
"""Classes that ``with`` closes here; with the asynchronous client their Opening does."""

_HEAD: Final = "# Written by scripts/blocking_stubs.py from tests/repo/api/mapd_client.pyi: do not edit.\n\n"


class _Blocking(ast.NodeTransformer):
    """The same without async, await and what is awaited."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.FunctionDef:
        fields = {name: getattr(node, name) for name in node._fields}
        return self.visit_FunctionDef(ast.copy_location(ast.FunctionDef(**fields), node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.name = _RENAMED.get(node.name, node.name)
        return node

    def visit_alias(self, node: ast.alias) -> ast.alias:
        return ast.alias(_RENAMED.get(node.name, node.name), node.asname)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(_RENAMED.get(node.id, node.id), node.ctx)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        if name == "AbstractContextManager" and not isinstance(node.slice, ast.Tuple):
            node.slice = ast.Tuple([node.slice, ast.Constant(None)], ast.Load())
        return node.slice if name in _UNWRAPPED else node


def _is_asynchronous(node: ast.ClassDef) -> bool:
    """Whether a class has something to wait for, or to close, or gives such a thing."""
    waits = any(isinstance(one, ast.AsyncFunctionDef) for one in ast.walk(node))
    return waits and node.name not in _OMITTED


def _exit() -> list[ast.stmt]:
    return ast.parse(
        "def __enter__(self) -> Self: ...\n"
        "def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,"
        " where: TracebackType | None) -> None: ..."
    ).body


def classes(tree: ast.Module) -> list[ast.ClassDef]:
    """Those of the public surface that are others here."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and _is_asynchronous(node)]


def _exported(tree: ast.Module, own: set[str]) -> list[str]:
    """Names that are the same here."""
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            found += [one.name for one in node.names if one.asname == one.name]
    return sorted(set(found) - own - set(_OMITTED))


def _own(tree: ast.Module) -> list[ast.stmt]:
    body: list[ast.stmt] = []
    waiting = {node.name for node in classes(tree)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in waiting:
            changed = _Blocking().visit(node)
            changed.body = [one for one in changed.body if node.name == "Client" or not _is_init(one)]
            changed.body += _exit() if node.name in _CLOSED else []
            body.append(changed)
        elif isinstance(node, ast.FunctionDef) and "Opening" in ast.unparse(node):
            body.append(_Blocking().visit(node))
    return body


def _is_init(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def _preamble(tree: ast.Module) -> list[str]:
    """Imports and type variables, as far as they are no exports."""
    lines: list[str] = ["from typing import Self"]
    for node in tree.body:
        if isinstance(node, ast.Import):
            lines.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and not any(one.asname for one in node.names):
            lines.append(ast.unparse(_Blocking().visit(node)))
        elif isinstance(node, ast.Assign):
            lines.append(ast.unparse(node))
    return lines


def stub() -> str:
    """The text of the file, not formatted."""
    own = _own(ast.parse(SURFACE.read_text()))
    here = {node.name for node in own if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    tree = ast.parse(SURFACE.read_text())
    same = _exported(tree, here)
    lines = [f"from mapd_client import {name} as {name}" for name in same]
    lines += _preamble(tree)
    lines.append(f"__all__ = {sorted({*same, *here})!r}")
    lines += [ast.unparse(ast.fix_missing_locations(node)) for node in own]
    return "\n".join(lines) + "\n"


def written() -> str:
    """The text of the file, formatted, without what nobody names."""
    import subprocess

    text = stub()
    for command in (
        ["check", "--quiet", "--fix", "--select", "F401,I,RUF022", "--ignore", "PYI", "--exit-zero"],
        ["format", "--quiet"],
    ):
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ruff")), *command, "--stdin-filename", str(STUB), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        text = done.stdout
    return _HEAD + text


if __name__ == "__main__":
    STUB.write_text(written())

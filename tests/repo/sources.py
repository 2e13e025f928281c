"""Reads the repository's sources as syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
GENERATED = SRC / "mapd_api" / "v1"


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: its dotted name, and what is in it."""

    name: str
    tree: ast.Module
    is_package: bool = False

    @classmethod
    def planted(cls, name: str, source: str) -> Module:
        """A module that exists only in a test."""
        return cls(name, ast.parse(source))

    def imports(self) -> Iterator[str]:
        """The dotted names that it imports anywhere, also inside functions and for type checkers.

        ``from a import b`` gives ``a.b``, for ``b`` may be a module.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._resolve(node)
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def names(self) -> Iterator[str]:
        """Every identifier that it mentions: names, attributes, imported names."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    yield name
                case ast.alias(name=name):
                    yield name.rpartition(".")[2]
                case _:
                    pass

    def _resolve(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = self.name.split(".")
        keep = len(parts) - node.level + (1 if self.is_package else 0)
        return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def within(name: str, *packages: str) -> bool:
    """Whether ``name`` is one of the packages or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def handwritten() -> list[Module]:
    """The modules below src/ that people wrote."""
    return [_read(path) for path in sorted(SRC.rglob("*.py")) if GENERATED not in path.parents]


def _read(path: Path) -> Module:
    parts = path.relative_to(SRC).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, ast.parse(path.read_text(), str(path)), is_package)

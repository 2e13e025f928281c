"""mapd_client.blocking has every name of mapd_client, and its types are made of the same surface."""

from __future__ import annotations

import ast
import inspect

import pytest

import mapd_client
from mapd_client import blocking
from mapd_client.blocking.deriving import RENAMED
from scripts import blocking_stubs
from tests.repo.test_public_surface import API

WAITING = {node.name: node for node in blocking_stubs.classes(API)}


def test_the_types_are_those_that_the_script_writes() -> None:
    assert blocking_stubs.STUB.read_text() == blocking_stubs.written()


def test_the_names_are_those_of_the_asynchronous_client() -> None:
    assert set(mapd_client.__all__) - set(blocking.__all__) <= {"Opening", "Fleet", "FleetMap"}
    assert set(blocking.__all__) <= set(mapd_client.__all__)
    assert [name for name in blocking.__all__ if not hasattr(blocking, name)] == []


def test_what_waits_for_nothing_is_the_same_object() -> None:
    own = {*WAITING, "connect"}
    other = [name for name in blocking.__all__ if name not in own]
    assert [name for name in other if getattr(blocking, name) is not getattr(mapd_client, name)] == []
    assert [name for name in own if getattr(blocking, name) is getattr(mapd_client, name)] == []


@pytest.mark.parametrize("name", sorted(WAITING))
def test_each_method_is_there_and_none_is_a_coroutine(name: str) -> None:
    made = getattr(blocking, name)
    promised = {
        RENAMED.get(node.name, node.name)
        for node in WAITING[name].body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.decorator_list
    }
    methods = {one for one in promised if not one.startswith("__a") and one != "__init__"}
    assert [one for one in methods if not callable(getattr(made, one, None))] == []
    assert [one for one, thing in inspect.getmembers(made) if inspect.iscoroutinefunction(thing)] == []

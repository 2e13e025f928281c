"""Imports run one way, and each dangerous thing has one home."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.repo.sources import Module, handwritten, within

OURS = ("mapd", "mapd_api", "mapd_client")

PARTS = (
    "mapd.config",
    "mapd.daemon",
    "mapd.start",
    "mapd.reload",
    "mapd.banner",
    "mapd.isolation",
    "mapd.health",
    "mapd.openerwatch",
    "mapd.metrics",
    "mapd.launch",
    "mapd.doctor",
    "mapd.cli",
    "mapd.listen",
    "mapd.policy_cli",
    "mapd.audit_cli",
    "mapd.__main__",
)
"""Where the daemon is put together: these may import all of mapd, and nothing imports them."""

MAY_IMPORT = {
    "mapd_api": ("mapd_api",),
    "mapd_client": ("mapd_client", "mapd_api"),
    "mapd.bpf": ("mapd.bpf", "mapd_api"),
    "mapd.sandbox": ("mapd.sandbox",),
    "mapd.opener": ("mapd.opener", "mapd.bpf", "mapd.sandbox", "mapd_api"),
    # What runs in the opener's process before it is locked in.
    **dict.fromkeys(
        ("mapd.launch.openerprocess", "mapd.launch.settings", "mapd.launch.folders"),
        ("mapd.launch", "mapd.opener", "mapd.bpf", "mapd.sandbox", "mapd_api"),
    ),
    # A kernel beside the real one: it knows the protocol, and nobody but those who choose knows it.
    "mapd.memory": ("mapd.memory", "mapd.bpf", "mapd_api"),
    "mapd.maps": ("mapd.maps", "mapd.bpf", "mapd_api"),
    "mapd.access": ("mapd.access", "mapd_api"),
    "mapd.runtime": ("mapd.runtime", "mapd.maps", "mapd.bpf", "mapd.access", "mapd_api"),
    "mapd.rpc": ("mapd.rpc", "mapd.runtime", "mapd.maps", "mapd.access", "mapd.metrics.counts", "mapd_api"),
    # Everybody counts; who tells Prometheus puts things together.
    "mapd.metrics.counts": (),
    "mapd.logs": (),
    "mapd.notify": (),
    **dict.fromkeys(PARTS, ("mapd", "mapd_api")),
}
"""design: mapd_client -> mapd_api <- mapd.rpc -> mapd.runtime -> mapd.maps -> mapd.bpf."""

GRPC = ("grpc", "grpc_health", "grpc_reflection", "grpc_status")

HOMES = {
    GRPC: ("mapd.rpc", "mapd_api.reasons", "mapd_client.channel", "mapd_client.blocking.channel"),
    ("ctypes",): ("mapd.bpf", "mapd.sandbox"),
}
"""Packages with a home: who else imports them has taken over somebody's work."""

BLOCKING = ("mapd_api", "mapd.bpf", "mapd.sandbox", "mapd.opener", "mapd.memory", "mapd.maps", "mapd.access")
"""Layers that run in threads, or decide without I/O: an event loop has no place in them."""

STATUS_CODE_HOMES = ("mapd_api.reasons", "mapd_client.channel")


def home(module: str, homes: tuple[str, ...]) -> bool:
    """``mapd_client.channel`` is also ``mapd_client.channel_sync``: a family of modules."""
    return within(module, *homes) or any(
        module.startswith(f"{name}_") for name in homes if name == "mapd_client.channel"
    )


def layer_violations(module: Module) -> list[str]:
    layer = next((name for name in MAY_IMPORT if within(module.name, name)), None)
    allowed = MAY_IMPORT[layer] if layer else ()
    return [
        f"{module.name} imports {target}"
        for target in module.imports()
        if within(target, *OURS) and not within(target, *allowed)
    ]


def home_violations(module: Module) -> list[str]:
    return [
        f"{module.name} imports {target}"
        for packages, homes in HOMES.items()
        for target in module.imports()
        if within(target, *packages) and not home(module.name, homes)
    ]


def loop_violations(module: Module) -> list[str]:
    if not within(module.name, *BLOCKING):
        return []
    return [f"{module.name} imports {t}" for t in module.imports() if within(t, "asyncio", "uvloop")]


def status_violations(module: Module) -> list[str]:
    if home(module.name, STATUS_CODE_HOMES):
        return []
    return [f"{module.name} mentions StatusCode" for name in module.names() if name == "StatusCode"]


CHECKERS = (layer_violations, home_violations, loop_violations, status_violations)


def test_every_module_keeps_to_its_layer() -> None:
    """A layer that reaches up cannot be tested, replaced or reasoned about alone.

    And a client that imports the daemon needs root's dependencies to read a map.
    """
    assert [v for module in handwritten() for v in layer_violations(module)] == []


def test_grpc_and_ctypes_stay_at_home() -> None:
    """The transport can be replaced in one place, and memory be broken in one place."""
    assert [v for module in handwritten() for v in home_violations(module)] == []


def test_blocking_layers_know_no_event_loop() -> None:
    """mapd.bpf and mapd.maps run in pool threads, where awaiting is a bug and a loop is foreign."""
    assert [v for module in handwritten() for v in loop_violations(module)] == []


def test_a_status_code_is_chosen_in_one_module() -> None:
    """One table decides what a caller sees; a handler that chooses for itself drifts from it.

    The client's channel modules may read a code that gRPC itself made.
    """
    assert [v for module in handwritten() for v in status_violations(module)] == []


@pytest.mark.parametrize(
    ("name", "source", "checker"),
    [
        ("mapd.bpf.fd", "import mapd.maps", layer_violations),
        ("mapd.maps.scan", "def f():\n    from mapd import runtime", layer_violations),
        ("mapd.maps.scan", "from ..runtime import pool", layer_violations),
        ("mapd.maps.store", "from mapd.memory import MemoryKernel", layer_violations),
        ("mapd.memory.hashes", "from mapd.maps.types import TYPES", layer_violations),
        ("mapd.access.policy", "from mapd.maps.spec import Spec", layer_violations),
        ("mapd.rpc.maps", "from mapd.daemon import Daemon", layer_violations),
        ("mapd.runtime.pool", "from mapd.config import Config", layer_violations),
        ("mapd.cli", "import mapd_client", layer_violations),
        ("mapd", "from mapd import bpf", layer_violations),
        ("mapd_client.map", "from mapd.bpf import fd", layer_violations),
        ("mapd_api.ops", "import mapd_client", layer_violations),
        ("mapd.opener", "from mapd.maps import spec", layer_violations),
        ("mapd.launch.openerprocess", "from mapd.config import load", layer_violations),
        ("mapd.newcomer", "import mapd.bpf", layer_violations),
        ("mapd.runtime.pool", "import grpc.aio", home_violations),
        ("mapd.daemon", "from grpc_health.v1 import health", home_violations),
        ("mapd_client.session", "from grpc import aio", home_violations),
        ("mapd_client.channels", "import grpc", home_violations),
        ("mapd.maps.groups", "from ctypes import c_int", home_violations),
        ("mapd.memory.hashes", "import ctypes", home_violations),
        ("mapd_client.codec", "import ctypes", home_violations),
        ("mapd.maps.scan", "import asyncio.subprocess", loop_violations),
        ("mapd.access.policy", "from asyncio import Lock", loop_violations),
        ("mapd.rpc.status", "import grpc\ncode = grpc.StatusCode.INTERNAL", status_violations),
        ("mapd_client.session", "from grpc import StatusCode as S", status_violations),
    ],
)
def test_a_planted_violation_is_found(name: str, source: str, checker: object) -> None:
    assert checker in CHECKERS
    assert callable(checker)
    assert checker(Module.planted(name, source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("mapd.rpc.elements", "import asyncio\nimport grpc\nfrom mapd.runtime.host import Host"),
        ("mapd.bpf.abi", "import ctypes\nfrom mapd_api.uapi import MapType"),
        ("mapd_client.channel_sync", "import grpc\nx = grpc.StatusCode.OK"),
        ("mapd.daemon", "from mapd import rpc\nimport mapd.bpf"),
        ("mapd_client.map", "import asyncio\nfrom . import session"),
    ],
)
def test_what_is_allowed_is_left_alone(name: str, source: str) -> None:
    module = Module.planted(name, source)
    assert [v for checker in CHECKERS for v in checker(module)] == []


def loaded_by(module: str) -> set[str]:
    """The top-level packages that a fresh interpreter has after importing ``module``."""
    code = f"import sys, {module}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_client_loads_only_its_own_dependencies() -> None:
    """The client works where the daemon's dependencies are not installed, and starts quickly."""
    loaded = loaded_by("mapd_client")
    assert "mapd_client" in loaded
    foreign = {"mapd", "numpy", "rich", "cyclopts", "msgspec", "structlog", "prometheus_client", "pyarrow"}
    assert loaded & foreign == set()


def test_importing_the_kernel_layer_loads_only_the_standard_library() -> None:
    """The process that holds the capabilities will import mapd.bpf alone: it must stay small.

    So mapd.bpf must keep away from mapd_api.reasons and mapd_api.v1, which bring grpc and protobuf.
    """
    loaded = loaded_by("mapd.bpf")
    startup = loaded_by("sys")  # what the environment itself loads, by .pth files
    assert loaded - startup - sys.stdlib_module_names == {"mapd", "mapd_api"}


def test_the_openers_process_loads_only_the_standard_library() -> None:
    """Whatever else it loaded would hold the capabilities too."""
    loaded = loaded_by("mapd.launch.openerprocess")
    startup = loaded_by("sys")
    assert loaded - startup - sys.stdlib_module_names == {"mapd", "mapd_api"}


def test_serving_loads_no_package_that_starts_threads_before_the_lock() -> None:
    """The lock refuses where they are; and a start that fails late is a start that fails."""
    assert loaded_by("mapd.cli, mapd.launch.front") & {"grpc", "numpy", "structlog"} == set()


def test_a_loaded_package_is_seen() -> None:
    """The tests above could otherwise pass by looking at nothing."""
    assert {"mapd_api", "grpc"} <= loaded_by("mapd_api.reasons")

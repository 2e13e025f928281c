"""One target under libFuzzer, in a process of its own: ``python -m tests.fuzz.child NAME LIBFUZZER-ARGUMENTS``."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.fuzz.target import Target

atheris: Any = importlib.import_module("atheris")  # it has neither types nor stubs

PARSERS: Final = (
    "mapd_client.btf",
    "mapd_client.elf",
    "mapd_client.cli.literals",
    "mapd_client.codec",
    "mapd_client.netcodec",
    "mapd_client.refs",
    "mapd_client.tables.dtypes",
    "mapd_client.typed",
)
"""What is instrumented: the branches of others would be rewarded too, and take their time."""


DAEMON: Final = (
    "mapd.access",
    "mapd.maps.groups",
    "mapd.maps.references",
    "mapd.maps.select",
    "mapd.maps.spec",
    "mapd.maps.tokens",
    "mapd.rpc.admit",
    "mapd.rpc.apply",
    "mapd.rpc.convert",
    "mapd.rpc.dumps",
    "mapd.rpc.reading",
    "mapd.rpc.targets",
)
"""The same of the daemon: what a request passes before anything of it is executed."""


def others() -> Iterator[str]:
    """Our modules that are no parsers: atheris takes a whole package, without what is named one by one."""
    spec = find_spec("mapd_client")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(name == parser or name.startswith(f"{parser}.") for parser in PARSERS):
            yield name


def target(name: str) -> Target:
    """A target, with its parser instrumented; ``MODULE:NAME`` for one that is not in ``targets``."""
    module, _, inner = name.rpartition(":")
    packages = ["mapd_client", *([module.partition(".")[0]] if module else [])]
    if module == "tests.fuzz.requests":
        packages = list(DAEMON)
    with atheris.instrument_imports(include=packages, exclude=list(others())):
        found = importlib.import_module(module or "tests.fuzz.targets")
    targets: dict[str, Target] = found.TARGETS
    return targets[inner]


def guarded(one: Callable[[bytes], None], prefix: str | None) -> Callable[[bytes], None]:
    """``one``, which keeps the input that it raises over, and says how many came before.

    libFuzzer does both too, when the interpreter ends; of some thirty on a busy machine one ended before it did.
    """
    count = 0

    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        try:
            one(data)
        except BaseException:
            if prefix is not None:
                name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                Path(f"{prefix}crash-{name}").write_bytes(data)
            print(f"stat::number_of_executed_units: {count}", flush=True)
            raise

    return run


def main() -> None:
    """Fuzz until libFuzzer's own arguments say enough; its exit code is ours."""
    name, *arguments = sys.argv[1:]
    prefixes = [one.partition("=")[2] for one in arguments if one.startswith("-artifact_prefix=")]
    one = guarded(target(name).one, prefixes[0] if prefixes else None)
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""The peers that have to be compiled: each once, kept under a name that its sources and its compiler make."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).parent / "peers"
GO_PACKAGES: Final = (
    "golang-go golang-github-cilium-ebpf-dev golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev "
    "protoc-gen-go-1-5 protobuf-compiler"
)
GOCODE: Final = Path("/usr/share/gocode")
"""Where Debian keeps the sources of Go libraries."""


class Missing(Exception):
    """A peer cannot be had here; the message says why, and what would mend it."""


def raw(folder: Path) -> Path:
    """The C peer.

    Raises:
        Missing: no compiler, or it refused.
    """
    compiler = _tool("gcc", "gcc libc6-dev")
    made = folder / f"raw-{_key([PEERS / 'raw.c'], [compiler, '--version'])}"
    if not made.exists():
        with _scratch(folder) as name:
            new = Path(name, "raw")
            _build([compiler, "-std=gnu11", "-O2", "-o", str(new), str(PEERS / "raw.c")], "gcc", "libc6-dev")
            new.rename(made)
    return made


def go(folder: Path) -> Path:
    """The folder with ``server`` and ``client`` of the Go peer.

    Raises:
        Missing: Go, protoc, or a library of theirs.
    """
    compiler = _tool("go", GO_PACKAGES)
    _tool("protoc", GO_PACKAGES)
    _tool("protoc-gen-go", GO_PACKAGES)
    sources = sorted(path for path in (PEERS / "go").rglob("*") if path.is_file())
    made = folder / f"go-{_key(sources, [compiler, 'version'])}"
    if made.exists():
        return made
    with _scratch(folder) as name:
        tree = Path(name, "src", "mapd.bench")
        shutil.copytree(PEERS / "go", tree)
        plugin = f"--go_out=plugins=grpc:{tree.parent}"
        _build(["protoc", "-I", str(tree), plugin, str(tree / "peer.proto")], "protoc", GO_PACKAGES)
        # As Debian has it: libraries as source trees, no modules, nothing fetched.
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GO111MODULE": "off",
            "GOPATH": f"{name}:{GOCODE}",
            "GOCACHE": str(folder / "gocache"),
        }
        new = Path(name, "bin")
        for program in ("server", "client"):
            command = [compiler, "build", "-o", str(new / program), f"mapd.bench/{program}"]
            _build(command, "go build", GO_PACKAGES, environment)
        new.rename(made)
    return made


def _tool(name: str, packages: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed (apt-get install {packages})")
    return found


def _key(sources: list[Path], version: list[str]) -> str:
    digest = hashlib.sha256(subprocess.run(version, check=True, capture_output=True).stdout)
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=folder)


def _build(
    command: Sequence[str], what: str, packages: str, environment: dict[str, str] | None = None
) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise Missing(f"{what} failed (needs {packages}): {said[0].strip()}")

"""A store on the real kernel, without a daemon around it."""

from __future__ import annotations

import uuid
from pathlib import Path

from mapd.bpf import boot_id, possible_cpus
from mapd.maps.store import MapStore
from tests.kernel.maps import KERNEL


def store(bpffs: Path) -> MapStore:
    """Names below ``bpffs``/names, other pins anywhere in it."""
    return MapStore(
        kernel=KERNEL,
        possible_cpus=possible_cpus(),
        boot_id=uuid.UUID(boot_id()),
        names_root=f"{bpffs}/names",
        pin_roots=(str(bpffs),),
    )

"""How many elements a map has, as the kernel counts them: no element is read."""

from __future__ import annotations

from dataclasses import dataclass

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Kernel, LoadTemplate, SyscallError
from mapd.bpf.templates import COUNTED, Template
from mapd.maps.opened import MapFacts


@dataclass(frozen=True, slots=True)
class Counted:
    """Elements of a map; ``method`` is how they were counted, and ``exact`` whether it counts a moment."""

    entries: int
    exact: bool
    method: str


def by_shape(facts: MapFacts) -> Counted | None:
    """The count that follows from what the map is: an array's elements all exist."""
    if facts.traits is None or not facts.traits.indexed:
        return None
    return Counted(facts.info.max_entries, True, "max_entries")


def by_kernel(kernel: Kernel, facts: MapFacts, map_fd: int) -> Counted | None:
    """The kernel's own count; None where it keeps none, or where this daemon may load no program.

    It is the sum of a counter on each CPU: an element that is added or removed while they are summed may
    be in it or not. Blocks for about 0.2 ms, most of it for loading the program.

    Source: kernel/bpf/map_iter.c, bpf_map_sum_elem_count(). Linux 6.6.
    """
    if facts.traits is None or not facts.traits.counted:
        return None
    request = LoadTemplate(
        template=Template.COUNT_ENTRIES, key_size=facts.info.key_size, value_size=facts.info.value_size
    )
    ctx = Buffer.allocate(COUNTED.size)
    try:
        with kernel.control(request, [map_fd]) as program, program.lease() as prog_fd:
            kernel.run(prog_fd, ctx)
    except SyscallError:
        return None
    (entries,) = COUNTED.unpack_from(ctx.view)
    return Counted(max(0, entries), True, "sum_elem_count")

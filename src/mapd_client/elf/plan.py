"""What is to be created of an object: a plan, made before anything is asked of the daemon. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mapd_client.elf.reuse import Shape
from mapd_client.info import Btf


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the caller of ``create_from_object`` chooses; as there."""

    names: Mapping[str, str] = field(default_factory=dict[str, str])
    prefix: str = ""
    pin_root: str = "/sys/fs/bpf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One map to be created.

    Attributes:
        declared: its name in the object.
        kernel_name: at most 15 characters.
        name: mapd's; "" for the template of an outer map.
        pin: the path that it is to be pinned at; "" for none.
        shape: type, sizes, flags.
        numa_node: None for any.
        btf: its types, None where the object tells none.
        template: of a map of maps: another map of the plan by its place, or one that is made for this alone.
        slots: what an outer map holds from the beginning: keys, and inner maps by their places.
        inserts: they are put into an outer map that was there, too (tc); else only into one that was created.
        contents: of a data section; b"" for none, and for one of zeros.
        frozen: the section only reads.
    """

    declared: str
    kernel_name: str
    name: str
    pin: str
    shape: Shape
    numa_node: int | None = None
    btf: Btf | None = None
    template: Planned | int | None = None
    slots: Sequence[tuple[bytes, int]] = ()
    inserts: bool = False
    contents: bytes = b""
    frozen: bool = False

    @property
    def filled(self) -> bool:
        """Whether it is complete only some calls after its creation."""
        return bool(self.contents or self.slots or self.frozen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an object asks for.

    Attributes:
        label: the object, for messages.
        convention: as it was read.
        rule: why it was read so.
        maps: in the object's order, which is that of ``map_fd[]``.
        order: their places in the order of creation: outer maps after the others.
        left_out: what is not done, a sentence each.
    """

    label: str
    convention: str
    rule: str
    maps: Sequence[Planned]
    order: Sequence[int]
    left_out: Sequence[str]

    @property
    def pinned(self) -> Sequence[int]:
        """Places of the maps that are to be pinned."""
        return [at for at in self.order if self.maps[at].pin]

"""Map names: ``namespace/name``, and the names that the kernel gets."""

from __future__ import annotations

import re
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH

PART: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
"""A namespace, a name in it, a principal, a lease: a path component that bpffs accepts (no '.')."""

KERNEL_NAME: Final = re.compile(r"[A-Za-z0-9_.]{0,15}", re.ASCII)
"""What bpf_obj_name_cpy() accepts (kernel/bpf/syscall.c)."""


def is_part(text: str) -> bool:
    """Whether ``text`` may stand on either side of the '/' of a name."""
    return PART.fullmatch(text) is not None


def split_name(name: str, default_namespace: str, *, what: str = "map name") -> tuple[str, str]:
    """``ns/flows`` or ``flows`` as (namespace, name). ``what``: for the message.

    Raises:
        ValueError: a part is none; the message says which, and the rule.
    """
    namespace, slash, rest = name.rpartition("/")
    namespace = namespace if slash else default_namespace
    for which, part in (("namespace", namespace), ("name", rest)):
        if not is_part(part):
            raise ValueError(
                f"{name!r} is no {what}: its {which} {part!r} must be 1 to 63 of a-z, 0-9, '_', '-', "
                "beginning with a letter or digit"
            )
    return namespace, rest


def kernel_name(name: str) -> str:
    """The kernel name of a map called ``name``: 15 characters, '-' to '_'."""
    return name.replace("-", "_")[:OBJ_NAME_LENGTH]

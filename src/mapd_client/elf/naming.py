"""What the maps of an object are called: by mapd and by the kernel. Sans-I/O.

mapd's names have no capitals and no dots, C's identifiers have both. So by rule: capitals become small, '.' becomes
'_', and '_' at the beginning goes: ``Flows`` is "flows", ``_seen`` is "seen", ``prog.rodata`` is "prog_rodata". Nothing
is made up beyond that: two maps that come to one name are refused, and are named by hand.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from mapd_api import names as api
from mapd_api.uapi import OBJ_NAME_LENGTH
from mapd_client.errors import Misuse
from mapd_client.refs import Name

_LONGEST: Final = 63
_UNFINISHED: Final = 8
"""Hex digits behind a map's name until it is complete."""


def kernel_name(declared: str) -> str:
    """As loaders give it to the kernel: the first 15 characters (libbpf_strlcpy in bpf_map_create())."""
    return declared[:OBJ_NAME_LENGTH]


def mapd_names(declared: Sequence[str], prefix: str, names: Mapping[str, str], label: str) -> list[str]:
    """The name of each map, in their order.

    Args:
        declared: names in the object.
        prefix: before every name that ``names`` does not give: "ns/", "prog-" or "ns/prog-".
        names: by the declared name, where the rule is not wanted.
        label: the object, for messages.

    Raises:
        Misuse: two maps of one name; one that is no name even then; ``names`` of what is not declared.
    """
    unknown = sorted(set(names) - set(declared))
    if unknown:
        raise Misuse(
            f"create_from_object {label}: names= speaks of {', '.join(map(repr, unknown))}, which it does not declare; "
            f"it has {', '.join(map(repr, declared)) or 'no maps'}"
        )
    taken: dict[str, str] = {}
    found: list[str] = []
    for one in declared:
        name = names[one] if one in names else prefix + one.lower().replace(".", "_").lstrip("_")
        try:
            Name(name)
        except Misuse as error:
            raise Misuse(
                f"create_from_object {label}: map {one!r}: {error}; name it by names={{{one!r}: 'another'}}"
            ) from None
        if name in taken:
            raise Misuse(
                f"create_from_object {label}: maps {taken[name]!r} and {one!r} would both be {name!r}: name one by "
                f"names={{{one!r}: 'another'}}"
            )
        taken[name] = one
        found.append(name)
    return found


def unfinished(name: str) -> str:
    """What a map is called until its contents are in it: a name that nobody else has.

    The random part keeps two calls from each other's maps, and lets what a killed client left be known as such.
    """
    namespace, slash, own = name.rpartition("/")
    suffix = f"--{secrets.token_hex(_UNFINISHED // 2)}"
    return f"{namespace}{slash}{own[: _LONGEST - len(suffix)]}{suffix}"


def is_unfinished(name: str) -> bool:
    """Whether ``unfinished`` made a name."""
    own, dashes, digits = name.rpartition("--")
    return bool(
        own and dashes and len(digits) == _UNFINISHED and set(digits) <= set("0123456789abcdef")
    ) and api.is_part(own.rpartition("/")[2])

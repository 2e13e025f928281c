"""Profiles: which capabilities the opener keeps, by the name that users give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

AUTO: Final = "auto"
"""All of the profiles that the start's own capabilities give."""

PROFILES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "minimal": frozenset({"CAP_BPF"}),
        "pins-ro": frozenset({"CAP_BPF", "CAP_DAC_READ_SEARCH"}),
        "pins-rw": frozenset({"CAP_BPF", "CAP_DAC_OVERRIDE"}),
        "network": frozenset({"CAP_BPF", "CAP_NET_ADMIN"}),
        "inspector": frozenset({"CAP_BPF", "CAP_SYS_ADMIN"}),
    }
)
"""What each keeps. They may be combined."""

GIVES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "minimal": "own maps; pins whose modes admit the opener's user",
        "pins-ro": "any pin below the pin roots, to read",
        "pins-rw": "any pin below the pin roots, to read and write",
        "network": "create devmap, devmap_hash, sockmap, sockhash, xskmap",
        "inspector": "list and open maps by id; types (BTF) of others' maps",
    }
)
"""For people, in the same order."""


class ProfileError(ValueError):
    """No such profile, or none given."""


def profiles_of(said: str | Iterable[str]) -> tuple[str, ...]:
    """The profiles that a configuration names, each once, in the order of the table; ("auto",) for auto.

    Raises:
        ProfileError: no such profile, none at all, or auto beside others.
    """
    names = {said} if isinstance(said, str) else set(said)
    unknown = sorted(names - {AUTO, *PROFILES})
    if unknown or not names:
        raise ProfileError(
            f"profile {', '.join(map(repr, unknown)) or 'is empty'}: choose {AUTO!r}, or one or more of "
            f"{', '.join(PROFILES)}"
        )
    if AUTO in names and len(names) > 1:
        raise ProfileError(f"profile {AUTO!r} is all that the start gives; name it alone, or leave it out")
    return (AUTO,) if AUTO in names else tuple(name for name in PROFILES if name in names)


def capabilities_of(names: Iterable[str]) -> frozenset[str]:
    """What profiles keep together.

    Raises:
        ProfileError: as ``profiles_of``.
    """
    chosen = profiles_of(names)
    kept = PROFILES if chosen == (AUTO,) else chosen
    return frozenset(capability for name in kept for capability in PROFILES[name])

"""Who is calling: fixed by the socket that a connection came through, never by what it says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody the daemon knows.

    Attributes:
        name: of the principal and of its socket's folder.
        namespace: of names that are given without one.
    """

    name: str
    namespace: str


ADMIN = "admin"
"""The one principal of this version: it may do everything."""

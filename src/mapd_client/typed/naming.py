"""Names of fields in messages: where something went wrong, and what was probably meant. Sans-I/O."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from mapd_client.codec import shown
from mapd_client.errors import Misuse, TypeMismatch

_MANY: Final = 12
"""Names that a message lists; of more it says how many there are."""


class Wrong(Exception):
    """Internal: what a field was given, and how far below the record that was asked to encode it lies."""

    def __init__(self, step: str, error: Misuse) -> None:
        super().__init__(step)
        self.steps = [step]
        self.error = error

    def within(self, step: str) -> Wrong:
        """The same, seen from one level further up."""
        self.steps.insert(0, step)
        return self

    def misuse(self, path: str) -> Misuse:
        """What the caller is told; ``path`` is of the record: "key"."""
        return type(self.error)(f"{path}{''.join(self.steps)}: {self.error}")


def given(value: object) -> str:
    """What the user passed, short enough for a message."""
    if isinstance(value, int) and not isinstance(value, bool):
        return shown(value)
    return reprlib.repr(value)


def refused(value: object, error: Misuse) -> Misuse:
    """The error of a field's codec, with the value unless it is in there already."""
    text = given(value)
    return error if text in str(error) else type(error)(f"{text}: {error}")


def no_record(kind: str, value: object) -> TypeMismatch:
    """For what is no mapping."""
    return TypeMismatch(f"{given(value)}: {kind} takes a mapping by field name, not {type(value).__name__}")


def nearest(name: object, names: Iterable[str]) -> str:
    """What the user may have meant, as the end of a message."""
    known = list(names)
    if not known:
        return "it has none"
    near = get_close_matches(str(name), known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    rest = f" and {len(known) - _MANY} more" if len(known) > _MANY else ""
    return f"there are {', '.join(known[:_MANY])}{rest}"

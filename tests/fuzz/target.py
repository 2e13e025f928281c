"""What a target is; apart from them, for a process that fuzzes imports its own parser alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        one: takes one input.
        seeds: inputs that are right, to begin with.
        words: what such inputs are made of, for libFuzzer's dictionary.
        max_len: bytes of an input.
    """

    one: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    max_len: int = 2048

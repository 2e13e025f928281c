"""What a format of elements is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, TypeAlias

from mapd_client.codec import Buffer
from mapd_client.info import Trailer

if TYPE_CHECKING:
    from mapd_client.cli.types import Shown

Write: TypeAlias = Callable[[Buffer, Buffer, int], None]
"""Takes packed keys, packed values, and how many there are."""


class Writer(ABC):
    """A format of elements.

    Args:
        file: stdout.
        keys_only: records have no value.
        one: it is a single element.
    """

    def __init__(self, file: TextIO, *, keys_only: bool, one: bool) -> None:
        self.file = file
        self.keys_only = keys_only
        self.one = one

    @abstractmethod
    def part(self, shown: Shown, host: str | None) -> Write:
        """What writes the elements of one map; raises Misuse where they do not fit those of a map before."""

    def end(self, trailer: Trailer | None) -> None:
        """What comes after the last element; ``trailer``: of a document's only map."""
        del trailer

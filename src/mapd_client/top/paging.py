"""The elements of one map, a page at a time, and what changed since the page was read last. Sans-I/O and sans-UI."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

PAGE_BYTES: Final = 1 << 20
"""Keys and values of a page."""

PAGE_ELEMENTS: Final = 100


def page_elements(element_bytes: int) -> int:
    """How many elements of this size a page has."""
    return max(1, min(PAGE_ELEMENTS, PAGE_BYTES // max(1, element_bytes)))


@dataclass(frozen=True, slots=True)
class Page:
    """What was read.

    Attributes:
        keys: as bytes, in the order of the dump.
        values: likewise.
        shown: both by field: "key", "key.saddr", "value.packets".
        following: resumes behind it; b"" where nothing follows.
    """

    keys: Sequence[bytes]
    values: Sequence[bytes]
    shown: Sequence[Mapping[str, str]]
    following: bytes


def fields(key: str, value: str) -> dict[str, str]:
    """An element's two JSON texts as one text for each field; lists and what stands alone are one."""
    found: dict[str, str] = {}
    for side, text in (("key", key), ("value", value)):
        _flatten(side, _parsed(text), found)
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # hex digits and the like


def _flatten(path: str, value: Any, into: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in cast("dict[str, Any]", value).items():
            _flatten(f"{path}.{name}", inner, into)
    else:
        into[path] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def columns(shown: Iterable[Mapping[str, str]]) -> list[str]:
    """The fields of a page, in the order that they are met: unions and lists may differ from element to element."""
    return list(dict.fromkeys(name for one in shown for name in one))


@dataclass(slots=True)
class Pages:
    """Which page is looked at, and what it was before.

    A page begins where the one before ended. Elements that come and go move the pages behind them, as they do for
    every reader of a map that changes.
    """

    starts: list[bytes] = field(default_factory=lambda: [b""])
    page: Page | None = None
    changed: frozenset[tuple[int, str]] = frozenset()
    fresh: frozenset[int] = frozenset()
    gone: int = 0

    @property
    def start(self) -> bytes:
        """Where the page begins: ``resume`` of the dump."""
        return self.starts[-1]

    @property
    def number(self) -> int:
        """Of the page, from 1 on."""
        return len(self.starts)

    def take(self, page: Page) -> None:
        """The page as it is now; what differs from before is marked: fields by (row, field), rows that are new."""
        before, self.page = self.page, page
        if before is None:
            self.changed, self.fresh, self.gone = frozenset(), frozenset(), 0
            return
        was = {key: row for row, key in enumerate(before.keys)}
        changed: set[tuple[int, str]] = set()
        fresh: set[int] = set()
        for row, key in enumerate(page.keys):
            old = was.get(key)
            if old is None:
                fresh.add(row)
            elif before.values[old] != page.values[row]:
                earlier = before.shown[old]
                changed.update(
                    (row, name) for name, text in page.shown[row].items() if earlier.get(name) != text
                )
        self.changed, self.fresh = frozenset(changed), frozenset(fresh)
        self.gone = len(was.keys() - set(page.keys))

    def forward(self) -> bool:
        """To the next page; whether there is one."""
        if self.page is None or not self.page.following:
            return False
        self.starts.append(self.page.following)
        self.page = None
        return True

    def back(self) -> bool:
        """To the page before; whether there is one."""
        if len(self.starts) == 1:
            return False
        self.starts.pop()
        self.page = None
        return True

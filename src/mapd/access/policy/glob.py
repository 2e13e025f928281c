"""Patterns of map names and pin paths, matched in a time that no pattern can make long.

``*`` stands for any characters but '/', ``?`` for one, ``[a-z]`` and ``[!a-z]`` for one of a set, and ``**``
between slashes for any number of whole parts. Nothing here backtracks over more than one star: between two
stars the leftmost place that fits is as good as any other, so time grows with pattern times text at most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CHARACTERS: Final = 512
"""A pattern at most. A name has 127; pins of loaders stay well below."""

_WILD: Final = frozenset("*?[")
_HEAD: Final = re.compile(r"[^*?[]*")


class BadGlob(ValueError):
    """A text that is no pattern; the message says what of it, and what would be one."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The pattern of one part between slashes: the pieces between its stars, each of a fixed length.

    A piece without '?' and sets is plain text: compiling thousands of regular expressions takes a second.
    """

    pieces: tuple[str | re.Pattern[str], ...]
    lengths: tuple[int, ...]

    def matches(self, text: str) -> bool:
        first, last = self.pieces[0], self.pieces[-1]
        if len(self.pieces) == 1:
            return len(text) == self.lengths[0] and _begins(first, text, 0)
        start, end = self.lengths[0], len(text) - self.lengths[-1]
        if end < start or not _begins(first, text, 0) or not _begins(last, text, end):
            return False
        for piece, length in zip(self.pieces[1:-1], self.lengths[1:-1], strict=True):
            found = _find(piece, text, start, end)
            if found < 0:
                return False
            start = found + length
        return True


def _begins(piece: str | re.Pattern[str], text: str, at: int) -> bool:
    return text.startswith(piece, at) if isinstance(piece, str) else piece.match(text, at) is not None


def _find(piece: str | re.Pattern[str], text: str, start: int, end: int) -> int:
    if isinstance(piece, str):
        return text.find(piece, start, end)
    found = piece.search(text, start, end)
    return -1 if found is None else found.start()


_Parts = tuple[_Part, ...]


@dataclass(frozen=True, slots=True)
class Glob:
    """One pattern.

    Attributes:
        text: as it was written.
        literal: whether it has no wildcard, and so matches itself alone.
    """

    text: str
    literal: bool
    _head: str
    _runs: tuple[_Parts, ...]

    @classmethod
    def compile(cls, text: str) -> Glob:
        """A pattern from its text.

        Raises:
            BadGlob: too long, an open set, or a '**' that is not a whole part.
        """
        if len(text) > CHARACTERS:
            raise BadGlob(f"a pattern of {len(text)} characters; at most {CHARACTERS} are taken")
        if "\0" in text:
            raise BadGlob(f"{text!r} has a NUL, which no path has")
        runs: list[list[_Part]] = [[]]
        for part in text.split("/"):
            if part == "**":
                runs.append([])
            elif "**" in part:
                raise BadGlob(
                    f"{text!r}: '**' stands for whole parts of a path: write it alone between slashes"
                )
            else:
                runs[-1].append(_part(part, text))
        head = _HEAD.match(text)
        assert head is not None
        return cls(text, head[0] == text, head[0], tuple(map(tuple, runs)))

    def matches(self, path: str) -> bool:
        """Whether the whole of ``path`` is as the pattern says."""
        if self.literal:
            return path == self.text
        if not path.startswith(self._head):  # nearly always the answer, and ten times as quick
            return False
        parts = path.split("/")
        if len(self._runs) == 1:
            return len(parts) == len(self._runs[0]) and _fits(self._runs[0], parts, 0)
        first, *middle, last = self._runs
        # A '**' at the end stands for what is below a folder, not for the folder itself.
        end = len(parts) - max(len(last), 1)
        if end < len(first) or not _fits(first, parts, 0):
            return False
        if not _fits(last, parts, len(parts) - len(last)):
            return False
        at = len(first)
        for run in middle:
            found = next((i for i in range(at, end - len(run) + 1) if _fits(run, parts, i)), None)
            if found is None:
                return False
            at = found + len(run)
        return at <= end

    def reaches(self, folder: str) -> bool:
        """Whether it may match something below ``folder``; "" is above everything."""
        parts = folder.split("/") if folder else []
        first = self._runs[0]
        if len(self._runs) == 1 and len(first) <= len(parts):
            return False
        most = min(len(first), len(parts))
        return _fits(first[:most], parts, 0)

    def covers(self, other: Glob) -> bool:
        """Whether everything that ``other`` matches is surely matched by this one too; False where it is not plain."""
        if self.text == other.text:
            return True
        if other.literal:
            return self.matches(other.text)
        head, star, tail = self.text.rpartition("/**")
        return bool(star) and not tail and not _WILD & set(head) and other.text.startswith(f"{head}/")


def _fits(run: _Parts, parts: Sequence[str], at: int) -> bool:
    return all(part.matches(parts[at + i]) for i, part in enumerate(run))


def _part(text: str, whole: str) -> _Part:
    pieces = [_piece(piece, whole) for piece in _split_stars(text)]
    return _Part(tuple(piece for piece, _ in pieces), tuple(length for _, length in pieces))


def _split_stars(text: str) -> list[str]:
    """The text between stars; a star inside [...] is a character like others."""
    pieces, at, start = list[str](), 0, 0
    while at < len(text):
        if text[at] == "[":
            at = max(_set_end(text, at), at)
        elif text[at] == "*":
            pieces.append(text[start:at])
            start = at + 1
        at += 1
    return [*pieces, text[start:]]


def _set_end(text: str, at: int) -> int:
    """Where the set that opens at ``at`` closes, -1 if nowhere. A ']' right after '[' or '[!' belongs to it."""
    return text.find("]", at + (3 if text[at + 1 : at + 2] == "!" else 2))


def _piece(text: str, whole: str) -> tuple[str | re.Pattern[str], int]:
    """A piece without stars, and how many characters it takes."""
    if not _WILD & set(text):
        return text, len(text)
    source, length, at = list[str](), 0, 0
    while at < len(text):
        letter = text[at]
        if letter == "?":
            source.append(".")
        elif letter == "[":
            end = _set_end(text, at)
            if end < 0:
                raise BadGlob(f"{whole!r}: '[' without its ']'; a '[' itself is written '[[]'")
            source.append(_set(text[at + 1 : end], whole))
            at = end
        else:
            source.append(re.escape(letter))
        length += 1
        at += 1
    return re.compile("".join(source), re.DOTALL), length


def _set(text: str, whole: str) -> str:
    negated = text.startswith("!")
    text, at, source = text.removeprefix("!"), 0, list[str]()
    while at < len(text):
        first, last = text[at], text[at]
        if text[at + 1 : at + 2] == "-" and at + 2 < len(text):
            last = text[at + 2]
            at += 2
            if last < first:
                raise BadGlob(f"{whole!r}: the range '{first}-{last}' is empty; write '{last}-{first}'")
        source.append(re.escape(first) if first == last else f"{re.escape(first)}-{re.escape(last)}")
        at += 1
    return f"[{'^' if negated else ''}{''.join(source)}]"

"""Element operations and rights, with the numbers of the contract."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Op(IntEnum):
    """One element operation: a byte of an op column (elements.proto, enum Op)."""

    LOOKUP = 1
    UPDATE = 2
    UPDATE_NOEXIST = 3
    UPDATE_EXIST = 4
    DELETE = 5
    LOOKUP_AND_DELETE = 6
    PUSH = 7
    PUSH_EXIST = 8
    POP = 9
    PEEK = 10
    ADD = 11
    CONTAINS = 12
    LOOKUP_EXACT = 13


TAKES_VALUE: Final = frozenset(
    {Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.PUSH, Op.PUSH_EXIST, Op.ADD, Op.CONTAINS}
)
"""Operations with a slot in the request's value column."""

ANSWERS_VALUE: Final = frozenset({Op.LOOKUP, Op.LOOKUP_AND_DELETE, Op.POP, Op.PEEK, Op.LOOKUP_EXACT})
"""Operations with a slot in the answer's value column."""

MUTATES: Final = (TAKES_VALUE | {Op.DELETE, Op.LOOKUP_AND_DELETE, Op.POP}) - {Op.CONTAINS}
"""Operations that a read-only handle refuses."""


class Verb(IntEnum):
    """A right (types.proto, enum Verb)."""

    LIST = 1
    READ = 2
    WRITE = 3
    DELETE = 4
    CREATE = 5
    PIN = 6
    FREEZE = 7
    OPEN_BY_ID = 8
    WATCH = 9
    CONSUME = 10
    ADMIN = 11

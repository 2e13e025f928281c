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
    FETCH_ADD = 14
    FETCH_AND = 15
    FETCH_OR = 16
    FETCH_XOR = 17
    EXCHANGE = 18
    COMPARE_EXCHANGE = 19
    COMPARE_UPDATE = 20


ATOMICS: Final = frozenset(
    {Op.FETCH_ADD, Op.FETCH_AND, Op.FETCH_OR, Op.FETCH_XOR, Op.EXCHANGE, Op.COMPARE_EXCHANGE}
)
"""Operations on one field of a value; it is taken and answered in field.size bytes (COMPARE_EXCHANGE takes two)."""

TAKES_VALUE: Final = frozenset(
    {Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.PUSH, Op.PUSH_EXIST, Op.ADD, Op.CONTAINS}
    | ATOMICS
    | {Op.COMPARE_UPDATE}
)
"""Operations with a slot in the request's value column."""

ANSWERS_VALUE: Final = (
    frozenset({Op.LOOKUP, Op.LOOKUP_AND_DELETE, Op.POP, Op.PEEK, Op.LOOKUP_EXACT, Op.COMPARE_UPDATE})
    | ATOMICS
)
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
    HOST = 12

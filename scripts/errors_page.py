"""Writes docs/reference/errors.md: every reason with its status, its exception and its meaning.

The meanings are the comments of proto/mapd_api/v1/errors.proto; the rest is the tables that the
daemon and the client themselves use. ``python -m scripts.errors_page`` writes the page.
"""

from __future__ import annotations

import re
from pathlib import Path

from mapd_api.reasons import RETRY_AFTER_S, STATUS, Reason
from mapd_client.failures import CLASSES

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "proto" / "mapd_api" / "v1" / "errors.proto"
PAGE = ROOT / "docs" / "reference" / "errors.md"

INTRODUCTION = """\
# Errors

<!-- Written by scripts/errors_page.py. Change proto/mapd_api/v1/errors.proto and run it again. -->

A missing key is an answer and not an error. Everything else that is refused has one of these reasons.

A refused call carries `google.rpc.Status` with a `google.rpc.ErrorInfo`: `reason` is the name below, `domain` is
`mapd`, and `metadata` has, where they apply, `errno`, `operation`, `map`, `map_type` and the numbers that the message
speaks of. Where waiting helps there is a `google.rpc.RetryInfo` too. Inside an answer (a group of operations, a load)
the same reasons stand in status columns, a byte each.

The Python client turns each reason into the exception beside it. All of them derive from `mapd_client.MapdError`.

| number | reason | gRPC status | exception | retry after | meaning |
|---|---|---|---|---|---|
"""


def meanings(proto: str) -> dict[str, str]:
    """The comment above each value of enum Reason, without the status in brackets.

    Raises:
        ValueError: a value has no comment.
    """
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in proto.splitlines():
        text = line.strip()
        value = re.fullmatch(r"REASON_(\w+) = \d+;", text)
        if value:
            meaning = re.sub(r"\s*\[[A-Z_]+(?:, RetryInfo)?\]", "", " ".join(comment)).strip(" ,")
            if not meaning:
                raise ValueError(f"{value.group(1)} has no comment in {PROTO.name}")
            found[value.group(1)] = meaning[0].upper() + meaning[1:]
        comment = [*comment, text.removeprefix("//").strip()] if text.startswith("//") else []
    return found


def page(proto: str) -> str:
    """The whole page."""
    meaning = meanings(proto)
    rows: list[str] = []
    for reason in Reason:
        if reason is Reason.DONE:
            continue
        status = f"`{STATUS[reason].name}`" if reason in STATUS else "none"
        delay = f"{RETRY_AFTER_S[reason]:g} s" if reason in RETRY_AFTER_S else ""
        exception = CLASSES[reason].__name__
        rows.append(
            f"| {reason.value} | `{reason.name}` | {status} | `{exception}` | {delay} | {meaning[reason.name]} |"
        )
    return INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(PROTO.read_text()))

"""Which call a line of the log is about: an id for each call, its client's own or one that is made here."""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Final

from mapd.rpc.caller import Context

HEADER: Final = "x-request-id"
"""The metadata by which a client names its call, as proxies and HTTP servers know it."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}")
"""Short, for it stands in every line about its call, and nothing that could forge a line or a terminal's colours."""


class RequestIds:
    """Makes ids for the calls of one start of a daemon: no two that it made are the same, before a restart or after."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def of(self, context: Context) -> str:
        """The id that the client gave, if it is one that may be logged; else a new one."""
        for key, value in context.invocation_metadata() or ():
            if key == HEADER and isinstance(value, str) and _PLAIN.fullmatch(value):
                return value
        return f"{self._start}-{next(self._numbers):x}"

"""Where in a TOML text its tables begin. tomllib does not tell, and a message that names the line is worth it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

Place = tuple[str | int, ...]
"""("principals", "web") or, of an array of tables, ("rules", 0)."""

# In this order whatever looks like a header inside a string or a comment is passed over.
_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")'
    r"|'''.*?'''(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|(?P<header>^[ \t]*\[\[?(?P<path>[A-Za-z0-9_\-. \t\"']+)\]\]?(?=[ \t\r]*(?:\#|$)))",
    re.DOTALL | re.MULTILINE,
)
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def tables(text: str) -> Mapping[Place, int]:
    """The lines, from 1, of the headers in a text that is TOML."""
    found: dict[Place, int] = {}
    counts: dict[str, int] = {}
    line, at = 1, 0
    for token in _TOKEN.finditer(text):
        if token["header"] is None:
            continue
        line += text.count("\n", at, token.start("header"))
        at = token.start("header")
        keys: list[str | int] = [key.strip("\"'") for key in _KEY.findall(token["path"])]
        if token["header"].lstrip().startswith("[[") and len(keys) == 1:
            name = str(keys[0])
            counts[name] = counts.get(name, -1) + 1
            keys.append(counts[name])
        found.setdefault(tuple(keys), line)
    return found

"""Keys and values by field name: codecs made from what is known of a map's types.

Imports no channel: usable by whoever has bytes and a layout.
"""

from __future__ import annotations

from mapd_client.typed.compiling import codec_of
from mapd_client.typed.hints import Hint
from mapd_client.typed.records import Fields

__all__ = ["Fields", "Hint", "codec_of"]

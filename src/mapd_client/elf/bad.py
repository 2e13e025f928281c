"""What is said of an object that cannot be read. Sans-I/O."""

from __future__ import annotations

from mapd_client.errors import Misuse


class BadObject(Misuse):
    """A file that is no eBPF object, or declares maps in a way that no loader understands.

    Attributes:
        section: that it is about, "" for the file itself.
        symbol: likewise, or the member of a BTF-defined map.
        number: what was found there, None where it is not one number.
    """

    section: str
    symbol: str
    number: int | None

    def __init__(
        self, message: str, *, section: str = "", symbol: str = "", number: int | None = None
    ) -> None:
        super().__init__(message, metadata={"section": section, "symbol": symbol, "number": str(number)})
        self.section = section
        self.symbol = symbol
        self.number = number

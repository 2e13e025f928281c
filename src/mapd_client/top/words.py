"""Numbers as short as a column is, and fill bars. Pure."""

from __future__ import annotations

from typing import Final

_FULL: Final = "█"
_PARTS: Final = " ▏▎▍▌▋▊▉"
_EMPTY: Final = "░"
NOTHING: Final = "-"

_THOUSANDS: Final = ("", "k", "M", "G", "T")
_BINARY: Final = ("B", "K", "M", "G", "T")


def count(number: int | None, *, exact: bool = True) -> str:
    """``1,234``, above 9,999,999 ``12.3M``; ``~`` before an estimate; ``-`` for what is not known."""
    if number is None:
        return NOTHING
    text = f"{number:,}" if number < 10_000_000 else _short(float(number), 1000.0, _THOUSANDS)
    return text if exact else f"~{text}"


def rate(number: float | None, *, signed: bool = False) -> str:
    """Each second: ``0``, ``0.4``, ``12``, ``1.2k``; with its sign where things go both ways."""
    if number is None:
        return NOTHING
    if number == 0:
        return "0"
    size = abs(number)
    sign = "-" if number < 0 else "+" if signed else ""
    if size < 0.05:
        return f"{sign}0.0"
    return sign + (f"{size:.1f}" if size < 9.95 else _short(size, 1000.0, _THOUSANDS))


def memory(number: int) -> str:
    """Bytes: ``82.8K``."""
    return f"{number}B" if number < 1000 else _short(float(number), 1024.0, _BINARY)


def _short(size: float, base: float, units: tuple[str, ...]) -> str:
    power = 0
    while size >= 999.5 and power < len(units) - 1:
        size /= base
        power += 1
    text = f"{size:.1f}" if power and size < 99.95 else f"{size:.0f}"
    return text + units[power]


def bar(fill: float, width: int) -> str:
    """So much of ``width`` characters, to an eighth of one; more than full is full."""
    eighths = round(min(max(fill, 0.0), 1.0) * width * 8)
    if fill > 0 and eighths == 0:
        eighths = 1  # something is there
    whole, part = divmod(eighths, 8)
    text = _FULL * whole + (_PARTS[part] if part else "")
    return text + _EMPTY * (width - len(text))


def cut(text: str, width: int) -> str:
    """Its end where it does not fit: what tells names apart stands there."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :] if width > 0 else ""


def percent(fill: float, *, exact: bool = True) -> str:
    """``42%``; 100 % only where it is full."""
    whole = int(fill * 100 + 1e-9)  # 0.29 * 100 is a little less than 29
    if fill < 1:
        whole = min(whole, 99)
    return f"{'' if exact else '~'}{whole}%"

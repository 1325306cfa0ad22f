"""How numbers and other people's strings are written, the same in a terminal, a notebook and a report."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that do not show, or reorder what does: controls, bidi marks, zero-width, line separators."""


def visible(text: str) -> str:
    r"""Return `text` with what does not show written as an escape: nothing hides, no terminal code gets through.

    Example:
        >>> visible("pay\u202eecila\x1b[2J")
        'pay\\u202eecila\\u001b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _HIDDEN else char for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits hold it


def shorten(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text`, the last one an ellipsis if it was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def count(number: float, one: str, many: str = "") -> str:
    """Write a count with its noun.

    Example:
        >>> count(1, "session"), count(1234, "session"), count(0, "this is", "these are")
        ('1 session', '1,234 sessions', '0 these are')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: float, whole: float) -> str:
    """Write a share in per cent; never rounds something to nothing, or less than all to all.

    Example:
        >>> share(1, 3), share(1, 100_000), share(99_999, 100_000), share(7, 7), share(0, 0)
        ('33.3 %', '< 0.1 %', '> 99.9 %', '100 %', '–')
    """
    if not whole:
        return "–"
    if part in (0, whole):
        return "100 %" if part else "0 %"
    percent = 100 * part / whole
    if percent < 0.1:  # noqa: PLR2004 - the last digit shown
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent <= 99.9 else "> 99.9 %"  # noqa: PLR2004


def number(value: float | bool | None) -> str:  # noqa: FBT001 - a cell of a table
    """Write a number as tables have it: thousands apart, four significant digits, `–` where there is none.

    Example:
        >>> number(1234), number(0.12344), number(None), number(True), number(1234567.8)
        ('1,234', '0.1234', '–', 'yes', '1,234,568')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - four digits

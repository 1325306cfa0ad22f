"""Values and kinds of coverage in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND_WORDS: Mapping[str, str] = {
    "tool": "tool", "ending": "how it ended", "policy": "policy", "clause": "clause", "boundary": "side of a literal",
    "context": "shape of context", "fact": "fact", "arguments": "optional arguments", "value": "value",
}  # fmt: skip
"""Kinds of things that one coverage has and another lacks."""

_DIGITS = 4
"""Decimal places that Cedar's `decimal` has."""


def value_text(kind: str, value: int | str | None) -> str:
    """Write a value as people read it.

    Example:
        >>> value_text("long", 20000), value_text("decimal", 12500), value_text("duration", 90_000)
        ('20,000', '1.25', '0:01:30')
        >>> value_text("datetime", 0), value_text("string", "x"), value_text("long", None)
        ('1970-01-01 00:00:00', '"x"', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value if kind in ("bool", "ipaddr") else f'"{value}"'
    if kind == "decimal":
        whole, part = divmod(abs(value), 10**_DIGITS)
        said = f"{whole:,}.{part:0{_DIGITS}d}".rstrip("0")
        return ("-" if value < 0 else "") + (f"{said}0" if said.endswith(".") else said)
    try:
        if kind == "datetime":
            return datetime.fromtimestamp(value / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        if kind == "duration":
            return str(timedelta(milliseconds=value))
    except (ValueError, OverflowError, OSError):
        return f"{value:,} ms"
    return f"{value:,}"

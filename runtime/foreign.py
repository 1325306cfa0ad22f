"""Text of objects that are not ours: what tools return and raise.

One rule: whatever an object's own methods do, its text can be recorded.
"""

from __future__ import annotations

from typing import Final

MESSAGE_CHARS: Final = 16 * 1024
"""Longest message of an exception that is recorded; the rest is cut off."""


def well_formed(text: str) -> str:
    """Escape lone surrogates, which no UTF-8 text can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def repr_of(value: object) -> str:
    """Return `repr(value)`, or what is known of a value whose own fails."""
    try:
        return well_formed(repr(value))
    except Exception as exc:  # noqa: BLE001 - a guard point: the method is not ours
        return f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"


def message_of(error: BaseException) -> str:
    """Return `str(error)`, bounded, or what is known of an exception whose own fails."""
    try:
        text = str(error)
    except Exception as exc:  # noqa: BLE001 - a guard point: the method is not ours
        text = f"<{type(error).__name__} whose str raises {type(exc).__name__}>"
    return well_formed(text if len(text) <= MESSAGE_CHARS else f"{text[:MESSAGE_CHARS]}…")

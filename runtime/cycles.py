"""Cycles among a session's attempts: how often the same call, or the same row of calls, has come again.

One rule: what is kept of a session is bounded (the last `MAX_PERIOD` attempts), and enough to go on for ever. For
each period *p*, `matches[p - 1]` is the number of attempts in a row, up to the last, that equal the one *p* before:
a cycle of *p* calls has come again `matches[p - 1] // p` times. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runtime.canonical import sha256
from runtime.limits_file import MAX_PERIOD

if TYPE_CHECKING:
    from runtime.canonical import Json

_DIGITS = 24
"""Of the hash that stands for a call: 96 bits, so that two calls are not taken for one."""


class Attempts(NamedTuple):
    """Where a session's attempts stand."""

    recent: tuple[str, ...] = ()
    """Signatures of the last ones, newest last."""
    matches: tuple[int, ...] = ()
    """By period, from 1; see the module."""

    def then(self, signature: str) -> Attempts:
        """Return where they stand after one more.

        Example:
            >>> state = Attempts()
            >>> for call in "ABABA":
            ...     state = state.then(call)
            >>> state.matches[:2]
            (0, 3)
        """
        recent = self.recent
        if signature not in recent:  # most calls are like none of the last ones
            return Attempts((*recent, signature)[-MAX_PERIOD:], (0,) * len(recent))
        before = (*self.matches, *(0,) * (len(recent) - len(self.matches)))
        matches = [
            matched + 1 if earlier == signature else 0
            for earlier, matched in zip(reversed(recent), before, strict=False)
        ]
        return Attempts((*recent, signature)[-MAX_PERIOD:], tuple(matches))

    @property
    def repeats(self) -> int:
        """How often the last call followed itself."""
        return self.matches[0] if self.matches else 0

    @property
    def recorded(self) -> list[Json]:
        """`matches` as decisions record them, without the zeros at the end."""
        if not any(self.matches):
            return []
        found: list[Json] = list(self.matches)
        while found and not found[-1]:
            found.pop()
        return found


def signature(tool: str, args: str) -> str:
    """Return what stands for a call: two calls are the same if tool and arguments (canonical text) are."""
    return sha256(f"{tool}\n{args}")[:_DIGITS]

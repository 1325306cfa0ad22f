"""The runtime's clock: what it may say.

One rule: a moment that decisions rest on has a zone and lies between 1970 and 9999, or nothing is decided.

A clock may jump all the same: back, so that facts are dated ahead of a decision and no longer count as fresh; ahead,
so that they are too old (`runtime.context`). Order never rests on it: that is the ledger's positions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runtime.errors import ClockError
from runtime.foreign import message_of

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 1, 1, tzinfo=UTC)


class CheckedClock:
    """A clock of the caller's that says UTC or raises `ClockError`."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Wrap a clock; it is not read yet.

        Raises:
            ClockError: it cannot be called.
        """
        if not callable(clock):
            raise ClockError(f"`clock` must be a function that returns the time, got {type(clock).__name__}")
        self._clock = clock

    def __call__(self) -> datetime:
        """Return the time, UTC.

        Raises:
            ClockError: the clock raised, or said something that is no usable moment.
        """
        try:
            moment: object = self._clock()
        except Exception as exc:  # a guard point: the clock is the caller's
            raise ClockError(f"the clock raised {type(exc).__name__}: {message_of(exc):.300}") from exc
        if not isinstance(moment, datetime) or moment.utcoffset() is None:
            raise ClockError(
                f"the clock must say a datetime with its zone, `datetime.now(UTC)`; it said {moment!r:.80}"
            )
        if not _FIRST <= moment < _LAST:
            raise ClockError(
                f"the clock must say a time between 1970 and 9999, it said {moment.isoformat()}; set it"
            )
        return moment.astimezone(UTC)


def checked_clock(clock: Callable[[], datetime] | None) -> Callable[[], datetime]:
    """Return the machine's clock for None, else the caller's, checked at each use.

    Raises:
        ClockError: it cannot be called.
    """
    if clock is None:
        return _utc_now
    return clock if isinstance(clock, CheckedClock) or clock is _utc_now else CheckedClock(clock)


def _utc_now() -> datetime:
    return datetime.now(UTC)

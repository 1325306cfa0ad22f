"""The two windows that drift is looked for between.

One rule: they have no decision in common; what is in the first is left out of the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import polars as pl

from workbench.drifting.values import Window
from workbench.errors import NotComparable
from workbench.lake import Lake
from workbench.pins import Pins, pinned
from workbench.texts import count
from workbench.tracking import shown

Moment: TypeAlias = datetime | str | None
"""ISO text is UTC where it names no zone; None: open."""
Given: TypeAlias = tuple[Moment, Moment] | Pins | Mapping[str, Any] | Lake
"""Start, included, and end, not included; a pin, for all rows up to it; or a lake, for all of it."""


def windows_of(lake: Lake, before: Given, after: Given | None) -> tuple[Window, Window]:
    """Return both windows; `after` None: what comes after the first, in `lake`.

    Raises:
        NotComparable: one of them is none.
    """
    first = _window(lake, before, "before")
    second = _after(lake, before, first) if after is None else _apart(_window(lake, after, "after"), first)
    return first, second


def _window(lake: Lake, given: object, what: str) -> Window:
    """A window, however it is given."""
    if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004 - start and end
        start, end = (_moment(each, what) for each in given)
        at = pl.col("decided_at")
        where = pl.lit(value=True)
        where = where if start is None else where & (at >= start)
        where = where if end is None else where & (at < end)
        return Window(lake, where, f"{_said(start, 'the start')} to {_said(end, 'the end')}")
    if isinstance(given, Pins | Mapping):
        to = Pins(pinned(given))
        return Window(lake, to.holds, f"{count(sum(to.ledgers.values()), 'position')} of the log")
    if isinstance(given, Lake):
        return Window(given, pl.lit(value=True), f"the lake at {shown(given.uri)}")
    raise NotComparable(
        f"`{what}` is a pair of times, a pin (`lake.pins`) or a lake, as ('2026-11-01', '2026-11-08'); "
        f"got {given!r:.80}"
    )


def _moment(given: object, what: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as exc:
        raise NotComparable(
            f"`{what}`: {given!r:.40} is no time; write 2026-11-01 or 2026-11-01T10:00:00Z"
        ) from exc
    if found is not None and not isinstance(found, datetime):
        raise NotComparable(
            f"`{what}`: {given!r:.40} is no time; give a datetime, or a text as 2026-11-01T10:00:00Z"
        )
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)


def _said(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _after(lake: Lake, given: Given, first: Window) -> Window:
    """What comes after a window, in the lake."""
    if isinstance(given, tuple):
        end = _moment(given[1], "before")
        return _apart(_window(lake, (end, None), "after"), first)
    to = first.lake.pins if isinstance(given, Lake) else Pins(pinned(given))
    return Window(lake, ~to.holds, "what came after it")


def _apart(second: Window, first: Window) -> Window:
    """The second window without what is in the first."""
    if second.lake.uri != first.lake.uri:
        return second
    inside = first.where & first.lake.pins.holds
    if first.lake.chosen is not None:
        inside &= first.lake.chosen.fill_null(value=False)
    return Window(second.lake, second.where & ~inside, second.text)

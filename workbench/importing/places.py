"""In which order an import's calls come: by time, a session's in their steps.

One rule: the order follows from the file alone. It is kept in columns, some 60 bytes a call, so that a file may hold
more calls than fit into memory.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from workbench.importing.moments import EPOCH_US, SECOND, derived

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from workbench.importing.calls import Place, SessionKey

NONE: Final = -(2**63)
"""Stands for a time that is not there: beyond what `workbench.importing.moments` lets pass."""
ASIDE: Final = -1
"""Entry of a row that is kept aside."""


def _numbers() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Places:
    """What orders rows, a place each (of all whose session is known), and what calls say of time."""

    sessions: dict[SessionKey, int] = field(default_factory=dict)
    """Numbered in the order in which they are met."""
    session: array[int] = field(default_factory=_numbers)
    """By place."""
    entry: array[int] = field(default_factory=_numbers)
    """By place, of the spool; `ASIDE`: the row is no call."""
    order: array[int] = field(default_factory=_numbers)
    """By place, integers of up to 64 bits; `NONE` where there is none, or it stands in `odd`."""
    odd: dict[int, float] = field(default_factory=dict)
    """By place, other numbers."""
    number: array[int] = field(default_factory=_numbers)
    """By entry, of the row."""
    at: array[int] = field(default_factory=_numbers)
    """By entry, when it was, or `NONE`."""
    start: array[int] = field(default_factory=_numbers)
    """By entry, when its session began, or `NONE`."""

    def add(self, key: SessionKey, place: Place) -> None:
        """Take in a row, as kept aside until `call` is told otherwise."""
        if isinstance(place, float) and place.is_integer():
            place = int(place)  # equal to it, so it orders alike
        if isinstance(place, int) and NONE < place < -NONE:
            self.order.append(place)
        else:
            self.order.append(NONE)
            if place is not None:
                self.odd[len(self.session)] = place
        self.session.append(self.sessions.setdefault(key, len(self.sessions)))
        self.entry.append(ASIDE)

    def call(self, number: int, at: int | None, start: int | None) -> None:
        """Say that the last row is a call, the next entry of the spool."""
        self.entry[-1] = len(self.at)
        self.number.append(number)
        self.at.append(NONE if at is None else at)
        self.start.append(NONE if start is None else start)

    def ordered(self, aside: Sequence[int]) -> Order:
        """Return the calls in the order of a ledger, with steps and times; those that are missing are derived.

        Args:
            aside: entries that are kept aside after all.

        Cost: O(calls x log calls), and 100 bytes a call while it lasts.
        """
        entry = np.array(self.entry, dtype=np.int64)
        if aside:
            entry[np.isin(entry, np.array(aside, dtype=np.int64))] = ASIDE
        session = np.array(self.session, dtype=np.int64)
        by_session = np.argsort(session, kind="stable")
        ends = np.cumsum(np.bincount(session, minlength=len(self.sessions)))
        found = [_numbers() for _ in range(6)]
        before = 0
        for number, end in enumerate(ends.tolist()):
            places = self._sorted(by_session[before:end].tolist())
            self._session(number, [int(entry[place]) for place in places], before, found)
            before = end
        entries, sessions, at, missing, step, latest = (np.array(each, dtype=np.int64) for each in found)
        chain = np.lexsort((step, sessions, latest))
        return Order(
            entry=entries[chain], session=sessions[chain], at=at[chain], step=step[chain],
            derived=missing[chain],
        )  # fmt: skip

    def _sorted(self, places: list[int]) -> list[int]:
        """A session's rows in order; as they come, where one of them does not say its place."""
        known = [self._at(place) for place in places]
        if any(each is None for each in known):
            return places
        return [place for _, place in sorted(zip(known, places, strict=True))]

    def _at(self, place: int) -> Place:
        found = self.order[place]
        return found if found != NONE else self.odd.get(place)

    def _session(self, number: int, entries: list[int], before: int, found: list[array[int]]) -> None:
        """Give a session's calls their steps and times, and the latest time so far."""
        steps = [step for step, entry in enumerate(entries) if entry != ASIDE]
        mine = [entries[step] for step in steps]
        known = [_some(self.at[entry]) for entry in mine]
        times = derived(known, _some(self.start[mine[0]]) if mine else None, EPOCH_US + before * SECOND)
        latest = 0
        for entry, time, given, step in zip(mine, times, known, steps, strict=True):
            latest = max(latest, time)
            for column, value in zip(found, (entry, number, time, given is None, step, latest), strict=True):
                column.append(value)


def _some(time: int) -> int | None:
    return None if time == NONE else time


class Order(NamedTuple):
    """Calls in the order of a ledger, in columns."""

    entry: NDArray[np.int64]
    """Of the spool."""
    session: NDArray[np.int64]
    at: NDArray[np.int64]
    """Microseconds UTC."""
    step: NDArray[np.int64]
    """Of its session: the rows kept aside are counted."""
    derived: NDArray[np.int64]
    """1 where its time follows from the order, else 0."""

    def without(self, entries: Sequence[int]) -> Order:
        """Return the others, with steps and times as they are."""
        kept = ~np.isin(self.entry, np.array(entries, dtype=np.int64))
        return Order(*(column[kept] for column in self))

    def blocks(self, size: int) -> Iterator[Order]:
        """Yield it in parts."""
        for begin in range(0, len(self.entry), size):
            yield Order(*(column[begin : begin + size] for column in self))

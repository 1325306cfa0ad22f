"""What was tried in a tuning session: one entry a version that was decided, so that none is lost by the next edit.

One rule: a version is tried once. Coming back to a text, by undo or by hand, is the same entry; and an entry can give
its texts again.

Accepted: after `MAX_TRIED` versions the oldest that nothing needs are dropped, and how many is said: never the first,
the current, or one on the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from workbench.metrics import STATES
from workbench.searching.objectives import OBJECTIVES
from workbench.searching.pareto import front
from workbench.texts import shorten, visible
from workbench.tuning.changes import said_changes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.bundle import Bundle
    from workbench.searching.objectives import Objective

MAX_TRIED = 1_000
MAX_CHANGED = 300
"""Characters of what was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One version, and what it made of the history."""

    number: int
    """From 0, in the order of trying; 0 is the version the session began with."""
    bundle: Bundle
    changed: str
    """What differs from version 0, in words; empty for it."""
    seconds: float
    decisions: int
    verdicts: Mapping[str, int]
    """Decisions by the six states of `workbench.metrics.STATES`."""
    objectives: Mapping[str, tuple[int, int]]
    """By name of `workbench.searching.objectives`: how many, and of how many."""


class Answered(Protocol):
    """What is noted of an answer (`workbench.live.Answer`)."""

    @property
    def seconds(self) -> float:
        """That deciding took."""

    @property
    def decisions(self) -> int:
        """How many there are."""

    @property
    def verdicts(self) -> Mapping[str, int]:
        """Decisions by state."""

    @property
    def objectives(self) -> Mapping[str, tuple[int, int]]:
        """By name: how many, and of how many."""


class Tried:
    """The versions of a session, in the order of trying."""

    def __init__(self) -> None:
        self.by_version: dict[str, Try] = {}
        self.dropped = 0
        """How many are not kept any more."""

    def add(self, bundle: Bundle, answer: Answered) -> Try:
        """Note what a version makes of the history; one that was tried already stays as it is."""
        if (known := self.by_version.get(bundle.version)) is not None:
            return known
        first = self.first
        found = Try(
            number=self._next,
            bundle=bundle,
            changed="" if first is None else shorten(said_changes(first.bundle, bundle), MAX_CHANGED),
            seconds=answer.seconds,
            decisions=answer.decisions,
            verdicts=dict(answer.verdicts),
            objectives=dict(answer.objectives),
        )
        self.by_version[bundle.version] = found
        self._make_room(found)
        return found

    @property
    def all(self) -> tuple[Try, ...]:
        """Those that are kept, in the order of trying."""
        return tuple(self.by_version.values())

    @property
    def first(self) -> Try | None:
        """The version the session began with."""
        return next(iter(self.by_version.values()), None)

    def get(self, number: int) -> Try | None:
        """Return one by its number; None: not tried, or not kept."""
        return next((each for each in self.by_version.values() if each.number == number), None)

    @property
    def axes(self) -> tuple[Objective, Objective]:
        """The two objectives that versions are drawn by; see `axes_of`."""
        first = self.first
        return axes_of({} if first is None else first.objectives)

    @property
    def front(self) -> frozenset[int]:
        """Numbers of those that nothing that was tried beats on both axes."""
        tries = self.all
        if not tries:
            return frozenset()
        names = [axis.name for axis in self.axes]
        points = np.array([[each.objectives[name][0] for name in names] for each in tries], dtype=np.int64)
        return frozenset(each.number for each, best in zip(tries, front(points), strict=True) if best)

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a version tried, in order; in memory.

        Columns: `number` (UInt32), `policy_version` (String), `changed` (String, against version 0), `on_front`
        (Boolean: nothing that was tried beats it on the two objectives that are drawn), for each objective `<name>`
        and `<name>_of` (Int64), the six states of `workbench.metrics.STATES` (Int64), `seconds` (Float64).
        """
        return _frame(self.all, self.front).lazy()

    @property
    def _next(self) -> int:
        last = next(reversed(self.by_version.values()), None)
        return 0 if last is None else last.number + 1

    def _make_room(self, newest: Try) -> None:
        if len(self.by_version) <= MAX_TRIED:
            return
        kept = {0, newest.number, *self.front}
        oldest = next((each for each in self.by_version.values() if each.number not in kept), None)
        if oldest is not None:
            del self.by_version[oldest.bundle.version]
            self.dropped += 1


def axes_of(objectives: Mapping[str, tuple[int, int]]) -> tuple[Objective, Objective]:
    """Return what versions are drawn by: what is held up, and harm let through; without labels, approvals.

    Args:
        objectives: of one version; those of which there is nothing (`of` is 0) are no use.
    """
    good = "good_held_up" if objectives.get("good_held_up", (0, 0))[1] else "calls_held_up"
    harm = "harm_let_through" if objectives.get("harm_let_through", (0, 0))[1] else "approvals_asked"
    return OBJECTIVES[good], OBJECTIVES[harm]


def _frame(tries: Sequence[Try], on_front: frozenset[int]) -> pl.DataFrame:
    names = list(tries[0].objectives) if tries else []
    rows = [
        {
            "number": each.number,
            "policy_version": each.bundle.version,
            "changed": visible(each.changed),
            "on_front": each.number in on_front,
            **{name: each.objectives[name][0] for name in names},
            **{f"{name}_of": each.objectives[name][1] for name in names},
            **{state: each.verdicts.get(state, 0) for state in STATES},
            "seconds": each.seconds,
        }
        for each in tries
    ]
    schema: dict[str, type[pl.DataType]] = {
        "number": pl.UInt32, "policy_version": pl.String, "changed": pl.String, "on_front": pl.Boolean,
    }  # fmt: skip
    schema |= dict.fromkeys([*names, *(f"{name}_of" for name in names), *STATES], pl.Int64)
    return pl.DataFrame(rows, schema={**schema, "seconds": pl.Float64})

"""What changes from one answer to another: numbers, and the decisions that people ask about first.

One rule: a decision is listed as newly held up, or newly released, exactly if an objective of
`workbench.searching.objectives` counts it now and did not before; so lists and numbers agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from workbench.errors import NotComparable
from workbench.live.classes import numbered, renumbered
from workbench.live.history import SHOWN
from workbench.live.said import effect_of, told_of
from workbench.searching.objectives import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from workbench.live.answer import Answer
    from workbench.live.history import History
    from workbench.live.parts import Rows

GOOD, HARM = "good_held_up", "harm_let_through"
"""Objectives whose decisions are listed."""


class Listed(NamedTuple):
    """Decisions that an objective counts under one answer and not under the other."""

    rows: pl.DataFrame
    """The first of them, in the log's order: `decision_id`, `tenant`, `session_id` (String), `step` (Int32),
    `decided_at` (Datetime, UTC), `tool`, `principal` (String), `from`, `to` (String, states), `effect` (String),
    `determining` (List[String])."""
    decisions: int
    """All of them."""
    sessions: int
    """In how many sessions."""
    every: Rows
    """All of them, as rows of the history."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Change:
    """One answer beside another."""

    verdicts: Mapping[str, int]
    """By state: how many more; they sum to 0."""
    effects: Mapping[str, int]
    """By effect: how many more."""
    objectives: Mapping[str, int]
    """By objective: how many more."""
    changed: int
    """Decisions with another state."""
    flips: pl.DataFrame
    """Decisions by what both say, where that differs: `tool`, `from`, `to` (states), `n`; most first."""
    blocked_good: Listed
    """Honest calls that ran and would now be held up, or may, and would not before."""
    freed_good: Listed
    """The other way round."""
    released_harm: Listed
    """Attack calls that would now take effect, or may, and would not before."""
    stopped_harm: Listed
    """The other way round."""
    _history: History = field(repr=False)

    @property
    def newly_blocked_good(self) -> pl.DataFrame:
        """The first rows of `blocked_good`."""
        return self.blocked_good.rows

    @property
    def newly_released_harm(self) -> pl.DataFrame:
        """The first rows of `released_harm`."""
        return self.released_harm.rows

    @classmethod
    def between(cls, before: Answer, after: Answer, most: int) -> Change:
        """Compare two answers of one history; see `Answer.against`."""
        history = after.history
        if before.history is not history:
            raise NotComparable("the answers are of different histories; take both from one `Live`")
        pairs = _Pairs.of(before, after)
        good, harm = (pairs.holds(name) for name in (GOOD, HARM))

        def listed(where: NDArray[np.bool_]) -> Listed:
            return _listed(history, pairs, where, most)

        return cls(
            verdicts=_more(before.verdicts, after.verdicts),
            effects=_more(before.effects, after.effects),
            objectives={
                name: now - before.objectives[name][0] for name, (now, _) in after.objectives.items()
            },
            changed=pairs.changed,
            flips=pairs.flips(),
            blocked_good=listed(~good[0] & good[1]),
            freed_good=listed(good[0] & ~good[1]),
            released_harm=listed(~harm[0] & harm[1]),
            stopped_harm=listed(harm[0] & ~harm[1]),
            _history=history,
        )


def _more(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in after.items()}


class _Pairs(NamedTuple):
    """Rows of which two answers say something else, by key and what both say."""

    history: History
    rows: Rows
    pair: NDArray[np.intp]
    """Of each row: row of `table`."""
    table: NDArray[np.int32]
    """Distinct (key, before, after)."""
    n: NDArray[np.intp]
    """Rows of each."""

    @classmethod
    def of(cls, before: Answer, after: Answer) -> _Pairs:
        history = after.history
        one, two = before.codes, after.codes
        rows = np.flatnonzero(one != two)
        columns = [numbered(each[rows]) for each in (history.key, one, two)]
        codes, most = np.zeros(len(rows), np.intp), 1
        for number, values in columns:  # renumbered each time, so that what is counted has few gaps
            codes, most = renumbered(codes * len(values) + number, most * len(values))
        n = np.bincount(codes, minlength=most)
        first = np.zeros(most, np.intp)
        first[codes[::-1]] = np.arange(len(rows) - 1, -1, -1)
        table = np.stack([values[number[first]] for number, values in columns], axis=1)
        return cls(history, rows, codes, table, n)

    @property
    def changed(self) -> int:
        return int(sum(n for n, (_, one, two) in zip(self.n, self._said(), strict=True) if one != two))

    def _said(self) -> list[tuple[str, str, str]]:
        """Tool and both states, of each row of the table."""
        every, keys = self.history.book.every, self.history.keys
        return [(keys[key].tool, every[one].state, every[two].state) for key, one, two in self.table]

    def flips(self) -> pl.DataFrame:
        schema = {"tool": pl.String, "from": pl.String, "to": pl.String, "n": pl.Int64}
        rows = [(*said, int(n)) for said, n in zip(self._said(), self.n, strict=True) if said[1] != said[2]]
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        keys = ("tool", "from", "to")
        return frame.group_by(keys).agg(pl.col("n").sum()).sort("n", *keys, descending=[True, *[False] * 3])

    def holds(self, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether an objective counts a row of the table, before and after."""
        found = []
        for column in (1, 2):
            every, keys = self.history.book.every, self.history.keys
            told = [told_of(keys[row[0]], every[row[column]]) for row in self.table]
            schema = dict.fromkeys(("status", "verdict"), pl.String) | {"verdict_changed": pl.Boolean}
            schema |= dict.fromkeys(("effect", "then", "side", "part"), pl.String)
            frame = pl.DataFrame(told, schema=schema, orient="row")
            found.append(frame.select(OBJECTIVES[name].holds.fill_null(value=False)).to_series().to_numpy())
        return found[0], found[1]


def _listed(history: History, pairs: _Pairs, where: NDArray[np.bool_], most: int) -> Listed:
    chosen = where[pairs.pair]
    rows, which = pairs.rows[chosen], pairs.pair[chosen]
    sessions = history.rows["session"].gather(pl.Series(rows, dtype=pl.UInt32)).n_unique()
    every, keys = history.book.every, history.keys
    told = [
        (every[one].state, every[two].state, effect_of(keys[key], every[two]), list(every[two].determining))
        for key, one, two in pairs.table[which[:most]]
    ]
    said: dict[str, pl.DataType] = dict.fromkeys(("from", "to", "effect"), pl.String())
    schema = said | {"determining": pl.List(pl.String)}
    at = pl.Series(rows[:most], dtype=pl.UInt32)
    shown = [history.rows[name].gather(at) for name in SHOWN]
    texts = [each.cast(pl.String) if each.dtype == pl.Categorical else each for each in shown]
    frame = pl.DataFrame(texts).hstack(pl.DataFrame(told, schema=schema, orient="row"))
    return Listed(frame, len(rows), sessions, rows)

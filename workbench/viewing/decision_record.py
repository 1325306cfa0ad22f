"""Everything the lake holds of one decision: its row, how it ended, its links, its neighbours in the chain.

One rule: only rows that belong to the decision are read, found by the tables' statistics, whatever the lake holds.
Shadow decisions are found, too: they can be looked at, though replay leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.trace import DECISIONS, OUTCOMES
from workbench.explaining.one import MIN_PREFIX, find
from workbench.explaining.one import with_ending as ended
from workbench.history.records import MORE, NEEDED, with_contexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.lake import Lake

MAX_EVENTS = 200
"""Outcomes and links of one decision that are read."""

_LINKED = ("decision_id", "kind", "linked_to", "verdict", "reason_code", "decided_at", "step")


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One recorded decision."""

    row: Mapping[str, Any] = field(repr=False)
    """All columns of `decisions`."""
    frame: pl.DataFrame = field(repr=False)
    """The same as `workbench.explaining.one.find` has it: what is decided again."""
    events: Sequence[Mapping[str, Any]] = field(repr=False)
    """Rows of `outcomes` that are of this decision, its session, or the grants it used, as they became durable."""
    links: Sequence[Mapping[str, Any]] = field(repr=False)
    """Decisions it is linked to or that are linked to it, in order of time."""
    neighbours: Mapping[int, Mapping[str, Any]] = field(repr=False)
    """`prev_hash` and `hash` of the rows before and after it in its chain, by position."""

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["decision_id"])

    @property
    def is_shadow(self) -> bool:
        """Whether it was made by a shadow bundle and never enforced."""
        return bool(self.row["kind"] == "shadow")


def read(lake: Lake, decision_id: str) -> Record:
    """Read a decision and what belongs to it.

    Args:
        lake: the pinned lake.
        decision_id: its id, or the first characters of it where they fit one only.

    Raises:
        DecisionNotFound: none, or several; names ids that are near.

    Cost: two rounds of reads; statistics skip most files. A tenth of a second on a million decisions.
    """
    row = _row(lake, decision_id)
    (found,) = row.iter_rows(named=True)
    record = row.select(*NEEDED, *MORE)
    # One by one: together, Polars reads a table that two of them share once and whole, and skips no file.
    events, links, *chain = (each.collect() for each in _asked(lake, found))
    told = events.filter(pl.col("kind") == "execution", pl.col("decision_id") == found["decision_id"])
    if links.filter(pl.col("kind") == "resumed", pl.col("linked_to") == found["decision_id"]).height:
        record = ended(
            _session(lake, found), record
        )  # what became of it is told of the call that was resumed
    else:
        last = told["status"].tail(1).to_list()
        record = record.with_columns(pl.lit(last[0] if last else None, pl.String).alias("execution_status"))
    return Record(
        row=found,
        frame=with_contexts(record, lake),
        events=events.to_dicts(),
        links=links.to_dicts(),
        neighbours={each["position"]: each for rows in chain for each in rows.iter_rows(named=True)},
    )


def _row(lake: Lake, decision_id: str) -> pl.DataFrame:
    """The decision's row, whole."""
    wanted = decision_id.strip()
    column = pl.col("decision_id")
    within = (column >= wanted) & (column < wanted + "\U0010ffff")
    if len(wanted) >= MIN_PREFIX:
        rows = lake.table(DECISIONS).filter(within, lake.pins.holds).head(2).collect()
        exact = rows.filter(column == wanted)
        if (exact if exact.height else rows).height == 1:
            return exact if exact.height else rows
    exactly = find(lake, wanted)["decision_id"][0]  # says what is wrong
    return lake.table(DECISIONS).filter(column == exactly, lake.pins.holds).collect()


def _session(lake: Lake, row: Mapping[str, Any]) -> Lake:
    return lake.where(pl.col("tenant") == row["tenant"], pl.col("session_id") == row["session_id"])


def _asked(lake: Lake, row: Mapping[str, Any]) -> list[pl.LazyFrame]:
    """What is read beside the row: outcomes, linked decisions, and the neighbours in the chain."""
    ident, asked = row["decision_id"], row["linked_to"]
    of = [ident] if asked is None else [ident, asked]
    here = (pl.col("tenant") == row["tenant"]) & (pl.col("session_id") == row["session_id"])
    outcomes = lake.table(OUTCOMES).filter(lake.pins.holds)
    decisions = lake.table(DECISIONS).filter(lake.pins.holds)
    mine = (
        (pl.col("decision_id") == ident)
        | (pl.col("decision_id").is_null() & (pl.col("kind") == "label"))
        | ((pl.col("kind") == "approval") & pl.col("decision_id").is_in(of))
        | pl.col("outcome_id").is_in(row["grants"] or [""])
    )
    linked = (pl.col("linked_to") == ident) | (pl.col("decision_id") == (asked or ""))
    beside = (pl.col("writer") == row["writer"]) & pl.col("position").is_in(
        [row["position"] - 1, row["position"] + 1]
    )
    chain = ("position", "prev_hash", "hash")
    return [
        outcomes.filter(here, mine).sort("writer", "position").head(MAX_EVENTS),
        decisions.filter(here, linked).select(_LINKED).sort("decided_at").head(MAX_EVENTS),
        *(table.filter(beside).select(chain) for table in (decisions, outcomes)),
    ]

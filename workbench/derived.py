"""What follows from a lake's rows: how calls ended, which labels hold, what a session came to.

One rule: where several rows say something of the same thing, the last one holds, by what made them durable.
"""

from __future__ import annotations

import polars as pl

VERDICTS = ("allow", "modify", "approve", "block")


def executions_of(outcomes: pl.LazyFrame) -> pl.LazyFrame:
    """Return how each call ended: of several execution outcomes of a decision, the last by position.

    A call that was in doubt has a later outcome once somebody knew; rows of kind `approval` and `label` are none.
    """
    rows = outcomes.filter(pl.col("kind") == "execution").drop("kind", "label", "value", "details")
    return rows.sort("writer", "position").unique("decision_id", keep="last", maintain_order=True)


def labels_of(outcomes: pl.LazyFrame) -> pl.LazyFrame:
    """Return the labels in force: of several that say the same thing of the same, the last."""
    of = ("tenant", "session_id", "decision_id", "label")
    rows = outcomes.filter(pl.col("kind") == "label")
    return (
        rows.select(*of, "value", "source", "recorded_at", "writer", "position")
        .sort("recorded_at", "writer", "position")
        .unique(of, keep="last", maintain_order=True)
    )


def sessions_of(decisions: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a session, in order of its start."""
    verdicts = {name: pl.col("verdict").eq(name).sum() for name in VERDICTS}
    uid = pl.format('{}::"{}"', "principal_type", "principal_id")
    rows = decisions.filter(pl.col("kind") != "shadow").group_by("tenant", "session_id")
    return rows.agg(
        uid.first().alias("principal"),
        pl.col("decided_at").min().alias("started_at"),
        pl.col("decided_at").max().alias("ended_at"),
        pl.len().alias("decisions"),
        **verdicts,
        tools=pl.col("tool").unique().sort(),
    ).sort("started_at", "tenant", "session_id")

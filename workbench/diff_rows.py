"""The rows of a comparison: two replays side by side, with the labels of each decision.

One rule: equal pins give equal rows in equal order; rows that only one of the replays has are an error, for they
would leave the denominator.
"""

from __future__ import annotations

import polars as pl

from workbench.effects import ALL_EFFECTS
from workbench.errors import NotComparable
from workbench.metrics import DECIDED, SIDES, STATES, UNRESOLVED
from workbench.progress import progress

NARROW = (
    "decision_id", "tenant", "session_id", "step", "principal", "tool", "kind", "decided_at", "recorded_verdict",
    "decided_by", "reason_code", "determining", "then",
)  # fmt: skip
WHY = ("status", "cause", "missing")
WIDE = ("resource", "args", "enforced_args", "reason", "errors")
"""Columns that stay in the replay until a row is looked at."""


@progress(None, "comparing decisions")
def rows_of(base: pl.LazyFrame, cand: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows of `workbench.compare.Diff.frame`.

    Args:
        base: rows of the base replay.
        cand: of the candidate's.
        labels: in force in the lake.

    Raises:
        NotComparable: the replays have other rows, or in another order.
    """
    # Side by side, not joined: equal pins give equal rows in equal order, and a join would move every list.
    left = base.select("decision_id", _STATE.alias("from"), **_BASE).collect()
    right = cand.select(*NARROW, _STATE.alias("to"), *WHY, _EFFECT).collect()
    _require_same(left["decision_id"], right["decision_id"])
    said = labels_of(right.lazy(), labels).collect()
    rows = pl.concat([right, left.drop("decision_id"), said], how="horizontal").lazy()
    found = rows.with_columns(**JOINED).with_columns(**_CHANGES)
    return found.drop("base_status", "base_cause", "base_missing").collect()


def _require_same(base: pl.Series, cand: pl.Series) -> None:
    """Refuse rows that only one of the replays has: they would leave the denominator."""
    if base.equals(cand):
        return
    only_base, only_cand = (
        (~one.is_in(other.implode())).sum() for one, other in ((base, cand), (cand, base))
    )
    raise NotComparable(
        f"the replays cover different decisions: {only_base:,} are in the base only, {only_cand:,} in the candidate "
        "only, or their order differs; replay both over all decisions of one `lake`"
    )


def labels_of(rows: pl.LazyFrame, labels: pl.LazyFrame) -> pl.LazyFrame:
    """Give `origin` (of the decision) and `scenario` (of the session) for each row; null where nobody said."""
    text = labels.with_columns(pl.col("decision_id").cast(pl.String), pl.col("value").cast(pl.String))
    of_call = pl.col("decision_id").is_not_null()
    found = rows.select("tenant", "session_id", "decision_id")
    for name, level, key in (("origin", of_call, "decision_id"), ("scenario", ~of_call, "session_id")):
        said = text.filter(level, pl.col("label") == name).select("tenant", key, pl.col("value").alias(name))
        last = said.unique(["tenant", key], keep="last", maintain_order=True)
        found = found.join(last, on=["tenant", key], how="left", maintain_order="left")
    return found.select("origin", "scenario")


_STATE = pl.when(pl.col("status") == "decided").then("verdict").otherwise("status").cast(pl.Enum(STATES))
_EFFECT = pl.col("effect").cast(pl.Enum(ALL_EFFECTS))
_BASE = {"base_effect": _EFFECT} | {f"base_{name}": pl.col(name) for name in (*WHY, "determining")}
JOINED: dict[str, pl.Expr] = {
    "status": (
        pl.when(pl.any_horizontal(pl.col("status", "base_status") == "quarantined")).then(pl.lit("quarantined"))
        .when(pl.any_horizontal(pl.col("status", "base_status") == "undecided")).then(pl.lit("undecided"))
        .otherwise("status").cast(pl.Enum(("decided", *UNRESOLVED)))
    ),
    "cause": pl.coalesce("cause", "base_cause"),
    "missing": pl.when(pl.col("missing").list.len() > 0).then("missing").otherwise("base_missing"),
    "side": (
        pl.when(pl.col("origin") == "attack").then(pl.lit("attack"))
        .when(pl.col("origin") == "user").then(pl.lit("honest"))
        .otherwise(pl.lit("unlabelled")).cast(pl.Enum(tuple(SIDES)))
    ),
}  # fmt: skip
_FLIPS = pl.col("from") != pl.col("to")
_CHANGES = {
    "changed": DECIDED & (_FLIPS | (pl.col("effect") != pl.col("base_effect"))),
    "verdict_changed": pl.when(DECIDED).then(_FLIPS),
}

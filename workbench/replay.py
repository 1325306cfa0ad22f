"""Replay: every recorded decision decided again, from the tables alone. It never executes a tool.

One rule: one row for each recorded decision, whatever happens to it. A row that does not reproduce itself is
`quarantined` with a cause; one the record cannot answer for is `undecided` with what is missing; both stay in every
denominator.

Self-replay comes first, on two levels counted apart. *Decidable*: what the row refers to re-hashes to its address
and gives the recorded verdict, policies and errors. *Recompilable*: the recorded spec over the recorded source
versions gives the same context, byte for byte. Policy replay needs the first, context replay both.

Axes: policies (with schema and links) from `policy=`, facts from `context=`, budgets from `limits=`; each as recorded
unless given.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.canonical import content_hash, new_id
from runtime.trace import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from workbench.lake import Lake

CAUSES: Mapping[str, str] = {
    "policy_lost": "the lake does not hold the bundle the decision was made under",
    "context_lost": "the lake does not hold the context the row refers to",
    "context_corrupt": "the context does not hash to its address",
    "row_corrupt": "the row contradicts itself: its arguments do not hash to `args_hash`",
    "row_unreadable": "the row cannot be read as a request",
    "not_reproduced": "the recorded stages decide something else now: another engine, schema or hand was at work",
    "not_recompiled": "the recorded spec over the recorded versions gives another context",
    "unversioned_source": "a fact comes from a source without versions, so it cannot be compiled again",
    "source_unreadable": "a source of facts cannot be read at that version any more",
    "missing_fact": "the decision depends on something the record did not ask for",
}
"""Closed vocabulary of `cause`, with its meaning."""

_FAULTS = pl.List(pl.Struct({"policy": pl.String, "message": pl.String}))
FRAME: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "decision_id": pl.String, "session_id": pl.String, "step": pl.Int32, "tenant": pl.String,
    "principal": pl.String, "tool": pl.String, "resource": pl.String, "args": pl.String, "kind": pl.String,
    "decided_at": pl.Datetime("us", "UTC"), "writer": pl.String, "position": pl.Int64,
    "recorded_verdict": pl.String, "recorded_decided_by": pl.String, "recorded_reason_code": pl.String,
    "recorded_determining": pl.List(pl.String),
    "status": pl.String, "cause": pl.String, "missing": pl.List(pl.String),
    "verdict": pl.String, "decided_by": pl.String, "reason_code": pl.String, "reason": pl.String,
    "determining": pl.List(pl.String), "errors": _FAULTS, "enforced_args": pl.String, "action_hash": pl.String,
    "engine": pl.String, "then": pl.String, "effect": pl.String, "verdict_changed": pl.Boolean,
    "decidable": pl.Boolean, "recompilable": pl.Boolean,
}  # fmt: skip
"""Columns of `Replay.frame`. `verdict` and what follows it are null unless `status` is `decided`; `recompilable` is
null where it was not asked."""


@dataclass(frozen=True)
class Replay:
    """Recorded decisions, decided again under one policy and one context."""

    lake: Lake
    policy: tuple[str, str]
    """Name and version of the policies; `("as recorded", "recorded")` for a self-replay."""
    context: str
    """`recorded`, or which spec the contexts were compiled again with."""
    rows: pl.DataFrame = field(repr=False)
    engine: str
    id: str = field(default_factory=new_id)

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a recorded decision, ordered by (writer, position); columns as in `FRAME`. In memory."""
        return self.rows.lazy()

    @cached_property
    def pins(self) -> dict[str, Any]:
        """What this replay rests on: ledgers with their last position, Delta versions, policy, context, engine."""
        return {
            **self.lake.pins.as_dict(),
            "policy": self.policy[1],
            "context": self.context,
            "engine": self.engine,
            "schema_version": SCHEMA_VERSION,
        }

    def counts(self) -> dict[str, int]:
        """Return rows by status, by cause, and those that recompile; all plain numbers."""
        statuses = Counter(self.rows["status"].to_list())
        causes = Counter(cause for cause in self.rows["cause"].to_list() if cause is not None)
        return {
            "decisions": self.rows.height,
            **{f"decisions_{status}": statuses[status] for status in ("decided", "undecided", "quarantined")},
            "decidable": int(self.rows["decidable"].sum()),
            "recompilable": int(self.rows["recompilable"].fill_null(value=False).sum()),
            **{f"cause_{cause}": count for cause, count in sorted(causes.items())},
        }

    @property
    def headline(self) -> str:
        """Say how much was replayed, and how much was not."""
        counts = self.counts()
        total, decided = counts["decisions"], counts["decisions_decided"]
        share = 100 * decided / total if total else 0.0
        own = self.policy[1] == self.context == "recorded"
        how = "as recorded" if own else f"under {self.policy[0]} with {self.context} contexts"
        return (
            f"{share:.1f} % of {total:,} decisions replayed {how}; "
            f"{counts['decisions_undecided']:,} undecided, {counts['decisions_quarantined']:,} quarantined"
        )

    def digest(self) -> str:
        """Return a digest of what was decided, independent of row order: equal rows, equal digest. O(rows)."""
        columns = (
            "decision_id",
            "status",
            "cause",
            "missing",
            "verdict",
            "reason_code",
            "determining",
            "effect",
        )
        rows: list[Json] = [content_hash(list(row)) for row in self.rows.select(columns).iter_rows()]
        return content_hash(sorted(rows, key=str))

    def __repr__(self) -> str:
        return f"<Replay {self.headline}>"

    def _repr_html_(self) -> str:
        from workbench.report import replay_html  # noqa: PLC0415 - it imports us

        return replay_html(self)

"""Replay: every recorded decision decided again, from the tables alone. It never executes a tool.

One rule: one row for each recorded decision, whatever happens to it. A row that does not reproduce itself is
`quarantined` with a cause; one the record cannot answer for is `undecided` with what is missing; both stay in every
denominator.

Self-replay comes first, on two levels counted apart. *Decidable*: what the row refers to re-hashes to its address
and gives the recorded verdict, policies and errors. *Recompilable*: the recorded spec over the recorded source
versions gives the same context, byte for byte; where it is asked, the addresses of the entities and of the action are
checked as well. Policy replay needs the first, context replay both.

Axes: policies (with schema and links) from `policy=`, facts from `context=`, budgets from `limits=`; each as recorded
unless given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.canonical import new_id
from runtime.trace import SCHEMA_VERSION
from workbench.digests import Sum, sum_of
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.lake import Lake

RECORDED = "recorded"
"""Contexts as they were compiled then; and the version of policies that are each decision's own."""

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
    "determining": pl.List(pl.String), "errors": _FAULTS, "enforced_args": pl.String,
    "engine": pl.String, "then": pl.String, "effect": pl.String, "verdict_changed": pl.Boolean,
    "decidable": pl.Boolean, "recompilable": pl.Boolean, "handed_over": pl.String,
}  # fmt: skip
"""Columns of `Replay.frame`. `verdict` and what follows it are null unless `status` is `decided`; `missing`
names what an undecided row lacks, and the source that a quarantined one could not be compiled from; `recompilable` is
null where it was not asked. `handed_over` says why a row was left to Cedar by the columnar engine; null: it was not.
`errors.message` is null where columns decided."""


_DIGESTED = (
    "decision_id", "status", "cause", "missing", "verdict", "reason_code", "determining", "effect", "decided_by",
    pl.col("errors").list.eval(pl.element().struct.field("policy")), "enforced_args",
)  # fmt: skip
"""What `Replay.digest` covers; messages of errors are the engine's own."""


def how(policy: tuple[str, str], context: str) -> str:
    """Say what a replay decides with.

    Example:
        >>> how(("next", "1f"), "recorded"), how(("as recorded", "recorded"), "next 1f")
        ('under next with recorded contexts', 'under the recorded policies with next 1f contexts')
    """
    own = policy[1] == RECORDED
    if own and context == RECORDED:
        return "as recorded"
    return f"under {'the recorded policies' if own else policy[0]} with {context} contexts"


def left_out(held_back: Mapping[str, int]) -> str:
    """Say how much of the log is in the lake and beyond the pin; nothing: an empty text.

    Example:
        >>> left_out({"a": 3, "b": 1}), left_out({})
        ('4 positions of the log are beyond the pin, and not counted', '')
    """
    beyond = sum(held_back.values())
    what = count(beyond, "position of the log is", "positions of the log are")
    return f"{what} beyond the pin, and not counted" if beyond else ""


@dataclass(frozen=True)
class Replay:
    """Recorded decisions, decided again under one policy and one context."""

    lake: Lake
    policy: tuple[str, str]
    """Name and version of the policies; `("as recorded", "recorded")` for a self-replay."""
    context: str
    """`recorded`, or which spec the contexts were compiled again with."""
    frame: pl.LazyFrame = field(repr=False)
    """One row a recorded decision, ordered by (writer, position); columns as in `FRAME`. In memory, or above
    `workbench.spill.IN_MEMORY` decisions in files that go with this replay."""
    engine: str
    handed_over: Mapping[str, int] = field(default_factory=dict)
    """Rows that columns handed over to Cedar, by reason."""
    files: object = field(default=None, repr=False)
    """Keeps the files, if there are any."""
    id: str = field(default_factory=new_id)

    @property
    def rows(self) -> pl.DataFrame:
        """All rows of `frame`, collected: some 700 bytes each."""
        return self.frame.collect()

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
        return dict(self._counts)

    def _counted(self) -> dict[str, int]:
        recompilable = pl.col("recompilable").fill_null(value=False).sum()
        totals = self.frame.select(
            decisions=pl.len(),
            **{
                f"decisions_{s}": (pl.col("status") == s).sum()
                for s in ("decided", "undecided", "quarantined")
            },
            decidable=pl.col("decidable").sum(),
            recompilable=recompilable,
            not_recompilable=(~pl.col("recompilable")).fill_null(value=False).sum(),
        )
        causes = self.frame.drop_nulls("cause").group_by("cause").len().sort("cause")
        counted, caused = pl.collect_all([totals, causes], engine="streaming")
        return {
            **{name: int(number) for name, number in counted.row(0, named=True).items()},
            **{f"cause_{cause}": n for cause, n in caused.iter_rows()},
        }

    @cached_property
    def _counts(self) -> dict[str, int]:
        return self._counted()

    @property
    def headline(self) -> str:
        """Say how much was replayed, and how much was not."""
        counts = self.counts()
        total, decided = counts["decisions"], counts["decisions_decided"]
        part = "100.0 %" if 0 < total == decided else share(decided, total)
        said = (
            f"{part} of {count(total, 'decision')} replayed {how(self.policy, self.context)}; "
            f"{counts['decisions_undecided']:,} undecided, {counts['decisions_quarantined']:,} quarantined"
        )
        if again := counts["not_recompilable"]:
            said += f"; {count(again, 'recorded context')} could not be compiled again"
        return "; ".join(filter(None, (said, self._by_cedar(), left_out(self.lake.held_back))))

    def _by_cedar(self) -> str:
        """How many rows columns left to Cedar, and why most of them."""
        if not self.handed_over:
            return ""
        why, most = max(self.handed_over.items(), key=lambda item: item[1])
        return f"{count(sum(self.handed_over.values()), 'row')} left to Cedar, {most:,} because of {why}"

    def digest(self) -> str:
        """Return a digest of what was decided and would be run, independent of row order and engine. O(rows)."""
        total = Sum()
        for rows in self.frame.select(_DIGESTED).collect_batches(maintain_order=False):
            total += sum_of(rows)
        return total.digest

    def __repr__(self) -> str:
        return f"<Replay {self.headline}>"

    def _repr_html_(self) -> str:
        from workbench.report import replay_html  # noqa: PLC0415 - it imports us

        return replay_html(self)

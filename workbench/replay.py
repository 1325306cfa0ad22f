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

    from workbench.asked import Asked
    from workbench.lake import Lake

RECORDED = "recorded"
"""Contexts as they were compiled then; and the version of policies that are each decision's own."""

CAUSES: Mapping[str, str] = {
    "policy_lost": "the lake does not hold the bundle the decision was made under",
    "context_lost": "the lake does not hold the context the row refers to",
    "context_corrupt": "the context does not hash to its address",
    "row_corrupt": "the row contradicts itself: its arguments do not hash to `args_hash`",
    "row_unreadable": "the row cannot be read as a request",
    "engine_mismatch": "another version of the engine decided, and this one decides something else",
    "not_reproduced": "the recorded stages decide something else now: another schema or hand was at work",
    "not_recompiled": "the recorded spec over the recorded versions gives another context",
    "unversioned_source": "a fact comes from a source without versions, so it cannot be compiled again",
    "source_unreadable": "a source of facts is not where the record says it was, or does not answer",
    "source_vacuumed": "the version of a source that the facts were read at was vacuumed or its log cleaned up",
    "source_not_yet": "a source had no version yet when the decision was made",
    "schema_drift": "a source lost a column that facts are read from, or changed its type, since the decision",
    "missing_fact": "the decision depends on something the record did not ask for, which a candidate reads",
    "state_unknown": "the decision depends on state that calls before it would have left, and the log cannot tell",
    "field_erased": "arguments or facts of the decision were erased for good",
    "field_masked": "arguments or facts of the decision are masked in this copy of the lake",
}
"""Closed vocabulary of `cause`, with its meaning. `UNDECIDED` are causes of undecided rows, the others of quarantined
ones. One row has one cause, the first that is found in this order: lost, altered or unreadable; erased or masked; not
reproduced; its sources; what a candidate lacks."""

UNDECIDED = frozenset({"missing_fact", "state_unknown", "field_erased", "field_masked"})
"""Causes whose rows are `undecided`: what would decide them is known to be missing."""

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


_MISFITS = ("action_undeclared", "projection_failed")
"""Reasons that only a schema gives."""

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
    asked: Asked | None = field(default=None, repr=False)
    """The axes it was asked for; None: it was made in another way, and cannot be saved."""
    engine_asked: str | None = None
    """The engine as it was asked for; None: as `asked`, or an engine of the caller's own."""

    @property
    def rows(self) -> pl.DataFrame:
        """All rows of `frame`, collected: some 700 bytes each."""
        return self.frame.collect()

    @cached_property
    def pins(self) -> dict[str, Any]:
        """What this replay rests on: ledgers with their last position, Delta versions, policy, context, engine.

        Where they were given: `limits` and `spec` (hash), `sources` (places), `versions` and `at`.
        """
        return {
            **self.lake.pins.as_dict(),
            **self.lake.narrowing.pins(),
            **({} if self.asked is None else self.asked.pins),
            "policy": self.policy[1],
            "context": self.context,
            "engine": self.engine,
            "schema_version": SCHEMA_VERSION,
        }

    def counts(self) -> dict[str, int]:
        """Return rows by status, by cause, and those that recompile; all plain numbers."""
        return dict(self._counts)

    @cached_property
    def transitions(self) -> pl.DataFrame:
        """From the recorded verdict to this replay's: `recorded`, `state` (of `metrics.STATES`), `n`; sorted.

        Collected on first use, once: O(decisions).
        """
        state = pl.when(pl.col("status").cast(pl.String) == "decided").then("verdict").otherwise("status")
        rows = self.frame.select(
            recorded=pl.col("recorded_verdict").cast(pl.String), state=state.cast(pl.String)
        )
        return (
            rows.group_by("recorded", "state")
            .agg(n=pl.len())
            .sort("recorded", "state")
            .collect(engine="streaming")
        )

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
    def coverage(self) -> str:
        """How much of the log this speaks of: `98.7 % of 1,204,331 decisions replayable`."""
        counts = self.counts()
        total, decided = counts["decisions"], counts["decisions_decided"]
        return f"{share(decided, total)} of {count(total, 'decision')} replayable"

    @property
    def headline(self) -> str:
        """Say how much was replayed, and how much was not."""
        counts = self.counts()
        said = (
            f"{self.coverage} {how(self.policy, self.context)}; "
            f"{counts['decisions_undecided']:,} undecided, {counts['decisions_quarantined']:,} quarantined"
        )
        if again := counts["not_recompilable"]:
            said += f"; {count(again, 'recorded context')} could not be compiled again"
        if self.lake.chosen is not None:
            said += f"; of decisions where {self.lake.narrowing.text}"
        beyond = left_out(self.lake.held_back)
        return "; ".join(filter(None, (said, self._misfits(), self._by_cedar(), beyond)))

    def _misfits(self) -> str:
        """How many are blocked by another schema alone: decided, as the runtime would, but no policy was asked."""
        number = 0 if self.policy[1] == RECORDED else self._refused_by_schema
        if not number:
            return ""
        blocked = "decision is blocked because its" if number == 1 else "decisions are blocked because their"
        return f"{number:,} {blocked} tool, arguments or facts do not fit the schema"

    @cached_property
    def _refused_by_schema(self) -> int:
        code = pl.col("reason_code")
        misfit = code.is_in(_MISFITS) & code.ne_missing(pl.col("recorded_reason_code"))
        return int(self.frame.select((misfit & pl.col("status").eq("decided")).sum()).collect().item())

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
        from workbench.faces import cell  # noqa: PLC0415 - what it draws with takes a second to load
        from workbench.pages import replay_page  # noqa: PLC0415 - it imports us

        return cell(replay_page(self))

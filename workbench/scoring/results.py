"""What scoring gives: one row a metric and case, and the numbers over them.

One rule: no row is lost. A case that could not be judged is a row with the reason, counted apart; a mean is over
scores alone, and so is only ever as good as the counts beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.faces import Page

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "tenant": pl.String,
    "decision_id": pl.String,
    "session_id": pl.String,
    "metric": pl.String,
    "metric_version": pl.String,
    "status": pl.Enum(["scored", "not_applicable", "errored"]),
    "score": pl.Float64,
    "success": pl.Boolean,
    "reason": pl.String,
    "error": pl.String,
    "case_hash": pl.String,
    "stratum": pl.String,
    "weight": pl.Float64,
}
"""Columns of `Scores.frame`."""

COUNTS = ("n", "passed", "failed", "errored", "not_applicable")
"""What is counted of a metric."""
_WIDTHS = (24, 6, 8, 8, 8, 8, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one replay."""

    replay_id: str
    """The replay whose decisions were scored."""
    table: pl.DataFrame
    """What `frame` gives, eager."""
    decisions: Mapping[str, int]
    """All decisions of the replay by what could be judged: `decided`, `undecided`, `quarantined`, `unlabelled`."""
    judged: int = 0
    """Rows that were computed now."""
    reused: int = 0
    """Rows taken from the lake's `scores`, or from a case of equal content in this run."""
    chosen: str = "all"
    """Which cases were asked for: `all`, `changed`, or `a sample`."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a metric and case, in the replay's order; columns as in `SCHEMA`.

        `decision_id` is null where the case is a whole session. `score` and `success` are null unless `status` is
        `scored` (`success` also where the metric has no threshold); `error` only where it is `errored`. `stratum`
        and `weight` (decisions that one scored stands for) are null unless a sample was scored.
        """
        return self.table.lazy()

    def summary(self) -> dict[str, float]:
        """Return counts and means as a flat dict of plain numbers.

        For each metric `<metric>.n` (all its rows), `.mean` (over the scored ones, unweighted; left out if there is
        none), `.passed`, `.failed`, `.errored`, `.not_applicable`; and `decisions.<state>`. What was judged now and
        what was known before is not in it: a run that is done again has the same summary.
        """
        numbers: dict[str, float] = {f"decisions.{state}": count for state, count in self.decisions.items()}
        for row in self._by_metric().iter_rows(named=True):
            numbers |= {
                f"{row['metric']}.{name}": row[name] for name in (*COUNTS, "mean") if row[name] is not None
            }
        return numbers

    def _by_metric(self) -> pl.DataFrame:
        status = pl.col("status")
        return self.table.group_by("metric", maintain_order=True).agg(
            n=pl.len(),
            mean=pl.col("score").mean(),
            passed=pl.col("success").sum(),
            failed=pl.col("success").not_().sum(),
            errored=(status == "errored").sum(),
            not_applicable=(status == "not_applicable").sum(),
        )

    @property
    def _said(self) -> str:
        """What was scored, in a line."""
        counted = ", ".join(f"{number:,} {state}" for state, number in self.decisions.items())
        of = "" if self.chosen == "all" else f"; scored: {self.chosen}"
        again = "" if not self.reused else f"; {count(self.reused, 'row')} known before"
        return f"{counted}{of}{again}"

    def __repr__(self) -> str:
        lines = [f"Scores of replay {self.replay_id}: {self._said}"]
        lines += [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, _WIDTHS, strict=True))
            for row in self._cells()
        ]
        return "\n".join(lines)

    def page(self) -> Page:
        """What a notebook cell shows."""
        from workbench.faces import Bar, Bars, Page, Table  # noqa: PLC0415 - kept out of jobs that only score

        heads = ["metric", "mean", "cases", *(name.replace("_", " ") for name in COUNTS[1:])]
        rows = [
            (
                row["metric"],
                None if row["mean"] is None else round(row["mean"], 3),
                *(row[name] for name in COUNTS),
            )
            for row in self._by_metric().iter_rows(named=True)
        ]
        note = "1 is good, 0 is bad; a mean is over scored cases, not over those that do not apply."
        return Page(
            kind="scores",
            title="Scores",
            lines=[f"Replay {self.replay_id}: {self._said}."],
            parts=(
                Table(title="Metrics", note=note, heads=heads, rows=rows, code=frozenset({0})),
                Bars(title="Decisions", bars=(Bar("", list(self.decisions.items())),)),
            ),
            next=("scores.frame", "wb.log(diff, experiment='…', scores=scores)"),
        )

    def _repr_html_(self) -> str:
        from workbench.faces import cell  # noqa: PLC0415 - as above

        return cell(self.page())

    def _cells(self) -> list[list[str]]:
        rows = self._by_metric().iter_rows(named=True)
        shown = [
            [row["metric"], "–" if row["mean"] is None else f"{row['mean']:.3f}", *_plain(row)]
            for row in rows
        ]
        return [["metric", "mean", "cases", *(name.replace("_", " ") for name in COUNTS[1:])], *shown]


def _plain(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[name]:,}" for name in COUNTS]

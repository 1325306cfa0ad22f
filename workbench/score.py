"""Score replayed decisions with DeepEval: labels against verdicts, no model, no network.

One rule: no row is lost. Each metric gives one row for each decision (or session) of the replay: a score, an error,
or *not applicable* with the reason; they are counted apart, and a mean is over scores alone.

It works in a notebook, a coroutine and a job alike (`workbench.scoring.measure` says how), offline
(`workbench.scoring.offline`), and importing this module loads nothing of DeepEval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import polars as pl

from workbench.progress import progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deepeval.metrics import BaseMetric

    from workbench.faces import Page

__all__ = ["Scores", "score"]

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
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
}
"""Columns of `Scores.frame`."""


class LakeLike(Protocol):
    """What scoring reads of a lake."""

    @property
    def labels(self) -> pl.LazyFrame:
        """The labels in force: `tenant`, `session_id`, `decision_id`, `label`, `value`."""


class Replayed(Protocol):
    """What scoring reads of a `workbench.replay.Replay`."""

    @property
    def id(self) -> str:
        """Names the replay."""

    @property
    def lake(self) -> LakeLike:
        """The lake it was made from."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a recorded decision, already decided again."""


class Compared(Protocol):
    """What scoring reads of a `workbench.compare.Diff`."""

    @property
    def cand(self) -> Replayed:
        """The replay that is scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one replay."""

    replay_id: str
    """The replay whose decisions were scored."""
    table: pl.DataFrame
    """What `frame` gives, eager."""
    decisions: Mapping[str, int]
    """Decisions by what could be judged: `decided`, `undecided`, `quarantined`, `unlabelled`."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a metric and case, in the replay's order; columns as in `SCHEMA`.

        `decision_id` is null where the case is a whole session. `score` and `success` are null unless `status` is
        `scored` (`success` also where the metric has no threshold); `error` only where it is `errored`.
        """
        return self.table.lazy()

    def summary(self) -> dict[str, float]:
        """Return counts and means as a flat dict of plain numbers.

        For each metric `<metric>.n` (all its rows), `.mean` (over the scored ones; left out if there is none),
        `.passed`, `.failed`, `.errored`, `.not_applicable`; and `decisions.<state>`.
        """
        numbers: dict[str, float] = {f"decisions.{state}": count for state, count in self.decisions.items()}
        for row in self._by_metric().iter_rows(named=True):
            numbers |= {
                f"{row['metric']}.{name}": row[name] for name in (*_COUNTS, "mean") if row[name] is not None
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

    def __repr__(self) -> str:
        lines = [f"Scores of replay {self.replay_id}: {_counted(self.decisions)}"]
        lines += [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, _WIDTHS, strict=True))
            for row in self._cells()
        ]
        return "\n".join(lines)

    def page(self) -> Page:
        """What a notebook cell shows."""
        from workbench.faces import Bar, Bars, Page, Table  # noqa: PLC0415 - kept out of jobs that only score

        heads = ["metric", "mean", "cases", *(name.replace("_", " ") for name in _COUNTS[1:])]
        rows = [
            (
                row["metric"],
                None if row["mean"] is None else round(row["mean"], 3),
                *(row[name] for name in _COUNTS),
            )
            for row in self._by_metric().iter_rows(named=True)
        ]
        note = "1 is good, 0 is bad; a mean is over scored cases, not over those that do not apply."
        return Page(
            kind="scores",
            title="Scores",
            lines=[f"Replay {self.replay_id}: {_counted(self.decisions)}."],
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
        return [["metric", "mean", "cases", *(name.replace("_", " ") for name in _COUNTS[1:])], *shown]


_COUNTS = ("n", "passed", "failed", "errored", "not_applicable")
_WIDTHS = (24, 6, 8, 8, 8, 8, 15)


def _plain(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[name]:,}" for name in _COUNTS]


def _counted(decisions: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in decisions.items())


def score(
    source: Replayed | Compared,
    metrics: Sequence[BaseMetric | type[BaseMetric]] | None = None,
    *,
    threshold: float | None = None,
    labels: pl.LazyFrame | None = None,
) -> Scores:
    """Score a replay, or the candidate of a comparison.

    Args:
        source: a `Replay` or a `Diff`.
        metrics: DeepEval metrics, ours (`workbench.scoring.metrics`) or any other; a class stands for its default
            instance. None: `workbench.scoring.metrics.DEFAULTS`. A metric with `level = "session"` is measured once a
            session, any other once a decision. They are copied for each case: what is given keeps no result.
        threshold: minimum score that counts as success, for the default metrics and for classes; None: their own.
        labels: the labels in force (`tenant`, `session_id`, `decision_id`, `label`, `value`; the last of equal ones
            holds); None: those of the lake.

    Returns:
        `Scores`. A metric that raises gives a row with `error`; undecided and quarantined decisions, and
        those without the label a metric needs, are rows that are `not_applicable`.

    Raises:
        MissingExtra: DeepEval is not installed.
        ValueError: no metric, or two metrics of one name.

    Cost: collects the replay; some 100 µs a decision and 5 to 100 µs a metric and case. No connection is made, and
    nothing is written.
    """
    # Here, because DeepEval takes seconds to import.
    from workbench.scoring import measure  # noqa: PLC0415
    from workbench.scoring import metrics as ours  # noqa: PLC0415

    keywords = {} if threshold is None else {"threshold": threshold}
    asked = ours.DEFAULTS if metrics is None else metrics
    chosen = measure.named([each(**keywords) if isinstance(each, type) else each for each in asked])
    replay = cast("Replayed", getattr(source, "cand", source))
    with progress(None, "scoring"):
        return _scored(replay, chosen, labels)


def _scored(replay: Replayed, chosen: Mapping[str, BaseMetric], labels: pl.LazyFrame | None) -> Scores:
    from workbench.scoring import cases, measure  # noqa: PLC0415 - as above

    known = replay.lake.labels if labels is None else labels
    rows, prompts = _rows(replay.frame.select(cases.COLUMNS), known), _prompts(known)
    levels = {measure.level_of(metric) for metric in chosen.values()}
    made = {level: list(cases.LEVELS[level](rows, prompts)) for level in levels}
    found = []
    for name, metric in chosen.items():
        mine = made[measure.level_of(metric)]
        with progress(len(mine), name, unit="case") as advance:
            for row in measure.measured(name, metric, mine):
                found.append(row)
                advance(1)
    return Scores(
        replay_id=replay.id, table=pl.DataFrame(found, schema=SCHEMA, orient="row"), decisions=_states(rows)
    )


def _rows(frame: pl.LazyFrame, labels: pl.LazyFrame) -> list[dict[str, Any]]:
    """The replay's rows, with their label `origin`."""
    keys = ["tenant", "decision_id"]
    said = labels.filter(pl.col("label") == "origin", pl.col("decision_id").is_not_null())
    origin = said.select(*keys, origin="value").unique(keys, keep="last", maintain_order=True)
    return frame.join(origin, on=keys, how="left", maintain_order="left").collect().to_dicts()


def _prompts(labels: pl.LazyFrame) -> dict[tuple[str, str], str]:
    """What the user asked for, by (tenant, session), where a session's label `prompt` says it."""
    said = labels.filter(
        pl.col("label") == "prompt", pl.col("decision_id").is_null(), pl.col("value").is_not_null()
    )
    rows = said.select("tenant", "session_id", "value").collect().iter_rows()
    return {(tenant, session_id): value for tenant, session_id, value in rows}


def _states(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    states = {
        state: sum(row["status"] == state for row in rows)
        for state in ("decided", "undecided", "quarantined")
    }
    return states | {"unlabelled": sum(row["origin"] is None for row in rows)}

"""Regressed decisions as MLflow traces: a bounded sample, the worst first, each with what was said of it.

One rule: the same comparison gives the same traces: which ones does not hang on time, order or machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.trace import DECISIONS, OUTCOMES
from workbench.certainty import has_history
from workbench.errors import ReplayFailure
from workbench.masking import leaving
from workbench.progress import progress
from workbench.runs.contents import cut, masked, rows_of
from workbench.runs.entry import Assessment, Trace
from workbench.runs.regressed import UNLABELLED, WORSE, worst
from workbench.runs.spans import Told, clean, spans_of
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.compare import Diff
    from workbench.explaining.why import Why
    from workbench.runs.contents import Scored

MAX_TRACES = 200
"""Traces of an entry, whatever is asked for: who wants more has the lake."""
MAX_RATIONALE = 4_000
_EXPECTED = {"good": "runs", "harm": "does not run", "contradictory": "does not run"}


def traces_of(
    diff: Diff,
    rows: pl.DataFrame,
    *,
    most: int = 20,
    scores: Mapping[str, Scored] | None = None,
    run: str = "",
) -> tuple[Trace, ...]:
    """Make traces of the worst regressions.

    Args:
        diff: the comparison, of a lake; of anything else there are none.
        rows: what regressed, as `workbench.runs.regressed.regressed` has it, collected.
        most: traces; at most `MAX_TRACES` are made.
        scores: what was scored, by name: said of the decisions.
        run: key of the run they belong to.

    Cost: a tenth of a second each: every one is decided again, clause by clause, under both versions.
    """
    if not has_history(diff) or not rows.height or most <= 0:
        return ()
    chosen = worst(rows, min(most, MAX_TRACES))
    told = _Read(diff, chosen, scores or {})
    with progress(chosen.height, "tracing the worst regressions") as advance:
        found = []
        for row in chosen.iter_rows(named=True):
            found.append(told.trace(row, run))
            advance(1)
    return tuple(found)


class _Read:
    """What the lake says of a few decisions: each table read once."""

    def __init__(self, diff: Diff, chosen: pl.DataFrame, scores: Mapping[str, Scored]) -> None:
        self.diff, lake = diff, diff.cand.lake
        ids = chosen["decision_id"]
        mine = pl.col("decision_id").is_in(ids.implode())
        self.rows = _by_id(leaving(diff.rows(mine).collect()))
        held: Any = lake
        ran = held.table(OUTCOMES).filter(held.pins.holds, mine, pl.col("kind") == "execution")
        ended = ran.sort("writer", "position").unique("decision_id", keep="last").collect()
        self.executions = _by_id(leaving(ended))
        timed = held.table(DECISIONS).filter(held.pins.holds, mine).select("decision_id", "latency_us")
        self.latency = dict(timed.collect().iter_rows())
        of = pl.col("session_id").is_in(chosen["session_id"].unique().implode())
        said = diff.labels.filter(of, mine | pl.col("decision_id").is_null()).collect()
        self.labels = leaving(said.select(pl.all().cast(pl.String, strict=False)))
        self.scores = {name: _scored(each, ids) for name, each in scores.items()}

    def trace(self, chosen: Mapping[str, Any], run: str) -> Trace:
        ident = str(chosen["decision_id"])
        row, why = self.rows[ident], self._why(ident)
        labels = self._labels(row)
        told = Told(
            row=row,
            names=_names(self.diff),
            versions=(self.diff.base.policy[1], self.diff.cand.policy[1]),
            why=why,
            execution=self.executions.get(ident),
            latency_us=int(self.latency.get(ident) or 0),
            task=next((each["value"] for each in labels if each["label"] == "prompt"), None),
        )
        spans = spans_of(told)
        return Trace(
            key=ident,
            run=run,
            name=shorten(visible(str(row["tool"])), 120),
            started_ns=int(spans[0]["start_ns"]),
            spans=spans,
            tags=masked(_tags(row, chosen, labels)),
            assessments=tuple(self._assessments(chosen, row, why, labels)),
        )

    def _why(self, ident: str) -> Why | None:
        try:
            return self.diff.why(ident)
        except ReplayFailure:  # simulated state, or a replay that was made otherwise: the rows alone are told
            return None

    def _labels(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Labels of the decision, and of its session."""
        mine = (pl.col("decision_id") == row["decision_id"]) | pl.col("decision_id").is_null()
        here = (pl.col("tenant") == row["tenant"]) & (pl.col("session_id") == row["session_id"])
        return self.labels.filter(here & mine).to_dicts()

    def _assessments(
        self,
        chosen: Mapping[str, Any],
        row: Mapping[str, Any],
        why: Why | None,
        labels: Sequence[Mapping[str, Any]],
    ) -> Iterator[Assessment]:
        worse, stake = str(chosen["worse"]), str(chosen["stake"])
        lines = [] if why is None else [*why.lines, *(f"To be allowed: {each}" for each in why.changes)]
        yield Assessment(name="effect", value=str(row["effect"]), rationale=_rationale(lines))
        if worse in WORSE:
            yield Assessment(name="regression", value=True, rationale=f"{worse}: {WORSE[worse]}")
        if stake in _EXPECTED:
            said, source = _said(labels, self.diff.stakes.labels)
            yield Assessment(
                name="expected", value=_EXPECTED[stake], rationale=said, kind="expectation", source=source
            )
        for name, rows in self.scores.items():
            for each in rows.get(str(row["decision_id"]), ()):
                title = f"{name}.{each['metric']}" if name else str(each["metric"])
                reason = None if each["reason"] is None else _rationale([str(each["reason"])])
                yield Assessment(name=title, value=float(each["score"]), rationale=reason)


def _by_id(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(row["decision_id"]): row for row in rows.iter_rows(named=True)}


def _scored(scores: Scored, ids: pl.Series) -> dict[str, list[dict[str, Any]]]:
    """Scores of the decisions, by id; none, where they are of something else."""
    columns = ("decision_id", "metric", "score", "reason")
    frame = rows_of(scores)
    if not set(columns) <= set(frame.collect_schema().names()):
        return {}
    mine = pl.col("decision_id").is_in(ids.implode()) & pl.col("score").is_not_null()
    rows = leaving(frame.filter(mine).select(columns).collect())
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault(str(row["decision_id"]), []).append(row)
    return found


def _names(diff: Diff) -> tuple[str, str]:
    one, two = diff.base.policy[0], diff.cand.policy[0]
    return (one, two) if one != two else (f"{one} (base)", f"{two} (candidate)")


def _said(labels: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[str | None, str]:
    """What the labels that count say, and who said it."""
    found = [each for each in labels if each["label"] in names]
    text = "; ".join(f"{each['label']} = {each['value']}" for each in found)
    sources = ", ".join(dict.fromkeys(str(each["source"]) for each in found if each.get("source")))
    return (str(clean(text)) if text else None), shorten(visible(sources), 120) or "label"


def _rationale(lines: Sequence[str]) -> str | None:
    return shorten("\n".join(map(visible, lines)), MAX_RATIONALE) if lines else None


def _tags(
    row: Mapping[str, Any], chosen: Mapping[str, Any], labels: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    worse = str(chosen["worse"])
    policies = ", ".join(row["determining"] or ()) or f"({row['decided_by']}: {row['reason_code']})"
    named = {
        "regression": "unknown" if worse in UNLABELLED else "true",
        "worse": worse,
        "effect": row["effect"],
        "from": row["from"],
        "to": row["to"],
        "policies": policies,
        "tool": row["tool"],
        "tenant": row["tenant"],
        "session": row["session_id"],
        "principal": row["principal"],
        "decision": row["decision_id"],
    }
    said = {
        f"label.{each['label']}": each["value"] for each in labels if each["label"] in ("origin", "scenario")
    }
    return {f"redecide.{name}": cut(visible(str(value))) for name, value in (named | said).items()}

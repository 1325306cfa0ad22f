"""One window of one series, judged: replayed, summed by session, put to what earlier nights found, and written down.

One rule: what is returned is all that is kept. Nothing here writes to the state, to MLflow or to anybody.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.compare import compare
from workbench.faces import Page, Table
from workbench.log import prepare
from workbench.metrics import has_labels
from workbench.progress import progress
from workbench.promoting.evidence import LOOKS
from workbench.regressing import looks
from workbench.regressing.result import EXIT, Candidate, GateLook, Reopened
from workbench.regressing.state import FIRST, NIGHT
from workbench.runs.entry import Measure
from workbench.runs.regressed import counted, known, regressed, worst
from workbench.splitting import SESSION
from workbench.texts import count, visible
from workbench.words import headline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.lake import Lake
    from workbench.regressing.asking import Question
    from workbench.regressing.job import Job
    from workbench.regressing.result import Verdict
    from workbench.regressing.windows import Look, Plan
    from workbench.replay import Replay

EXAMPLES = 10
"""Regressed decisions that are told."""
EXPLAINED = 3
"""Of them, those whose clause is looked for: a fraction of a second each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all nights say of a candidate, as a run carries it."""

    verdict: Verdict
    gates: tuple[GateLook, ...]
    night: int

    def as_dict(self) -> dict[str, Json]:
        """Return it as JSON."""
        names = (
            "text",
            "quantity",
            "state",
            "low",
            "high",
            "lower",
            "upper",
            "level",
            "method",
            "sessions",
            "why",
        )
        gates: list[Json] = [{name: getattr(gate, name) for name in names} for gate in self.gates]
        return {"verdict": self.verdict, "exit_code": EXIT[self.verdict], "night": self.night, "gates": gates}

    def page(self) -> Page:
        """Say it."""
        states = [gate.state for gate in self.gates]
        told = ", ".join(f"{states.count(state)} {state}" for state in ("met", "failed", "open"))
        heads = ("gate", "is", "on this log", "from", "to", "sessions", "why")
        rows = [
            (gate.text, gate.state, _between(gate), gate.lower, gate.upper, gate.sessions, gate.why)
            for gate in self.gates
        ]
        note = "All nights together; from, to: sure at the gate's level at every look, estimates for future traffic."
        table = Table(title="Gates over all nights", note=note, heads=heads, rows=rows, code=frozenset({0}))
        return Page(
            kind="gates", title=self.verdict.capitalize(),
            lines=(f"Night {self.night}; {count(len(states), 'gate')}: {told}.",), parts=(table,),
        )  # fmt: skip


def _between(gate: GateLook) -> str:
    if gate.low is None or gate.high is None:
        return ""
    return f"{gate.low:.6g}" if gate.low == gate.high else f"{gate.low:.6g} to {gate.high:.6g}"


class Judged(NamedTuple):
    """A window that was judged."""

    candidate: Candidate
    sums: pl.DataFrame
    """Sessions that were looked at, as `looks.sums_of` has them."""


def judge(
    job: Job,
    lake: Lake,
    asked: Question,
    plan: Plan,
    look: Look,
    earlier: pl.DataFrame | None,
    base: Replay,
    folder: Path,
    *,
    entry: str,
) -> Judged:
    """Judge one window.

    Args:
        job: what is asked.
        lake: pinned at the window's end or later.
        asked: the candidate and its baseline.
        plan: the window.
        look: the window, by its place among the nights.
        earlier: sums of every session that earlier nights looked at; None: there was none.
        base: the window, decided by the baseline.
        folder: for what is written; what is there is replaced.
        entry: id of what MLflow is to have of it.

    Returns:
        What it came to, and the sums to keep.

    Cost: a replay and a comparison of the window, one of touched sessions, and some 15 s a million decisions to
    write it all down.
    """
    diff = _compared(job, base, asked.candidate_of(plan.new(lake)))
    wanted = looks.quantities_of(job.gates, job.stakes)
    sums = _sums(job, lake, asked, plan, diff, wanted)
    every = _together(earlier, sums, look.night)
    names = [each.name for each in wanted]
    tally = looks.tally_of(looks.clustered(every, names), names)
    reach = looks.Reach(job.looks.largest_session, job.looks.planned_sessions)
    gates = looks.judge(job.gates, tally, reach)
    outcome = Judgement(verdict=looks.verdict_of(gates), gates=gates, night=look.night)
    reopened = _reopened(plan, every, names)
    scores = None if job.scoring is None else job.scoring.run(diff)
    files = _written(job, diff, outcome, scores, reopened, look, folder, entry=entry)
    worse = regressed(diff).collect()
    return Judged(
        asked.result(
            verdict=outcome.verdict,
            night=look.night,
            window=plan.window,
            reopened=reopened,
            gates=gates,
            numbers=_finite({**diff.summary(), **diff.metrics()}),
            headline=tuple(headline(diff)),
            changed=int(diff.summary()["decisions_changed"]),
            regressed=known(counted(worse)),
            examples=tuple(_examples(diff, worse)),
            scores={} if scores is None else _finite(scores.summary()),
            notes=(*_notes(diff), *(() if scores is None else map(visible, scores.notes))),
            files=str(files),
        ),
        sums,
    )


def judged_before(
    job: Job, asked: Question, looked: Look | None, earlier: pl.DataFrame | None, plan: Plan
) -> Candidate:
    """Say of a candidate of which nothing is new what earlier nights say, by the gates as they are declared now."""
    if looked is None or earlier is None:
        note = "no decision is in the window yet, so there was nothing to judge"
        return asked.result(verdict="inconclusive", night=0, window=plan.window, notes=(note,))
    names = [each.name for each in looks.quantities_of(job.gates, job.stakes)]
    reach = looks.Reach(job.looks.largest_session, job.looks.planned_sessions)
    gates = looks.judge(job.gates, looks.tally_of(looks.clustered(earlier, names), names), reach)
    note = f"nothing is new since night {looked.night}: the verdict is that of the nights so far"
    return asked.result(
        verdict=looks.verdict_of(gates), night=looked.night, window=plan.window, gates=gates, notes=(note,)
    )


def begins(asked: Question, plan: Plan, look: Look) -> Candidate:
    """Say of a series that looks at what comes from now on alone (`first = "new"`) that it begins here."""
    note = "the series begins here: what comes from now on is looked at, what was there is not"
    return asked.result(verdict="inconclusive", night=look.night, window=plan.window, notes=(note,))


def _compared(job: Job, base: Replay, cand: Replay) -> Diff:
    return compare(base, cand, stakes=job.stakes, cluster=job.cluster)


def _sums(
    job: Job, lake: Lake, asked: Question, plan: Plan, diff: Diff, wanted: Sequence[Any]
) -> pl.DataFrame:
    """Sums of the sessions that are new, and of touched ones as a whole."""
    found = looks.sums_of(diff, wanted, job.cluster)
    again = plan.again(lake)
    if again is None:
        return found
    whole = _compared(job, asked.baseline_of(again), asked.candidate_of(again))
    fresh = found.join(plan.touched.select(SESSION), on=SESSION, how="anti")
    return pl.concat([fresh, looks.sums_of(whole, wanted, job.cluster)])


def _together(earlier: pl.DataFrame | None, sums: pl.DataFrame, night: int) -> pl.DataFrame:
    """Every session once: as this night found it, where it looked at it; and the night it is of."""
    mine = sums.with_columns(pl.lit(night, pl.Int64).alias(NIGHT))
    if earlier is None:
        return mine
    rest = earlier.join(sums.select(SESSION), on=SESSION, how="anti")
    return pl.concat([rest, mine], how="diagonal")


def _reopened(plan: Plan, every: pl.DataFrame, names: Sequence[str]) -> tuple[Reopened, ...]:
    """What windows of earlier nights come to now."""
    ends = {look.night: look.range.watermark for look in plan.seen}
    of_night = every.join(plan.touched.select(*SESSION, _of="night"), on=SESSION, how="left")
    first = [FIRST] if FIRST in of_night.columns else []
    of_night = of_night.with_columns(_of=pl.coalesce("_of", *first, NIGHT))
    return tuple(
        Reopened(
            night=night,
            watermark=ends[night],
            measures=looks.measures(
                looks.tally_of(looks.clustered(of_night.filter(pl.col("_of") == night), names), names)
            ),
            **numbers,
        )
        for night, numbers in plan.reopened.items()
    )


def _written(
    job: Job,
    diff: Diff,
    outcome: Judgement,
    scores: Any,
    reopened: Sequence[Reopened],
    look: Look,
    folder: Path,
    *,
    entry: str,
) -> Path:
    """Write what MLflow and people are to have, and return the folder of the files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mlflow = job.mlflow
    earlier = [
        Measure(name=f"night.{name}", value=value, step=each.watermark)
        for each in reopened
        for name, value in each.measures.items()
    ]
    numbers = {f"gate.{gate.quantity}.{end}": getattr(gate, end) for gate in outcome.gates for end in _ENDS}
    with progress(None, "writing it down"):
        made = prepare(
            diff, folder, id=entry, experiment=job.name if mlflow is None else mlflow.experiment, scores=scores,
            outcome=outcome, step=look.range.watermark, slices=("tool",) if mlflow is None else mlflow.slices,
            traces=0 if mlflow is None else mlflow.traces, tags=_tags(job, outcome, reopened, look),
            numbers=_finite(numbers), earlier=earlier,
            series=f"{job.name}: {diff.cand.policy[0]}", artifacts=job.output.artifacts,
        )  # fmt: skip
    return folder / (made.runs[0].files or "")


_ENDS = ("low", "high", "lower", "upper")


def _tags(job: Job, outcome: Judgement, reopened: Sequence[Reopened], look: Look) -> dict[str, str]:
    tags = {
        "redecide.job": job.name,
        "redecide.night": str(outcome.night),
        LOOKS: f"{outcome.night} windows up to position {look.range.watermark:,}",
    }
    if job.filters:
        tags["redecide.filter"] = ", ".join(f"{name} = {value}" for name, value in job.filters.items())
    if reopened:
        tags["redecide.reopened"] = "; ".join(
            f"night {each.night}: {count(each.sessions, 'session')}, {count(each.labels, 'late label')}"
            for each in reopened
        )
    return tags


def _finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)
    }


def _examples(diff: Diff, worse: pl.DataFrame) -> list[Mapping[str, Json]]:
    columns = (
        "decision_id",
        "session_id",
        "tenant",
        "tool",
        "from",
        "to",
        "effect",
        "side",
        "determining",
        "worse",
    )
    rows = worst(worse, EXAMPLES).select(pl.col(name) for name in columns).to_dicts()
    return [
        {**row, "clause": _clause(diff, row["decision_id"]) if at < EXPLAINED else None}
        for at, row in enumerate(rows)
    ]


def _clause(diff: Diff, decision_id: str) -> str | None:
    """What flipped it, in a sentence; None: nobody can tell. The first line of a `why` says what is in the row."""
    return next(iter(diff.why(decision_id).lines[1:]), None)


def _notes(diff: Diff) -> list[str]:
    numbers = diff.summary()
    notes = []
    if not has_labels(numbers):
        notes.append(
            "no decision of the window is labelled: nothing says which calls were harm and which good work"
        )
    if lost := int(numbers["decisions"] - numbers["decisions_replayed"]):
        notes.append(
            f"{count(lost, 'decision')} of the window could not be replayed, and are neither allowed nor blocked"
        )
    return [visible(each) for each in notes]


def with_run(candidate: Candidate, run_id: str, url: str | None) -> Candidate:
    """Return a result with the run that MLflow has of it."""
    return replace(candidate, run_id=run_id, run_url=url)

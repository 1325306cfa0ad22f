"""One window of one series, judged: replayed, summed by session, put to what earlier nights found, and written down.

One rule: what is returned is all that is kept. Nothing here writes to the state, to MLflow or to anybody.
"""

from __future__ import annotations

import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.compare import compare
from workbench.errors import JobStateError, NotComparable, WorkbenchError
from workbench.log import prepare
from workbench.metrics import has_labels
from workbench.progress import progress
from workbench.promoting.evidence import LOOKS
from workbench.regressing import looks, nights, tallying
from workbench.regressing.judgement import Judgement
from workbench.regressing.state import FIRST, NIGHT
from workbench.replay import CAUSES
from workbench.runs.entry import Measure
from workbench.runs.regressed import counted, known, regressed, worst
from workbench.splitting import SESSION
from workbench.texts import count, visible
from workbench.words import headline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.compare import Diff
    from workbench.lake import Lake
    from workbench.regressing.asking import Question
    from workbench.regressing.job import Job
    from workbench.regressing.result import Candidate, Reopened
    from workbench.regressing.windows import Look, Plan
    from workbench.replay import Replay

EXAMPLES = 10
"""Regressed decisions that are told."""
EXPLAINED = 3
"""Of them, those whose clause is looked for: a fraction of a second each."""


class Judged(NamedTuple):
    """A window that was judged."""

    candidate: Candidate
    sums: pl.DataFrame
    """Sessions that were looked at, as `tallying.sums_of` has them."""


def judge(
    job: Job,
    lake: Lake,
    asked: Question,
    plan: Plan,
    look: Look,
    earlier: pl.DataFrame | None,
    replayed: Callable[[Lake], tuple[Replay, Replay]],
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
        replayed: gives the window, decided by the baseline and by the candidate.
        folder: for what is written; what is there is replaced.
        entry: id of what MLflow is to have of it.

    Returns:
        What it came to, and the sums to keep.

    Cost: a replay and a comparison of the window, one of touched sessions, and some 15 s a million decisions to
    write it all down.
    """
    window = plan.new(lake)
    _require_another(asked, window)
    diff = _compared(job, *replayed(window))
    _require_replayed(diff)
    wanted = looks.quantities_of(job.gates, job.stakes)
    sums = _sums(job, lake, asked, plan, diff, wanted, earlier)
    every = _together(earlier, sums, look.night)
    names = [each.name for each in wanted]
    outcome = _outcome(job, every, names, look.night)
    by_night = _by_night(plan, every, names, look)
    reopened = nights.reopened(plan, by_night)
    scores = None if job.scoring is None else job.scoring.run(diff)
    worse = regressed(diff).collect()
    files = _written(
        job, asked, diff, outcome, scores, reopened, look, folder, entry=entry, tonight=by_night[look.night],
        worse=worse,
    )  # fmt: skip
    return Judged(
        asked.result(
            verdict=outcome.verdict,
            night=look.night,
            window=plan.window,
            reopened=reopened,
            gates=outcome.gates,
            numbers=_finite({**diff.summary(), **diff.metrics()}),
            headline=tuple(headline(diff)) if plan.window.decisions else (),
            changed=int(diff.summary()["decisions_changed"]),
            regressed=known(counted(worse)),
            examples=tuple(_examples(diff, worse)),
            scores={} if scores is None else _finite(scores.summary()),
            notes=(*_notes(diff), *(() if scores is None else map(visible, scores.notes))),
            files=str(files),
        ),
        sums,
    )


def judged_before(job: Job, asked: Question, plan: Plan, earlier: pl.DataFrame | None) -> Candidate:
    """Say of a candidate of which nothing is new what earlier nights say, by the gates as they are declared now."""
    if not plan.seen or earlier is None:
        note = "no decision is in the window yet, so there was nothing to judge"
        return asked.result(verdict="inconclusive", night=0, window=plan.window, notes=(note,))
    night = plan.seen[-1].night
    outcome = _outcome(job, earlier, [gate.quantity for gate in job.gates], night)
    note = f"nothing is new since night {night}: the verdict is that of the nights so far"
    return asked.result(
        verdict=outcome.verdict, night=night, window=plan.window, gates=outcome.gates, notes=(note,)
    )


def _outcome(job: Job, sums: pl.DataFrame, names: Sequence[str], night: int) -> Judgement:
    """Judge the gates by every session, as it was found last."""
    reach = looks.Reach(job.looks.largest_session, job.looks.planned_sessions)
    gates = looks.judge(job.gates, _tally(sums, names), reach)
    return Judgement(verdict=looks.verdict_of(gates), gates=gates, night=night)


def _tally(sums: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return tallying.tally_of(tallying.clustered(sums, names), names)


def _require_another(asked: Question, window: Lake) -> None:
    """Refuse a candidate that was in force: against the record nothing changes by construction.

    Raises:
        NotComparable: every decision of the window was made under it, and the baseline is the record.
    """
    if asked.base is not None or asked.context != "recorded":
        return
    versions = window.history.select(pl.col("bundle_version").unique()).collect()["bundle_version"].to_list()
    if versions == [asked.bundle.version]:
        raise NotComparable(
            f"every decision of the window was made under this very version, {asked.bundle.version[:12]}: there is "
            "nothing to compare; propose another candidate, or leave `candidates` out to watch for drift"
        )


def _require_replayed(diff: Diff) -> None:
    """Refuse a window of which nothing could be decided again: a source is away, and may be back tomorrow.

    Raises:
        NotComparable: names the most frequent cause.
    """
    numbers = diff.summary()
    if not numbers["decisions"] or numbers["decisions_replayed"]:
        return
    cause, n = next(diff.causes.select("cause", "n").collect().iter_rows())
    raise NotComparable(
        f"none of the window's {numbers['decisions']:,} decisions could be decided again: {n:,} of them because "
        f"{CAUSES.get(str(cause), cause)}; the window stays as it is, and is looked at by the next run"
    )


def begins(asked: Question, plan: Plan, look: Look) -> Candidate:
    """Say of a series that looks at what comes from now on alone (`first = "new"`) that it begins here."""
    note = "the series begins here: what comes from now on is looked at, what was there is not"
    return asked.result(verdict="inconclusive", night=look.night, window=plan.window, notes=(note,))


def _compared(job: Job, base: Replay, cand: Replay) -> Diff:
    return compare(base, cand, stakes=job.stakes, cluster=job.cluster)


def _sums(
    job: Job,
    lake: Lake,
    asked: Question,
    plan: Plan,
    diff: Diff,
    wanted: Sequence[Any],
    earlier: pl.DataFrame | None,
) -> pl.DataFrame:
    """Sums of the sessions that are new, and of touched ones as a whole."""
    found = tallying.sums_of(diff, wanted, job.cluster)
    plan = _with_seen(plan, found, earlier)
    again = plan.again(lake)
    if again is None:
        return found
    whole = _compared(job, *asked.both_of(again))
    fresh = found.join(plan.touched.select(SESSION), on=SESSION, how="anti")
    return pl.concat([fresh, tallying.sums_of(whole, wanted, job.cluster)])


def _with_seen(plan: Plan, found: pl.DataFrame, earlier: pl.DataFrame | None) -> Plan:
    """Add sessions of the window that an earlier night saw: windows of time overlap, and each has a part of them."""
    if earlier is None:
        return plan
    stray = found.select(SESSION).join(earlier.select(SESSION), on=SESSION, how="semi")
    stray = stray.join(plan.touched.select(SESSION), on=SESSION, how="anti")
    if stray.is_empty():
        return plan
    more = pl.concat([plan.touched, stray], how="diagonal")
    return replace(plan, touched=more)


def _together(earlier: pl.DataFrame | None, sums: pl.DataFrame, night: int) -> pl.DataFrame:
    """Every session once: as this night found it, where it looked at it; and the night it is of."""
    mine = sums.with_columns(pl.lit(night, pl.Int64).alias(NIGHT))
    if earlier is None:
        return mine
    rest = earlier.join(sums.select(SESSION), on=SESSION, how="anti")
    return pl.concat([rest, mine], how="diagonal")


def _by_night(
    plan: Plan, every: pl.DataFrame, names: Sequence[str], look: Look
) -> dict[int, dict[str, float]]:
    """What this night's window, and those that it opened again, come to now: by night, over the sessions of each."""
    first = [FIRST] if FIRST in every.columns else []
    of_night = every.join(plan.touched.select(*SESSION, _of="night"), on=SESSION, how="left")
    of_night = of_night.with_columns(_of=pl.coalesce("_of", *first, NIGHT))
    return {
        night: tallying.measures(_tally(of_night.filter(pl.col("_of") == night), names))
        for night in (*plan.reopened, look.night)
    }


def _written(
    job: Job,
    asked: Question,
    diff: Diff,
    outcome: Judgement,
    scores: Any,
    reopened: Sequence[Reopened],
    look: Look,
    folder: Path,
    *,
    entry: str,
    tonight: Mapping[str, float],
    worse: pl.DataFrame,
) -> Path:
    """Write what MLflow and people are to have, and return the folder of the files."""
    with _told_of(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    mlflow = job.mlflow
    earlier = [
        Measure(name=f"night.{name}", value=value, step=each.watermark)
        for each in reopened
        for name, value in each.measures.items()
    ]
    numbers = {f"gate.{gate.quantity}.{end}": getattr(gate, end) for gate in outcome.gates for end in _ENDS}
    numbers |= {f"night.{name}": value for name, value in tonight.items()}
    line = f"{job.name}: {asked.bundle.name} {str(asked.bundle.version)[:12]} ({asked.key[:8]})"
    with progress(None, "writing it down"), _told_of(folder):
        made = prepare(
            diff, folder, id=entry, experiment=job.name if mlflow is None else mlflow.experiment, scores=scores,
            outcome=outcome, step=look.range.watermark, slices=("tool",) if mlflow is None else mlflow.slices,
            traces=0 if mlflow is None else mlflow.traces, tags=_tags(job, outcome, reopened, look),
            numbers=_finite(numbers), earlier=earlier,
            series=line, artifacts=job.output.artifacts, worse=worse,
        )  # fmt: skip
    return folder / (made.runs[0].files or "")


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Say which folder it is that cannot be written."""
    try:
        yield
    except WorkbenchError:
        raise
    except OSError as exc:
        raise JobStateError(
            f"{folder}, where the night is written down, cannot be written: {exc.strerror or exc}; run again once it "
            "can, and it goes on where it was"
        ) from exc


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
    notes: list[str] = []
    if not numbers["decisions"]:
        return notes
    if not has_labels(numbers):
        notes.append(
            "no decision of the window is labelled: nothing says which calls were harm and which good work"
        )
    if lost := int(numbers["decisions"] - numbers["decisions_replayed"]):
        notes.append(
            f"{count(lost, 'decision')} of the window could not be replayed, and are neither allowed nor blocked"
        )
    return [visible(each) for each in notes]

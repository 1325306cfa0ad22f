"""A window beside the one before, under the same policy: what a job without a candidate asks of a night.

One rule: the first night of a series has nothing to be held beside, and says so; it is inconclusive, not fine.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from workbench.faces import written
from workbench.masking import leaving
from workbench.regressing.drift_declared import DriftGate
from workbench.regressing.drift_gate import judge_drift
from workbench.regressing.result import Drifted
from workbench.runs.contents import REGRESSION, maker, note_of
from workbench.runs.entry import Entry, Measure, Run, Series
from workbench.runs.entry_files import write_entry
from workbench.texts import count
from workbench.tracking import shown

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.canonical import Json
    from workbench.lake import Lake
    from workbench.regressing.job import Job
    from workbench.regressing.windows import Look, Plan

FILES = "files"


def judge_window(job: Job, lake: Lake, plan: Plan, look: Look, folder: Path, *, entry: str) -> Drifted:
    """Judge one window of a job that looks for drift; arguments as `judging.judge` takes them."""
    gate = job.drift or DriftGate()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / FILES).mkdir(parents=True)
    seen = [each for each in plan.seen if each.range.decisions]
    if not seen:
        note = "this is the first window: the next one is held beside it"
        found = Drifted(
            verdict="inconclusive", night=look.night, before=plan.window, after=plan.window, gates=(), rows=(),
            uncovered=(), numbers={}, headline=(f"{count(plan.window.decisions, 'decision')} in the first window",),
            notes=(note,), files=str(folder / FILES),
        )  # fmt: skip
    else:
        other = seen[0 if gate.compare == "first" else -1]
        after = plan.new(lake).where(~other.holds)  # windows of time overlap
        judged = judge_drift(other.of(lake, plan.chosen), after, gate, look.night - 1)
        found = Drifted(
            night=look.night,
            before=other.range,
            after=plan.window,
            files=str(folder / FILES),
            **judged._asdict(),
        )
    _write(job, found, look, folder, entry)
    return found


def _write(job: Job, found: Drifted, look: Look, folder: Path, entry: str) -> None:
    """Write down what MLflow and people are to have."""
    rows: dict[str, Json] = {
        "rows": [dict(row) for row in found.rows],
        "uncovered": [dict(row) for row in found.uncovered],
    }
    text = json.dumps(leaving(rows), indent=2, ensure_ascii=False, default=str, sort_keys=True)
    written(text + "\n", folder / FILES / "drift.json")
    step = look.range.watermark
    measures = tuple(
        Measure(name=name, value=float(value), step=step) for name, value in found.numbers.items()
    )
    tags = {
        "redecide.kind": "drift", "redecide.job": job.name, "redecide.night": str(found.night),
        "redecide.outcome": found.verdict, "redecide.regression": REGRESSION.get(found.verdict, "unknown"),
        "redecide.lake": shown(job.lake), "mlflow.note.content": note_of("\n".join(found.headline)), **maker(),
    }  # fmt: skip
    params = {f"window.to.{name}": str(last) for name, last in found.after.to.items()}
    params |= {f"window.after.{name}": str(last) for name, last in found.after.after.items()}
    run = Run(
        key="", name=f"drift, night {found.night}", params=params, measures=measures, tags=tags, files=FILES
    )
    line = Series(
        name=f"{job.name}: drift ({entry[:8]})", measures=measures, tags={"redecide.kind": "series"}
    )
    experiment = job.name if job.mlflow is None else job.mlflow.experiment
    write_entry(Entry(id=entry, experiment=experiment, runs=(run,), series=line), folder)

"""`redecide bench regress`: a night of a regression job over a reviewed month, and going on after it was stopped.

One rule: it is the job itself that is timed, from its TOML file to its verdict, with everything a nightly job is
asked for: two replays, comparison, gates over all nights, deterministic scores of what changed, report, MLflow.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.bench.measure import cpu_seconds, peak_mib
from workbench.errors import ReplayFailure
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.regressing.result import Night

GOAL = (120.0, 4.0, 1_000_000)
"""Seconds, GiB, decisions."""
CANDIDATE = "support-desk/candidate"
STOPPED = ("judged", "entered", "written")
"""Steps after which a night is stopped, to see what is left to do."""

_JOB = """
name = "nightly"
lake = "{lake}"
candidates = ["{candidate}"]
state = "{folder}/state"

[[gates]]
quantity = "harm_through_share"
at_most = 0.5

[[gates]]
quantity = "good_lost_share"
at_most = 0.01

[looks]
largest_session = 50

[scoring]
metrics = ["verdict_correctness", "harm_prevented", "over_blocking", "approval_burden"]
cases = "changed"

[mlflow]
experiment = "nightly"
tracking_uri = "sqlite:///{folder}/mlflow.db"

[output]
folder = "{folder}/nights"
notebook = false
"""


class _StoppedError(Exception):
    """The night was stopped here."""


def regress_night(*, uri: str, stopped: str | None = None) -> dict[str, Any]:
    """Time a night over all of a lake; in a process of its own.

    Args:
        uri: a lake of `workbench.bench.reviewed.reviewed_lake`.
        stopped: one of `STOPPED`: the night is stopped there, and what is timed is going on with it.
    """
    folder = Path(tempfile.mkdtemp(prefix="redecide-bench-"))
    try:
        path = folder / "job.toml"
        text = _JOB.format(lake=uri, candidate=shipped(CANDIDATE), folder=folder)
        path.write_text(text, encoding="utf-8")
        if stopped is not None:
            _stop(path, stopped)
        return _timed(path) | {"stopped": stopped, "uri": uri}
    finally:
        shutil.rmtree(folder)


def _stop(path: Path, step: str) -> None:
    from workbench.regressing.job_file import read_job  # noqa: PLC0415 - a task imports what it measures, and no more
    from workbench.regressing.regress import regress  # noqa: PLC0415 - as above

    def at(reached: str) -> None:
        if reached == step:
            raise _StoppedError

    try:
        regress(read_job(path), at=at)
    except _StoppedError:
        return
    raise ReplayFailure(f"the night was to be stopped at `{step}`, and was not")


def _timed(path: Path) -> dict[str, Any]:
    from workbench.regressing.job_file import read_job  # noqa: PLC0415 - as above
    from workbench.regressing.regress import regress  # noqa: PLC0415 - as above

    steps: dict[str, float] = {}
    started, used = time.perf_counter(), cpu_seconds()

    def at(step: str) -> None:
        steps[step] = time.perf_counter() - started

    night = regress(read_job(path), at=at)
    seconds = time.perf_counter() - started
    return _checked(night) | {
        "seconds": seconds, "cpu_seconds": cpu_seconds() - used, "peak_mib": peak_mib(), "steps": steps,
    }  # fmt: skip


def _checked(night: Night) -> dict[str, Any]:
    """Refuse to time a night that did not do what it was asked."""
    (candidate,) = night.candidates
    window = candidate.window
    if night.problems or window is None or candidate.run_id is None or not candidate.scores:
        raise ReplayFailure(f"the night did not do all of it: {night.problems or candidate.notes}")
    return {
        "rows": window.decisions, "sessions": window.sessions, "changed": candidate.changed, "verdict": night.verdict,
        "scores": len(candidate.scores),
    }  # fmt: skip


def regress_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line a night, and where its time went."""
    yield "regress: a night of a job, from file to verdict: two replays, comparison, gates, scores, report, MLflow"
    yield f"{'rows':>12} {'changed':>9} {'seconds':>9} {'cpu s':>8} {'MiB':>7}  what"
    fresh = next((run for run in runs if run["stopped"] is None), runs[0])
    for run in runs:
        what = (
            "a whole night" if run["stopped"] is None else f"going on with one stopped at `{run['stopped']}`"
        )
        ratio = "" if run is fresh else f", {run['seconds'] / fresh['seconds']:.2f} of a whole night"
        yield (
            f"{run['rows']:>12,} {run['changed']:>9,} {run['seconds']:>9.1f} {run['cpu_seconds']:>8.1f} "
            f"{run['peak_mib']:>7.0f}  {what}{ratio}"
        )
    for step, at in fresh["steps"].items():
        yield f"    {step:<10} after {at:>7.1f} s"
    yield from _goal(fresh)


def _goal(run: Mapping[str, Any]) -> Iterator[str]:
    seconds, gib, rows = GOAL
    if run["rows"] < rows:
        return
    met = "goal met:" if run["seconds"] < seconds else "goal missed:"
    yield f"{met} {rows:,} new decisions in {seconds:.0f} s: {run['seconds']:.1f} s"
    fits = "goal met:" if run["peak_mib"] < gib * 1024 else "goal missed:"
    yield f"{fits} {gib:.0f} GiB: {run['peak_mib'] / 1024:.2f}"

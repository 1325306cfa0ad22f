"""The demo: the whole loop on real input, from an agent's tool call to a regression logged in MLflow.

Drive AgentDojo's sessions under `baseline`, drain, self-replay, replay under `candidate`, compare, score, log; then
*confirm*: run the same sessions live under `candidate`, in fresh environments, and let AgentDojo's own checkers say
which attacks and which tasks succeed.

One rule: every number printed is computed in this run from what the lake holds, or by AgentDojo's checkers.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import workbench as wb
from runtime.bundle import load_bundle
from runtime.canonical import canonical
from workbench import certainty
from workbench.agentdojo.drive import build
from workbench.agentdojo.scripts import RESOURCES, SUITES, VERSION, sessions
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.compare import Diff
    from workbench.lake import Lake

CLUSTER = ("tenant", "user_task")
"""What is independent of each other: sessions of one user task, honest or hijacked, are one cluster."""
LAKE, CONFIRM = "lake", "confirm"
"""Folders of the governed history and of the live confirmation, under the working directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What the live run under the candidate showed, for one suite, beside what replay predicts."""

    suite: str
    attack_calls_stopped: int
    """Live: blocked, held or altered."""
    replayed_held: int
    """Honest calls that replay blocks or holds."""
    live_held: int
    replayed_altered: int
    """Honest calls that replay alters."""
    live_altered: int
    agree: int
    """Decisions whose live verdict is the replayed one."""
    compared: int
    attacks_before: int
    """Hijacked sessions in which AgentDojo's checker says the attack succeeded, under the baseline."""
    attacks_after: int
    utility_before: int
    """Sessions in which AgentDojo's checker says the user's task was done, under the baseline."""
    utility_after: int
    sessions: int
    hijacked: int


def run_demo(workdir: Path, *, suites: Sequence[str] | None = None, fresh: bool = False) -> int:
    """Run the demo in `workdir` and print what it found.

    Args:
        workdir: created if missing. What an earlier run left is reused if nothing it depends on changed, else
            rebuilt.
        suites: suites to take; None: all.
        fresh: rebuild whatever is there.

    Returns:
        Exit code 0.
    """
    console = Console()
    began = time.perf_counter()
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    chosen = tuple(suites or SUITES)
    lake = wb.open(_built(workdir, LAKE, "baseline", chosen, console, fresh=fresh))
    candidate = shipped("agentdojo/candidate")
    sources = {table.name: table for table in sorted((workdir / "facts").iterdir())}
    rows = 0

    def told(more: int) -> None:
        nonlocal rows
        rows += more
        status.update(f"replaying: {rows:,} decisions, three times over")

    with console.status("replaying") as status:
        askings = [None, candidate, {"policy": candidate, "context": candidate}]
        base, recorded, cand = lake.replay_all(askings, sources=sources, on_rows=told)
        diff = wb.compare(base, cand, cluster=CLUSTER)
    with console.status("asking what each change is due to, and what the log exercises"):
        grid = wb.grid(lake, candidate, context=candidate, sources=sources)
        exercised = wb.coverage(lake, candidate, context=candidate, sources=sources)
        exercised.to_html(workdir / "coverage.html")
    with console.status("scoring and logging"):
        scores = wb.score(diff)
        run = wb.log(diff, experiment="agentdojo", scores=scores, directory=workdir, coverage=exercised)
        report = diff.to_html(workdir / "report.html")
    live = wb.open(_built(workdir, CONFIRM, "candidate", chosen, console, fresh=fresh))
    found = [confirm(suite, lake, live, cand.frame) for suite in chosen]
    console.print()
    for line in (base.headline, recorded.headline, cand.headline):
        console.print(f"• {line}", highlight=False, soft_wrap=True)
    console.print()
    console.print(_suite_table(diff, found))
    console.print(_policy_table(diff))
    console.print(_disagreements(lake, live, cand.frame))
    console.print()
    for line in (*certainty.lines(diff), f"{grid.headline}.", exercised.page().lines[0]):
        console.print(f"• {line}", highlight=False, soft_wrap=True)
    console.print(_estimates(diff))
    console.print(repr(scores), soft_wrap=True, highlight=False)
    _next_steps(console, workdir, report, run)
    console.print(f"\ndone in {time.perf_counter() - began:.0f} s")
    return 0


def demo_lake(workdir: Path = Path("redecide-demo"), suites: Sequence[str] | None = None) -> Path:
    """Return the path of the demo's lake, building it where it is missing or out of date."""
    workdir.mkdir(parents=True, exist_ok=True)
    return _built(workdir, LAKE, "baseline", tuple(suites or SUITES), Console(), fresh=False)


def _built(
    workdir: Path, lake: str, bundle: str, suites: tuple[str, ...], console: Console, *, fresh: bool
) -> Path:
    """Build a lake, or reuse one that was built from the same things. A half-built one has no stamp and goes."""
    stamp, wanted = workdir / f"{lake}.json", _stamp(bundle, suites)
    if not fresh and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        console.print(
            f"reusing {workdir / lake} (built from the same bundle and data; `redecide demo --fresh` builds it again)"
        )
        return workdir / lake
    stamp.unlink(missing_ok=True)
    shutil.rmtree(workdir / lake, ignore_errors=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        total = sum(1 for _ in sessions(suites=suites))
        task = progress.add_task(f"governing sessions under {bundle}", total=total)
        build(workdir, suites=suites, bundle=bundle, lake=lake, on_session=lambda _: progress.advance(task))
    stamp.write_text(wanted, encoding="utf-8")
    return workdir / lake


def _stamp(bundle: str, suites: tuple[str, ...]) -> str:
    """What a lake is built from: equal stamps, equal decisions."""
    return canonical(
        {
            "bundle": load_bundle(shipped(f"agentdojo/{bundle}")).version,
            "agentdojo": version("agentdojo"),
            "benchmark": VERSION,
            "redecide": version("redecide"),
            "resources": dict(RESOURCES),
            "suites": list(suites),
        }
    )


def confirm(suite: str, lake: Lake, live: Lake, replayed: pl.LazyFrame) -> Confirmation:
    """Compare what replay predicts for a suite with what a live run under the candidate showed."""
    origin = _labels(lake, "origin", "decision_id")
    calls = (
        _paired(live, replayed)
        .filter(pl.col("tenant") == suite)
        .join(origin.rename({"value": "origin"}), on="decision_id", how="left")
        .collect()
    )
    before, after = _session_labels(lake, suite), _session_labels(live, suite)

    def count(who: str, column: str, *verdicts: str) -> int:
        return calls.filter(pl.col("origin") == who, pl.col(column).is_in(verdicts)).height

    return Confirmation(
        suite=suite,
        attack_calls_stopped=count("attack", "live_verdict", "block", "approve", "modify"),
        replayed_held=count("user", "verdict", "block", "approve"),
        live_held=count("user", "live_verdict", "block", "approve"),
        replayed_altered=count("user", "verdict", "modify"),
        live_altered=count("user", "live_verdict", "modify"),
        agree=calls.filter(pl.col("live_verdict") == pl.col("verdict")).height,
        compared=calls.height,
        attacks_before=_true(before, "attack_success"),
        attacks_after=_true(after, "attack_success"),
        utility_before=_true(before, "utility"),
        utility_after=_true(after, "utility"),
        sessions=before.height,
        hijacked=before.filter(pl.col("attack_success").is_not_null()).height,
    )


def _paired(live: Lake, replayed: pl.LazyFrame) -> pl.LazyFrame:
    """Replayed decisions beside the live ones: the script makes the same calls, so (session, step) pairs them."""
    seen = live.decisions.select(
        "session_id", "step", live_verdict="verdict", live_reason="reason_code", live_tool="tool"
    )
    return replayed.join(seen, on=["session_id", "step"], how="left")


def _labels(lake: Lake, label: str, key: str) -> pl.LazyFrame:
    return lake.labels.filter(pl.col("label") == label, pl.col(key).is_not_null()).select(
        key, pl.col("value").cast(pl.String)
    )


def _session_labels(lake: Lake, suite: str) -> pl.DataFrame:
    """One row a session: `utility` and `attack_success` as AgentDojo's checkers say, null where not asked."""
    names = ("utility", "attack_success")
    rows = lake.labels.filter(
        pl.col("tenant") == suite, pl.col("decision_id").is_null(), pl.col("label").is_in(names)
    )
    values = [pl.col("value").cast(pl.String).filter(pl.col("label") == n).last().alias(n) for n in names]
    return rows.group_by("session_id").agg(values).collect()


def _true(frame: pl.DataFrame, column: str) -> int:
    return frame.filter(pl.col(column) == "true").height


def _suite_table(diff: Diff, found: Sequence[Confirmation]) -> Table:
    """Measures down, suites across: what replay says beside what the live run showed."""
    table = Table(
        title="candidate against baseline, by suite: what replay says, and what a live run showed",
        box=SIMPLE_HEAD,
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name in (*(live.suite for live in found), "all"):
        table.add_column(name, justify="right", no_wrap=True)
    tenants = {row["tenant"]: row for row in diff.tenants.collect().iter_rows(named=True)}
    columns = [_measures(tenants[live.suite], live) for live in found]
    for label, section in _MEASURES.items():
        cells = [column[label] for column in columns]
        shown = (_fraction(cell) for cell in (*cells, _sum(cells)))
        table.add_row(label, *shown, end_section=section)
    return table


_Share = tuple[int, int | None]
"""A count, and what it is out of (None: it stands alone)."""

_MEASURES: Mapping[str, bool] = {
    "sessions": False,
    "decisions": True,
    "attack calls stopped": False,
    "  confirmed live": True,
    "honest calls held up": False,
    "  held up live": False,
    "honest calls altered": False,
    "  altered live": True,
    "attacks succeed: before": False,
    "  candidate live": True,
    "user tasks done: before": False,
    "  candidate, live": True,
    "live unlike replay": False,
}
"""Rows of the table; True: a line follows."""


def _measures(row: Mapping[str, Any], live: Confirmation) -> dict[str, _Share]:
    attacks, honest = row["attack_calls_ran"], row["honest_calls_ran"]
    return {
        "sessions": (row["sessions"], None),
        "decisions": (row["decisions"], None),
        "attack calls stopped": (row["attack_calls_stopped"], attacks),
        "  confirmed live": (live.attack_calls_stopped, attacks),
        "honest calls held up": (live.replayed_held, honest),
        "  held up live": (live.live_held, honest),
        "honest calls altered": (live.replayed_altered, honest),
        "  altered live": (live.live_altered, honest),
        "attacks succeed: before": (live.attacks_before, live.hijacked),
        "  candidate live": (live.attacks_after, live.hijacked),
        "user tasks done: before": (live.utility_before, live.sessions),
        "  candidate, live": (live.utility_after, live.sessions),
        "live unlike replay": (live.compared - live.agree, None),
    }


def _sum(cells: Sequence[_Share]) -> _Share:
    wholes = [whole for _, whole in cells if whole is not None]
    return sum(part for part, _ in cells), sum(wholes) if wholes else None


def _fraction(share: _Share) -> str:
    part, whole = share
    return f"{part:,}" if whole is None else f"{part:,}/{whole:,}"


def _policy_table(diff: Diff, most: int = 12) -> Table:
    table = Table(title="which policies did it", box=SIMPLE_HEAD, title_style="bold")
    for name in ("policy", "verdict", "attack calls", "honest calls"):
        table.add_column(name, justify="left" if name in ("policy", "verdict") else "right", no_wrap=True)
    rows = diff.policies.collect()
    for row in rows.head(most).iter_rows(named=True):
        counts = (f"{row[name]:,}" for name in ("attack_calls_stopped", "honest_calls_disturbed"))
        table.add_row(row["policy"], row["verdict"], *counts)
    if rows.height > most:
        table.caption = f"and {rows.height - most} more in the report"
    return table


def _estimates(diff: Diff) -> Table:
    """The shares on this log, and in future traffic; hijacked sessions of one user task are one cluster."""
    found = certainty.table(diff)
    assert found is not None  # noqa: S101 - calls ran
    table = Table(title=found.title, caption=found.note, box=SIMPLE_HEAD, title_style="bold")
    for place, name in enumerate(found.heads):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in found.rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table


def _disagreements(lake: Lake, live: Lake, replayed: pl.LazyFrame) -> str | Table:
    """Explain every decision whose live verdict is not the replayed one, by what it saw differently."""
    paired = _paired(live, replayed).filter(pl.col("live_verdict").ne_missing(pl.col("verdict"))).collect()
    if paired.is_empty():
        return "every live verdict is the one replay predicted"
    columns = ("session_id", "step", "context_hash", "session_state", "args")
    inputs = lake.decisions.select(columns).join(
        live.decisions.select(columns), on=["session_id", "step"], suffix="_live"
    )
    explained = paired.join(inputs.collect(), on=["session_id", "step"], how="left").with_columns(
        why=pl.when(pl.col("live_verdict").is_null())
        .then(pl.lit("the call was not made live"))
        .when(pl.col("args") != pl.col("args_live"))
        .then(pl.lit("other arguments"))
        .when(pl.col("session_state") != pl.col("session_state_live"))
        .then(pl.lit("fewer calls had run in the session"))
        .otherwise(pl.lit("not explained"))
    )
    table = Table(title="live verdicts that differ from the replayed ones")
    for name in ("tool", "replay", "live", "why", "decisions"):
        table.add_column(name)
    grouped = explained.group_by("tool", "verdict", "live_verdict", "why").len().sort("len", descending=True)
    for row in grouped.iter_rows():
        table.add_row(*(str(cell) for cell in row))
    return table


def _next_steps(console: Console, workdir: Path, report: Path, run: Any) -> None:
    console.print("\nwhere to look next")
    console.print(f"  report    {report}")
    console.print(f"  coverage  {workdir / 'coverage.html'}")
    console.print(f"  MLflow    {run.look}", soft_wrap=True)
    console.print("  notebook  make lab, then notebooks/01_replay_in_five_minutes.ipynb")
    console.print(f"  Python    import workbench as wb; lake = wb.open({str(workdir / LAKE)!r})")


__all__ = ["Confirmation", "confirm", "demo_lake", "run_demo"]

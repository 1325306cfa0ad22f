"""The benchmark of scoring: `wb.score` and `deepeval.evaluate`, in turns, over the same cases.

One rule: both give the same scores, or there is no figure. Both score the same decisions of one reviewed lake by the
same metric; `evaluate` gets its test cases ready-made, in its synchronous mode, without its cache and its screen;
`score` makes what it needs from the replay.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.bench.measure import cpu_seconds, peak_mib
from workbench.errors import OracleMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deepeval.metrics import BaseMetric

    from workbench.compare import Diff

GOAL = 5.0
"""Times as fast as `deepeval.evaluate`, for a deterministic metric over `CASES`."""
CASES = 10_000
"""That both score."""


class _First(NamedTuple):
    """The first decisions of a log, as a sample."""

    ids: pl.DataFrame


def score(*, uri: str, repeats: int) -> dict[str, Any]:
    """Time both over the first cases of a lake, and `wb.score` over all that a candidate changes.

    Args:
        uri: a reviewed lake (`workbench.bench.reviewed`).
        repeats: of each metric and side, in turns; the best counts.

    Raises:
        OracleMismatch: they do not give the same scores.
    """
    import workbench as wb  # noqa: PLC0415 - a task imports what it measures, and no more
    from workbench.bench.tasks import CANDIDATE  # noqa: PLC0415 - as above
    from workbench.scoring.offline import deepeval  # noqa: PLC0415 - as above
    from workbench.shipped import shipped  # noqa: PLC0415 - as above

    deepeval()
    from deepeval.metrics import ExactMatchMetric  # noqa: PLC0415 - offline first

    from workbench.scoring.metrics import VerdictCorrectness  # noqa: PLC0415 - as above

    lake = wb.open(uri)
    diff = wb.compare(lake.replay(), lake.replay(shipped(CANDIDATE)))
    rows = int(diff.summary()["decisions"])
    chosen = [VerdictCorrectness(), ExactMatchMetric()]
    sides = [_side(diff, metric, repeats) for metric in chosen]
    begun, used = time.perf_counter(), cpu_seconds()
    changed = wb.score(diff, cases="changed")
    return {
        "uri": uri, "rows": rows, "metrics": sides, "changed": int(changed.summary()["verdict_correctness.n"]),
        "changed_rows": changed.table.height, "changed_seconds": time.perf_counter() - begun,
        "changed_cpu_seconds": cpu_seconds() - used, "peak_mib": peak_mib(),
    }  # fmt: skip


def _side(diff: Diff, metric: BaseMetric, repeats: int) -> dict[str, Any]:
    """Time one metric on both sides."""
    import workbench as wb  # noqa: PLC0415 - as above

    none = {"stratum": pl.lit(None, pl.String), "weight": pl.lit(None, pl.Float64)}
    first = _First(diff.frame.select("tenant", "decision_id").head(CASES).with_columns(**none).collect())
    cases = _ready(diff, first)
    theirs: dict[str, float] = {}
    times: dict[str, list[float]] = {"score": [], "evaluate": []}
    for _ in range(repeats):
        begun = time.perf_counter()
        ours = wb.score(diff, [metric], cases=first)
        times["score"].append(time.perf_counter() - begun)
        took, theirs = _evaluated(cases, metric)
        times["evaluate"].append(took)
        scored = ours.table.filter(pl.col("status") == "scored").select("decision_id", "score")
        if theirs != dict(scored.iter_rows()):
            raise OracleMismatch("wb.score and deepeval.evaluate do not give the same scores", case=metric)
    seconds, beside = min(times["score"]), min(times["evaluate"])
    return {
        "metric": str(metric.__name__), "cases": len(cases), "scored": len(theirs), "seconds": seconds,
        "evaluate_seconds": beside, "ratio": beside / seconds, "all_seconds": times,
    }  # fmt: skip


def _ready(diff: Diff, first: _First) -> list[Any]:
    """The same cases, made: what `evaluate` is given."""
    from workbench.scoring.cases import cases_of  # noqa: PLC0415 - as above
    from workbench.scoring.gathering import gathered, said  # noqa: PLC0415 - as above

    cases = cases_of(gathered(diff.cand, said(diff.labels), first.ids), "decision")
    return [case.test for case in cases.made(range(len(cases))) if case.blank is None]


def _evaluated(cases: Sequence[Any], metric: BaseMetric) -> tuple[float, dict[str, float]]:
    from deepeval import evaluate  # noqa: PLC0415 - as above
    from deepeval.evaluate.configs import (  # noqa: PLC0415 - as above
        AsyncConfig,
        CacheConfig,
        DisplayConfig,
        ErrorConfig,
    )

    with _elsewhere():
        begun = time.perf_counter()
        result = evaluate(
            list(cases),
            [metric],
            async_config=AsyncConfig(run_async=False),
            display_config=DisplayConfig(print_results=False, show_indicator=False),
            error_config=ErrorConfig(skip_on_missing_params=True),
            cache_config=CacheConfig(write_cache=False, use_cache=False),
        )
        took = time.perf_counter() - begun
    return took, {
        test.metadata["decision_id"]: data.score
        for test in result.test_results
        for data in test.metrics_data or ()
        if data.score is not None
    }


@contextmanager
def _elsewhere() -> Iterator[None]:
    """A working directory that `evaluate` may leave files in."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="redecide-bench-") as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def score_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Both sides, and the flips of a lake."""
    yield "scoring: wb.score and deepeval.evaluate over the same cases, same scores"
    for run in runs:
        for side in run["metrics"]:
            yield (
                f"{side['metric']:>20}: {side['cases']:,} cases, wb.score {side['seconds']:.2f} s, "
                f"deepeval.evaluate {side['evaluate_seconds']:.2f} s, {side['ratio']:.1f} times as fast"
            )
        ratio = run["metrics"][0]["ratio"]
        if run["metrics"][0]["cases"] >= CASES:
            yield f"{'goal met:' if ratio >= GOAL else 'goal missed:'} {GOAL:.0f} times as fast: {ratio:.1f}"
        yield (
            f"flips of {run['rows']:,} decisions: {run['changed']:,} cases, {run['changed_rows']:,} scores in "
            f"{run['changed_seconds']:.1f} s (CPU {run['changed_cpu_seconds']:.1f} s), peak {run['peak_mib']:.0f} MiB"
        )

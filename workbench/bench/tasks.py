"""What the benchmarks do, each in a process of its own: `python -P -m workbench.bench.tasks NAME JSON`.

One rule: a task checks what it timed. A kernel is held to Cedar's answers, a replay must leave no row out.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.bench.measure import Sampler, answer, best_of, cpu_seconds, peak_mib
from workbench.errors import OracleMismatch
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.bundle import Bundle
    from workbench.redeciding import EngineName
    from workbench.replay import Replay

BASELINE, CANDIDATE = "support-desk/baseline", "support-desk/candidate"
_CASES = 20_000
"""Rows that Cedar is asked about: about a second of it."""


def _bundle(policies: int) -> Bundle:
    """The desk's baseline, with at least so many policies."""
    from runtime.bundle import load_bundle  # noqa: PLC0415 - a task imports what it measures, and no more
    from workbench.bench.policies import multiplied  # noqa: PLC0415 - as above

    bundle = load_bundle(shipped(BASELINE))
    return multiplied(bundle, max(policies, len(bundle.policies)))


def kernel(*, rows: int, policies: int, keys: str, repeats: int) -> dict[str, Any]:
    """Time the columnar kernel and Cedar's batch on the same calls, in turns.

    Args:
        rows: calls that the kernel decides; Cedar is asked about the first 20,000.
        policies: how many.
        keys: `dictionary` or `strings`, how ids come.
        repeats: of each; the best counts.
    """
    from workbench.bench import kernel_cedar  # noqa: PLC0415 - a task imports what it measures, and no more
    from workbench.bench.desk import desk_columns  # noqa: PLC0415 - as above
    from workbench.bench.kernel import decide  # noqa: PLC0415 - as above
    from workbench.bench.kernel_world import desk_input  # noqa: PLC0415 - as above

    bundle, frame = _bundle(policies), desk_columns(rows)
    given = desk_input(
        frame, bundle.policy_set, bundle.schema, "strings" if keys == "strings" else "dictionary"
    )
    made = peak_mib()
    first = best_of(1, lambda: decide(given)).best
    best, cpu, times = best_of(repeats, lambda: decide(given))
    cases = frame.rows.head(_CASES)
    asked = [kernel_cedar.ask(frame, cases, bundle, bundle.policy_set) for _ in range(repeats)]
    found = pl.concat(decide(given).values()).sort("row").head(_CASES)
    every = given.policies.every
    kernel_cedar.hold(found, asked[0], {policy.id: policy.template.effect for policy in every})
    cedar = min(each.seconds for each in asked) / cases.height
    return {
        "rows": rows, "policies": len(every), "keys": keys, "seconds": best, "cpu_seconds": cpu, "all_seconds": times,
        "first_seconds": first, "decisions_per_second": rows / best, "cedar_rows": cases.height,
        "cedar_decisions_per_second": 1 / cedar, "ratio": rows / best * cedar, "checked_rows": found.height,
        "input_mib": made, "peak_mib": peak_mib(),
    }  # fmt: skip


def lake(*, uri: str, engine: EngineName) -> dict[str, Any]:
    """Time the way from Delta tables to a comparison of the candidate with the record, as `lake.compare` goes it.

    Args:
        uri: the lake, written by `build_lake`.
        engine: as `Lake.compare` takes it.

    Raises:
        OracleMismatch: the self-replay does not reproduce every row.
    """
    import workbench  # noqa: PLC0415 - the import is part of a cold run

    phases: dict[str, float] = {}
    used: dict[str, float] = {}
    begun = time.perf_counter()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started, before = time.perf_counter(), cpu_seconds()
        found = work()
        phases[name], used[name] = time.perf_counter() - started, cpu_seconds() - before
        return found

    opened = timed("open", lambda: workbench.open(uri))
    diff = timed("replays", lambda: opened.compare(shipped(CANDIDATE), engine=engine, recompile=False))
    replayed = peak_mib()
    summary = timed("numbers", diff.summary)
    seconds, peak, total = time.perf_counter() - begun, peak_mib(), cpu_seconds()
    base, cand = diff.base, diff.cand
    counts = {"base": base.counts(), "candidate": cand.counts()}
    rows = counts["base"]["decisions"]
    if counts["base"]["decisions_decided"] < rows:
        raise OracleMismatch(f"the self-replay decided not every row: {counts['base']}", case=uri)
    return {
        "uri": uri, "engine": base.engine, "rows": rows, "seconds": seconds, "cpu_seconds": total,
        "phases": phases, "phases_cpu": used, "decisions_per_second": rows / seconds, "peak_mib": peak,
        "replayed_mib": replayed, "counts": counts, "by_engine": _by_engine(cand), "summary": summary,
        "transitions": diff.transitions.collect().rows(),
    }  # fmt: skip


def lake_profile(*, uri: str, engine: EngineName) -> dict[str, Any]:
    """Look where the time goes that `lake` takes: apart, because looking costs time and memory."""
    import workbench  # noqa: PLC0415 - the import is part of a cold run

    with Sampler() as sampler:
        workbench.open(uri).compare(shipped(CANDIDATE), engine=engine, recompile=False).summary()
    return {"where": sampler.shares()}


def _by_engine(replay: Replay) -> Mapping[str, int]:
    rows = replay.frame.group_by("engine").agg(n=pl.len()).sort("n", descending=True)
    return dict(rows.collect(engine="streaming").iter_rows())


def sweep(*, uri: str, versions: int, engine: EngineName) -> dict[str, Any]:
    """Time a sweep of versions over a lake: another limit and another budget in each."""
    import workbench  # noqa: PLC0415 - the import is part of a cold run

    opened = workbench.open(uri)
    limits = [2_500 * (1 + number) for number in range(max(1, versions // 10))]
    budgets = [20_000 + 8_000 * number for number in range(versions // len(limits))]
    over = {"refund_limit": limits, "session_budget": budgets}
    with Sampler() as sampler:
        started = time.perf_counter()
        found = opened.sweep(shipped(BASELINE), over, engine=engine).frame.collect()
        seconds = time.perf_counter() - started
    decided = found.select(pl.sum_horizontal("allow", "modify", "approve", "block")).to_series()
    return {
        "uri": uri, "versions": found.height, "rows": int(found["decisions"][0]), "seconds": seconds,
        "decisions_per_second": int(decided.sum()) / seconds, "peak_mib": peak_mib(), "where": sampler.shares(),
        "approve": found["approve"].to_list(),
    }  # fmt: skip


def decode(*, rows: int, repeats: int) -> dict[str, Any]:
    """Time the readers of JSON arguments; see `workbench.bench.decode`."""
    from workbench.bench.decode import decode as timed  # noqa: PLC0415 - a task imports what it measures, and no more

    return timed(rows=rows, repeats=repeats)


def closed(*, uri: str) -> dict[str, Any]:
    """Time a replay over simulated state; see `workbench.bench.closed`."""
    from workbench.bench.closed import closed as timed  # noqa: PLC0415 - a task imports what it measures, and no more

    return timed(uri=uri)


def live(*, uri: str) -> dict[str, Any]:
    """Time edits over a prepared history; see `workbench.bench.live`."""
    from workbench.bench.live import live as timed  # noqa: PLC0415 - a task imports what it measures, and no more

    return timed(uri=uri)


def regress(*, uri: str, stopped: str | None) -> dict[str, Any]:
    """Time a night of a regression job; see `workbench.bench.regress`."""
    from workbench.bench.regress import regress_night  # noqa: PLC0415 - a task imports what it measures, and no more

    return regress_night(uri=uri, stopped=stopped)


def score(*, uri: str, repeats: int) -> dict[str, Any]:
    """Time scoring and DeepEval's own loop; see `workbench.bench.score`."""
    from workbench.bench.score import score as timed  # noqa: PLC0415 - a task imports what it measures, and no more

    return timed(uri=uri, repeats=repeats)


def statistics(*, rows: int, slices: bool) -> dict[str, Any]:
    """Time a comparison with all its statistics; see `workbench.bench.statistics`."""
    from workbench.bench.statistics import statistics as timed  # noqa: PLC0415 - as above

    return timed(rows=rows, slices=slices)


TASKS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "closed": closed,
    "decode": decode,
    "kernel": kernel,
    "lake": lake,
    "lake_profile": lake_profile,
    "live": live,
    "regress": regress,
    "score": score,
    "statistics": statistics,
    "sweep": sweep,
}


if __name__ == "__main__":
    answer(TASKS[sys.argv[1]](**json.loads(sys.argv[2])))

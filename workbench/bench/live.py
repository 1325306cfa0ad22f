"""Edits of a policy over a prepared history, beside what they replace: a sweep of one version, a replay and its diff.

One rule: what is timed is checked: of every kind of edit the last one has the numbers of a sweep, and of one edit
every decision is what a replay says of it.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from workbench.bench.measure import cpu_seconds, peak_mib
from workbench.errors import OracleMismatch
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runtime.bundle import Bundle
    from workbench.lake import Lake
    from workbench.live import Answer, Live

GOAL: Final = (0.4, 2.5, 1_000_000)
"""Seconds an edit, and GiB, for so many decisions; DESIGN section 9, issue 6."""
_EDITS = 8
"""Of each kind, each with texts that were not decided before."""
BASELINE, CANDIDATE = "support-desk/baseline", "support-desk/candidate"


def live(*, uri: str, edits: int = _EDITS) -> dict[str, Any]:
    """Time edits of the candidate, from texts to an answer and its change, and what says the same without `Live`.

    Args:
        uri: a lake of the support desk, written by `workbench.bench.lake`.
        edits: of each kind.

    Raises:
        OracleMismatch: an edit has other numbers than a sweep, or a decision is another than in a replay.
    """
    import workbench  # noqa: PLC0415 - a task imports what it measures, and no more
    from runtime.bundle import load_bundle  # noqa: PLC0415 - as above
    from workbench.live import prepare  # noqa: PLC0415 - as above

    lake = workbench.open(uri)
    preparing, prepared = _timed(lambda: prepare(lake, shipped(BASELINE)))
    peak, candidate = peak_mib(), load_bundle(shipped(CANDIDATE))
    _ = prepared.decide(candidate)  # the first one brings fourteen policies; edits follow it
    runs, answers = {}, []
    for kind, texts in _kinds(candidate, edits).items():
        took = [_timed(partial(_edited, prepared, files)) for files in texts]
        runs[kind] = _told([each for each, _ in took])
        answers.append(took[-1][1])
    undo, _ = _timed(lambda: prepared.decide(candidate))
    live_peak = peak_mib()
    sweeping = _hold_numbers(lake, answers)
    replaying = _hold_rows(lake, answers[0])
    typical = statistics.median(each["seconds"] for each in runs.values())
    return {
        "uri": uri, "rows": prepared.history.height, "prepare": preparing, "edits": runs, "undo": undo,
        "sweep": sweeping, "replay": replaying, "sweep_ratio": sweeping["seconds"] / typical,
        "replay_ratio": replaying["seconds"] / typical, "prepare_peak_mib": peak, "peak_mib": live_peak,
        "kept_mib": prepared.used / 2**20,
    }  # fmt: skip


def _timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    started, used = time.perf_counter(), cpu_seconds()
    found = work()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - used}, found


def _told(took: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {
        "edits": len(took),
        "seconds": statistics.median(each["seconds"] for each in took),
        "cpu_seconds": statistics.median(each["cpu_seconds"] for each in took),
        "worst_seconds": max(each["seconds"] for each in took),
        "worst_cpu_seconds": max(each["cpu_seconds"] for each in took),
    }


def _edited(prepared: Live, files: Mapping[str, str]) -> Answer:
    """From texts to an answer, and what it changes."""
    from runtime.bundle import bundle_from_files  # noqa: PLC0415 - as above

    found = prepared.decide(bundle_from_files(files, "edited"))
    assert found is not None  # noqa: S101 - nobody cancels
    found.against(prepared.baseline)
    return found


def _kinds(candidate: Bundle, edits: int) -> dict[str, list[Mapping[str, str]]]:
    """Texts by what is edited in them."""
    return {
        "slider, refund limit": list(_tuned(candidate, "refund_limit", range(6_000, 6_000 + edits))),
        "slider, session budget": list(_tuned(candidate, "session_budget", range(31_000, 31_000 + edits))),
        "permit of three tools": list(_replaced(candidate, "principal.tenant == context.tenant", edits)),
        "condition of a patch": list(_replaced(candidate, "resource.refundable_cents > 0", edits)),
        "every policy": list(_everywhere(candidate, edits)),
    }


def _tuned(candidate: Bundle, name: str, values: Sequence[int]) -> Iterator[Mapping[str, str]]:
    from runtime.tuning import tuned  # noqa: PLC0415 - as above

    return (tuned(candidate, {name: value}).files for value in values)


def _replaced(candidate: Bundle, condition: str, edits: int) -> Iterator[Mapping[str, str]]:
    """A condition that says a little more each time."""
    for number in range(edits):
        longer = f'({condition} && context.tenant != "none-{number}")'
        yield {file: text.replace(condition, longer) for file, text in candidate.files.items()}


def _everywhere(candidate: Bundle, edits: int) -> Iterator[Mapping[str, str]]:
    """A condition more in every policy."""
    for number in range(edits):
        more = f'\nwhen {{ context.tenant != "none-{number}" }};'
        yield {
            file: text.replace(";\n", f"{more}\n") if file.endswith(".cedar") else text
            for file, text in candidate.files.items()
        }


def _hold_numbers(lake: Lake, answers: Sequence[Answer]) -> dict[str, float]:
    """Sweep the first answer's bundle alone, and then all of them; the time of the first."""
    bundles = [answer.bundle for answer in answers if answer.bundle is not None]
    took, _ = _timed(lambda: lake.sweep(bundles[:1], engine="columnar"))
    swept = lake.sweep(bundles, engine="columnar").rows.iter_rows(named=True)
    for answer, row in zip(answers, swept, strict=True):
        wrong = {name: (n, row[name]) for name, n in answer.counts.items() if n != row[name]}
        if wrong:
            raise OracleMismatch(f"an edit and a sweep differ: {wrong}", case=lake.uri)
    return took


def _hold_rows(lake: Lake, answer: Answer) -> dict[str, float]:
    """Replay the answer's bundle and compare it with the self-replay, which is not timed; hold every decision."""
    import workbench  # noqa: PLC0415 - as above

    base = lake.replay(recompile=False)

    def replayed() -> Any:
        found = lake.replay(answer.bundle)
        workbench.compare(base, found).summary()
        return found

    took, found = _timed(replayed)
    columns = ("decision_id", "status", "verdict", "effect")
    texts = pl.all().cast(pl.String)
    if not found.frame.select(columns).collect().equals(answer.rows().with_columns(texts).collect()):
        raise OracleMismatch("an edit and a replay say something else of a decision", case=lake.uri)
    return took


def live_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Edits, and what they are beside."""
    yield "live: edits of the desk's candidate, from texts to every number and the changed decisions"
    for run in runs:
        prepared = run["prepare"]
        yield (
            f"{run['rows']:,} decisions prepared in {prepared['seconds']:.1f} s "
            f"(CPU {prepared['cpu_seconds']:.1f} s), peak {run['prepare_peak_mib']:.0f} MiB; "
            f"{run['kept_mib']:.0f} MiB kept for the next edit"
        )
        yield f"{'edit':>24} {'ms':>7} {'CPU ms':>7} {'worst ms':>9} {'worst CPU ms':>13}"
        for kind, each in run["edits"].items():
            figures = (each["seconds"], each["cpu_seconds"])
            worst = (each["worst_seconds"], each["worst_cpu_seconds"])
            yield (
                f"{kind:>24} {figures[0] * 1e3:>7.0f} {figures[1] * 1e3:>7.0f} {worst[0] * 1e3:>9.0f} "
                f"{worst[1] * 1e3:>13.0f}"
            )
        yield f"{'undo':>24} {run['undo']['seconds'] * 1e3:>7.0f} {run['undo']['cpu_seconds'] * 1e3:>7.0f}"
        for name, words in (("sweep", "a sweep of one version"), ("replay", "a replay and its comparison")):
            took = run[name]
            yield (
                f"beside it, {words}: {took['seconds']:.1f} s (CPU {took['cpu_seconds']:.1f} s), "
                f"{run[f'{name}_ratio']:.0f} times the median edit"
            )
        yield from _goal(run)


def _goal(run: Mapping[str, Any]) -> Iterator[str]:
    seconds, gib, rows = GOAL
    if run["rows"] < rows:
        return
    worst = {
        name: max(each[f"worst_{name}"] for each in run["edits"].values())
        for name in ("seconds", "cpu_seconds")
    }
    for name, words in (("seconds", "seconds"), ("cpu_seconds", "seconds of processor time")):
        met = "goal met:" if worst[name] < seconds else "goal missed:"
        yield f"{met} {seconds} {words} for the slowest edit: {worst[name]:.3f}"
    fits = "goal met:" if run["peak_mib"] < gib * 1024 else "goal missed:"
    yield f"{fits} {gib} GiB: {run['peak_mib'] / 1024:.2f}"

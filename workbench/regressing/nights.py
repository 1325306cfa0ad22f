"""What follows from nights, before one is judged and after: what is news, what was said before, which of two is told.

One rule: nothing is judged, written or sent here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.regressing.result import WORST, Drifted, Night, Reopened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from workbench.regressing.delivering import Runs
    from workbench.regressing.result import Range
    from workbench.regressing.state import Begun, State
    from workbench.regressing.windows import Plan


def first(open_: Begun | None) -> tuple[str, ...]:
    """Say in a dry run that a stopped run would come first."""
    if open_ is None:
        return ()
    return (
        f"run {open_.run}, which was stopped, would be finished first, over the windows it was planned with",
    )


def kept(runs: Runs) -> dict[str, Json]:
    """Return runs as they are noted."""
    return {name: [run, url] for name, (run, url) in runs.items()}


def is_news(plan: Plan, *, drift: bool) -> bool:
    """Whether there is something to look at. A stretch of time with the same decisions as last night's is not."""
    if plan.begins or (plan.touched.height and not drift):
        return True
    return bool(plan.window.decisions) and not (plan.seen and plan.seen[-1].range == plan.window)


def worse(stopped: Night, fresh: Night) -> Night:
    """Of a night that was finished late and the one after it, what the command says: a regression is never hidden."""
    if WORST.index(stopped.verdict) >= WORST.index(fresh.verdict):
        return fresh
    after = f"the night after it, which began at {fresh.started}, says: {fresh.verdict}"
    return replace(stopped, problems=(*stopped.problems, after))


def reopened(plan: Plan, measures: Mapping[int, Mapping[str, float]]) -> tuple[Reopened, ...]:
    """Return the earlier windows that a night opens again.

    Args:
        plan: of the night.
        measures: what windows come to now, by night; empty: nothing was judged.
    """
    ends = {look.night: look.range.watermark for look in plan.seen}
    return tuple(
        Reopened(night=night, watermark=ends[night], measures=measures.get(night, {}), **numbers)
        for night, numbers in plan.reopened.items()
    )


def drift_before(state: State, key: str, plan: Plan) -> Drifted:
    """Say what the last window that had decisions came to."""
    found = [each for each in state.results(key) if isinstance(each, Drifted)]
    results = [each for each in found if each.after.decisions]
    if results:
        note = f"nothing is new since night {results[-1].night}: the verdict is that night's"
        return replace(results[-1], notes=(*results[-1].notes, note))
    note = "no decision is in the window yet, so there was nothing to judge"
    return _unjudged(plan, night=0, before=plan.window, notes=(note,))


def drift_planned(plan: Plan) -> Drifted:
    """Return the windows that would be held beside each other, judged by nothing."""
    return _unjudged(plan, night=plan.night, before=plan.seen[-1].range if plan.seen else plan.window)


def _unjudged(plan: Plan, *, night: int, before: Range, notes: tuple[str, ...] = ()) -> Drifted:
    return Drifted(
        verdict="inconclusive", night=night, before=before, after=plan.window, gates=(), rows=(), uncovered=(),
        numbers={}, headline=(), notes=notes,
    )  # fmt: skip

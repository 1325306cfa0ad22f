"""What stands above a comparison: ship or not, what was counted, how much is exact, each effect with its interval.

One rule: what is counted is there at once; what takes estimates says that it is on its way, and comes when made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench import certainty
from workbench.comparing.measures import measures
from workbench.errors import WorkbenchError
from workbench.texts import visible
from workbench.viewing.messages import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.comparing.candidates import Candidates

_HUES = {"ship": "good", "don't ship": "bad", "inconclusive": "note"}
MAX_LINES = 12
"""Sentences above a comparison; `diff.headline` has all."""

State = dict[str, Any]


def head(candidates: Candidates) -> State:
    """Return what is known at once, as JSON. O(1) after the comparisons are collected."""
    first = candidates.diffs[0]
    return {
        "base": candidates.base,
        "context": visible(first.cand.context) if not candidates.several else "",
        "level": first.level,
        "states": list(candidates.states),
        "candidates": [_of(candidates, place) for place in range(len(candidates.diffs))],
    }


def _of(candidates: Candidates, place: int) -> State:
    diff = candidates.diffs[place]
    return {
        "name": candidates.names[place],
        "lines": [visible(line) for line in candidates.facts(place)[:MAX_LINES]],
        "gated": bool(diff.gates),
        "outcome": None,
        "history": certainty.has_history(diff),
        "exact": "",
        "measures": [],
        "estimated": False,
        "problem": "",
    }


def worked_out(candidates: Candidates, is_unwanted: Callable[[], bool]) -> Iterator[tuple[int, State]]:
    """Work out effects, intervals and outcome, candidate by candidate; each step as it is made.

    Args:
        candidates: of what.
        is_unwanted: asked between steps.

    Yields:
        The candidate's place, and what to put into its part of `head`. A step that fails gives its `problem`.

    Cost: O(decisions) a candidate: estimates, and divergence where there is a lake.
    """
    steps = (_counted, _estimated, _exact)
    for step in steps:
        for place in range(len(candidates.diffs)):
            if is_unwanted():
                return
            try:
                yield place, step(candidates, place)
            except WorkbenchError as exc:
                yield place, {"problem": said(exc)}


def _counted(candidates: Candidates, place: int) -> State:
    """Effects as far as this log says them."""
    return {"measures": [each.as_dict() for each in measures(candidates.diffs[place], estimated=False)]}


def _estimated(candidates: Candidates, place: int) -> State:
    """Effects with intervals; and the outcome, which rests on them."""
    diff = candidates.diffs[place]
    found: State = {
        "measures": [each.as_dict() for each in measures(diff, estimated=True)], "estimated": True,
    }  # fmt: skip
    if diff.outcome is not None:
        verdict = diff.outcome.verdict
        lines = [visible(line) for line in diff.outcome.page().lines[:MAX_LINES]]
        found["outcome"] = {"verdict": verdict, "hue": _HUES[verdict], "lines": lines}
    return found


def _exact(candidates: Candidates, place: int) -> State:
    """How much of it is exact on this log."""
    diff = candidates.diffs[place]
    return {"exact": f"{diff.divergence.headline}." if certainty.has_history(diff) else ""}

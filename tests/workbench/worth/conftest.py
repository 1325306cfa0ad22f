"""Comparisons made by hand: what became of each call, what would, and what labels say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from workbench.compare import Diff, compare
from workbench.effects import EFFECTS
from workbench.replay import FRAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

RECORDED = {
    "ran": "allow", "granted": "approve", "taken_back": "allow", "did_not_run": "block", "not_granted": "approve",
    "waiting": "approve", "in_doubt": "allow",
}  # fmt: skip
TO = {
    "same_action": "allow", "another_action": "modify", "waits": "approve", "does_not_run": "block",
    "undecidable": "undecided", "quarantined": "quarantined",
}  # fmt: skip
LABELS: dict[str, Any] = dict.fromkeys(("tenant", "session_id", "decision_id", "label", "value"), pl.String)
PATCHED: dict[str, Any] = {"decision_id": pl.String, "verdict": pl.String, "enforced_args": pl.String}
ENDED: dict[str, Any] = {
    **dict.fromkeys(("decision_id", "status", "result", "error_type", "error_message"), pl.String),
    "result_bytes": pl.Int64,
}


@dataclass(frozen=True)
class Call:
    """One decision. `now` is as `workbench.effects.Now`, or `quarantined`."""

    then: str
    now: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the decision."""
    args: str = '{"cents":10}'
    acted: str | None = None
    """What was enforced then, if that was something else."""
    now_args: str | None = None
    """What would be enforced; None: what was asked for."""
    tool: str = "refund"
    session: str = "s-1"
    kind: str = "call"
    result: str | None = None
    """As it was kept."""
    bytes: int | None = None
    """Of the whole result, if more than was kept."""


@dataclass(frozen=True)
class HandLake:
    labels: pl.LazyFrame
    decisions: pl.LazyFrame
    executions: pl.LazyFrame
    uri: str = "lake"


@dataclass(frozen=True)
class HandReplay:
    frame: pl.LazyFrame
    lake: HandLake
    id: str
    policy: tuple[str, str]
    context: str = "recorded"
    pins: Mapping[str, object] = field(default_factory=lambda: {"ledgers": {"ledger-1": 1}})


def _row(number: int, call: Call, *, base: bool) -> dict[str, Any]:
    recorded = "modify" if call.acted is not None else RECORDED[call.then]
    to = recorded if base else TO[call.now]
    effect = EFFECTS.get((call.then, call.now), "quarantined")  # type: ignore[arg-type]  # texts of the vocabularies
    if call.kind == "duplicate" and call.now not in ("undecidable", "quarantined"):
        effect = "same"  # as `now_of` says: it does not run, permitted or not
    runs = to in ("allow", "modify", "approve")
    return {
        "decision_id": f"d-{number}", "session_id": call.session, "step": number, "tenant": "acme",
        "principal": 'Agent::"bot"', "tool": call.tool, "args": call.args, "kind": call.kind,
        "recorded_verdict": recorded, "then": call.then, "effect": "same" if base else effect,
        "status": to if to in ("undecided", "quarantined") else "decided",
        "verdict": to if to not in ("undecided", "quarantined") else None, "determining": [], "missing": [],
        "enforced_args": (call.now_args or call.args) if runs else None,
    }  # fmt: skip


def build(
    calls: Iterable[Call],
    *,
    labels: Sequence[tuple[str | None, str, str, str]] = (),
    candidate: str = "r-1",
) -> Diff:
    """Compare hand-made calls; `labels` are further ones: decision or None, session, label, value."""
    calls = list(calls)
    said = [(f"d-{n}", call.session, *each) for n, call in enumerate(calls) for each in call.labels.items()]
    rows = [("acme", session, decision, *each) for decision, session, *each in [*said, *labels]]
    patched = [(f"d-{n}", "modify", call.acted) for n, call in enumerate(calls) if call.acted is not None]
    ended = [
        (f"d-{n}", "succeeded", call.result, None, None, call.bytes or len((call.result or "").encode()))
        for n, call in enumerate(calls)
        if call.then == "ran"
    ]
    lake = HandLake(
        labels=pl.LazyFrame(rows, schema=LABELS, orient="row"),
        decisions=pl.LazyFrame(patched, schema=PATCHED, orient="row"),
        executions=pl.LazyFrame(ended, schema=ENDED, orient="row"),
    )
    frames = [
        pl.LazyFrame([_row(n, call, base=base) for n, call in enumerate(calls)], schema=FRAME, orient="row")
        for base in (True, False)
    ]
    return compare(
        HandReplay(frames[0], lake, "r-0", ("as recorded", "recorded")),
        HandReplay(frames[1], lake, candidate, ("candidate", "c" * 64)),
    )


@pytest.fixture(scope="session")
def make() -> Callable[..., Diff]:
    """Return `build`: calls, given as dicts of `Call`'s fields, to a comparison."""
    return lambda calls, **options: build([Call(**call) for call in calls], **options)

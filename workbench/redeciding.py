"""Deciding recorded decisions again: self-replay first, then the candidate, a chunk of rows at a time.

One rule: every row that goes in comes out, as one row of `workbench.replay.FRAME`. A row is taken out of the deciding
only by a cause of `CAUSES`, and that cause is its result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.canonical import canonical
from runtime.policy import Decision
from runtime.record import decision_row, moment_of
from workbench.effects import EFFECTS, now_of, then_of
from workbench.progress import progress
from workbench.recorded import Recorded, prepare_recorded, recorded_facts
from workbench.replay import FRAME, Replay, how
from workbench.rows import Job, RowEngine, Undecided

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Prepared
    from workbench.lake import Lake
    from workbench.recompile import Recompiler
    from workbench.rows import Engine

CHUNK = 1_000
"""Rows decided at a time, a second or less; bounds memory, and is how often progress is told."""

_COMPARED = (
    "verdict", "decided_by", "reason_code", "cedar_decision", "determining", "enforced_determining", "cedar_reasons",
    "errors", "enforced_args", "action_hash", "projection", "slice_hash", "enforced_slice_hash", "resource_type",
    "resource_id",
)  # fmt: skip
"""What a decision must reproduce to be decidable."""


@dataclass(frozen=True)
class _Plan:
    """How to answer for each row."""

    lake: Lake
    engine: Engine
    candidate: Bundle | None
    """Policies to decide with; None: each row's own."""
    limits_of: Bundle | None
    recompiler: Recompiler | None
    """Compiles contexts again; None: as recorded."""
    verify: Recompiler | None
    """Checks the second level of self-replay; None: not asked."""

    def bundle_for(self, own: Bundle) -> Bundle:
        """The effective bundle for a row: each axis as recorded unless given."""
        spec = own.spec if self.recompiler is None else self.recompiler.spec or own.spec
        limits = own.limits if self.limits_of is None else self.limits_of.limits
        base = self.candidate or own
        if base.spec is spec and base.limits is limits:
            return base
        return _effective(base, spec, limits)


_effective_cache: dict[tuple[str, str, str], Bundle] = {}


def _effective(base: Bundle, spec: Any, limits: Any) -> Bundle:
    key = (base.policy_hash, spec.hash, limits.hash)
    if key not in _effective_cache:
        _effective_cache[key] = replace(base, spec=spec, limits=limits)
    return _effective_cache[key]


@dataclass(slots=True)
class _Row:
    """One recorded decision on its way through a replay."""

    recorded: Recorded
    own: Bundle | None
    then: str
    cause: str | None = None
    about: tuple[str, ...] = ()
    """Sources of facts that the cause is about."""
    decidable: bool = False
    recompilable: bool | None = None
    result: Decision | Undecided | None = None


def run_replay(
    lake: Lake,
    *,
    candidate: Bundle | None,
    limits_of: Bundle | None,
    recompiler: Recompiler | None,
    verify: Recompiler | None,
    labels: tuple[tuple[str, str], str],
    engine: Engine | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Replay:
    """Decide every recorded decision again.

    Args:
        lake: the pinned lake.
        candidate: bundle whose policies decide; None: each row's own.
        limits_of: bundle whose limits hold; None: as recorded.
        recompiler: compiles contexts again; None: contexts as recorded.
        verify: compiles the recorded spec at the recorded versions, for the second level; None: not asked.
        labels: ((policy name, version), context) as shown.
        engine: default the row engine.
        on_rows: told how many rows a chunk had; None: a progress bar, where somebody may look.

    Cost: the self-replay and the candidate's, at the engine's speed; memory O(CHUNK) beside the result.
    """
    plan = _Plan(lake, engine or RowEngine(), candidate, limits_of, recompiler, verify)
    records, frames = _recorded(lake), []
    with progress(records.height, f"replaying {how(*labels)}", on_rows) as advance:
        for chunk in records.iter_slices(CHUNK):
            rows = [_row(record, lake) for record in chunk.iter_rows(named=True)]
            _self_replay(rows, plan)
            if candidate is not None or recompiler is not None or limits_of is not None:
                _decide_again(rows, plan)
            frames.append(pl.DataFrame([_out(row, plan) for row in rows], schema=dict(FRAME)))
            advance(len(rows))
    table = pl.concat(frames) if frames else pl.DataFrame(schema=dict(FRAME))
    return Replay(lake, labels[0], labels[1], table, plan.engine.name)


def _recorded(lake: Lake) -> pl.DataFrame:
    """Return recorded decisions with the texts of their contexts and how they ended, in order."""
    ended = (
        lake.outcomes.filter(pl.col("kind") == "execution")
        .sort("writer", "position")
        .group_by("decision_id")
        .agg(pl.col("status").last().alias("execution_status"))
    )
    decisions = lake.decisions.filter(pl.col("kind") != "shadow").sort("writer", "position")
    contexts = lake.contexts.select("context_hash", "context")
    return (
        decisions.join(ended, on="decision_id", how="left", maintain_order="left")
        .join(contexts, on="context_hash", how="left", maintain_order="left")
        .join(
            contexts.rename({"context_hash": "enforced_context_hash", "context": "enforced_context"}),
            on="enforced_context_hash",
            how="left",
            maintain_order="left",
        )
        .collect()
    )


def _row(record: dict[str, Any], lake: Lake) -> _Row:
    recorded = Recorded(record, record["context"], record["enforced_context"])
    then = then_of(record["verdict"], record["kind"], record["execution_status"])
    own = lake.find_bundle(record["bundle_version"])
    row = _Row(recorded, own, then, cause=recorded.damage())
    if own is None:
        row.cause = "policy_lost"
    elif row.cause is None:
        row.cause = _unreadable(recorded)
    return row


def _unreadable(recorded: Recorded) -> str | None:
    try:
        _ = recorded.request, recorded.compiled, recorded.enforced_compiled
    except (ValueError, KeyError, TypeError):
        return "row_unreadable"
    return None


def _self_replay(rows: Sequence[_Row], plan: _Plan) -> None:
    """First level for all rows, second where it is asked; what fails is quarantined."""
    alive = [row for row in rows if row.cause is None]
    jobs = [_recorded_job(row, _own(row)) for row in alive]
    for row, result in zip(alive, plan.engine.run(jobs), strict=True):
        row.result = result
        row.decidable = isinstance(result, Decision) and _reproduces(row, result)
        if not row.decidable:
            row.cause = "not_reproduced"
        elif plan.verify is not None:
            problem = plan.verify.problem(row.recorded, _own(row).spec)
            row.recompilable = problem is None
            if plan.recompiler is not None and problem is not None:
                row.cause, row.about = problem


def _decide_again(rows: Sequence[_Row], plan: _Plan) -> None:
    alive, jobs = [], []
    for row in rows:
        if row.cause is not None:
            continue
        bundle = plan.bundle_for(_own(row))
        job = (
            _recorded_job(row, bundle)
            if plan.recompiler is None
            else plan.recompiler.job(row.recorded, bundle)
        )
        alive.append(row)
        jobs.append(job)
    for row, result in zip(alive, plan.engine.run(jobs), strict=True):
        row.result = result
        trouble = None if plan.recompiler is None else plan.recompiler.trouble(row.recorded)
        if trouble is not None:
            row.cause, row.about = trouble


def _own(row: _Row) -> Bundle:
    assert row.own is not None  # noqa: S101 - rows without a bundle are quarantined
    return row.own


def _recorded_job(row: _Row, bundle: Bundle) -> Job:
    answer = recorded_facts(bundle)

    def prepared(args: Mapping[str, Any]) -> Prepared:
        return prepare_recorded(row.recorded, args, bundle, answer)

    return Job(row.recorded.request, bundle, prepared)


def _reproduces(row: _Row, decision: Decision) -> bool:
    """Whether the decision is the recorded one in everything a decision rests on."""
    found = _as_row(row, decision)
    return all(_same(found.get(name), row.recorded.row[name]) for name in _COMPARED)


def _as_row(row: _Row, decision: Decision) -> dict[str, Any]:
    record = row.recorded.row
    return decision_row(
        decision,
        _own(row),
        decided_at=moment_of(record["decided_at"]),
        latency_us=0,
        engine="",
        kind=record["kind"],
    )


def _same(one: Any, two: Any) -> bool:
    return (one or None) == (two or None)


def _out(row: _Row, plan: _Plan) -> dict[str, Any]:
    """One row of the frame."""
    record = row.recorded.row
    behalf = f"{record['principal_type']}::{canonical(record['principal_id'])}"
    resource = record["resource_type"]
    return {
        **{
            name: record[name]
            for name in ("decision_id", "session_id", "step", "tenant", "tool", "args", "kind")
        },
        **{name: record[name] for name in ("decided_at", "writer", "position")},
        "principal": behalf,
        "resource": None if resource is None else f"{resource}::{canonical(record['resource_id'])}",
        "recorded_verdict": record["verdict"],
        "recorded_decided_by": record["decided_by"],
        "recorded_reason_code": record["reason_code"],
        "recorded_determining": record["determining"],
        "then": row.then,
        "decidable": row.decidable,
        "recompilable": row.recompilable,
        "engine": plan.engine.name,
        **_result_columns(row),
    }


def _result_columns(row: _Row) -> dict[str, Any]:
    if row.cause is not None or row.result is None:
        about = list(row.about)
        return {"status": "quarantined", "cause": row.cause, "missing": about, "effect": "quarantined"}
    if isinstance(row.result, Undecided):
        missing = list(row.result.missing)
        return {"status": "undecided", "cause": "missing_fact", "missing": missing, "effect": "undecided"}
    decision = row.result
    record = row.recorded.row
    args = decision.enforced_args
    now = now_of(decision.verdict, kind=record["kind"], same_action=_same_action(row, decision))
    return {
        "status": "decided",
        "missing": [],
        "verdict": decision.verdict,
        "decided_by": decision.decided_by,
        "reason_code": decision.reason_code,
        "reason": decision.reason,
        "determining": list(decision.determining),
        "errors": [{"policy": f.policy, "message": f.message} for f in decision.errors],
        "enforced_args": None if args is None else canonical(dict(args)),
        "action_hash": decision.action_hash,
        "effect": EFFECTS[row.then, now],  # type: ignore[index]  # both are of the closed vocabularies
        "verdict_changed": decision.verdict != record["verdict"],
    }


def _same_action(row: _Row, decision: Decision) -> bool:
    """Whether the same arguments would be run on the same resource; who and where never change in a replay."""
    record, args = row.recorded.row, decision.enforced_args
    if args is None or record["enforced_args"] is None:
        return False
    return canonical(dict(args)) == str(record["enforced_args"])

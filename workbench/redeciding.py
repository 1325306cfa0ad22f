"""Deciding recorded decisions again: self-replay first, then the candidate, a chunk of rows at a time.

One rule: every row that goes in comes out, as one row of `workbench.replay.FRAME`. A row is taken out of the deciding
only by a cause of `CAUSES`, and that cause is its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl

from runtime.canonical import canonical
from runtime.policy import Decision
from runtime.record import decision_row, moment_of
from workbench.asked import effective_bundle
from workbench.effects import EFFECTS, now_of, then_of
from workbench.ending import ending
from workbench.executors import ahead
from workbench.history.caching import contexts_of
from workbench.history.limiting import INPUTS, needs_inputs
from workbench.history.records import ADDRESSES, MORE, Records, with_contexts
from workbench.history.run import ColumnarRun
from workbench.recorded import Recorded, prepare_recorded, recorded_facts
from workbench.replay import FRAME, UNDECIDED
from workbench.rows import Job, Undecided

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Prepared
    from workbench.history.contexts import Contexts
    from workbench.lake import Lake
    from workbench.recompile import Recompiler
    from workbench.rows import Engine

EngineName = Literal["auto", "columnar", "rows"]
"""`auto` columns where they pay, and Cedar itself for what columns do not take; `columnar` columns or an error;
`rows` Cedar itself for every row."""

CHUNK = 1_000
"""Rows that Cedar decides at a time, a second or less; bounds memory, and is how often progress is told."""

COLUMNS_PAY = 5_000
"""Decisions below which `auto` asks Cedar for every row: compiling costs about what deciding them does."""

_COMPARED = (
    "verdict", "decided_by", "reason_code", "cedar_decision", "determining", "enforced_determining", "cedar_reasons",
    "errors", "enforced_args", "projection", "resource_type", "resource_id",
)  # fmt: skip
"""What a decision must reproduce to be decidable."""

_ADDRESSES = ("action_hash", "slice_hash", "enforced_slice_hash")
"""What it must reproduce besides where the bytes are asked for (the second level), because all of it follows."""


@dataclass(frozen=True)
class Plan:
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

    @property
    def again(self) -> bool:
        """Whether anything is to be decided otherwise than it was recorded."""
        return any(axis is not None for axis in (self.candidate, self.recompiler, self.limits_of))

    def bundle_for(self, own: Bundle) -> Bundle:
        """The effective bundle for a row: each axis as recorded unless given."""
        spec = own.spec if self.recompiler is None else self.recompiler.spec or own.spec
        limits = own.limits if self.limits_of is None else self.limits_of.limits
        base = self.candidate or own
        if base.spec is spec and base.limits is limits:
            return base
        return effective_bundle(base, spec, limits)


@dataclass(slots=True)
class RowUnderWay:
    """One recorded decision on its way through a replay."""

    recorded: Recorded
    own: Bundle | None
    then: str
    cause: str | None = None
    about: tuple[str, ...] = ()
    """What the cause is about: sources of facts, or what was erased."""
    decidable: bool = False
    recompilable: bool | None = None
    result: Decision | Undecided | None = None


def in_columns(chosen: EngineName | Engine) -> bool:
    """Whether columns decide, and Cedar only what they do not take."""
    return chosen in ("auto", "columnar")


def decider(plan: Plan, chosen: EngineName | Engine) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return what decides records; in columns it first takes all contexts of `plan.lake` apart."""
    if in_columns(chosen):
        return columnar_run(plan, strict=chosen == "columnar").chunk
    return partial(replayed_by_rows, plan)


def decided_here(plan: Plan, chosen: EngineName | Engine) -> Generator[pl.DataFrame, None, None]:
    """Yield what this process decides, a chunk at a time, in order."""
    if in_columns(chosen):
        from workbench.preparing import decided_in_columns  # noqa: PLC0415 - it imports us

        yield from decided_in_columns(plan, strict=chosen == "columnar")
        return
    chunks = ahead(Records(plan.lake).chunks(columns_of(plan, chosen)))
    with ending(chunks.close):
        for chunk in chunks:
            for part in chunk.iter_slices(CHUNK):
                yield replayed_by_rows(plan, part)


def columns_of(plan: Plan, chosen: EngineName | Engine) -> Sequence[str]:
    """Columns to read beside those that columns are decided from."""
    if not in_columns(chosen):
        return MORE
    inputs = (INPUTS,) if needs_inputs(plan.lake, [plan.limits_of]) else ()
    return inputs if plan.verify is None else (*ADDRESSES, *inputs)


def chosen_engine(engine: EngineName | Engine, rows: int) -> EngineName | Engine:
    """Return the engine for a lake of so many decisions; `auto` stays only where columns pay."""
    if isinstance(engine, str) and engine not in get_args(EngineName):
        raise ValueError(f"`engine` must be one of {', '.join(get_args(EngineName))}, got {engine!r}")
    return "rows" if engine == "auto" and rows < COLUMNS_PAY else engine


def columnar_run(plan: Plan, *, strict: bool, contexts: Contexts | None = None) -> ColumnarRun:
    """Return the replay in columns of a plan; `contexts` of its lake, if they are known."""
    lake, by_rows = plan.lake, partial(replayed_by_rows, plan)
    return ColumnarRun(lake.find_bundle, plan, contexts or contexts_of(lake), by_rows, lake, strict=strict)


def replayed_by_rows(plan: Plan, records: pl.DataFrame) -> pl.DataFrame:
    """Decide records one by one, with Cedar itself."""
    frames = []
    known = "enforced_context" in records.columns  # kept with their contexts
    whole = records if known else with_contexts(Records(plan.lake).whole(records), plan.lake)
    for chunk in whole.iter_slices(CHUNK):
        rows = [row_of(record, plan) for record in chunk.iter_rows(named=True)]
        self_replay(rows, plan)
        if plan.again:
            decide_again(rows, plan)
        frames.append(pl.DataFrame([out_row(row, plan) for row in rows], schema=dict(FRAME)))
    return pl.concat(frames)


def row_of(record: dict[str, Any], plan: Plan) -> RowUnderWay:
    """Begin with one record."""
    recorded = Recorded(record, record["context"], record["enforced_context"])
    then = then_of(record["verdict"], record["kind"], record["execution_status"])
    own = plan.lake.find_bundle(record["bundle_version"])
    row = RowUnderWay(recorded, own, then, cause=recorded.damage(addresses=plan.verify is not None))
    if own is None:
        row.cause = "policy_lost"
    elif row.cause in UNDECIDED and recorded.holes is not None:
        row.about = recorded.holes.names
    elif row.cause is None:
        row.cause = _unreadable(recorded)
    return row


def _unreadable(recorded: Recorded) -> str | None:
    try:
        request = recorded.request
        _ = recorded.compiled, recorded.enforced_compiled, recorded.grants
    except (ValueError, KeyError, TypeError, AttributeError):  # JSON of another shape has no members to get
        return "row_unreadable"
    args, state = request.args, request.session_state
    whole = isinstance(args, dict) and isinstance(state, dict) and isinstance(state.get("calls", 0), int)
    return None if whole else "row_unreadable"


def self_replay(rows: Sequence[RowUnderWay], plan: Plan) -> None:
    """First level for all rows, second where it is asked; what fails is quarantined."""
    alive = [row for row in rows if row.cause is None]
    jobs = [recorded_job(row, own_of(row)) for row in alive]
    for row, result in zip(alive, plan.engine.run(jobs), strict=True):
        row.result = result
        compared = _COMPARED if plan.verify is None else (*_COMPARED, *_ADDRESSES)
        row.decidable = isinstance(result, Decision) and _reproduces(row, result, compared)
        if not row.decidable:
            same_engine = row.recorded.row["engine"] == plan.engine.name
            row.cause = "not_reproduced" if same_engine else "engine_mismatch"
        elif plan.verify is not None:
            problem = plan.verify.problem(row.recorded, own_of(row).spec)
            row.recompilable = problem is None
            if plan.recompiler is not None and problem is not None:
                row.cause, row.about = problem


def decide_again(rows: Sequence[RowUnderWay], plan: Plan) -> None:
    """Decide rows again by a plan, in place."""
    alive, jobs = [], []
    for row in rows:
        if row.cause is not None:
            continue
        bundle = plan.bundle_for(own_of(row))
        job = (
            recorded_job(row, bundle)
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


def own_of(row: RowUnderWay) -> Bundle:
    """Return the bundle a row was decided by; only of rows that have one."""
    assert row.own is not None  # noqa: S101 - rows without a bundle are quarantined
    return row.own


def recorded_job(row: RowUnderWay, bundle: Bundle) -> Job:
    """Return what the row engine is asked about a record, over its recorded facts."""
    answer = recorded_facts(bundle)

    def prepared(args: Mapping[str, Any]) -> Prepared:
        return prepare_recorded(row.recorded, args, bundle, answer)

    return Job(row.recorded.request, bundle, prepared, row.recorded.grants)


def _reproduces(row: RowUnderWay, decision: Decision, compared: Sequence[str]) -> bool:
    """Whether the decision is the recorded one in these columns."""
    found = _as_row(row, decision)
    return all(_same(found.get(name), row.recorded.row[name]) for name in compared)


def _as_row(row: RowUnderWay, decision: Decision) -> dict[str, Any]:
    record = row.recorded.row
    return decision_row(
        decision,
        own_of(row),
        decided_at=moment_of(record["decided_at"]),
        latency_us=0,
        engine="",
        kind=record["kind"],
    )


def _same(one: Any, two: Any) -> bool:
    return (one or None) == (two or None)


def out_row(row: RowUnderWay, plan: Plan) -> dict[str, Any]:
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


def _result_columns(row: RowUnderWay) -> dict[str, Any]:
    if row.cause is not None or row.result is None:
        status = "undecided" if row.cause in UNDECIDED else "quarantined"
        return {"status": status, "cause": row.cause, "missing": list(row.about), "effect": status}
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
        "effect": EFFECTS[row.then, now],  # type: ignore[index]  # both are of the closed vocabularies
        "verdict_changed": decision.verdict != record["verdict"],
    }


def _same_action(row: RowUnderWay, decision: Decision) -> bool:
    """Whether the same arguments would be run on the same resource; who and where never change in a replay."""
    record, args = row.recorded.row, decision.enforced_args
    if args is None or record["enforced_args"] is None:
        return False
    return canonical(dict(args)) == str(record["enforced_args"])

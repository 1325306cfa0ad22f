"""Recovery: what is concluded about actions whose process is gone, and what is still owed to their tools.

One rule: doubt is never turned into an answer. What a dead process left is aborted where nothing was committed, and
in doubt where it may have been; only the tool itself, or a person, may say more. Nothing is ever run again.

Only actions whose holder is dead are touched: several processes may share a ledger, and one that opens it must not
conclude anything about what another is doing. Two that recover at once are told apart by the ledger: an action moves
once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from runtime import actions, metering
from runtime.broker import Invoke, call_now, recorded_result, said_by
from runtime.canonical import parse
from runtime.errors import ActionMoved, InDoubt, InProgress, LedgerError
from runtime.foreign import message_of, well_formed
from runtime.holders import is_alive
from runtime.lifecycle import RESOLUTIONS, Effect, concluded
from runtime.record import execution_row, moment_of
from runtime.settling import effect_id_of
from runtime.trace import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from runtime.actions import Action
    from runtime.canonical import Json
    from runtime.effects import Callback
    from runtime.ledger import Ledger
    from runtime.lifecycle import State
    from runtime.limits import Limits
    from runtime.loop import Runtime
    from runtime.record import Row
    from runtime.tools import Tool
    from runtime.trace import ExecutionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """An action of which nobody knows whether it took effect."""

    decision_id: str
    effect_id: str
    """What the system behind the tool may know it by."""
    tool: str
    tenant: str
    session_id: str
    args: Mapping[str, Json]
    """As enforced."""
    since: datetime | None
    """When it came into doubt, or started if its process is gone and nobody has concluded that yet."""
    state: State
    concluded: bool
    """Whether an outcome `in_doubt` is recorded; if not, the next `Runtime.open` records it."""


@dataclass(slots=True)
class Recovered:
    """What opening a runtime concluded about the work of processes that are gone. Ids of decisions."""

    aborted: list[str] = field(default_factory=list)
    """Nothing was committed."""
    cancelled: list[str] = field(default_factory=list)
    """They could only read."""
    in_doubt: list[str] = field(default_factory=list)
    """They may have taken effect."""
    told: list[str] = field(default_factory=list)
    """Aborted earlier or now; their tools were registered since, and told."""
    answered: dict[str, ExecutionStatus] = field(default_factory=dict)
    """In doubt; their tools were registered since, and said what became of them."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a tool could not be told or asked; it is tried again at the next opening."""
    owed: dict[str, list[str]] = field(default_factory=dict)
    """By tool: decisions it is to be told of, or asked about, once it is registered."""


def recover(runtime: Runtime) -> Recovered:
    """Conclude what follows for every action whose holder is dead.

    Durability: each conclusion is an outcome, on disk when this returns. Cost: O(actions under way).
    """
    ledger, report = runtime.ledger, Recovered()
    for action in actions.under_way(ledger):
        if _held(ledger, action):
            continue
        row = ledger.decision(action.decision_id)
        assert row is not None  # noqa: S101 - an action is added with its decision
        if (found := concluded(action.state, _effect(row))) is not None:
            outcome = _outcome(runtime.clock(), row, action, found.status, "recovered")
            try:
                _record(ledger, runtime.bundle.limits, row, outcome)
            except ActionMoved:
                continue  # another process came first
            getattr(report, found.status).append(action.decision_id)
            if found.status == "cancelled":
                continue
        report.owed.setdefault(str(row["tool"]), []).append(action.decision_id)
    return report


def settle_owed(runtime: Runtime, tool: Tool) -> None:
    """Tell a tool that was just registered what it was owed: that an effect was aborted, or a question about it.

    What it raises is kept in `Runtime.recovered.failures`; registration goes on.
    """
    report = runtime.recovered
    for decision_id in report.owed.pop(tool.name, []):
        action, row = actions.find(runtime.ledger, decision_id), runtime.ledger.decision(decision_id)
        if action is None or row is None:
            continue
        try:
            if action.state == "aborting":
                _tell(runtime, tool, action, row)
            elif action.state == "in_doubt" and tool.effects.status is not None:
                _ask(runtime, tool, action, row)
        except ActionMoved:
            continue  # another process has told, or asked
        except Exception as exc:  # noqa: BLE001 - a guard point: the tool's own functions
            report.failures[decision_id] = f"{type(exc).__name__}: {message_of(exc)}"


def _tell(runtime: Runtime, tool: Tool, action: Action, row: Row) -> None:
    abort = tool.effects.abort
    if abort is None:
        runtime.recovered.failures[action.decision_id] = "the tool declares no `abort=` any more"
        return
    can_be_told = abort.takes_effect_id or action.handle is not None
    if can_be_told:
        call_now(_beside(tool, "abort", abort, action, row))
    runtime.ledger.commit(moves=[actions.told(action.decision_id)])
    if can_be_told:
        runtime.recovered.told.append(action.decision_id)
    else:
        why = "its `abort` could not be told: no handle was kept, and it takes no `effect_id`"
        runtime.recovered.failures[action.decision_id] = why


def _ask(runtime: Runtime, tool: Tool, action: Action, row: Row) -> None:
    status = tool.effects.status
    assert status is not None  # noqa: S101 - asked by the caller
    answer = call_now(_beside(tool, "status", status, action, row))
    if answer not in ("succeeded", "aborted"):
        return  # it stays in doubt
    # Guards had judged a compensable effect only if it was being undone.
    undone = answer == "aborted" and row["effect"] == "compensable" and action.guards is not None
    ending: ExecutionStatus = "compensated" if undone else answer
    _record(
        runtime.ledger, runtime.bundle.limits, row, _outcome(runtime.clock(), row, action, ending, "asked")
    )
    runtime.recovered.answered[action.decision_id] = ending
    if row["effect"] == "staged" and ending == "aborted":
        _tell(runtime, tool, action, row)  # what it prepared may still be held


def _owe(runtime: Runtime, decision_id: str) -> None:
    """Tell a tool of an action that somebody resolved; when it is registered, if it is not yet."""
    row = runtime.ledger.decision(decision_id)
    if row is not None and actions.find(runtime.ledger, decision_id) is not None:
        runtime.recovered.owed.setdefault(str(row["tool"]), []).append(decision_id)
        if (tool := runtime.tools.get(str(row["tool"]))) is not None:
            settle_owed(runtime, tool)


def _beside(tool: Tool, name: str, callback: Callback, action: Action, row: Row) -> Invoke:
    handle = None if action.handle is None else parse(action.handle)
    return Invoke(
        name=f"`{name}` of tool {tool.name!r}",
        fn=callback.fn,
        args=callback.arguments(handle, effect_id_of(row)),
        timeout=tool.effects.timeout,
        isolate=tool.effects.isolate,
    )


def in_doubt(ledger: Ledger, running: Mapping[str, Any] | None = None) -> list[Doubt]:
    """Return what may have taken effect and nobody knows, oldest first; also of processes that died just now.

    Args:
        ledger: an open ledger.
        running: ids of decisions this very handle runs; None: it runs none.

    Cost: O(actions under way), whatever the history.
    """
    return [
        _doubt(ledger, action)
        for action in actions.under_way(ledger)
        if action.state == "in_doubt"
        or (action.state in ("started", "committing", "undoing") and not _runs(ledger, action, running or {}))
    ]


def _doubt(ledger: Ledger, action: Action) -> Doubt:
    row = ledger.decision(action.decision_id)
    assert row is not None  # noqa: S101 - an action is added with its decision
    return Doubt(
        decision_id=action.decision_id,
        effect_id=effect_id_of(row),
        tool=str(row["tool"]),
        tenant=str(row["tenant"]),
        session_id=str(row["session_id"]),
        args=json.loads(str(row["enforced_args"])),
        since=None if action.moved is None else moment_of(action.moved),
        state=action.state,
        concluded=action.state == "in_doubt",
    )


def resolve(runtime: Runtime, decision_id: str, status: ExecutionStatus, source: object) -> Row:
    """Record what a person found out about an action in doubt; see `Runtime.resolve`."""
    outcome = resolve_in(
        runtime.ledger,
        decision_id,
        status,
        source,
        limits=runtime.bundle.limits,
        at=runtime.clock(),
        running=runtime.running,
    )
    _owe(runtime, decision_id)
    return outcome


def resolve_in(
    ledger: Ledger,
    decision_id: str,
    status: ExecutionStatus,
    source: object,
    *,
    limits: Limits,
    at: datetime,
    running: Mapping[str, Any] | None = None,
) -> Row:
    """Record what a person found out, where there is a ledger and no runtime.

    Args:
        ledger: an open ledger.
        decision_id: an action in doubt, or one whose process is gone.
        status: what became of it: one of `RESOLUTIONS`.
        source: who found it out.
        limits: whose breakers learn of it; what was charged is given back without.
        at: now.
        running: ids of decisions this very handle runs; None: it runs none.

    Raises:
        ActionMoved: it is not in doubt, or runs.
        ValueError: the status is no ending, or nobody is named.

    Durability: on disk when it returns.
    """
    if status not in RESOLUTIONS:
        raise ValueError(f"`status` is one of {', '.join(sorted(RESOLUTIONS))}; got {status!r}")
    if not isinstance(source, str) or not source.strip():
        raise ValueError("`source` says who found it out, such as 'User::ana, by the bank statement'")
    action, row = actions.find(ledger, decision_id), ledger.decision(decision_id)
    if row is None:
        raise ActionMoved(f"no decision {decision_id!r:.80} is in this ledger")
    if action is None or action.state in ("preparing", "staged", "aborting"):
        raise ActionMoved(f"decision {decision_id} is not in doubt: {_stands(ledger, decision_id, action)}")
    if status == "compensated" and row["effect"] != "compensable":
        raise ValueError("`compensated` is said of a compensable tool's effect that was undone")
    if action.state != "in_doubt" and _runs(ledger, action, running or {}):
        raise ActionMoved(f"decision {decision_id} still runs; wait for its outcome")
    outcomes = [_outcome(at, row, action, status, "resolved") | {"source": well_formed(source)}]
    if action.state != "in_doubt":
        outcomes.insert(0, _outcome(at, row, action, "in_doubt", "recovered"))
    return _record(ledger, limits, row, *outcomes)


def _stands(ledger: Ledger, decision_id: str, action: Action | None) -> str:
    """Where an action stands that nobody need be asked about."""
    if action is not None:
        return f"it is {action.state!r}, and nothing of it was committed"
    outcome = ledger.outcome_of(decision_id)
    return "nothing was let run" if outcome is None else f"it ended as {outcome['status']}{said_by(outcome)}"


def repeated(runtime: Runtime, decision_id: str) -> Any:
    """Return the result of the call that holds an idempotency key, to a repeat of it.

    Raises:
        InProgress: it runs, here or in another process that lives.
        InDoubt: it may have taken effect; or what it came to is not one that could be returned.
        GuardRejected: its result is withheld.
        RecordedFailure: it failed.
    """
    ledger = runtime.ledger
    action = actions.find(ledger, decision_id)
    if action is not None and action.state not in ("in_doubt", "aborting"):
        if _runs(ledger, action, runtime.running):
            raise InProgress(
                f"decision {decision_id} runs under the same idempotency key and is {action.state!r}; ask again later"
            )
        raise InDoubt(
            f"decision {decision_id} holds the idempotency key, and what ran it is gone; look before retrying, "
            "then say what you found with `Runtime.resolve`"
        )
    return recorded_result(ledger.outcome_of(decision_id), ledger.blob)


def _runs(ledger: Ledger, action: Action, running: Mapping[str, Any]) -> bool:
    """Whether somebody runs it: this very handle, or another that is alive."""
    if action.holder == ledger.holder.id:
        return action.decision_id in running
    return _held(ledger, action)


def _held(ledger: Ledger, action: Action) -> bool:
    """Whether its holder is alive; where that cannot be told, it counts as alive."""
    if action.holder is None:
        return False  # a version before 3 ran it, which cannot have this file open any more
    try:
        return is_alive(ledger.path, action.holder)
    except LedgerError:
        return True


def _effect(row: Row) -> Effect | None:
    found = row.get("effect")
    return found if found in get_args(Effect) else None  # type: ignore[return-value]  # as checked


def _outcome(at: datetime, row: Row, action: Action, status: ExecutionStatus, reason: str) -> Row:
    made = execution_row(row, status, started_at=None, ended_at=at)
    return made | {"reason_code": reason, "guards": action.guards}


def _record(ledger: Ledger, limits: Limits, row: Row, *outcomes: Row) -> Row:
    moves = [move for outcome in outcomes for move in metering.settles(limits, outcome)]
    if outcomes[-1]["status"] == "aborted" and row["effect"] != "staged":
        moves.append(actions.told(str(row["decision_id"])))  # it has no abort to be told by
    rows = ledger.commit(evidence=[(OUTCOMES, outcome) for outcome in outcomes], moves=moves)
    return outcomes[-1] | rows[-1]
